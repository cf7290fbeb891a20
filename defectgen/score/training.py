"""Training the surrogate on a table with a split; what is chosen is chosen on the validation part."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from defectgen import __version__
from defectgen.errors import DefectgenError, UsageError
from defectgen.score.card import model_card
from defectgen.score.evaluation import evaluate
from defectgen.score.fitting import LEVEL, Choice, FitSettings, LabelledRows, choose, fit, half_widths
from defectgen.score.parts import TARGETS, Part, PropertyModel
from defectgen.score.surrogate import FORMAT_VERSION, METADATA, SEEN, Surrogate, digest
from defectgen.score.trees import TreeSettings, save_trees

LOW_TREES = TreeSettings(iterations=1000, depth=6, learning_rate=0.12)
HIGH_TREES = TreeSettings(iterations=400, depth=4, learning_rate=0.06, column_share=0.5)

TREE_PAIRS_ANGSTROM = 8.0
"""Longest pair whose count the trees see at high density."""

MIN_TRAIN_ROWS = 20
"""A property with fewer training rows in a set is not learnt."""

MIN_CALIBRATION_ROWS = 200
"""With fewer validation rows, intervals come from rows left out of fits on training and validation rows."""

N_FOLDS = 5


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
    frame = frame.sort("density", "set", "id", descending=[True, False, False])
    parts = []
    for name in frame["set"].unique(maintain_order=True):
        members = frame.filter(set=name)
        trees = low_trees if members["density"][0] == "low" else high_trees
        scale = (level_scales or {}).get(name)
        parts.append(_train_part(members, scale, FitSettings(trees, seed, threads), advance))
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
    settings: FitSettings,
    advance: Callable[[int], None],
) -> Part:
    split = {name: frame.filter(split=name).sort("id") for name in ("train", "validation")}
    for name, rows in split.items():
        if rows.is_empty():
            raise DefectgenError(f"set {frame['set'][0]} has no {name} rows.", "Use larger fractions or more data.")
    train, validation = (LabelledRows.of(rows) for rows in split.values())
    longest_pair = 0.0 if frame["density"][0] == "low" else TREE_PAIRS_ANGSTROM
    choices: dict[str, Choice] = {}
    models: dict[str, PropertyModel] = {}
    for column in TARGETS:
        if train.known(column).sum() >= MIN_TRAIN_ROWS:
            choices[column], models[column] = choose(column, train, validation, longest_pair, settings)
        advance(1)
    part = _assemble(frame, train, models, scale)
    if len(validation) >= MIN_CALIBRATION_ROWS:
        predicted = part.predict(validation.configurations)
        return replace(part, half_widths_ev=half_widths(predicted, validation))
    both = LabelledRows.of(pl.concat(split.values()))
    predicted = {column: np.full(len(both), np.nan) for column in choices}
    fold = np.arange(len(both)) % N_FOLDS
    for k in range(N_FOLDS):
        out = fold == k
        rest, left_out = both.some(~out), both.some(out)
        again = {column: fit(column, rest, choice, longest_pair, settings) for column, choice in choices.items()}
        values = _assemble(frame, rest, again, scale).predict(left_out.configurations)
        for column in again:
            predicted[column][out] = values[column]
    return replace(part, half_widths_ev=half_widths(predicted, both))


def _assemble(
    frame: pl.DataFrame,
    train: LabelledRows,
    models: Mapping[str, PropertyModel],
    scale: Mapping[str, Any] | None,
) -> Part:
    """A part with models fitted on some rows, without half-widths."""
    name, host, density, supercell = frame.select("set", "host", "density", "supercell").row(0)
    gap = train.values["lumo_ev"] - train.values["homo_ev"] - train.values["band_gap_ev"]
    reference = train.values["energy_ev"] - train.values["formation_energy_ev"]
    counts = np.hstack([np.ones((len(train), 1)), train.features.counts])
    known = ~np.isnan(reference)
    sizes = train.features.counts.sum(axis=1)
    return Part(
        set_name=name,
        host=host,
        density=density,
        supercell=supercell,
        models=models,
        consistent=bool(np.nanmax(np.abs(gap), initial=0.0) < 1e-3),
        energy_weights_ev=tuple(np.linalg.lstsq(counts[known], reference[known], rcond=None)[0].tolist()),
        half_widths_ev={},
        labels=dict(sorted(Counter(item.label for item in train.configurations).items())),
        max_counts=tuple(int(n) for n in train.features.counts.max(axis=0)),
        defects_range=(int(sizes.min()), int(sizes.max())),
        covered_ev=_covered(train.values),
        level_scale=scale,
    )


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
    unfinished = out_dir / f"{METADATA}.part"
    unfinished.write_text(json.dumps(metadata, separators=(",", ":")) + "\n", encoding="utf-8")
    unfinished.replace(out_dir / METADATA)
