"""The published baseline: boosted trees on SLICES strings, trained for each set and property.

Its authors say that energies are predicted with CatBoost from the SLICES strings, and no more (slides of
Al-Maeeni et al., DLCP 2024). Here the trees see how often each word occurs in a string, where a word is an atom,
a bond, or an atom with its bonded neighbours, by element; nothing but the string is used. CatBoost's own text
features on the string, which see which numbers stand beside which, are worse and much slower.

Source: Xiao et al., Nature Communications 14, 7027 (2023), doi 10.1038/s41467-023-42870-7, for SLICES.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from defectgen.core import Configuration, Host
from defectgen.core.hosts import common_title
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.folders import claimed, contents, write_folder
from defectgen.io.host_tables import host_of
from defectgen.io.stamps import check_stamps, stamps
from defectgen.models import SHIPPED_SLICES, shipped
from defectgen.one_line import OneLine
from defectgen.score.intervals import MIN_TRAIN_ROWS, quantile
from defectgen.score.metadata import read_metadata
from defectgen.score.protocol import uncertainty_column
from defectgen.score.trees import TreeSettings, fit_trees, load_trees, predict_trees, save_trees
from defectgen.slices import encode_configuration, parse_slices

if TYPE_CHECKING:
    from catboost import CatBoostRegressor

FORMAT_VERSION = 2
METADATA = "slices_catboost.json"

FOLDER_VARIABLE = "DEFECTGEN_SLICES_CATBOOST"
"""Names a folder of trained models in place of the shipped ones."""

COLUMNS = ("homo_ev", "lumo_ev", "band_gap_ev", "formation_energy_ev")
"""The properties that are learnt; the formation energy by defect site."""

LEAST_ROWS = 3
"""A word that fewer training rows hold is not looked at."""

TREES = TreeSettings(iterations=500, depth=4, learning_rate=0.06)


def words_of(text: str) -> Counter[str]:
    """How often each word occurs in a SLICES string.

    ``Mo`` is an atom, ``Mo-S`` a bond, ``S(Mo,Mo,W)`` an atom with its bonded neighbours and ``space group`` the
    number of the space group.
    """
    graph = parse_slices(text)
    words = Counter(graph.species)
    neighbours: list[list[str]] = [[] for _ in graph.species]
    for first, second, _ in graph.edges:
        one, other = graph.species[first], graph.species[second]
        words["-".join(sorted((one, other)))] += 1
        neighbours[first].append(other)
        neighbours[second].append(one)
    words.update(f"{name}({','.join(sorted(near))})" for name, near in zip(graph.species, neighbours, strict=True))
    words["space group"] = graph.space_group or 1
    return words


@dataclass(frozen=True, repr=False)
class SlicesPart(OneLine):
    """The models of one set.

    Attributes:
        set_name: of the training rows.
        host: the pristine supercell.
        defects_range: least and largest number of defects in the training rows.
        words: the columns that the trees see.
        models: trees by property.
        half_widths_ev: of the interval of each property; of the formation energy by defect site.
    """

    set_name: str
    host: Host
    defects_range: tuple[int, int]
    words: tuple[str, ...]
    models: Mapping[str, CatBoostRegressor]
    half_widths_ev: Mapping[str, float]

    def predict(self, counts: Sequence[Counter[str]]) -> dict[str, NDArray[np.float64]]:
        """Values of each property in eV, the formation energy by defect site, each of shape (n,)."""
        columns = _columns(counts, self.words)
        return {name: predict_trees(model, columns) for name, model in self.models.items()}

    def file_name(self, column: str) -> str:
        return f"{self.set_name}-{column}.cbm"

    def to_dict(self) -> dict[str, Any]:
        return {
            "set": self.set_name,
            "host": self.host.to_dict(),
            "defects_range": self.defects_range,
            "words": self.words,
            "properties": list(self.models),
            "half_widths_ev": dict(self.half_widths_ev),
        }


@dataclass(frozen=True, repr=False)
class SlicesCatBoost(OneLine):
    """Boosted trees on the words of SLICES strings; a `defectgen.score.protocol.Scorer`.

    A configuration goes to the set of its host whose numbers of defects are nearest to its own.

    Attributes:
        parts: the models of each set.
    """

    parts: tuple[SlicesPart, ...]

    @classmethod
    def load(cls, folder: Path) -> SlicesCatBoost:
        """The models in a folder that `train` has written.

        Raises:
            DefectgenError: a missing or damaged file, or another format.
        """
        folder = Path(folder)
        advice = "docs/slices.md says how to train them."
        metadata = read_metadata(folder / METADATA, FORMAT_VERSION, "SLICES models", advice)
        try:
            bare = [_read_part(values) for values in metadata["parts"]]
            names = [part.file_name(column) for part, columns in bare for column in columns]
            check_stamps(folder, metadata.get("files"), names, METADATA, "Train them again: docs/slices.md.")
            return cls(tuple(_with_models(part, columns, folder) for part, columns in bare))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise DefectgenError(f"{folder / METADATA} is damaged ({type(error).__name__}: {error}).") from error

    def part_for(self, configuration: Configuration) -> SlicesPart:
        """The part that scores a configuration.

        Raises:
            UsageError: a host or supercell that it was not trained for.
        """
        host = configuration.host
        parts = [part for part in self.parts if host.is_like(part.host)]
        if not parts:
            known = ", ".join(sorted({part.host.title for part in self.parts}))
            raise UsageError(f"slices-catboost does not know {common_title(host)}.", f"It was trained for {known}.")
        return min(parts, key=lambda part: _distance(configuration.n_defects, part.defects_range))

    def score(self, configurations: Sequence[Configuration]) -> pl.DataFrame:
        """See `defectgen.score.protocol.Scorer.score`."""
        n = len(configurations)
        rows: dict[str, list[int]] = {}
        parts = [self.part_for(item) for item in configurations]
        for row, part in enumerate(parts):
            rows.setdefault(part.set_name, []).append(row)
        for item in configurations:
            if not item.follows_rules():
                raise UsageError(f"slices-catboost never saw {item.label} in {item.host.name}.")
        values, widths = ({name: np.full(n, np.nan) for name in COLUMNS} for _ in range(2))
        known = np.zeros(n, dtype=bool)
        for chosen in rows.values():
            part = parts[chosen[0]]
            items = [configurations[row] for row in chosen]
            counts = [words_of(encode_configuration(item)) for item in items]
            sites = np.array([item.n_defects for item in items], dtype=np.float64)
            for name, predicted in part.predict(counts).items():
                scale = sites if name == "formation_energy_ev" else np.ones(len(items))
                values[name][chosen] = predicted * scale
                widths[name][chosen] = part.half_widths_ev.get(name, np.nan) * scale
            vocabulary = set(part.words)
            known[chosen] = [
                _distance(item.n_defects, part.defects_range) == 0 and vocabulary.issuperset(words)
                for item, words in zip(items, counts, strict=True)
            ]
        columns = {}
        for name in COLUMNS:
            columns[name] = pl.Series(values[name]).fill_nan(None)
            columns[uncertainty_column(name)] = pl.Series(widths[name]).fill_nan(None)
        return pl.DataFrame({**columns, "in_domain": known})


def load_slices_catboost(folder: Path | None = None) -> SlicesCatBoost:
    """The models in a folder; None for the one that the variable `FOLDER_VARIABLE` names, else the shipped ones.

    Raises:
        DefectgenError: see `SlicesCatBoost.load`.
    """
    return SlicesCatBoost.load(Path(folder or os.environ.get(FOLDER_VARIABLE) or shipped(SHIPPED_SLICES)))


def train(
    frame: pl.DataFrame,
    out_dir: Path,
    seed: int = 42,
    *,
    threads: int = 1,
    trees: TreeSettings = TREES,
    advance: Callable[[int], None] = lambda _: None,
) -> SlicesCatBoost:
    """Train on the ``train`` rows, calibrate the intervals on the ``validation`` rows, and write a folder.

    Args:
        frame: the columns of the data reader and ``split``; each set becomes a part.
        out_dir: folder to write: ``<set>-<property>.cbm`` and, last, ``slices_catboost.json``.
        seed: of the trees.
        threads: of CatBoost.
        trees: how many of which depth.
        advance: is told of each finished model.

    Returns:
        The models, as `SlicesCatBoost.load` reads them.

    Raises:
        UsageError: no column ``split``, or a folder with other files.
        DefectgenError: a set without training or validation rows.
    """
    if "split" not in frame.columns:
        raise UsageError("the table has no column 'split'.", "Split it first.")
    out_dir = Path(out_dir)
    with claimed(out_dir):
        if contents(out_dir) and not (out_dir / METADATA).is_file():
            raise UsageError(f"{out_dir} holds other files.", "Choose a new folder.")
        parts = [
            _train_part(frame.filter(set=name).sort("id"), seed, threads, trees, advance)
            for name in sorted(frame["set"].unique())
        ]
        names = [part.file_name(column) for part in parts for column in part.models]

        def fill(new: Path) -> None:
            for part in parts:
                for column, model in part.models.items():
                    save_trees(model, new / part.file_name(column))
            metadata = {
                "format": FORMAT_VERSION,
                "seed": seed,
                "parts": [part.to_dict() for part in parts],
                "files": stamps(new, names),
            }
            (new / METADATA).write_text(json.dumps(metadata, separators=(",", ":")) + "\n", encoding="utf-8")

        write_folder(out_dir, fill, METADATA)
    return SlicesCatBoost.load(out_dir)


def _train_part(
    frame: pl.DataFrame, seed: int, threads: int, trees: TreeSettings, advance: Callable[[int], None]
) -> SlicesPart:
    set_name, host = frame["set"][0], host_of(frame)
    split = {name: frame.filter(split=name) for name in ("train", "validation")}
    for name, rows in split.items():
        if rows.is_empty():
            raise DefectgenError(f"set {set_name} has no {name} rows.", "Use larger fractions or more data.")
    keys = {name: rows["configuration"] for name, rows in split.items()}
    counts = {
        name: [words_of(encode_configuration(Configuration.from_key(host, key))) for key in keys[name]]
        for name in split
    }
    rows_with = Counter(word for words in counts["train"] for word in words)
    vocabulary = tuple(sorted(word for word, n in rows_with.items() if n >= LEAST_ROWS))
    columns = {name: _columns(counts[name], vocabulary) for name in split}
    models, half_widths = {}, {}
    for column in COLUMNS:
        target = {name: _target(rows, column) for name, rows in split.items()}
        known = {name: ~np.isnan(values) for name, values in target.items()}
        if known["train"].sum() >= MIN_TRAIN_ROWS:
            model = fit_trees(columns["train"][known["train"]], target["train"][known["train"]], trees, seed, threads)
            models[column] = model
            error = np.abs(predict_trees(model, columns["validation"]) - target["validation"])
            width = quantile(error[known["validation"]])
            if width is not None:
                half_widths[column] = width
        advance(1)
    sizes = split["train"]["n_defects"].to_numpy()
    defects_range = int(sizes.min()), int(sizes.max())
    return SlicesPart(set_name, host, defects_range, vocabulary, models, half_widths)


def _read_part(values: Mapping[str, Any]) -> tuple[SlicesPart, list[str]]:
    """A part without its models, and the properties that it has models of."""
    if Path(values["set"]).name != values["set"]:
        raise ValueError(f"set {values['set']!r}")
    least, most = values["defects_range"]
    bare = SlicesPart(
        set_name=str(values["set"]),
        host=Host.from_dict(values["host"]),
        defects_range=(int(least), int(most)),
        words=tuple(values["words"]),
        models={},
        half_widths_ev={name: float(width) for name, width in values["half_widths_ev"].items()},
    )
    return bare, [name for name in COLUMNS if name in values["properties"]]


def _with_models(part: SlicesPart, columns: Sequence[str], folder: Path) -> SlicesPart:
    models = {name: load_trees(folder / part.file_name(name)) for name in columns}
    for name, model in models.items():
        if len(model.feature_names_) != len(part.words):
            raise ValueError(f"{part.file_name(name)} has {len(model.feature_names_)} columns, not {len(part.words)}")
    return replace(part, models=models)


def _target(frame: pl.DataFrame, column: str) -> NDArray[np.float64]:
    """What is learnt for a property, NaN where there is no label, shape (n,)."""
    values = np.asarray(frame[column].cast(pl.Float64).fill_null(np.nan).to_numpy())
    return values / np.maximum(frame["n_defects"].to_numpy(), 1) if column == "formation_energy_ev" else values


def _columns(counts: Sequence[Mapping[str, int]], words: Iterable[str]) -> NDArray[np.float64]:
    names = tuple(words)
    return np.array([[found.get(word, 0) for word in names] for found in counts], dtype=np.float64).reshape(
        len(counts), len(names)
    )


def _distance(n_defects: int, defects_range: tuple[int, int]) -> int:
    """How far a number of defects lies outside a range."""
    return max(defects_range[0] - n_defects, n_defects - defects_range[1], 0)
