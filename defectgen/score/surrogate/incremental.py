"""The neighbours of one configuration, scored by what a few changed sites change.

A `State` holds for every site of the host how many defects of each kind stand in each pair orbit around it. A move
takes up to two defects away and adds up to two; what it changes of the features follows from the rows of the changed
sites, so that no move looks at all pairs of defects again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defectgen.core import Configuration
from defectgen.score.surrogate.environments import ABSENT_ANGSTROM
from defectgen.score.surrogate.features import encode
from defectgen.score.surrogate.mean_values import MeanModel, Numbers

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

MOST_CHANGES = 2
"""Defects that a move takes away or adds, at most."""


@dataclass(frozen=True, eq=False)
class Moves:
    """m moves; a site of -1 stands for no change.

    Attributes:
        removed: sites whose defects go, shape (m, 2).
        added: sites that get a defect, shape (m, 2); they may be among those removed.
        kinds: kinds of the added defects as numbers of the host's rules, shape (m, 2).
    """

    removed: Indices
    added: Indices
    kinds: Indices

    @classmethod
    def of(cls, moves: Sequence[tuple[Sequence[int], Sequence[tuple[int, int]]]]) -> Moves:
        """Moves from lists of removed sites and of added (site, kind) pairs."""
        removed, added, kinds = (np.full((len(moves), MOST_CHANGES), -1, dtype=np.int64) for _ in range(3))
        kinds[:] = 0
        for row, (gone, new) in enumerate(moves):
            removed[row, : len(gone)] = gone
            added[row, : len(new)] = [site for site, _ in new]
            kinds[row, : len(new)] = [kind for _, kind in new]
        return cls(removed, added, kinds)

    def __len__(self) -> int:
        return len(self.removed)

    def applied(self, kind_of: Indices, row: int) -> Indices:
        """The kinds on all sites, -1 for none, after one of the moves."""
        found = kind_of.copy()
        found[self.removed[row][self.removed[row] >= 0]] = -1
        there = self.added[row] >= 0
        found[self.added[row][there]] = self.kinds[row][there]
        return found

    def counts(self, kind_of: Indices, n_kinds: int) -> Indices:
        """Number of defects of each kind after each of the moves, shape (m, n_kinds)."""
        found = np.tile(np.bincount(kind_of[kind_of >= 0], minlength=n_kinds), (len(self), 1))
        for sites, kinds, sign in ((self.removed, kind_of[self.removed], -1), (self.added, self.kinds, 1)):
            rows, places = np.nonzero(sites >= 0)
            np.add.at(found, (rows, kinds[rows, places]), sign)
        return found


class State:
    """A configuration with what its neighbours are scored from.

    Attributes:
        kind_of: kind of the defect on each site, -1 without one, shape (n_sites,).
    """

    def __init__(self, model: MeanModel, configuration: Configuration) -> None:
        """Begin with a configuration.

        Raises:
            UsageError: a configuration of another host, or a defect that the host's rules do not know.
        """
        self.tables = model.tables
        self._model = model
        (defects,) = encode(model.host, [configuration])
        self.kind_of = np.full(model.host.n_sites, -1, dtype=np.int64)
        for kind, site in defects:
            self.kind_of[site] = kind
        t = self.tables
        self._around = np.zeros((model.host.n_sites + 1, t.n_kinds, t.n_orbits + 1))
        self._codes = np.zeros((model.host.n_sites + 1, t.codes.shape[2]), dtype=np.int64)
        self._pairs = np.zeros((t.n_two, t.n_orbits + 1))
        for kind, site in defects:
            self._pairs[t.two[kind]] += self._around[site]
            self._put(site, kind, 1)

    @property
    def sites(self) -> Indices:
        """Changed sites in ascending order, shape (n_defects,)."""
        return np.flatnonzero(self.kind_of >= 0)

    @property
    def configuration(self) -> Configuration:
        """The configuration as it is now, in no canonical form."""
        rules = self._model.host.rules
        return Configuration.of(self._model.host, [(int(s), rules[self.kind_of[s]].replacement) for s in self.sites])

    @property
    def counts(self) -> Indices:
        """Number of defects of each kind, shape (n_kinds,)."""
        return np.bincount(self.kind_of[self.sites], minlength=self.tables.n_kinds)

    def propose(self, moves: Moves) -> dict[str, Array]:
        """Predicted values after each move, by property in its unit, each of shape (m,); the state stays as it is."""
        return self._model.predict(self.numbers(moves))

    def values(self) -> dict[str, float]:
        """Predicted values of the state as it is."""
        return {column: float(value[0]) for column, value in self.propose(Moves.of([((), ())])).items()}

    def accept(self, moves: Moves, row: int = 0) -> None:
        """Make one of the moves."""
        t = self.tables
        for site in moves.removed[row]:
            if site >= 0:
                kind = int(self.kind_of[site])
                self._put(int(site), kind, -1)
                self._pairs[t.two[kind]] -= self._around[site]
                self.kind_of[site] = -1
        for site, kind in zip(moves.added[row], moves.kinds[row], strict=True):
            if site >= 0:
                self._pairs[t.two[kind]] += self._around[site]
                self._put(int(site), int(kind), 1)
                self.kind_of[site] = kind

    def _put(self, site: int, kind: int, sign: int) -> None:
        t = self.tables
        orbits = t.orbits[site]
        self._around[np.arange(len(orbits)), kind, orbits] += sign
        self._around[:, :, -1] = 0
        self._codes += sign * t.codes[kind, orbits]

    def numbers(self, moves: Moves) -> Numbers:
        """What the model needs of the configuration after each move."""
        t, m = self.tables, len(moves)
        none = self._model.host.n_sites
        gone = np.where(moves.removed < 0, none, moves.removed)
        new = np.where(moves.added < 0, none, moves.added)
        gone_kinds = np.where(moves.removed < 0, 0, np.append(self.kind_of, 0)[gone])
        own = self.sites
        sites = np.concatenate([np.tile(own, (m, 1)), new], axis=1)
        kinds = np.concatenate([np.tile(self.kind_of[own], (m, 1)), moves.kinds], axis=1)
        alive = np.concatenate([np.ones((m, len(own)), dtype=bool), moves.added >= 0], axis=1)
        for column in gone.T:
            alive[:, : len(own)] &= own != column[:, None]
        changes = [(gone[:, k], gone_kinds[:, k], -1) for k in range(MOST_CHANGES)]
        changes += [(new[:, k], moves.kinds[:, k], 1) for k in range(MOST_CHANGES)]
        codes = self._codes[sites]
        influence = (self._around[..., :-1] @ t.fields)[sites]
        for changed, kind, sign in changes:
            if (changed == none).all():
                continue
            orbits = t.orbits[sites, changed[:, None]]
            codes += sign * t.codes[kind[:, None], orbits]
            influence += sign * t.one_field[kind[:, None], orbits]
        counts = np.bincount(self.kind_of[own], minlength=t.n_kinds) + np.zeros((m, t.n_kinds))
        for changed, kind, sign in changes:
            counts[np.arange(m), kind] += sign * (changed != none)
        sizes = np.maximum(counts.sum(axis=1), 1.0)
        pairs = self._changed_pairs(changes)
        pooled = self._pooled(counts, sizes, pairs, influence, kinds, alive)

        def neighbours(rows: Indices, columns: Indices) -> Array:
            found = self._around[sites[rows, columns]]
            for changed, kind, sign in changes:
                orbits = t.orbits[sites[rows, columns], changed[rows]]
                found[np.arange(len(rows)), kind[rows], orbits] += sign
            return np.asarray(found[:, :, :-1])

        return Numbers(counts, sizes, pairs, pooled, kinds, alive, codes, neighbours)

    def _changed_pairs(self, changes: Sequence[tuple[Indices, Indices, int]]) -> Array:
        """Number of pairs after each move, shape (m, n_two_kinds, n_orbits)."""
        t, m = self.tables, len(changes[0][0])
        pairs, row = np.tile(self._pairs, (m, 1, 1)), np.arange(m)
        for place, (changed, kind, sign) in enumerate(changes):
            pairs[row[:, None], t.two[kind]] += sign * self._around[changed]
            for before, kind_before, sign_before in changes[:place]:
                # what stood around the later site at first still counts the earlier change, or lacks it
                pairs[row, t.two[kind, kind_before], t.orbits[changed, before]] += sign * sign_before
        return pairs[:, :, :-1]

    def _pooled(
        self, counts: Array, sizes: Array, pairs: Array, influence: Array, kinds: Indices, alive: NDArray[np.bool_]
    ) -> Array:
        """As `Decorations.pooled`, from the influence on each defect, shape (m, M, n_kinds, n_lengths)."""
        t, m = self.tables, len(counts)
        influence = influence.transpose(0, 1, 3, 2)
        result = np.empty((m, t.n_kinds, *influence.shape[2:], 5))
        for kind in range(t.n_kinds):
            chosen = (alive & (kinds == kind))[:, :, None, None]
            some = np.where(chosen, influence, 0.0)
            result[:, kind, ..., 0] = some.sum(axis=1)
            result[:, kind, ..., 1] = np.where(chosen, influence, -1.0).max(axis=1)
            result[:, kind, ..., 2] = np.where(chosen, influence, np.inf).min(axis=1)
            result[:, kind, ..., 3] = (some**2).sum(axis=1)
            result[:, kind, ..., 4] = result[:, kind, ..., 0] / np.maximum(counts[:, kind], 1)[:, None, None]
            result[counts[:, kind] == 0, kind, ..., 2] = -1.0
        statistics = np.round(result, 9).transpose(0, 2, 1, 3, 4).reshape(m, -1)
        exists = pairs > 0
        nearest = np.where(exists.any(axis=2), t.distances_angstrom[exists.argmax(axis=2)], ABSENT_ANGSTROM)
        return np.hstack([counts, sizes[:, None], counts / sizes[:, None], statistics, nearest])
