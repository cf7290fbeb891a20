"""The cache: where data sets and base models lie, and whether they are complete."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, ValidationError

from defectgen import __version__
from defectgen.data.asset_cards import Card, Citation, get_card, load_cards
from defectgen.errors import DefectgenError
from defectgen.io.files import file_hash
from defectgen.io.folders import MANIFEST, FolderInUseError, claimed, is_changing, move_folder

CACHE_VARIABLE = "DEFECTGEN_CACHE"
LOCK_POLL_S = 0.2
KIND_NAMES = {"dataset": "data set", "model": "base model"}

State = Literal["present", "incomplete", "not fetched"]


class AssetFile(BaseModel):
    """A file of an asset: path in its folder, checksum and size."""

    model_config = ConfigDict(frozen=True)
    path: str
    sha256: str
    size_bytes: int


class Manifest(BaseModel):
    """What a fetch put into the cache; written last, so its presence means that all is there.

    Attributes:
        origin: what the files came from: a package, a store or a folder.
        files: every file, sorted by path.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    kind: str
    licence: str
    citations: tuple[Citation, ...]
    origin: str
    defectgen_version: str
    files: tuple[AssetFile, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    def came_from(self, origin: Path) -> bool:
        """Whether the asset was taken from this file or folder; packages have one content wherever they lie."""
        same = self.origin in (f"folder {origin.resolve()}", f"file {origin}")
        return same or (self.origin.startswith("package ") and origin.exists())


def cache_dir() -> Path:
    """The cache folder: ``DEFECTGEN_CACHE``, or the user's own cache; it need not exist."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("defectgen", appauthor=False))


def asset_dir(name: str) -> Path:
    """The folder that an asset has once it is fetched."""
    return cache_dir() / name


def staging_dir(name: str) -> Path:
    """The folder that an asset is put together in, on the same disk as the cache."""
    return cache_dir() / "downloads" / name


def read_manifest(name: str) -> Manifest | None:
    """The manifest of an asset, None if there is none or it cannot be read."""
    try:
        return Manifest.model_validate_json((asset_dir(name) / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return None


def asset_state(name: str) -> State:
    """Whether an asset is in the cache: every file of its manifest is there and has its size."""
    manifest = read_manifest(name)
    folder = asset_dir(name)
    if manifest is None or is_changing(folder):
        started = folder.exists() or any(path.is_file() for path in staging_dir(name).rglob("*"))
        return "incomplete" if started else "not fetched"
    for file in manifest.files:
        path = folder / file.path
        if not path.is_file() or path.stat().st_size != file.size_bytes:
            return "incomplete"
    return "present"


def known_assets() -> list[dict[str, Any]]:
    """Every data set and base model with a card, fetched or not.

    Returns:
        For each ``name``, ``kind``, ``title``, ``licence``, ``size_bytes`` (None if not known), ``state`` (see
        `asset_state`) and ``path`` in the cache.
    """
    rows = []
    for card in load_cards().values():
        manifest = read_manifest(card.name)
        rows.append(
            {
                "name": card.name,
                "kind": card.kind,
                "title": card.title,
                "licence": card.licence,
                "size_bytes": manifest.size_bytes if manifest else card.size_bytes,
                "state": asset_state(card.name),
                "path": asset_dir(card.name),
            }
        )
    return rows


def fetch_command(card: Card) -> str:
    """The command that puts an asset into the cache."""
    return f"defectgen fetch {card.name}" + (" --from PATH" if card.get.how == "folder" else "")


def asset_path(name: str) -> Path:
    """The folder of a fetched asset.

    Raises:
        UsageError: no card has this name.
        DefectgenError: it is not in the cache, or files are missing; names the command to run.
    """
    card = get_card(name)
    folder = asset_dir(name)
    state = asset_state(name)
    if state == "present":
        return folder
    problem = "not complete" if state == "incomplete" else "not"
    raise DefectgenError(
        f"{KIND_NAMES[card.kind]} {name} is {problem} in the cache ({folder}).", f"Run: {fetch_command(card)}"
    )


@contextmanager
def locked(name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Keep other processes from fetching the same asset; waits for one that does.

    Raises:
        UsageError: the folder of the asset cannot be written.
        DefectgenError: the file system of the cache has no locks.
        OSError: the cache cannot be written.
    """
    cache_dir().mkdir(parents=True, exist_ok=True)
    waited = False
    with ExitStack() as claim:
        while True:
            try:
                claim.enter_context(claimed(asset_dir(name), staging_dir(name)))
                break
            except FolderInUseError:
                if not waited:
                    say(f"another process is fetching {name}; waiting for it to end")
                waited = True
                time.sleep(LOCK_POLL_S)
        yield


def discard_leftovers(name: str) -> None:
    """Remove what a killed process left of putting an asset together that is in the cache now."""
    if staging_dir(name).exists():
        with locked(name, lambda _: None):
            if asset_state(name) == "present":
                shutil.rmtree(staging_dir(name), ignore_errors=True)


def finish_asset(card: Card, content: Path, origin: str) -> Manifest:
    """Check that a put-together asset is complete, write its manifest, and move it into the cache.

    Args:
        card: what the asset is.
        content: its folder within `staging_dir`.
        origin: what the files came from, for the manifest.

    Raises:
        DefectgenError: files that the card names are missing or empty.
    """
    paths = sorted(path for path in content.rglob("*") if path.is_file() and path.name != MANIFEST)
    require_files(card, [path.relative_to(content).as_posix() for path in paths], origin)
    files = tuple(
        AssetFile(path=path.relative_to(content).as_posix(), sha256=file_hash(path), size_bytes=path.stat().st_size)
        for path in paths
    )
    for file in files:
        if not file.size_bytes:
            raise DefectgenError(f"{file.path} from {origin} is empty.", "Get it again.")
    manifest = Manifest(
        name=card.name,
        kind=card.kind,
        licence=card.licence,
        citations=card.citations,
        origin=origin,
        defectgen_version=__version__,
        files=files,
    )
    (content / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    parts = staging_dir(card.name)
    move_folder(parts, content.relative_to(parts).as_posix(), asset_dir(card.name))
    shutil.rmtree(staging_dir(card.name), ignore_errors=True)
    return manifest


def require_files(card: Card, paths: Iterable[str], origin: str) -> None:
    """Check that each file that a card names is among some relative paths.

    Raises:
        DefectgenError: some are not; names the first.
    """
    known = sorted(paths)
    expected = card.expected_files()
    missing = [pattern for pattern in expected if not any(fnmatchcase(path, pattern) for path in known)]
    if missing:
        raise DefectgenError(
            f"{card.name} from {origin}: {len(missing)} of {len(expected)} expected files are missing, "
            f"the first is {missing[0]}.",
            "Check that it is complete and has the published layout.",
        )
