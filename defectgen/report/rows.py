"""Candidates as table rows, and the names of their files: what every form of the report shares."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from defectgen.core.configuration import Configuration
from defectgen.core.hosts import BUILT_IN
from defectgen.core.properties import COLUMNS, Property
from defectgen.core.site_symmetry import kept_symmetry
from defectgen.design.candidates import TRAINED_ON, TWO_DMD, Candidate, DesignRun, Target
from defectgen.design.limits import pair_range_angstrom
from defectgen.score.protocol import uncertainty_column

if TYPE_CHECKING:
    import polars as pl

STRUCTURE_FORMATS = {"cif": "cif", "poscar": "vasp"}
"""Structure formats and the suffix of their files."""

STRUCTURES_FOLDER = "structures"

EV_DECIMALS = 6
"""Digits kept in tables: 1 micro-eV."""

MAX_LABEL_CHARACTERS = 80

RELAXATION_COLUMNS = (
    "relaxation", "relaxation_energy_change_ev", "largest_displacement_angstrom", "relaxed_formation_energy_ev",
    "shaken_energy_change_ev", "geometry", "relaxed_cif",
)  # fmt: skip
"""How a relaxation ended, energy at its end minus energy at its start, how far an atom moved, formation energy by the
potential, how much lower a displaced start ended, what that says of the geometry, the file."""


@dataclass(frozen=True)
class Row:
    """A candidate with the names that it carries in files.

    Attributes:
        candidate: as ranked.
        configuration: its canonical form, which is what every file and picture shows.
        name: stem of its structure files, e.g. ``t01-r001-v_Mo-2Se_S``.
        files: structure format -> path relative to the run's folder.
        relaxed_file: path of the relaxed CIF, if the candidate was relaxed.
    """

    candidate: Candidate
    configuration: Configuration
    name: str
    files: dict[str, str]
    relaxed_file: str | None = None

    def record(self) -> dict[str, object]:
        """The row of candidates.csv; values in eV."""
        candidate, configuration = self.candidate, self.configuration
        return {
            "rank": candidate.rank,
            "target_id": candidate.target.id,
            "target": candidate.target.text,
            "label": configuration.label,
            "n_defects": configuration.n_defects,
            "formula": configuration.formula,
            **{column: _rounded(candidate.predicted.get(column)) for column in COLUMNS},
            **{uncertainty_column(column): _rounded(candidate.uncertainty.get(column)) for column in COLUMNS},
            "distance_ev": _rounded(candidate.distance_ev),
            "expected_distance_ev": _rounded(candidate.expected_ev),
            "novel": candidate.novel,
            "configuration": configuration.key,
            **{form: self.files.get(form) for form in STRUCTURE_FORMATS},
            **self.evidence_record(),
            **dict(zip(note_columns([candidate.target]), (text for _, text in candidate.target.notes), strict=True)),
        }

    def evidence_record(self) -> dict[str, object]:
        """Where the row comes from, what DFT says, and what the structure is like."""
        candidate, configuration = self.candidate, self.configuration
        nearest, farthest = pair_range_angstrom(configuration)
        kept = kept_symmetry(configuration)
        return {
            "origin": "+".join(candidate.origin) or None,
            "similar": candidate.similar,
            **{f"dft_{column}": _rounded(candidate.dft.get(column)) for column in COLUMNS},
            "dft_distance_ev": _rounded(candidate.best_distance_ev) if candidate.is_labelled else None,
            "nearest_defects_angstrom": _rounded(nearest),
            "farthest_defects_angstrom": _rounded(farthest),
            "site_symmetry": kept.point_group or None,
            "multiplicity": kept.multiplicity,
        }

    def relaxation_record(self) -> dict[str, object]:
        """The columns that candidates.csv has besides in a run with relaxed candidates."""
        relaxation = self.candidate.relaxation
        values: list[object] = [None] * len(RELAXATION_COLUMNS)
        if relaxation is not None:
            values = [
                relaxation.summary,
                _rounded(relaxation.energy_change_ev),
                _rounded(relaxation.max_displacement_angstrom),
                _rounded(relaxation.formation_energy_ev),
                _rounded(relaxation.shaken_energy_change_ev),
                relaxation.verdict,
                self.relaxed_file,
            ]
        return dict(zip(RELAXATION_COLUMNS, values, strict=True))


def half_width_text(value: float, item: Property) -> str:
    """The half-width of an interval, with more decimals than the property has where it would show as 0."""
    if not math.isfinite(value):
        return "\u2013"
    decimals = item.decimals
    if 0 < value < 0.5 * 10**-decimals:
        decimals = -math.floor(math.log10(value))
    return f"\u00b1{value:.{decimals}f}"


def run_rows(run: DesignRun, formats: Collection[str] = tuple(STRUCTURE_FORMATS)) -> tuple[Row, ...]:
    """All candidates, target by target in the order asked for, best first.

    Args:
        run: the design run.
        formats: the structure formats that get a file, others are ignored; with any, relaxed candidates get a CIF.
    """
    width = max(2, len(str(len(run.targets))))
    rows = []
    for number, target in enumerate(run.targets, start=1):
        prefix = f"t{number:0{width}d}-" if len(run.targets) > 1 else ""
        for candidate in run.of(target):
            configuration = candidate.configuration.canonical()
            name = f"{prefix}r{candidate.rank:03d}-{safe_name(configuration.label)}"
            files = {
                form: f"{STRUCTURES_FOLDER}/{name}.{suffix}"
                for form, suffix in STRUCTURE_FORMATS.items()
                if form in formats
            }
            relaxed = candidate.relaxation is not None and bool(formats)
            relaxed_file = f"{STRUCTURES_FOLDER}/{name}-relaxed.cif" if relaxed else None
            rows.append(Row(candidate, configuration, name, files, relaxed_file))
    return tuple(rows)


def rows_frame(rows: Sequence[Row]) -> pl.DataFrame:
    """The table of candidates.csv: a row a candidate, values in eV."""
    import polars as pl

    numbers = [*COLUMNS, *(uncertainty_column(column) for column in COLUMNS), "distance_ev", "expected_distance_ev"]
    schema: dict[str, pl.DataType] = {
        "rank": pl.Int64(), "target_id": pl.String(), "target": pl.String(), "label": pl.String(),
        "n_defects": pl.Int64(), "formula": pl.String(), **{name: pl.Float64() for name in numbers},
        "novel": pl.Boolean(), "configuration": pl.String(), **{form: pl.String() for form in STRUCTURE_FORMATS},
    }  # fmt: skip
    schema |= {
        "origin": pl.String(), "similar": pl.Int64(), **{f"dft_{column}": pl.Float64() for column in COLUMNS},
        "dft_distance_ev": pl.Float64(), "nearest_defects_angstrom": pl.Float64(),
        "farthest_defects_angstrom": pl.Float64(), "site_symmetry": pl.String(), "multiplicity": pl.Int64(),
    }  # fmt: skip
    schema |= dict.fromkeys(note_columns([row.candidate.target for row in rows]), pl.String())
    records = [row.record() for row in rows]
    if any(row.candidate.relaxation is not None for row in rows):
        name, *numbers, geometry, path = RELAXATION_COLUMNS
        schema |= {name: pl.String(), **dict.fromkeys(numbers, pl.Float64()), geometry: pl.String(), path: pl.String()}
        records = [record | row.relaxation_record() for record, row in zip(records, rows, strict=True)]
    return pl.DataFrame(records, schema=schema)


def note_columns(targets: Sequence[Target]) -> list[str]:
    """Columns for what a table of targets says besides; one that a row has already is prefixed."""
    names = dict.fromkeys(name for target in targets for name, _ in target.notes)
    values = {form for c in COLUMNS for form in (c, uncertainty_column(c), f"dft_{c}")}
    return [f"target_{name}" if name in TAKEN or name in values else name for name in names]


TAKEN = {
    "rank", "target_id", "target", "label", "n_defects", "formula", "novel", "configuration", "origin", "similar",
    "cif", "poscar", "distance_ev", "expected_distance_ev", "site_symmetry", "multiplicity", "dft_distance_ev",
    "nearest_defects_angstrom", "farthest_defects_angstrom", *RELAXATION_COLUMNS,
}  # fmt: skip
"""Columns of every row that a note may not take the place of."""


def is_on_2dmd(run: DesignRun) -> bool:
    """Whether the values of a run are on the scale of 2DMD (PBE): one of its hosts, and predictions learnt from it."""
    home = BUILT_IN.get(run.host.name)
    is_home = home is not None and home.species == run.host.species
    return is_home and run.settings.get(TRAINED_ON, TWO_DMD) == TWO_DMD


def safe_name(text: str) -> str:
    """Text as part of a file name that no file system and no shell minds: letters, digits, ``_`` and ``-``."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-")[:MAX_LABEL_CHARACTERS].rstrip("-") or "pristine"


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), EV_DECIMALS) + 0.0
