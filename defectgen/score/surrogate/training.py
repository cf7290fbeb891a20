"""Training the surrogate on a table with a split; what is chosen is chosen on the validation part."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from defectgen import __version__
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.folders import claimed, contents, write_folder
from defectgen.io.host_tables import hosts_of
from defectgen.io.tables import is_utf8
from defectgen.one_line import encodable
from defectgen.score.intervals import LEVEL, MIN_TRAIN_ROWS
from defectgen.score.network.pair_geometry import structure_of
from defectgen.score.surrogate import Surrogate
from defectgen.score.surrogate.agreement import COLUMNS as AGREEING
from defectgen.score.surrogate.agreement import Agreement
from defectgen.score.surrogate.evaluation import evaluate
from defectgen.score.surrogate.fitting import (
    N_FOLDS,
    Choice,
    FitSettings,
    choose_sparse,
    fit_dense,
    fit_sparse,
    half_widths,
)
from defectgen.score.surrogate.high_density import DenseModels
from defectgen.score.surrogate.host_models import PER_ATOM, HostModels, file_name, learnt_columns
from defectgen.score.surrogate.label_fitting import fit_labels, refit_labels
from defectgen.score.surrogate.labelled_rows import LabelledRows
from defectgen.score.surrogate.low_density import SparseModels
from defectgen.score.surrogate.model import FORMAT_VERSION, METADATA, NETWORK, SEEN, digest, file_hashes
from defectgen.score.surrogate.model_card import model_card
from defectgen.score.surrogate.network_share import NetworkShare
from defectgen.score.trees import TreeSettings, save_trees

if TYPE_CHECKING:
    from defectgen.score.network.folds import FoldedNetwork
    from defectgen.score.network.network_training import TrainSettings

MEMBERS_OF_A_FOLD = 2
"""Networks of each fold, fewer than of the ensemble: they cost most of the time."""

LOW_TREES = TreeSettings(iterations=1500, depth=6, learning_rate=0.1)
HIGH_TREES = TreeSettings(iterations=300, depth=4, learning_rate=0.06, column_share=0.2)

README = "README.md"

MAX_LOW_ROWS = 200
"""Low-density training rows of the same host that a high-density set is given beside its own."""


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
    networks: int = 0,
    network_settings: TrainSettings | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Surrogate:
    """`fit_surrogate`, written to a folder with its errors on the validation and test rows.

    Args:
        frame: the columns of the data reader and ``split``; each set becomes a part.
        out_dir: folder to write: ``<host>-<density>-<property>.cbm``, ``surrogate.json`` (last),
            ``seen.txt``, ``README.md`` and, with networks, ``network-<host>.safetensors``.
        seed: of the trees.
        level_scales: of each set, as plain values.
        threads: of CatBoost.
        about: what else to record, e.g. the split, the command and the data.
        low_trees: trees of the low-density parts.
        high_trees: trees of the high-density parts.
        networks: of each structure with crowded cells, beside the processes; 0 for none.
        network_settings: of its training.
        advance: is told of each finished model and network.

    Returns:
        The surrogate, as `Surrogate.load` reads it.

    Raises:
        UsageError: no column ``split``, a folder with other files, or a name that is not UTF-8.
        DefectgenError: a set without training or validation rows, or another run has the folder.
    """
    out_dir = Path(out_dir)
    if not is_utf8(out_dir):
        name = encodable(str(out_dir))
        raise UsageError(f"got the folder {name}, expected a name in UTF-8: CatBoost writes no other.")
    with claimed(out_dir):
        if contents(out_dir) and not (out_dir / METADATA).is_file():
            raise UsageError(f"{out_dir} holds other files.", "Choose a new folder.")
        fitted = fit_surrogate(
            frame,
            seed,
            level_scales=level_scales,
            threads=threads,
            low_trees=low_trees,
            high_trees=high_trees,
            networks=networks,
            network_settings=network_settings,
            advance=advance,
        )
        rows = {f"{s}/{p}": n for s, p, n in frame.group_by("set", "split").len().sort("set", "split").iter_rows()}
        metadata: dict[str, Any] = {
            "format": FORMAT_VERSION,
            "defectgen": __version__,
            "seed": seed,
            "threads": threads,
            "level": LEVEL,
            "rows": rows,
            **(about or {}),
            "parts": [part.to_dict() for part in fitted.parts],
        }
        test = frame.filter(split="test").sort("density", "set", "id", descending=[True, False, False])
        metadata["errors"] = {"test": evaluate(fitted, test)}
        _write(fitted, metadata, out_dir)
    return Surrogate.load(out_dir)


def fit_surrogate(
    frame: pl.DataFrame,
    seed: int = 42,
    *,
    level_scales: Mapping[str, Mapping[str, Any]] | None = None,
    threads: int = 1,
    refit: bool = True,
    low_trees: TreeSettings = LOW_TREES,
    high_trees: TreeSettings = HIGH_TREES,
    networks: int = 0,
    network_settings: TrainSettings | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Surrogate:
    """Models of all sets in a table, fitted on its ``train`` and ``validation`` rows.

    At low density the kind of model, the share of processes in the levels of each label and the width of the intervals
    are chosen on the validation rows with models that have not seen them; then the models are fitted on both. At high
    density the weights come from the marginal likelihood, the share of the trees and the intervals from rows left out
    in five folds. So does the share of the networks (`defectgen.score.network.folds`), which learn from all sets of the
    hosts of one structure.

    Args:
        frame: the columns of the data reader and ``split``; each set becomes a part.
        seed: of the trees.
        level_scales: of each set, as plain values.
        threads: of CatBoost.
        refit: False leaves the validation rows out of the final fits.
        low_trees: trees of the low-density parts.
        high_trees: trees of the high-density parts.
        networks: of each structure with crowded cells; 0 for none.
        network_settings: of its training.
        advance: is told of each finished model and network.

    Raises:
        UsageError: no column ``split``, a network but no crowded set, or elements that it cannot describe.
        DefectgenError: a set without training or validation rows.
    """
    if "split" not in frame.columns:
        raise UsageError("the table has no column 'split'.", "Split it first.")
    frame = frame.sort("density", "set", "id", descending=[True, False, False])
    usable = frame.filter(pl.col("split").is_in(["train", "validation"] if refit else ["train"]))
    folded = _networks(usable, networks, network_settings, advance) if networks else {}
    parts = []
    for name in frame["set"].unique(maintain_order=True):
        members = frame.filter(set=name)
        for split in ("train", "validation"):
            if members.filter(split=split).is_empty():
                raise DefectgenError(f"set {name} has no {split} rows.", "Use larger fractions or more data.")
        fitted = usable.filter(set=name).sort("id")
        models: SparseModels | DenseModels
        share = None
        if members["density"][0] == "low":
            models, agreement = _train_sparse(members, fitted, FitSettings(low_trees, seed, threads), advance)
        else:
            settings = FitSettings(high_trees, seed, threads)
            fit = fit_dense(LabelledRows.of(fitted), low_rows(usable, members, seed), settings, advance)
            models, agreement = fit.models, fit.agreement
            if folded:
                labelled, own = LabelledRows.of(fitted), folded[fitted["host"][0]]
                share = NetworkShare.fit(labelled.values, labelled.counts.sum(axis=1), fit.apart, own.left_out_of(name))
        scale = (level_scales or {}).get(name)
        part = _assemble(members, LabelledRows.of(fitted), models, agreement, scale)
        parts.append(replace(part, network=share))
    used = frame.filter(pl.col("split").is_in(["train", "validation"]))
    seen = frozenset(digest(host, key) for host, key in used.select("host", "configuration").iter_rows())
    return Surrogate(tuple(parts), {}, seen, {host: found.network for host, found in folded.items()})


def n_networks(frame: pl.DataFrame, members: int) -> int:
    """Networks that are trained for so many of each structure with crowded cells, those of the folds included."""
    return members and len(same_structure(frame)) * (members + N_FOLDS * MEMBERS_OF_A_FOLD)


def same_structure(frame: pl.DataFrame) -> list[list[str]]:
    """Names of the hosts with crowded cells, those of one structure together: they share networks."""
    structures: dict[str, tuple[tuple[int, int], ...]] = {}
    for host in hosts_of(frame.filter(density="high")).values():
        structures.setdefault(host.name, structure_of(host))
    return [[name for name in structures if structures[name] == one] for one in dict.fromkeys(structures.values())]


def _networks(
    usable: pl.DataFrame, members: int, settings: TrainSettings | None, advance: Callable[[int], None]
) -> dict[str, FoldedNetwork]:
    if members < 0:
        raise UsageError(f"got {members} networks, expected 0 or more.")
    structures = same_structure(usable)
    if not structures:
        raise UsageError(
            "got networks for a table without a crowded set: they have a share in crowded cells alone.",
            "Leave out --networks (networks=).",
        )
    from defectgen.score.network.folds import train_folded  # takes torch along
    from defectgen.score.network.network_training import DEFAULT_SETTINGS

    settings = settings or DEFAULT_SETTINGS
    folded: dict[str, FoldedNetwork] = {}
    for hosts in structures:
        rows = usable.filter(pl.col("host").cast(pl.String).is_in(hosts))
        found = train_folded(rows, members, MEMBERS_OF_A_FOLD, N_FOLDS, settings, advance)
        folded |= {host: replace(found, network=found.network.alone(host)) for host in hosts}
    return folded


def _train_sparse(
    members: pl.DataFrame, fitted: pl.DataFrame, settings: FitSettings, advance: Callable[[int], None]
) -> tuple[SparseModels, Agreement | None]:
    train, validation = (LabelledRows.of(members.filter(split=name).sort("id")) for name in ("train", "validation"))
    choices: dict[str, Choice] = {}
    models = {}
    for column in learnt_columns():
        if train.learnable(column, MIN_TRAIN_ROWS):
            choices[column], models[column] = choose_sparse(column, train, validation, settings)
        advance(1)
    found = SparseModels(train.host, models, {}, frozenset(item.label for item in train.configurations))
    processes = fit_labels(train, validation, found.predict(validation.configurations))
    predicted = replace(found, processes=processes).predict(validation.configurations)
    for column in AGREEING if processes else ():
        error = float(np.nanmean(np.abs(predicted[column] - validation.values[column])))
        choices[column] = replace(choices[column], error=error)
        models[column] = replace(models[column], error=error)
    found = replace(found, models=models, processes=processes)
    agreement = None
    if all(name in predicted for name in AGREEING):
        errors = found.errors()
        agreement = Agreement.given(train.values, np.diag([errors[name] ** 2 for name in AGREEING]))
        predicted |= agreement.apply(predicted)
    found = replace(found, half_widths=half_widths(predicted, validation))
    if len(fitted) == len(train):
        return found, agreement
    both = LabelledRows.of(fitted)
    refitted = {column: fit_sparse(column, both, choice, settings) for column, choice in choices.items()}
    labels = frozenset(item.label for item in both.configurations)
    return replace(found, models=refitted, labels=labels, processes=refit_labels(processes, both)), agreement


def low_rows(usable: pl.DataFrame, members: pl.DataFrame, seed: int) -> LabelledRows | None:
    """Some low-density rows of the same host and supercell; which ones depends on the seed."""
    host, supercell = members.select("host", "supercell").row(0)
    rows = usable.filter(host=host, supercell=supercell, density="low").sort("id")
    if rows.is_empty():
        return None
    chosen = np.random.default_rng(seed).permutation(len(rows))[:MAX_LOW_ROWS]
    return LabelledRows.of(rows[np.sort(chosen)])


def _assemble(
    frame: pl.DataFrame,
    train: LabelledRows,
    models: SparseModels | DenseModels,
    agreement: Agreement | None,
    scale: Mapping[str, Any] | None,
) -> HostModels:
    """A part with models fitted on some rows."""
    name, density = frame.select("set", "density").row(0)
    reference = train.values["energy_ev"] - train.values["formation_energy_ev"]
    counts = np.hstack([np.ones((len(train), 1)), train.counts])
    known = ~np.isnan(reference)
    weights = tuple(np.linalg.lstsq(counts[known], reference[known], rcond=None)[0].tolist()) if known.any() else None
    sizes = train.counts.sum(axis=1)
    return HostModels(
        set_name=name,
        core_host=train.host,
        density=density,
        models=models,
        agreement=agreement,
        energy_weights_ev=weights,
        labels=dict(sorted(Counter(item.label for item in train.configurations).items())),
        max_counts=tuple(int(n) for n in train.counts.max(axis=0)),
        defects_range=(int(sizes.min()), int(sizes.max())),
        covered=_covered(train.values),
        level_scale=scale,
    )


def _covered(values: Mapping[str, NDArray[np.float64]]) -> dict[str, tuple[float, float]]:
    names = (*learnt_columns(), PER_ATOM)
    known = {name: values[name][~np.isnan(values[name])] for name in names}
    return {name: (float(v.min()), float(v.max())) for name, v in known.items() if len(v)}


def _write(surrogate: Surrogate, metadata: Mapping[str, Any], out_dir: Path) -> None:
    """Write the folder, the metadata last."""

    def fill(new: Path) -> None:
        for part in surrogate.parts:
            for column, model in part.models.models.items():
                if model.trees is not None:
                    save_trees(model.trees, new / file_name(part.host, part.density, column))
        for host, network in surrogate.networks.items():
            network.save(new / NETWORK.format(host))
        (new / SEEN).write_text("\n".join(sorted(surrogate.seen)) + "\n", encoding="ascii")
        (new / README).write_text(model_card(metadata), encoding="utf-8")
        text = json.dumps({**metadata, "files": file_hashes(new)}, separators=(",", ":")) + "\n"
        (new / METADATA).write_text(text, encoding="utf-8")

    write_folder(out_dir, fill, METADATA, unlisted=[README])
