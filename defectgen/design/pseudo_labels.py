"""More training structures for the high-density sets: random and searched ones, with the surrogate's values as labels.

2DMD holds 500 structures a host at high density (Huang et al. 2023, doi 10.1038/s41699-023-00369-1), and a cell with
two dozen defects has far more decorations than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from defectgen.core import Configuration, Host, canonicalize
from defectgen.core.classes import DefectClass, class_from_label, element_sites
from defectgen.core.hosts import common_title
from defectgen.core.properties import COLUMNS
from defectgen.data.records import RecordSettings
from defectgen.design.searched_cells import searched_cells
from defectgen.design.seeds import seed_for
from defectgen.errors import UsageError
from defectgen.io.files import file_hash
from defectgen.io.host_tables import host_of, with_host
from defectgen.score.protocol import Scorer
from defectgen.score.surrogate import Surrogate
from defectgen.score.surrogate.model import METADATA
from defectgen.tasks.defect.defect_task import BY_SURROGATE, LEVEL_PAIR, VALUES_BY

BLOCK = 256
"""Structures that are drawn and made canonical together."""


def enlarge(frame: pl.DataFrame, count: int, scorer: Scorer, seed: int, around: int = 0) -> pl.DataFrame:
    """The frame with structures added to the training part of each high-density set.

    Random ones have the kinds and numbers of defects of a training structure drawn at random, on other sites; others
    are those of `defectgen.design.searched_cells`. None is a structure of the frame, of whatever part, or comes twice.
    What no labelled structure with the same defects has stays null (of searched ones, if a kind of defect is in no
    labelled structure that has it): DFT levels that could not be brought to one zero (docs/levels.md) are not made up
    here.

    Args:
        frame: columns of the data reader and ``split``.
        count: random structures to add to each set.
        scorer: gives the values, HOMO and LUMO among them; properties that it does not know stay null, as do those of
            structures that it was not made for, and levels with the LUMO below the HOMO.
        seed: of the draws; each set has its own.
        around: structures to add that searches found, or neighbours of them.

    Returns:
        The rows of the frame and those added, with a column `VALUES_BY`.

    Raises:
        UsageError: the frame has no training structures at high density.
    """
    crowded = frame.filter((pl.col("split") == "train") & (pl.col("density") == "high"))
    if crowded.is_empty():
        raise UsageError("the data has no high-density training structures to enlarge.", "Choose other --sets.")
    parts = [frame]
    for name in sorted(crowded["set"].unique()):
        rows = crowded.filter(pl.col("set") == name)
        host = host_of(rows)
        taken = set(frame.filter((pl.col("host") == host.name) & (pl.col("supercell") == host.size))["configuration"])
        drawn = _draw(host, rows["label"].to_list(), taken, count, seed_for(seed, "enlarge", name)) if count else []
        near: list[Configuration] = []
        if around:
            taken = taken | {configuration.key for configuration in drawn}
            near = searched_cells(host, rows, scorer, around, taken, seed_for(seed, "around", name))
        about = {"set": name, "density": "high", "split": "train"}
        for word, cells, trusted in (("random", drawn, _by_label), ("near", near, _by_kinds)):
            if cells:
                added = pl.DataFrame(
                    [
                        about
                        | {"id": f"{name}-{word}-{k:05d}", "configuration": c.key, "label": c.label}
                        | {"n_defects": c.n_defects, VALUES_BY: BY_SURROGATE}
                        for k, c in enumerate(cells)
                    ]
                )
                values = _values(cells, rows, scorer, trusted)
                parts.append(with_host(pl.concat([added, values], how="horizontal"), host))
    return pl.concat(parts, how="diagonal_relaxed")


def enlarge_records(frame: pl.DataFrame, settings: RecordSettings, folder: Path) -> tuple[pl.DataFrame, RecordSettings]:
    """`enlarge` for instruction records, by a surrogate that has not seen their test part.

    Args:
        frame: columns of the data reader and ``split``.
        settings: their ``enlarge`` and ``around`` say how many structures are added to each set.
        folder: of the surrogate.

    Returns:
        The larger frame, and the settings with the checksum of the surrogate.

    Raises:
        UsageError: the surrogate was fitted on structures of the test part.
        DefectgenError: no surrogate in the folder.
    """
    scorer = Surrogate.load(folder).quick
    tested = frame.filter(pl.col("split") == "test").select("host", "configuration")
    if seen := sum(scorer.has_seen(*row) for row in tested.iter_rows()):
        raise UsageError(
            f"the surrogate was fitted on {seen} of the structures that these records keep for the test.",
            f"Train another one: defectgen surrogate train --seed {settings.seed}.",
        )
    larger = enlarge(frame, settings.enlarge, scorer, settings.seed, settings.around)
    return larger, replace(settings, surrogate=file_hash(folder / METADATA))


Trusted = Callable[[Sequence[Configuration], pl.DataFrame, Sequence[str]], pl.DataFrame]
"""From new structures, labelled rows and columns to whether labelled ones like them have these values."""


def _values(drawn: Sequence[Configuration], rows: pl.DataFrame, scorer: Scorer, trusted: Trusted) -> pl.DataFrame:
    """What the scorer says of new structures, as far as it is to be trusted."""
    found = scorer.score(drawn)
    columns = [column for column in COLUMNS if column in found.columns]
    allowed = trusted(drawn, rows, columns)
    homo, lumo = LEVEL_PAIR
    ordered = (found[homo] <= found[lumo]).fill_null(value=True)
    masks = {c: allowed[c] & found["in_domain"] for c in columns}
    masks |= {c: masks[c] & ordered for c in (*LEVEL_PAIR, "band_gap_ev") if c in masks}
    return pl.DataFrame([found[c].zip_with(mask, pl.Series([None], dtype=found[c].dtype)) for c, mask in masks.items()])


def _by_label(drawn: Sequence[Configuration], rows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """A labelled structure with the same defects has the value."""
    known = rows.group_by("label").agg(pl.col(columns).is_not_null().any())
    labels = pl.DataFrame({"label": [configuration.label for configuration in drawn]})
    return labels.join(known, on="label", how="left", maintain_order="left")


def _by_kinds(drawn: Sequence[Configuration], rows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Every kind of defect is in some labelled structure that has the value."""
    host, known = drawn[0].host, dict[str, set[tuple[str, str]]]()
    for column in columns:
        keys = rows.filter(pl.col(column).is_not_null())["configuration"]
        known[column] = {kind for key in keys for kind in Configuration.from_key(host, key).kinds}
    return pl.DataFrame({c: [set(item.kinds) <= kinds for item in drawn] for c, kinds in known.items()})


