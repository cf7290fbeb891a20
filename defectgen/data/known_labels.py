"""The DFT labels of 2DMD that come with the package, small: canonical keys and values as whole numbers.

Levels are relative to the pristine host's valence band maximum, see `defectgen.data.levels`; one whose alignment may be
off by more than `MAX_LEVEL_ERROR_EV` is missing. Licence CC BY 4.0; what to cite is in the card beside the table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import polars as pl

from defectgen.config import package_folder
from defectgen.core import Host
from defectgen.core.hosts import BUILT_IN
from defectgen.core.properties import COLUMNS, MAGNETIZATION
from defectgen.data.asset_cards import CARD_PACKAGE
from defectgen.data.assets import asset_path
from defectgen.data.levels import LEVELS
from defectgen.data.sources import read_dataset
from defectgen.data.splits import split_by_class
from defectgen.errors import DefectgenError
from defectgen.io.files import write_whole

FILE = "2dmd-labels.parquet"
"""The table, in the folder of the cards."""

STEPS = {
    "homo_ev": 1e-4, "lumo_ev": 1e-4, "band_gap_ev": 1e-4, "formation_energy_ev": 1e-4, "fermi_level_ev": 1e-4,
    "energy_per_atom_ev": 1e-6, MAGNETIZATION: 1e-3,
}  # fmt: skip
"""What one counts in the table, in the unit of the property."""

MAX_LEVEL_ERROR_EV = 0.03
"""Levels whose alignment may be off by more are left out."""

KEYS = ("host", "supercell", "configuration")


Labels = Mapping[str, Mapping[str, float]]
"""Canonical key to DFT values by column, in the properties' units."""


def pack_labels(frame: pl.DataFrame, seed: int = 42) -> pl.DataFrame:
    """The small table of a data set.

    Args:
        frame: the columns of the data reader.
        seed: of the split into parts, that of the shipped models.

    Returns:
        ``host``, ``supercell``, ``configuration`` (canonical key), ``split``, and for each column of `STEPS` a whole
        number, null where there is no reliable value.
    """
    reliable = pl.col("level_error_ev") <= MAX_LEVEL_ERROR_EV
    numbers = [
        (pl.when(reliable).then(pl.col(column)) if column in LEVELS else pl.col(column))
        .truediv(step)
        .round()
        .cast(pl.Int32)
        .alias(column)
        for column, step in STEPS.items()
    ]
    parts = split_by_class(frame, seed=seed)
    categories = [pl.col(name).cast(pl.Categorical) for name in ("host", "supercell", "split")]
    return (
        parts.select(*KEYS, "split", *numbers)
        .unique(list(KEYS), keep="first", maintain_order=True)
        .sort("host", "supercell", "configuration")
        .with_columns(categories)
    )


def write_labels(frame: pl.DataFrame, path: Path) -> None:
    """Write the small table of a data set, as it is shipped."""
    packed = pack_labels(frame)
    write_whole(
        path, lambda part: packed.write_parquet(part, compression="zstd", compression_level=22, statistics=False)
    )


@lru_cache(maxsize=1)
def shipped_labels() -> pl.DataFrame:
    """The table that comes with the package, as `pack_labels` describes it.

    Raises:
        DefectgenError: it is missing or damaged.
    """
    path = package_folder(CARD_PACKAGE) / FILE
    try:
        return pl.read_parquet(path).with_columns(pl.col("host", "supercell", "split").cast(pl.String))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DefectgenError(f"{path} cannot be read ({type(error).__name__}).", "Install defectgen again.") from error


def labels_of(host: Host, *, hidden: Collection[str] = (), fetched: bool = True) -> Labels:
    """The known labels of a host.

    Args:
        host: in the cell and supercell of the labels; another one has none, whatever its name.
        hidden: parts of the split that are left out: ``train``, ``validation``, ``test``.
        fetched: whether rows of 2DMD that were fetched complete the shipped ones.

    Raises:
        DefectgenError: the table of the package is missing or damaged.
    """
    home = BUILT_IN.get(host.name)
    if home is None or not replace(home, supercell=host.supercell).is_like(host):
        return {}  # keys of another cell name other sites
    rows = shipped_labels().filter((pl.col("host") == host.name) & (pl.col("supercell") == host.size))
    if rows.is_empty():
        return {}
    found = _values(rows.filter(~pl.col("split").is_in(list(hidden))))
    if fetched and not hidden:
        return {**_fetched(host.name, host.size), **found}
    return found


def with_labels(keys: Mapping[str, Collection[str]], hosts: Iterable[Host]) -> dict[str, set[str]]:
    """Canonical keys by title of the host, with those of structures that have a label in one of the hosts."""
    found = {title: set(some) for title, some in keys.items()}
    for host in hosts:
        found.setdefault(host.title, set()).update(labels_of(host))
    return found


@lru_cache(maxsize=8)
def _fetched(host: str, size: str) -> Labels:
    """Labels of the fetched 2DMD, if it is there and can be read."""
    from defectgen.data.twodmd import SETS

    try:
        frame = read_dataset(asset_path("2dmd"), [item.name for item in SETS if item.host == host])
    except DefectgenError:
        return {}
    frame = frame.filter((pl.col("host") == host) & (pl.col("supercell") == size))
    return _values(pack_labels(frame)) if frame.height else {}


def _values(rows: pl.DataFrame) -> dict[str, dict[str, float]]:
    """The labels of rows of the small table."""
    columns = [column for column in COLUMNS if column in STEPS]
    found = {}
    for row in rows.select("configuration", *columns).iter_rows():
        values = zip(columns, row[1:], strict=True)
        found[row[0]] = {column: round(value * STEPS[column], 7) for column, value in values if value is not None}
    return found
