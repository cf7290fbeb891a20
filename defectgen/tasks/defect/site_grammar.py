"""What a model may write as the defects of a host: lists of edits, or the species of every site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import cast

from defectgen.core.host import VACANCY, Host
from defectgen.tasks.grammar import END, State


@dataclass(frozen=True)
class EditsGrammar:
    """Lists of edits such as `` VAC A00 Se B14``: sites ascending, so each at most once.

    Attributes:
        host: the supercell whose sites may change.
        max_defects: largest number of edits.
        min_defects: smallest number of edits.
        allowed: species for each basis atom.
    """

    host: Host
    max_defects: int
    min_defects: int
    allowed: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        _check_range(self.host, self.min_defects, self.max_defects, self.allowed)

    @cached_property
    def _edits(self) -> tuple[tuple[int, str], ...]:
        """Every possible edit as (site, piece), in the order of the sites."""
        return tuple(
            (site, f" {species} {self.host.site_name(site)}")
            for site in range(self.host.n_sites)
            for species in self.allowed[self.host.site_cell(site)[0]]
        )

    @property
    def start(self) -> State:
        return (0, -1)

    def choices(self, state: State) -> Mapping[str, State]:
        count, last = cast(tuple[int, int], state)
        pieces: dict[str, State] = {}
        if count < self.max_defects:
            latest = self._latest_site(self.min_defects - count - 1)
            pieces = {piece: (count + 1, site) for site, piece in self._edits if last < site <= latest}
        if count >= self.min_defects:
            pieces[END] = None
        return pieces

    def _latest_site(self, still_needed: int) -> int:
        """The last site after which `still_needed` more edits fit."""
        sites = sorted({site for site, _ in self._edits})
        return sites[len(sites) - 1 - max(still_needed, 0)]


@dataclass(frozen=True)
class SitesGrammar:
    """One entry a site in the host's order: the symbol, and in the `crystal` encoding its line.

    Attributes:
        host: the supercell whose sites may change.
        max_defects: largest number of changed sites.
        min_defects: smallest number of changed sites.
        allowed: species for each basis atom.
        tails: text that follows each symbol, one a site: empty, or the coordinates of the line.
    """

    host: Host
    max_defects: int
    min_defects: int
    allowed: tuple[tuple[str, ...], ...]
    tails: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_range(self.host, self.min_defects, self.max_defects, self.allowed)

    @cached_property
    def _changeable_from(self) -> tuple[int, ...]:
        """For each site how many sites from it on may change."""
        counts = [0]
        for site in reversed(range(self.host.n_sites)):
            counts.append(counts[-1] + bool(self.allowed[self.host.site_cell(site)[0]]))
        return tuple(reversed(counts))

    @property
    def start(self) -> State:
        return (0, 0)

    def choices(self, state: State) -> Mapping[str, State]:
        site, count = cast(tuple[int, int], state)
        if site == self.host.n_sites:
            return {END: None}
        pieces: dict[str, State] = {}
        if count + self._changeable_from[site + 1] >= self.min_defects:
            pieces[self._piece(site, self.host.site_element(site))] = (site + 1, count)
        if count < self.max_defects:
            for species in self.allowed[self.host.site_cell(site)[0]]:
                pieces[self._piece(site, species)] = (site + 1, count + 1)
        return pieces

    def _piece(self, site: int, species: str) -> str:
        return f"{'' if self.tails[site] else ' '}{species}{self.tails[site]}"


def allowed_for_kinds(host: Host, kinds: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The host's allowed species, restricted to kinds: ``vacancy``, ``substitution`` or both; none means both."""
    if not kinds:
        return host.allowed
    return tuple(
        tuple(s for s in allowed if ("vacancy" if s == VACANCY else "substitution") in kinds)
        for allowed in host.allowed
    )


def _check_range(host: Host, least: int, most: int, allowed: tuple[tuple[str, ...], ...]) -> None:
    changeable = sum(bool(species) for species in allowed) * host.supercell[0] * host.supercell[1]
    if not 0 <= least <= most <= changeable:
        raise ValueError(f"got {most} defects, expected {max(least, 1)} to {changeable} in {host.name} {host.size}")
