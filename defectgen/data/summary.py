"""What a table of labelled structures holds: counts, ranges, missing labels, alignment, correlation."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from defectgen.data.levels import CORE_LEVEL, FITTED_SHIFT
from defectgen.data.twodmd import SETS
from defectgen.errors import DefectgenError

LABELS = {
    "homo_ev": ("HOMO", "eV"),
    "lumo_ev": ("LUMO", "eV"),
    "fermi_level_ev": ("E_Fermi", "eV"),
    "band_gap_ev": ("gap", "eV"),
    "formation_energy_ev": ("E_form", "eV"),
    "formation_energy_per_site_ev": ("E_form/site", "eV"),
    "energy_per_atom_ev": ("E/atom", "eV"),
    "energy_ev": ("E_total", "eV"),
    "total_magnetization_mu_b": ("moment", "\u03bcB"),
}
"""Title and unit of each labelled property, by the column of `defectgen.data.twodmd.read_2dmd`."""

PAIRED = ("homo_ev", "lumo_ev", "band_gap_ev", "formation_energy_per_site_ev")
"""The properties that are set against each other."""

PUBLISHED_ROWS = {info.name: 5933 if info.density == "low" else 500 for info in SETS}
"""Structures of each set of 2DMD: Huang et al., npj 2D Mater Appl 7, 6 (2023), doi 10.1038/s41699-023-00369-1."""

PUBLISHED_CLASSES = {
    "X1": 1, "X2": 19, "X3": 1, "X4": 19, "X5": 29,
    "V1": 1, "V2": 15, "V3": 743, "V4": 15, "V5": 743, "V6": 1415,
    "S1": 1, "S2": 15, "S3": 743, "S4": 15, "S5": 743, "S6": 1415,
}  # fmt: skip
"""Structures of each defect class in either low-density set, from the same work: X changes chalcogen
sites only, V has a metal vacancy, S a substituted metal. They add up to 5,933."""

MIN_ROWS_TO_CORRELATE = 3


@dataclass(frozen=True)
class Range:
    """Smallest, middle and largest of the values that are there."""

    low: float
    median: float
    high: float


@dataclass(frozen=True)
class LabelAlignment:
    """How the levels of a set were put on the pristine host's VBM, see `defectgen.data.levels`.

    Attributes:
        core_level: rows aligned by their own core level.
        fitted_shift: rows aligned by the shift fitted on other rows.
        missing: rows that could not be aligned; their levels are null.
        error_ev: of the rows with a fitted shift, how far the alignment may be off, in eV.
    """

    core_level: int
    fitted_shift: int
    missing: int
    error_ev: Range | None


@dataclass(frozen=True)
class ClassCount:
    """A defect class of a low-density set: its name, the defects in it, rows here and published."""

    name: str
    label: str
    n_rows: int
    n_published: int | None


@dataclass(frozen=True)
class Correlation:
    """Pearson's r of two properties over the rows of a set that have both; None where it is not defined."""

    first: str
    second: str
    n_rows: int
    pearson_r: float | None


@dataclass(frozen=True)
class SetSummary:
    """The numbers of one set.

    Attributes:
        n_distinct: structures that no symmetry operation of the host turns into each other.
        n_published: structures of the published set, None if it is not known.
        concentration_percent: share of the host's sites that are changed.
        by_defects: rows for each number of defects in the cell.
        classes: rows for each defect class, low density only.
        ranges: of each property of `LABELS`, None where no row has it.
        missing: rows without each property of `LABELS`.
        correlations: of each pair of `PAIRED`.
        formation_energy_error_ev: largest difference between the published formation energy and the one
            computed from total energies; None if it was not checked.
        descriptor_mismatches: ids of structures whose composition or number of defects is not the one of their
            descriptor; None if it was not checked.
    """

    name: str
    host: str
    density: str
    supercell: str
    n_rows: int
    n_published: int | None
    n_distinct: int
    n_defects: Range
    concentration_percent: Range
    by_defects: Mapping[int, int]
    classes: tuple[ClassCount, ...]
    ranges: Mapping[str, Range | None]
    missing: Mapping[str, int]
    alignment: LabelAlignment
    correlations: tuple[Correlation, ...]
    formation_energy_error_ev: float | None
    descriptor_mismatches: tuple[str, ...] | None