def _draw(host: Host, labels: Sequence[str], taken: set[str], count: int, seed: int) -> list[Configuration]:
    """So many canonical configurations that are not taken, each with the label of a random one."""
    rng = np.random.default_rng(seed)
    classes = {label: class_from_label(host, label) for label in set(labels)}
    found: dict[str, Configuration] = {}
    while len(found) < count:
        block = [_decorate(host, classes[str(rng.choice(labels))], rng) for _ in range(BLOCK)]
        before = len(found)
        found |= {c.key: c for c in canonicalize(block) if c.key not in taken}
        if len(found) == before:
            raise UsageError(
                f"found only {len(found)} new structures of {common_title(host)} with the defects of labelled ones.",
                f"Give --enlarge {len(found)} or less." if found else "Leave out --enlarge.",
            )
    return list(found.values())[:count]


def _decorate(host: Host, defects: DefectClass, rng: np.random.Generator) -> Configuration:
    """Random sites for the defects of a class, each decoration with the same probability."""

    def edits() -> Iterator[tuple[int, str]]:
        for element, kinds in defects.by_element.items():
            species = [new for new, number in kinds for _ in range(number)]
            sites = rng.choice(element_sites(host, element), len(species), replace=False)
            yield from zip(sites.tolist(), species, strict=True)

    return Configuration.of(host, list(edits()))
