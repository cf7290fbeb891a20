"""One part of the surrogate: all properties of one host at one density."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from defectgen.core import VACANCY, Configuration, Host, get_host
from defectgen.score.features import Features, describe, histogram, kind_names
from defectgen.score.linear import LinearModel
from defectgen.score.trees import predict_trees

if TYPE_CHECKING:
    from catboost import CatBoostRegressor

TARGETS = ("homo_ev", "lumo_ev", "band_gap_ev", "formation_energy_ev", "fermi_level_ev")
"""The properties that are learnt; the energy per atom follows from the formation energy."""

FAR = 999.0
"""What the trees see in place of the distance and orbit of a pair that does not exist: a far one."""

OTHER = "other"
"""Group of the labels that have too few validation rows for a half-width of their own."""


@dataclass(frozen=True)
class PropertyModel:
    """A property as the sum of a linear model and trees, either of which may be absent.

    Attributes:
        linear: ridge regression on counts, pairs and triangles.
        trees: boosted trees for what the linear model leaves.
        tree_pairs: codes of the pairs whose counts the trees see; None if they see the list of pairs.
        error_ev: mean absolute error on the validation rows, in eV.
    """

    linear: LinearModel | None
    trees: CatBoostRegressor | None
    tree_pairs: tuple[int, ...] | None
    error_ev: float

    def predict(self, features: Features) -> NDArray[np.float64]:
        """Values for n configurations in eV, shape (n,)."""
        values = np.zeros(len(features)) if self.linear is None else self.linear.predict(features)
        if self.trees is not None:
            values = values + predict_trees(self.trees, tree_columns(features, self.tree_pairs))
        return values


def tree_columns(features: Features, pairs: Sequence[int] | None) -> NDArray[np.float64]:
    """What the trees see: counts with the list of pairs, or with how often each of some pairs occurs."""
    if pairs is None:
        return np.hstack([features.counts, np.nan_to_num(features.listed, nan=FAR)])
    return np.hstack([features.counts, histogram(features.pairs, np.array(pairs, dtype=np.int64), len(features))])


@dataclass(frozen=True)
class Part:
    """The models of one host at one density.

    Attributes:
        set_name: published name of the set it was trained on.
        host: name of the host.
        density: ``low`` or ``high``.
        supercell: e.g. ``8x8``.
        models: by property column.
        consistent: whether the gap is LUMO minus HOMO in every training row; predictions then keep that.
        energy_weights_ev: total energy of the cell less its formation energy: for the pristine cell, then
            for each kind of defect (in the order of the host's rules), in eV.
        half_widths_ev: half-width of the 90 % interval by property and label (or ``other``), in eV.
        labels: number of training rows of each defect label.
        max_counts: most defects of each kind in a training row.
        defects_range: fewest and most defects in a training row.
        covered_ev: least and largest training value of each property, in eV.
        level_scale: of the set, as `defectgen.data.levels.LevelScale.to_dict` gives it, or None.
    """

    set_name: str
    host: str
    density: str
    supercell: str
    models: Mapping[str, PropertyModel]
    consistent: bool
    energy_weights_ev: tuple[float, ...]
    half_widths_ev: Mapping[str, Mapping[str, float]]
    labels: Mapping[str, int]
    max_counts: tuple[int, ...]
    defects_range: tuple[int, int]
    covered_ev: Mapping[str, tuple[float, float]]
    level_scale: Mapping[str, Any] | None

    @cached_property
    def core_host(self) -> Host:
        """The pristine supercell."""
        n_a, n_b = (int(n) for n in self.supercell.split("x"))
        return get_host(self.host, (n_a, n_b))

    def predict(self, configurations: Sequence[Configuration]) -> dict[str, NDArray[np.float64]]:
        """Values of each property in eV, each of shape (n,).

        Raises:
            UsageError: a defect that the host's rules do not know.
        """
        features = describe(self.core_host, configurations)
        values = {name: model.predict(features) for name, model in self.models.items()}
        if self.consistent and all(name in values for name in ("homo_ev", "lumo_ev", "band_gap_ev")):
            values |= self._reconciled(values)
        if "formation_energy_ev" in values:
            n_atoms = np.array([item.host.n_sites - n_vacancies(item) for item in configurations])
            reference = self.energy_weights_ev[0] + features.counts @ np.array(self.energy_weights_ev[1:])
            values["energy_per_atom_ev"] = (values["formation_energy_ev"] + reference) / n_atoms
        return values

    def _reconciled(self, values: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        """HOMO, LUMO and gap moved as little as possible so that gap = LUMO - HOMO.

        Each moves in proportion to its squared validation error (least squares with one constraint).
        """
        homo, lumo, gap = (values[name] for name in ("homo_ev", "lumo_ev", "band_gap_ev"))
        square = [max(self.models[name].error_ev, 1e-6) ** 2 for name in ("homo_ev", "lumo_ev", "band_gap_ev")]
        excess = (lumo - homo - gap) / sum(square)
        homo, lumo = homo + square[0] * excess, lumo - square[1] * excess
        return {"homo_ev": homo, "lumo_ev": lumo, "band_gap_ev": lumo - homo}

    def half_widths(self, column: str, configurations: Sequence[Configuration]) -> NDArray[np.float64]:
        """Half-width of the 90 % interval of each configuration in eV, NaN where unknown, shape (n,).

        A label that the training rows do not hold gets the largest half-width of any group; there the
        interval promises nothing.
        """
        if column == "energy_per_atom_ev":
            n_atoms = np.array([item.host.n_sites - n_vacancies(item) for item in configurations], dtype=np.float64)
            return self.half_widths("formation_energy_ev", configurations) / n_atoms
        known = self.half_widths_ev.get(column, {})
        largest = max(known.values(), default=np.nan)
        widths = {label: known.get(label, known.get(OTHER, largest)) for label in self.labels}
        return np.array([widths.get(item.label, largest) for item in configurations])

    def in_domain(self, configuration: Configuration) -> bool:
        """Whether the training rows hold this label, or at high density as many defects of each kind."""
        if self.density == "low":
            return configuration.label in self.labels
        counts = configuration.kinds
        rules = self.core_host.rules
        within = all(counts[r.element, r.replacement] <= m for r, m in zip(rules, self.max_counts, strict=True))
        return within and self.defects_range[0] <= configuration.n_defects <= self.defects_range[1]

    def to_dict(self) -> dict[str, Any]:
        """All but the trees, for JSON."""
        models = {
            name: {
                "linear": None if model.linear is None else model.linear.to_dict(),
                "trees": None if model.trees is None else self.file_name(name),
                "tree_pairs": model.tree_pairs,
                "validation_mae_ev": model.error_ev,
            }
            for name, model in self.models.items()
        }
        return {
            "set": self.set_name,
            "host": self.host,
            "density": self.density,
            "supercell": self.supercell,
            "kinds": kind_names(self.core_host),
            "consistent": self.consistent,
            "energy_weights_ev": self.energy_weights_ev,
            "half_widths_ev": self.half_widths_ev,
            "labels": self.labels,
            "max_counts": self.max_counts,
            "defects_range": self.defects_range,
            "covered_ev": self.covered_ev,
            "level_scale": self.level_scale,
            "models": models,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], trees: Mapping[str, CatBoostRegressor]) -> Part:
        """The inverse of `to_dict`; `trees` by file name."""
        models = {
            name: PropertyModel(
                None if model["linear"] is None else LinearModel.from_dict(model["linear"]),
                None if model["trees"] is None else trees[model["trees"]],
                None if model["tree_pairs"] is None else tuple(model["tree_pairs"]),
                model["validation_mae_ev"],
            )
            for name, model in values["models"].items()
        }
        return cls(
            set_name=values["set"],
            host=values["host"],
            density=values["density"],
            supercell=values["supercell"],
            models=models,
            consistent=values["consistent"],
            energy_weights_ev=tuple(values["energy_weights_ev"]),
            half_widths_ev=values["half_widths_ev"],
            labels=values["labels"],
            max_counts=tuple(values["max_counts"]),
            defects_range=(values["defects_range"][0], values["defects_range"][1]),
            covered_ev={name: (low, high) for name, (low, high) in values["covered_ev"].items()},
            level_scale=values["level_scale"],
        )

    def file_name(self, column: str) -> str:
        """The file that holds the trees of a property."""
        return f"{self.host}-{self.density}-{column.removesuffix('_ev').replace('_', '-')}.cbm"


def n_vacancies(configuration: Configuration) -> int:
    """How many sites are empty."""
    return sum(species == VACANCY for _, species in configuration.edits)
