"""Instruction records: every labelled structure as prompt and completion, with a manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from defectgen import __version__
from defectgen.core import Configuration
from defectgen.core.properties import COLUMNS, USUAL
from defectgen.core.stored_hosts import dump_hosts
from defectgen.data.record_files import write_records
from defectgen.data.splits import PARTS
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.host_tables import host_of_row, hosts_of
from defectgen.tasks.defect.defect_task import BY_DFT, BY_SURROGATE, VALUES_BY, DefectTask
from defectgen.tasks.defect.encodings import get_encoding
from defectgen.tasks.defect.wording import PLAIN


@dataclass(frozen=True)
class RecordSettings:
    """What decides the records besides the data.

    Attributes:
        encoding: see `defectgen.tasks.defect.encodings`.
        copies: records a structure in the training part, each with its own draw of properties and
            kinds; the other parts hold one.
        rotations: show a random image under the host's symmetry in each training record instead of the
            canonical representative. With ``edits`` the canonical form already removes
            what rotations would have to teach, so it is off by default there.
        pair_share: see `DefectTask`.
        kinds_share: see `DefectTask`.
        plain_share: see `DefectTask`.
        cartesian: see `DefectTask`; each record turns the axes by a random angle about the normal.
        split: how the parts were drawn, see `defectgen.data.splits`.
        enlarge: random structures with the surrogate's values that were added to the training part of each
            high-density set, see `defectgen.design.pseudo_labels`.
        around: the same of structures around what searches found, see `defectgen.design.searched_cells`.
        repeat: records of each labelled high-density structure in the training part for each copy, so that labels
            count beside values of a surrogate.
        surrogate: checksum of that surrogate.
        seed: of every random draw.
        properties: columns of the properties that prompts may state.
    """

    encoding: str = "edits"
    copies: int = 1
    rotations: bool = False
    pair_share: float = 0.6
    kinds_share: float = 0.2
    plain_share: float = 0.05
    cartesian: bool = False
    split: str = "symmetry-class"
    enlarge: int = 0
    around: int = 0
    repeat: int = 1
    surrogate: str | None = None
    seed: int = 42
    properties: tuple[str, ...] = USUAL

    def __post_init__(self) -> None:
        if unknown := [column for column in self.properties if column not in COLUMNS]:
            raise UsageError(f"unknown property {unknown[0]!r}.", f"Known properties: {', '.join(COLUMNS)}.")
        for name in ("copies", "repeat"):
            if getattr(self, name) < 1:
                raise UsageError(f"got {name} {getattr(self, name)}, expected at least 1.")
        if self.cartesian and not get_encoding(self.encoding).has_coordinates:
            raise UsageError(
                f"{self.encoding} shows no coordinates.", "Leave --cartesian out, or take symbols or crystal."
            )

    @property
    def task(self) -> DefectTask:
        return DefectTask(
            self.encoding,
            self.pair_share,
            self.kinds_share,
            self.plain_share,
            self.cartesian,
            self.properties,
        )


def make_records(frame: pl.DataFrame, split: str, settings: RecordSettings) -> Iterator[dict[str, Any]]:
    """The records of one part of the split, in the order of the frame's ids.

    Args:
        frame: columns of the data reader, ``split`` and, if not all values are of DFT, `VALUES_BY`.
        split: ``train``, ``validation`` or ``test``.
        settings: see `RecordSettings`.

    Yields:
        ``id``, ``host``, ``supercell``, ``set``, ``split``, ``configuration`` (canonical key),
        ``label``, ``n_defects``, ``values`` (the drawn conditions in eV), ``values_by`` (``dft`` or
        ``surrogate``), ``kinds``, ``writing`` (how a long prompt is worded, see
        `defectgen.tasks.defect.wording.Writing`), ``prompt`` and ``completion``.
    """
    task = settings.task
    rows = frame.filter(pl.col("split") == split).sort("set", "id")
    for copy in range(settings.copies * settings.repeat if split == "train" else 1):
        again = rows
        if copy >= settings.copies:
            again = rows.filter(density="high")
            again = again.filter(pl.col(VALUES_BY).ne_missing(BY_SURROGATE)) if VALUES_BY in rows.columns else again
        for row in again.iter_rows(named=True):
            seed = hashlib.sha256(f"{settings.seed}/{split}/{copy}/{row['set']}/{row['id']}".encode()).digest()
            rng = np.random.default_rng(int.from_bytes(seed[:8], "little"))
            host = host_of_row(row)
            configuration = Configuration.from_key(host, row["configuration"])
            shown = configuration.random_image(rng) if settings.rotations and split == "train" else configuration
            values, kinds = task.draw_conditions(row, configuration, rng)
            writing = task.draw_writing(shown, rng)
            yield {
                "id": row["id"],
                "host": row["host"],
                "supercell": row["supercell"],
                "set": row["set"],
                "split": split,
                "configuration": row["configuration"],
                "label": row["label"],
                "n_defects": row["n_defects"],
                "values": {column: round(value, 6) for column, value in values.items()},
                VALUES_BY: row.get(VALUES_BY) or BY_DFT,
                "kinds": list(kinds),
                "writing": None if writing == PLAIN else asdict(writing),
                "prompt": task.prompt(host, values, kinds, writing),
                "completion": task.completion(shown, writing),
            }


def build_data(
    frame: pl.DataFrame, output: Path, settings: RecordSettings, *, overwrite: bool = False
) -> dict[str, Any]:
    """Write ``train.jsonl``, ``validation.jsonl``, ``test.jsonl`` and, last, ``manifest.json``.

    A folder whose manifest was made with the same settings, version, data and hosts is left as it is.

    Args:
        frame: columns of the data reader and ``split``.
        output: folder to write.
        settings: see `RecordSettings`.
        overwrite: replace records that were made with other settings.

    Returns:
        The manifest; with ``"skipped": True`` if nothing had to be done.

    Raises:
        UsageError: the folder holds other records or foreign files.
    """
    if frame.is_empty():
        raise DefectgenError("the data has no rows.", "Expected at least one labelled structure.")
    if missing := [column for column in settings.properties if column not in frame.columns]:
        raise UsageError(f"the data has no column {missing[0]}.", "Leave that property out, or add its values.")
    train = frame.filter(pl.col("split") == "train")
    wanted = {
        "defectgen": __version__,
        "prompt_version": get_encoding(settings.encoding).version,
        "settings": asdict(settings) | {"properties": list(settings.properties)},
        "hosts": dump_hosts(hosts_of(frame)),
        "data_sha256": _frame_hash(frame, settings.properties),
    }
    about = {
        "structures": {split: frame.filter(pl.col("split") == split).height for split in PARTS},
        "max_defects": dict(train.group_by("host").agg(pl.max("n_defects")).sort("host").iter_rows()),
        "covered_ev": covered_ranges(train, settings.properties),
    }
    return write_records(
        output,
        wanted,
        lambda split: make_records(frame, split, settings),
        about,
        lambda record: str(record["set"]),
        overwrite=overwrite,
    )


def covered_ranges(frame: pl.DataFrame, properties: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Least and largest value of each property for each host, in its unit."""
    ranges: dict[str, dict[str, list[float]]] = {}
    for host in sorted(frame["host"].unique()):
        part = frame.filter(pl.col("host") == host)
        ranges[host] = {
            column: [round(float(part[column].min()), 4), round(float(part[column].max()), 4)]  # type: ignore[arg-type]
            for column in COLUMNS
            if column in properties and part[column].drop_nulls().len()
        }
    return ranges


def _frame_hash(frame: pl.DataFrame, properties: Sequence[str]) -> str:
    columns = ["set", "id", "configuration", "split", *(column for column in COLUMNS if column in properties)]
    text = frame.select(columns).sort("set", "id").write_csv(float_precision=6)
    return hashlib.sha256(text.encode()).hexdigest()
