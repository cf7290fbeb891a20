"""A campaign's folder: what it is about (campaign.yaml), its state (structures.db), calculations, model and page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from defectgen import __version__
from defectgen.campaign.store import CampaignStore
from defectgen.config import StageConfig, load_config
from defectgen.core import Host, as_host
from defectgen.core.hosts import common_title
from defectgen.core.whole import whole
from defectgen.dft.codes import CODES
from defectgen.dft.finding import CAMPAIGN, STATE
from defectgen.dft.settings import DEFAULT, AseSettings, DftSettings, load_settings
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.files import require_writable, write_text
from defectgen.one_line import OneLine
from defectgen.score.scorers import potential_names

FORMAT = 1
CONFIG, DATABASE = CAMPAIGN, STATE
CALCULATIONS, REFERENCES, MODEL, APART, PAGE = (
    "calculations", "references", "model", "apart.jsonl", "campaign.html",
)  # fmt: skip

USUAL_SETTINGS = {"gpaw": "lcao"}
"""Settings of a DFT code where none are named; those of 2DMD for the others."""


class CampaignConfig(StageConfig):
    """What a campaign is about; written once.

    Attributes:
        format: of the folder.
        version: of defectgen, which made it.
        host: the pristine supercell and the defects that are allowed, as `Host.to_dict` gives them.
        max_defects: most of them in a cell.
        engine: the DFT code by its short name.
        settings: of all calculations, see `DftSettings`.
        relax: potential that moves the atoms first; None for none.
        start: whether 2DMD's surrogate is where learning starts, see `defectgen.campaign.transfer`.
        seed: of all draws.
    """

    format: int
    version: str
    host: dict[str, Any]
    max_defects: int = Field(ge=1)
    engine: str
    settings: DftSettings
    relax: str | None = None
    start: bool = False
    seed: int = 0


@dataclass(frozen=True, repr=False)
class Campaign(OneLine):
    """An open campaign.

    Attributes:
        folder: where it is.
        config: what it is about.
    """

    folder: Path
    config: CampaignConfig

    @cached_property
    def host(self) -> Host:
        """The pristine supercell."""
        return Host.from_dict(self.config.host)

    @cached_property
    def store(self) -> CampaignStore:
        """Its structures."""
        return CampaignStore(self.folder / DATABASE, self.host)

    @classmethod
    def open(cls, folder: Path | str) -> Campaign:
        """The campaign in a folder.

        Raises:
            UsageError: no campaign there.
            DefectgenError: one of another format, or a damaged one.
        """
        place = Path(folder)
        path = place / CONFIG
        if not path.is_file():
            raise UsageError(f"{place} holds no {CONFIG}.", "Expected a folder that defectgen campaign new made.")
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        found = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("format:")), "none")
        if found == "none":
            raise DefectgenError(
                f"{path} is empty or damaged: it states no format.", "Put back a copy, or make a new campaign."
            )
        if found != str(FORMAT):
            raise DefectgenError(
                f"{place} is a campaign of format {found}, this defectgen {__version__} reads format {FORMAT}.",
                "Make a new one, and hand over the results: defectgen campaign add NEW OLD/calculations.",
            )
        campaign = cls(place, load_config(CampaignConfig, path))
        try:
            if not campaign.host.rules:
                raise ValueError("it allows no defect")
        except (DefectgenError, KeyError, TypeError, ValueError) as error:
            raise DefectgenError(f"{path}: the host is damaged ({error}).", "Make a new campaign.") from error
        return campaign


def new_campaign(
    folder: Path | str,
    host: Host | str,
    *,
    max_defects: int = 2,
    engine: str = "gpaw",
    settings: DftSettings | Path | str | None = None,
    relax: str | None = None,
    start: bool | None = None,
    seed: int = 0,
) -> Campaign:
    """Make the folder of a campaign.

    Args:
        folder: it must not exist, or be empty.
        host: the pristine supercell with the defects that are allowed.
        max_defects: most of them in a cell.
        engine: ``gpaw``, ``vasp``, ``qe``, ``chgnet``, ``m3gnet``, or ``package.module:Calculator`` of ASE.
        settings: by name (``lcao``, ``2dmd``, ``mp``), a YAML file, or as they are; None for the engine's usual ones.
        relax: potential that moves the atoms first: ``chgnet`` or ``m3gnet``.
        start: whether learning starts from 2DMD's surrogate; None for where it knows host and defects.
        seed: of all draws.

    Raises:
        UsageError: a folder in use, or an engine, settings, potential or number that is none.
    """
    host = as_host(host)
    place = Path(folder)
    require_writable(place)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError(f"{place} is not an empty folder.", "Name another one.")
    max_defects = whole(max_defects, "max_defects", 1)
    if max_defects > host.n_sites:
        raise UsageError(f"got at most {max_defects} defects, expected 1 to {host.n_sites}.")
    code, chosen = _engine(engine, settings)
    if relax is not None and relax not in potential_names():
        raise UsageError(f"got --relax {relax!r}, expected {' or '.join(potential_names())}.")
    from defectgen.campaign.transfer import knows

    if start and not knows(host):
        raise UsageError(f"2DMD does not know {common_title(host)} with these defects, so nothing can start from it.")
    config = CampaignConfig(
        format=FORMAT,
        version=__version__,
        host=host.to_dict(),
        max_defects=max_defects,
        engine=code,
        settings=chosen,
        relax=relax,
        start=knows(host) if start is None else start,
        seed=seed,
    )
    was_there = place.is_dir()
    place.mkdir(parents=True, exist_ok=True)
    campaign = Campaign(place, config)
    values = config.model_dump(mode="json") | {"settings": chosen.told(code)}
    try:
        campaign.store.create()
        write_text(place / CONFIG, yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=120))
    except BaseException:  # a full disk, Ctrl-C: the same command must be able to begin anew
        for made in place.iterdir():
            made.unlink()
        if not was_there:
            place.rmdir()
        raise
    return campaign


def _engine(name: str, settings: DftSettings | Path | str | None) -> tuple[str, DftSettings]:
    """The DFT code and its settings."""
    is_calculator = name in potential_names() or re.fullmatch(r"[^\W\d][\w.]*:[^\W\d]\w*", name)
    if settings is None:
        settings = DftSettings() if is_calculator else USUAL_SETTINGS.get(name, DEFAULT)
    chosen = settings if isinstance(settings, DftSettings) else load_settings(settings)
    if is_calculator:
        arguments = chosen.ase.arguments if chosen.ase.calculator == name else {}
        return "ase", chosen.model_copy(update={"ase": AseSettings(calculator=name, arguments=arguments)})
    if name not in CODES:
        known = ", ".join([*CODES, *potential_names()])
        raise UsageError(f"got engine {name!r}, expected one of {known}, or package.module:Calculator of ASE.")
    return name, chosen
