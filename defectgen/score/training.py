"""Training the surrogate on a table with a split; what is chosen is chosen on the validation part."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from defectgen import __version__
from defectgen.core import Configuration, get_host
from defectgen.errors import DefectgenError, UsageError
from defectgen.score.card import model_card
from defectgen.score.evaluation import evaluate
from defectgen.score.features import Features, describe, pair_vocabulary
from defectgen.score.linear import LEAST_ROWS, LinearModel, candidates
from defectgen.score.parts import OTHER, TARGETS, Part, PropertyModel, tree_columns
from defectgen.score.surrogate import FORMAT_VERSION, METADATA, SEEN, Surrogate, digest
from defectgen.score.trees import TreeSettings, fit_trees, save_trees

LOW_TREES = TreeSettings(iterations=1500, depth=5, learning_rate=0.1)
HIGH_TREES = TreeSettings(iterations=400, depth=4, learning_rate=0.06, column_share=0.5)

TREE_PAIRS_ANGSTROM = 8.0
"""Longest pair whose count the trees see at high density."""

MIN_TRAIN_ROWS = 20
"""A property with fewer training rows in a set is not learnt."""

LEVEL = 0.9
"""Share of true values that the interval is made to hold."""

MIN_GROUP_ROWS = 40
"""Validation rows that a defect label needs for a half-width of its own."""


@dataclass(frozen=True)
class _Rows:
    """Configurations of one set and part of the split, with their values in eV."""

    configurations: list[Configuration]
    features: Features
    values: Mapping[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.configurations)


def train_surrogate(
    frame: pl.DataFrame,
    out_dir: Path,
    seed: int = 42,
    *,
    level_scales: Mapping[str, Mapping[str, Any]] | None = None,
    threads: int = 1,
    about: Mapping[str, Any] | None = None,
    low_trees: TreeSettings = LOW_TREES,
    high_trees: TreeSettings = HIGH_TREES,
    advance: Callable[[int], None] = lambda _: None,
) -> Surrogate:
    """Train on the ``train`` rows, choose and calibrate on the ``validation`` rows, and write a folder.

    Args:
        frame: the columns of the data reader and ``split``; each set becomes a part.
        out_dir: folder to write: ``<host>-<density>-<property>.cbm``, ``surrogate.json`` (last),
            ``seen.txt`` and ``README.md``.
        seed: of the trees.
        level_scales: of each set, as plain values.
        threads: of CatBoost.
        about: what else to record, e.g. the split, the command and the data.
        low_trees: trees of the low-density parts.
        high_trees: trees of the high-density parts.
        advance: is told of each finished model.

    Returns:
        The surrogate, as `Surrogate.load` reads it.

    Raises:
        UsageError: no column ``split``, or a folder with other files.
        DefectgenError: a set without training or validation rows.
    """
    if "split" not in frame.columns:
        raise UsageError("the table has no column 'split'.", "Split it first.")
    out_dir = Path(out_dir)
    if out_dir.is_dir() and any(out_dir.iterdir()) and not (out_dir / METADATA).is_file():
        raise UsageError(f"{out_dir} holds other files.", "Choose a new folder.")
    parts = []
    for name in frame["set"].unique(maintain_order=True):
        scale = (level_scales or {}).get(name)
        settings = low_trees if frame.filter(set=name)["density"][0] == "low" else high_trees
        parts.append(_train_part(frame.filter(set=name), scale, settings, seed, threads, advance))
    used = frame.filter(pl.col("split").is_in(["train", "validation"]))
    seen = sorted({digest(host, key) for host, key in used.select("host", "configuration").iter_rows()})
    rows = {f"{s}/{p}": n for s, p, n in frame.group_by("set", "split").len().sort("set", "split").iter_rows()}
    metadata: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "defectgen": __version__,
        "seed": seed,
        "threads": threads,
        "level": LEVEL,
        "rows": rows,
        **(about or {}),
        "parts": [part.to_dict() for part in parts],
    }
    surrogate = Surrogate(tuple(parts), metadata, frozenset(seen))
    metadata["errors"] = {part: evaluate(surrogate, frame.filter(split=part)) for part in ("validation", "test")}
    _write(surrogate, metadata, seen, out_dir)
    return Surrogate.load(out_dir)


def _train_part(
    frame: pl.DataFrame,
    scale: Mapping[str, Any] | None,
    settings: TreeSettings,
    seed: int,
    threads: int,
    advance: Callable[[int], None],
) -> Part:
    name, host_name, density, supercell = frame.select("set", "host", "density", "supercell").row(0)
    n_a, n_b = (int(n) for n in supercell.split("x"))
    host = get_host(host_name, (n_a, n_b))
    split = {
        part: _rows(frame.filter(split=part).sort("id"), part, name, (n_a, n_b)) for part in ("train", "validation")
    }
    train, validation = split["train"], split["validation"]
    tree_pairs = None
    if density == "high":
        tree_pairs = tuple(pair_vocabulary(host, TREE_PAIRS_ANGSTROM, train.features.pairs, LEAST_ROWS).tolist())
    models = {}
    for column in TARGETS:
        model = _train_property(column, train, validation, tree_pairs, settings, seed, threads)
        if model is not None:
            models[column] = model
        advance(1)
    gap = train.values["lumo_ev"] - train.values["homo_ev"] - train.values["band_gap_ev"]
    reference = train.values["energy_ev"] - train.values["formation_energy_ev"]
    counts = np.hstack([np.ones((len(train), 1)), train.features.counts])
    weights = np.linalg.lstsq(counts[~np.isnan(reference)], reference[~np.isnan(reference)], rcond=None)[0]
    part = Part(
        set_name=name,
        host=host_name,
        density=density,
        supercell=supercell,
        models=models,
        consistent=bool(np.nanmax(np.abs(gap), initial=0.0) < 1e-3),
        energy_weights_ev=tuple(weights.tolist()),
        half_widths_ev={},
        labels=dict(sorted(Counter(item.label for item in train.configurations).items())),
        max_counts=tuple(int(n) for n in train.features.counts.max(axis=0)),
        defects_range=(int(train.features.counts.sum(axis=1).min()), int(train.features.counts.sum(axis=1).max())),
        covered_ev=_covered(train.values),
        level_scale=scale,
    )
    return replace(part, half_widths_ev=_half_widths(part, validation))


def _rows(frame: pl.DataFrame, part: str, name: str, size: tuple[int, int]) -> _Rows:
    if frame.is_empty():
        raise DefectgenError(f"set {name} has no {part} rows.", "Use larger fractions or more data.")
    host = get_host(frame["host"][0], size)
    items = [Configuration.from_key(host, key) for key in frame["configuration"]]
    columns = (*TARGETS, "energy_ev", "energy_per_atom_ev")
    values = {column: frame[column].cast(pl.Float64).fill_null(np.nan).to_numpy() for column in columns}
    return _Rows(items, describe(host, items), values)


def _train_property(
    column: str,
    train: _Rows,
    validation: _Rows,
    tree_pairs: tuple[int, ...] | None,
    settings: TreeSettings,
    seed: int,
    threads: int,
) -> PropertyModel | None:
    """The best on the validation rows of: trees, linear model, trees on what the linear model leaves."""
    known = ~np.isnan(train.values[column])
    if known.sum() < MIN_TRAIN_ROWS:
        return None
    host = train.configurations[0].host
    x, y = select(train, known), train.values[column][known]
    size = np.maximum(x.counts.sum(axis=1), 1.0) if column == "formation_energy_ev" else np.ones(len(y))
    check = ~np.isnan(validation.values[column])
    x_check, y_check = select(validation, check), validation.values[column][check]
    size_check = (
        np.maximum(x_check.counts.sum(axis=1), 1.0) if column == "formation_energy_ev" else np.ones(len(y_check))
    )

    def error(model: LinearModel | PropertyModel) -> float:
        if not len(y_check):
            return math.inf
        return float(np.mean(np.abs(model.predict(x_check) - y_check) / size_check))

    linear = min(candidates(host, x, y, 1 / size**2), key=error)
    fitted = [PropertyModel(linear, None, None, 0.0)]
    for base in (None, linear):
        rest = y if base is None else y - base.predict(x)
        trees = fit_trees(tree_columns(x, tree_pairs), rest, settings, seed, threads)
        fitted.append(PropertyModel(base, trees, tree_pairs, 0.0))
    best = min(fitted, key=error)
    absolute = np.abs(best.predict(x_check) - y_check)
    return replace(best, error_ev=float(absolute.mean()) if len(absolute) else 0.0)


def select(rows: _Rows, chosen: NDArray[np.bool_]) -> Features:
    """The features of some of the rows."""
    if chosen.all():
        return rows.features
    items = [item for item, wanted in zip(rows.configurations, chosen, strict=True) if wanted]
    return describe(rows.configurations[0].host, items)


def _half_widths(part: Part, validation: _Rows) -> dict[str, dict[str, float]]:
    """Split-conformal half-widths from the validation rows, by property and group of labels."""
    predicted = part.predict(validation.configurations)
    labels = np.array([item.label for item in validation.configurations])
    widths: dict[str, dict[str, float]] = {}
    for column in part.models:
        errors = np.abs(predicted[column] - validation.values[column])
        known = ~np.isnan(errors)
        names, counts = np.unique(labels[known], return_counts=True)
        own = names[counts >= MIN_GROUP_ROWS]
        rest = known & ~np.isin(labels, own)
        groups = {str(name): known & (labels == name) for name in own}
        groups[OTHER] = rest if rest.sum() >= MIN_GROUP_ROWS // 2 else known
        found = {group: _quantile(errors[rows]) for group, rows in groups.items()}
        widths[column] = {group: width for group, width in found.items() if width is not None}
    return widths


def _quantile(errors: NDArray[np.float64]) -> float | None:
    """The error that a new row exceeds with probability at most 1 - `LEVEL`; None with too few rows."""
    rank = math.ceil((len(errors) + 1) * LEVEL)
    return None if rank > len(errors) else float(np.sort(errors)[rank - 1])


def _covered(values: Mapping[str, NDArray[np.float64]]) -> dict[str, tuple[float, float]]:
    names = (*TARGETS, "energy_per_atom_ev")
    known = {name: values[name][~np.isnan(values[name])] for name in names}
    return {name: (float(v.min()), float(v.max())) for name, v in known.items() if len(v)}


def _write(surrogate: Surrogate, metadata: Mapping[str, Any], seen: list[str], out_dir: Path) -> None:
    """Write the folder; the metadata comes last, and old models go first."""
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / METADATA).unlink(missing_ok=True)
    for old in out_dir.glob("*.cbm"):
        old.unlink()
    for part in surrogate.parts:
        for column, model in part.models.items():
            if model.trees is not None:
                save_trees(model.trees, out_dir / part.file_name(column))
    (out_dir / SEEN).write_text("\n".join(seen) + "\n", encoding="ascii")
    (out_dir / "README.md").write_text(model_card(metadata), encoding="utf-8")
    with tempfile.NamedTemporaryFile("w", dir=out_dir, suffix=".part", delete=False, encoding="utf-8") as stream:
        json.dump(metadata, stream, separators=(",", ":"))
        stream.write("\n")
    os.replace(stream.name, out_dir / METADATA)
