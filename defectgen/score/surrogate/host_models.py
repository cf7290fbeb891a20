"""One part of the surrogate: all properties of one host at one density."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from defectgen.core import Configuration, Host
from defectgen.core.level_scale import LevelScale, kind_counts
from defectgen.core.properties import BY_COLUMN, COLUMNS, MAGNETIZATION, unit_suffix
from defectgen.score.surrogate.agreement import COLUMNS as GAP
from defectgen.score.surrogate.agreement import Agreement
from defectgen.score.surrogate.features import count_kinds, kind_names
from defectgen.score.surrogate.high_density import DenseModels
from defectgen.score.surrogate.low_density import SparseModels
from defectgen.score.surrogate.network_share import NetworkShare

if TYPE_CHECKING:
    from catboost import CatBoostRegressor

    from defectgen.score.network.network_file import NetworkFile

PER_ATOM = "energy_per_atom_ev"
"""The property that is not learnt: it follows from the formation energy."""

Array = NDArray[np.float64]

Values = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, repr=False)
class HostModels:
    """The models of one host at one density.

    Attributes:
        set_name: published name of the set it was trained on.
        core_host: the pristine supercell, with the rules whose defects the rows hold.
        density: ``low`` or ``high``.
        models: of all properties.
        agreement: how HOMO, LUMO and gap are made to agree; None unless all three are modelled.
        energy_weights_ev: total energy of the cell less its formation energy: for the pristine cell, then
            for each kind of defect (in the order of the host's rules), in eV; None where the rows have no total
            energies, so that the energy per atom is not known.
        labels: number of training rows of each defect label.
        max_counts: most defects of each kind in a training row.
        defects_range: fewest and most defects in a training row.
        covered: least and largest training value of each property, in its unit.
        level_scale: of the set, as `LevelScale.to_dict` gives it, or None.
        network: what networks add to the values of `score`; None for nothing.
    """

    set_name: str
    core_host: Host
    density: str
    models: SparseModels | DenseModels
    agreement: Agreement | None
    energy_weights_ev: tuple[float, ...] | None
    labels: Mapping[str, int]
    max_counts: tuple[int, ...]
    defects_range: tuple[int, int]
    covered: Mapping[str, tuple[float, float]]
    level_scale: Mapping[str, Any] | None
    network: NetworkShare | None = None

    def __repr__(self) -> str:
        rows, size = sum(self.labels.values()), f"{self.host} {self.supercell}"
        return f"HostModels({size}, {self.density} density: {type(self.models).__name__} of {rows} structures)"

    @property
    def host(self) -> str:
        """Name of the host."""
        return self.core_host.name

    @property
    def supercell(self) -> str:
        """Size of its supercell, e.g. ``8x8``."""
        return self.core_host.size

    def score(
        self, configurations: Sequence[Configuration], labels: Sequence[str], network: NetworkFile | None = None
    ) -> tuple[Values, Values, NDArray[np.bool_]]:
        """Values and half-widths of the 90 % intervals of each property, in its unit, each of shape (n,).

        Args:
            configurations: n of them.
            labels: `Configuration.label` of each, which is slow to find and not looked at where the density is high.
            network: of the host, if its share is wanted.

        Returns:
            Values, half-widths, and whether the training rows hold the label, or at high density as many defects of
            each kind.

        Raises:
            UsageError: a defect that the host's rules do not know.
        """
        if isinstance(self.models, SparseModels):
            values, widths = self.models.score(configurations, labels)
            counts = count_kinds(self.core_host, configurations).astype(np.float64)
            known = np.array([label in self.labels for label in labels], dtype=bool)
            return *self.finish(values, widths, counts), known
        rows = self.models.rows.describe(configurations)
        values, widths = self.models.score_rows(rows)
        low, high = self.defects_range
        known = (rows.counts <= self.max_counts).all(axis=1) & (low <= rows.sizes) & (rows.sizes <= high)
        if network is None or self.network is None:
            return *self.finish(values, widths, rows.counts), known
        values, widths = self.network.apply(values, widths, network.score_sites(self.core_host, *rows.padded()))
        agreed = replace(self, agreement=self.network.agreement or self.agreement)
        return *agreed.finish(values, widths, rows.counts), known

    def finish(
        self, values: Mapping[str, NDArray[np.float64]], widths: Mapping[str, NDArray[np.float64]], counts: Array
    ) -> tuple[Values, Values]:
        """What the models give, made to agree and within the bounds of physics, and what follows from it.

        HOMO, LUMO and gap agree (the gap stays in cells whose levels no training row has), gap and magnetization
        are 0 at least, the energy per atom follows from the formation energy, and the intervals of levels hold the
        error of their zero.

        Args:
            values: of modelled properties in their units, each of shape (n,).
            widths: half-widths of the 90 % intervals, likewise; of some properties or none.
            counts: number of defects of each kind, in the order of the host's rules, shape (n, n_kinds).
        """
        values, widths = dict(values), dict(widths)
        if self.agreement is not None and all(column in values for column in GAP):
            values |= self.agreement.apply(values, self._never_aligned(counts))
        for column in {"band_gap_ev", MAGNETIZATION} & values.keys():
            values[column] = np.maximum(values[column], 0.0)
        levels = [column for column in widths if column in BY_COLUMN and BY_COLUMN[column].is_level]
        for column in levels:
            widths[column] = np.hypot(widths[column], self.zero_half_widths_ev(counts))
        if "formation_energy_ev" in values and self.energy_weights_ev is not None:
            vacancies = [rule.is_vacancy for rule in self.core_host.rules]
            n_atoms = self.core_host.n_sites - counts[:, vacancies].sum(axis=1)
            reference = self.energy_weights_ev[0] + counts @ np.array(self.energy_weights_ev[1:])
            unseen = np.array(self.max_counts) == 0
            reference[(counts[:, unseen] > 0).any(axis=1)] = np.nan  # no training row tells the energy of their atoms
            values[PER_ATOM] = (values["formation_energy_ev"] + reference) / n_atoms
            if "formation_energy_ev" in widths:
                widths[PER_ATOM] = widths["formation_energy_ev"] / n_atoms
        return values, widths

    @cached_property
    def _scale(self) -> LevelScale | None:
        return None if self.level_scale is None else LevelScale.from_dict(self.level_scale)

    def _never_aligned(self, counts: Array) -> NDArray[np.bool_]:
        """Cells like which no training row has levels, so that only their gap is learnt; `counts` as in `finish`."""
        if self._scale is None:
            return np.zeros(len(counts), dtype=bool)
        return ~self._scale.can_align(kind_names(self.core_host), counts)

    def zero_half_widths_ev(self, counts: Array) -> Array:
        """How far the zero of the levels may be off, see `LevelScale.half_widths`.

        Args:
            counts: as in `finish`.
        """
        if self._scale is None:
            return np.zeros(len(counts))
        return self._scale.half_widths(kind_names(self.core_host), counts)

    @cached_property
    def zero_summary_ev(self) -> tuple[float, float]:
        """Median and 90th percentile of `zero_half_widths_ev` over the training rows."""
        _, counts = kind_counts(list(self.labels), kind_names(self.core_host))
        widths = np.repeat(self.zero_half_widths_ev(counts), list(self.labels.values()))
        return float(np.median(widths)), float(np.quantile(widths, 0.9))

    def to_dict(self) -> dict[str, Any]:
        """All but the trees, for JSON."""
        return {
            "set": self.set_name,
            "host": self.core_host.to_dict(),
            "density": self.density,
            "kinds": kind_names(self.core_host),
            "agreement": None if self.agreement is None else self.agreement.to_dict(),
            "energy_weights_ev": self.energy_weights_ev,
            "labels": self.labels,
            "max_counts": self.max_counts,
            "defects_range": self.defects_range,
            "covered": self.covered,
            "level_scale": self.level_scale,
            "zero_half_width_ev": dict(zip(("median", "percentile_90"), self.zero_summary_ev, strict=True)),
            "models": self.models.to_dict(),
            **({} if self.network is None else {"network": self.network.to_dict()}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], trees: Mapping[str, CatBoostRegressor]) -> HostModels:
        """The inverse of `to_dict`; `trees` by column."""
        host = Host.from_dict(values["host"])
        weights = values["energy_weights_ev"]
        form = SparseModels if values["density"] == "low" else DenseModels
        network = NetworkShare.from_dict(values["network"]) if "network" in values else None
        if network is not None and not network.shares.keys() <= values["models"]["models"].keys():
            raise ValueError(f"a network's share in {', '.join(network.shares)}, which are not all modelled")
        return cls(
            set_name=values["set"],
            core_host=host,
            density=values["density"],
            models=form.from_dict(host, values["models"], trees),
            agreement=None if values["agreement"] is None else Agreement.from_dict(values["agreement"]),
            energy_weights_ev=None if weights is None else tuple(weights),
            labels=values["labels"],
            max_counts=tuple(values["max_counts"]),
            defects_range=(values["defects_range"][0], values["defects_range"][1]),
            covered={name: (low, high) for name, (low, high) in values["covered"].items()},
            level_scale=values["level_scale"],
            network=network,
        )


def learnt_columns() -> tuple[str, ...]:
    """The properties that are learnt where there are labels, in their order."""
    return tuple(column for column in COLUMNS if column != PER_ATOM)


def file_name(host: str, density: str, column: str) -> str:
    """The file that holds the trees of a property."""
    name = column.removesuffix("_ev") if unit_suffix(column) == "ev" else column
    return f"{host}-{density}-{name.replace('_', '-')}.cbm"
