"""Labelled rows of one set, as the fits take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from defectgen.core import Configuration, Host
from defectgen.io.host_tables import host_of
from defectgen.one_line import OneLine
from defectgen.score.surrogate.features import Features, describe
from defectgen.score.surrogate.host_models import learnt_columns

ENERGIES = ("energy_ev", "energy_per_atom_ev")

CONSTANT = 1e-6
"""Labels that differ by less are all the same: there is nothing to learn."""


@dataclass(frozen=True, eq=False, repr=False)
class LabelledRows(OneLine):
    """Configurations of one set with their values.

    Attributes:
        host: of all configurations.
        configurations: n of them.
        values: by column in its unit, NaN where there is none, each of shape (n,).
    """

    host: Host
    configurations: tuple[Configuration, ...]
    values: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(cls, frame: pl.DataFrame) -> LabelledRows:
        """Rows of one set, in their order, with the host that they carry."""
        host = host_of(frame)
        items = tuple(Configuration.from_key(host, key) for key in frame["configuration"])
        values = {column: np.full(len(items), np.nan) for column in (*learnt_columns(), *ENERGIES)}
        for column in values.keys() & set(frame.columns):
            values[column] = np.asarray(frame[column].cast(pl.Float64).fill_null(np.nan).to_numpy())
        return cls(host, items, values)

    def __len__(self) -> int:
        return len(self.configurations)

    @cached_property
    def features(self) -> Features:
        """What the low-density models see."""
        return describe(self.host, self.configurations)

    @cached_property
    def counts(self) -> NDArray[np.float64]:
        """Number of defects of each kind, in the order of the host's rules, shape (n, n_kinds)."""
        order = [(rule.element, rule.replacement) for rule in self.host.rules]
        kinds = [item.kinds for item in self.configurations]
        return np.array([[found[kind] for kind in order] for found in kinds], dtype=np.float64)

    def known(self, column: str) -> NDArray[np.bool_]:
        """Which rows have a value, shape (n,)."""
        return np.asarray(~np.isnan(self.values[column]))

    def learnable(self, column: str, least: int) -> bool:
        """Whether at least so many rows have a value, and not all the same one."""
        known = self.values[column][self.known(column)]
        return len(known) >= least and float(np.ptp(known)) > CONSTANT

    def some(self, chosen: NDArray[np.bool_]) -> LabelledRows:
        """Some of the rows; `chosen` has shape (n,)."""
        if chosen.all():
            return self
        items = tuple(item for item, wanted in zip(self.configurations, chosen, strict=True) if wanted)
        return LabelledRows(self.host, items, {name: column[chosen] for name, column in self.values.items()})

    def sizes(self, column: str) -> NDArray[np.float64]:
        """What errors of a column are divided by: the number of defects for the formation energy, else 1."""
        if column != "formation_energy_ev":
            return np.ones(len(self))
        return np.asarray(np.maximum(self.counts.sum(axis=1), 1.0))
