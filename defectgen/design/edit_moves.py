"""Edits of a decoration that stay within limits: swap, move, add, remove, change."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from defectgen.core import Configuration, Host
from defectgen.core.hosts import common_title
from defectgen.core.symmetry import site_permutations
from defectgen.design.limits import Space
from defectgen.errors import UsageError
from defectgen.score.surrogate.features import pair_orbits
from defectgen.score.surrogate.incremental import Moves

Indices = NDArray[np.int64]

SHARES = {"move": 0.4, "change": 0.15, "swap": 0.2, "add": 0.15, "remove": 0.1}
"""How often each edit is tried."""

TRIES = 20
"""Kinds of edits that are tried until one can be made, and crossings until one is within the limits."""


@dataclass(frozen=True, eq=False)
class Edits:
    """The edits of a host's decorations that a space leaves.

    Attributes:
        space: what is allowed.
        host: the host whose rules number the kinds of defects; its sites are those of the space's.
        least: fewest defects, as a scorer and the space have it.
        most: most defects, likewise.
        lows: fewest defects of each kind, shape (n_kinds,).
        highs: most of each kind, shape (n_kinds,).
    """

    space: Space
    host: Host
    least: int
    most: int
    lows: Indices
    highs: Indices

    @cached_property
    def options(self) -> tuple[Indices, Indices]:
        """All (site, kind) pairs that may be made, as two arrays; with a side one image of it is enough."""
        sites, kinds = [], []
        for site in map(int, np.flatnonzero(self._on_side)):
            for kind, rule in enumerate(self.host.rules):
                if self.highs[kind] > 0 and rule.element == self.host.site_element(site):
                    sites.append(site)
                    kinds.append(kind)
        return np.array(sites, dtype=np.int64), np.array(kinds, dtype=np.int64)

    @cached_property
    def _on_side(self) -> NDArray[np.bool_]:
        """Sites of the wanted side, of its images the one that the edits stay in, shape (n_sites,); else all."""
        if self.space.side is None:
            return np.ones(self.host.n_sites, dtype=bool)
        side = self.space.sides[0]
        return np.array([self.host.site_cell(site)[0] in side for site in range(self.host.n_sites)])

    @cached_property
    def _too_near(self) -> NDArray[np.bool_] | None:
        """Pairs of sites that may not both be changed, shape (n_sites, n_sites); None without a least distance."""
        if self.space.least_distance_angstrom <= 0:
            return None
        orbits = pair_orbits(self.host)
        near = np.append(orbits.distances_angstrom < self.space.least_distance_angstrom - 1e-6, False)
        return near[orbits.table]

    @cached_property
    def _elements(self) -> Indices:
        """A number for the element of each site, shape (n_sites,)."""
        return np.array([self.host.elements.index(element) for element in self.host.site_elements], dtype=np.int64)

    def within(self, kind_of: Indices) -> bool:
        """Whether a decoration is within the limits; `kind_of` each site is -1 without a defect."""
        sites = np.flatnonzero(kind_of >= 0)
        counts = np.bincount(kind_of[sites], minlength=len(self.lows))
        if not self.least <= len(sites) <= self.most or (counts < self.lows).any() or (counts > self.highs).any():
            return False
        if self._too_near is not None and self._too_near[np.ix_(sites, sites)].any():
            return False
        return bool(self._on_side[sites].all())

    def kinds_of(self, configuration: Configuration) -> Indices | None:
        """Kind on each site, -1 without a defect; None for a configuration beyond the limits or rules.

        With a side it is the image on which the edits are.
        """
        kinds = {(rule.element, rule.replacement): k for k, rule in enumerate(self.host.rules)}
        found = np.full(self.host.n_sites, -1, dtype=np.int64)
        for site, species in configuration.edits:
            kind = kinds.get((self.host.site_element(site), species))
            if kind is None:
                return None
            found[site] = kind
        if not self._on_side[found >= 0].all():
            images = site_permutations(self.host)
            fits = np.flatnonzero(self._on_side[images[:, found >= 0]].all(axis=1))
            if not len(fits):
                return None
            image = np.full_like(found, -1)
            image[images[fits[0]]] = found
            found = image
        return found if self.within(found) else None

    def configuration(self, kind_of: Indices) -> Configuration:
        """The decoration of the space's host with these kinds."""
        sites = np.flatnonzero(kind_of >= 0)
        return Configuration.of(self.space.host, [(int(s), self.host.rules[kind_of[s]].replacement) for s in sites])

    def draw(self, rng: np.random.Generator) -> Indices:
        """A random decoration within the limits.

        Raises:
            UsageError: none was found.
        """
        for _ in range(50 * TRIES):
            found = self._grown(rng)
            if found is not None:
                return found
        raise UsageError(
            f"no decoration of {common_title(self.host)} within these limits was found.",
            "Allow fewer defects, or a smaller distance.",
        )

    def _grown(self, rng: np.random.Generator) -> Indices | None:
        """Defects added one by one, first those that there have to be."""
        found = np.full(self.host.n_sites, -1, dtype=np.int64)
        wanted = int(rng.integers(self.least, self.most + 1))
        for _ in range(self.most):
            counts = np.bincount(found[found >= 0], minlength=len(self.lows))
            if counts.sum() >= max(wanted, int(self.lows.sum())):
                break
            short = counts < self.lows
            sites, kinds = self._free(found, counts, np.array([], dtype=np.int64))
            if short.any():
                sites, kinds = sites[short[kinds]], kinds[short[kinds]]
            if not len(sites):
                return None
            chosen = int(rng.integers(len(sites)))
            found[sites[chosen]] = kinds[chosen]
        return found if self.within(found) else None

    def _free(self, kind_of: Indices, counts: Indices, leaving: Indices) -> tuple[Indices, Indices]:
        """What may be added once the defects on some sites have left."""
        sites, kinds = self.options
        left = counts.copy()
        np.subtract.at(left, kind_of[leaving], 1)
        # of those that leave, the kinds that there have to be come back
        short = left < self.lows
        fits = (kind_of[sites] < 0) & (left < self.highs)[kinds]
        if short.any():
            fits &= short[kinds]
        if self._too_near is not None:
            staying = np.setdiff1d(np.flatnonzero(kind_of >= 0), leaving)
            fits &= ~self._too_near[np.ix_(sites, staying)].any(axis=1)
        return sites[fits], kinds[fits]

    def block(self, kind_of: Indices, rng: np.random.Generator, size: int) -> Moves:
        """Up to so many edits of one decoration, of one sort; none where nothing can be done."""
        names, shares = list(SHARES), np.array(list(SHARES.values()))
        for _ in range(TRIES):
            moves = self._edits(str(rng.choice(names, p=shares / shares.sum())), kind_of, rng)
            if len(moves):
                chosen = rng.permutation(len(moves))[:size]
                return Moves(moves.removed[chosen], moves.added[chosen], moves.kinds[chosen])
        return Moves.of([])

    def _edits(self, name: str, kind_of: Indices, rng: np.random.Generator) -> Moves:
        own = np.flatnonzero(kind_of >= 0)
        counts = np.bincount(kind_of[own], minlength=len(self.lows))
        if name == "add":
            if len(own) >= self.most:
                return Moves.of([])
            return _moves((), self._free(kind_of, counts, own[:0]))
        if not len(own):
            return Moves.of([])
        if name == "remove":
            gone = own[counts[kind_of[own]] > self.lows[kind_of[own]]]
            if len(own) <= self.least:
                gone = own[:0]
            return Moves.of([((int(site),), ()) for site in gone])
        site = int(rng.choice(own))
        if name == "move":
            return _moves((site,), self._free(kind_of, counts, np.array([site])))
        if name == "change":
            return self._changes(kind_of, counts)
        alike = own[(self._elements[own] == self._elements[site]) & (kind_of[own] != kind_of[site])]
        kind = int(kind_of[site])
        return Moves.of([((site, int(o)), ((site, int(kind_of[o])), (int(o), kind))) for o in alike])

    def _changes(self, kind_of: Indices, counts: Indices) -> Moves:
        """Each defect as another kind."""
        sites, kinds = self.options
        old = kind_of[sites]
        fits = (old >= 0) & (old != kinds) & (counts < self.highs)[kinds]
        fits &= (counts > self.lows)[old]
        sites, kinds = sites[fits], kinds[fits]
        return Moves.of([((int(s),), ((int(s), int(k)),)) for s, k in zip(sites, kinds, strict=True)])

    def crossed(self, first: Indices, second: Indices, rng: np.random.Generator) -> Indices | None:
        """Half of the cell as in one decoration, the other half as in another; None if that is beyond the limits."""
        frac = self.host.site_frac_coords
        for _ in range(TRIES):
            direction = [(1, 0), (0, 1), (1, 1), (1, -1)][int(rng.integers(4))]
            place = (frac[:, :2] @ np.array(direction) + rng.random()) % 1.0
            child = np.where(place < rng.uniform(0.25, 0.75), first, second)
            if self.within(child):
                return child
        return None


def _moves(removed: tuple[int, ...], added: tuple[Indices, Indices]) -> Moves:
    sites, kinds = added
    none = np.full((len(sites), 2), -1, dtype=np.int64)
    gone, new, new_kinds = none.copy(), none.copy(), np.zeros_like(none)
    gone[:, : len(removed)] = removed
    new[:, 0], new_kinds[:, 0] = sites, kinds
    return Moves(gone, new, new_kinds)