@dataclass(frozen=True)
class Summary:
    """The numbers of a table of labelled structures, set by set in the table's order."""

    sets: tuple[SetSummary, ...]

    @property
    def n_rows(self) -> int:
        return sum(item.n_rows for item in self.sets)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names of the hosts, each once, in the order of the sets."""
        return tuple(dict.fromkeys(item.host for item in self.sets))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"n_rows": self.n_rows, "hosts": list(self.hosts), **dataclasses.asdict(self)}


def summarize(
    frame: pl.DataFrame,
    formation_energy_errors: Mapping[str, float] | None = None,
    descriptor_mismatches: Mapping[str, list[str]] | None = None,
) -> Summary:
    """Count and measure the rows of each set.

    Args:
        frame: rows with the columns of `defectgen.data.twodmd.read_2dmd`.
        formation_energy_errors: by set, from `defectgen.data.checks.formation_energy_errors`.
        descriptor_mismatches: by set, from `defectgen.data.checks.descriptor_mismatches`.

    Raises:
        DefectgenError: no rows.
    """
    if frame.is_empty():
        raise DefectgenError("got a table without rows, expected labelled structures.")
    errors = formation_energy_errors or {}
    parts = frame.partition_by("set", maintain_order=True)
    wrong = descriptor_mismatches or {}
    return Summary(tuple(_set_summary(rows, errors.get(rows["set"][0]), wrong.get(rows["set"][0])) for rows in parts))


def _set_summary(rows: pl.DataFrame, formation_energy_error_ev: float | None, wrong: list[str] | None) -> SetSummary:
    name = rows["set"][0]
    counts = rows["n_defects"].value_counts().sort("n_defects")
    n_defects, concentration = _range(rows["n_defects"]), _range(rows["concentration"] * 100)
    assert n_defects is not None  # every row has a configuration
    assert concentration is not None
    return SetSummary(
        name=name,
        host=rows["host"][0],
        density=rows["density"][0],
        supercell=rows["supercell"][0],
        n_rows=len(rows),
        n_published=PUBLISHED_ROWS.get(name),
        n_distinct=rows["configuration"].n_unique(),
        n_defects=n_defects,
        concentration_percent=concentration,
        by_defects=dict(counts.iter_rows()),
        classes=_classes(rows),
        ranges={column: _range(rows[column]) for column in LABELS},
        missing={column: _n_missing(rows[column]) for column in LABELS},
        alignment=_alignment(rows),
        correlations=tuple(_correlation(rows, *pair) for pair in itertools.combinations(PAIRED, 2)),
        formation_energy_error_ev=formation_energy_error_ev,
        descriptor_mismatches=None if wrong is None else tuple(wrong),
    )


def _present(values: pl.Series) -> pl.Series:
    """The finite values as floats."""
    numbers = values.cast(pl.Float64)
    return numbers.filter(numbers.is_finite().fill_null(False))


def _n_missing(values: pl.Series) -> int:
    return len(values) - len(_present(values))


def _range(values: pl.Series) -> Range | None:
    numbers = _present(values).to_numpy()
    if not len(numbers):
        return None
    return Range(float(numbers.min()), float(np.median(numbers)), float(numbers.max()))


def _classes(rows: pl.DataFrame) -> tuple[ClassCount, ...]:
    """The classes that occur and, if one of them is published, the published ones that do not."""
    named = rows.filter(pl.col("defect_class").is_not_null())
    found = {
        name: (" or ".join(sorted(set(labels))), len(labels))
        for name, labels in named.group_by("defect_class").agg("label").iter_rows()
    }
    published = PUBLISHED_CLASSES if found.keys() & PUBLISHED_CLASSES.keys() else {}
    order = [*published, *sorted(found.keys() - published.keys())]
    return tuple(ClassCount(name, *found.get(name, ("", 0)), published.get(name)) for name in order)


def _alignment(rows: pl.DataFrame) -> LabelAlignment:
    methods = rows["level_method"]
    fitted = rows.filter(pl.col("level_method") == FITTED_SHIFT)
    return LabelAlignment(
        core_level=int((methods == CORE_LEVEL).sum()),
        fitted_shift=len(fitted),
        missing=methods.null_count(),
        error_ev=_range(fitted["level_error_ev"]),
    )


def _correlation(rows: pl.DataFrame, first: str, second: str) -> Correlation:
    both = rows.filter(pl.col(first).is_finite() & pl.col(second).is_finite())
    values = both.select(pl.col(first, second).cast(pl.Float64)).to_numpy()
    varied = len(values) >= MIN_ROWS_TO_CORRELATE and bool((np.ptp(values, axis=0) > 0).all())
    return Correlation(first, second, len(values), float(np.corrcoef(values, rowvar=False)[0, 1]) if varied else None)
