"""Cells with values, and what the language model is shown of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from learner import ENCODING

from defectgen.core.configuration import Configuration, Edit
from defectgen.core.host import VACANCY, Host
from defectgen.core.symmetry import site_group
from defectgen.llm.tokens import piece_ids
from defectgen.tasks.defect.encodings import KINDS, get_encoding

ASKED = ("homo_ev", "lumo_ev", "band_gap_ev", "formation_energy_ev", "fermi_level_ev")
PAIR_SHARE, KINDS_SHARE, PLAIN_SHARE = 0.75, 0.1, 0.03
"""Records that ask for HOMO and LUMO alone, name kinds of defects, and ask for nothing."""


@dataclass(frozen=True, eq=False)
class Cells:
    """Configurations of one host with values.

    Attributes:
        host: number of the host.
        edits: of each, in the order of the sites.
        values: `ASKED` in eV, NaN where unknown, shape (n, 5).
    """

    host: int
    edits: list[tuple[Edit, ...]]
    values: np.ndarray


def canonical(host: Host, sites: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest images of configurations; sites and codes of species are padded with -1."""
    found = np.full(sites.shape, -1, dtype=np.int16), np.full(sites.shape, -1, dtype=np.int16)
    sizes = (sites >= 0).sum(axis=1)
    for size in np.unique(sizes[sizes > 0]):
        rows = np.flatnonzero(sizes == size)
        order = np.argsort(sites[rows, :size], axis=1)
        images = site_group(host).smallest_images(
            np.take_along_axis(sites[rows, :size], order, 1).astype(np.int64),
            np.take_along_axis(codes[rows, :size], order, 1).astype(np.int64),
        )
        found[0][rows, :size], found[1][rows, :size] = images.sites, images.codes
    return found


def species_of(host: Host) -> list[str]:
    """What the codes of a host stand for."""
    return sorted({rule.replacement for rule in host.rules})


def edits_of(host: Host, sites: np.ndarray, codes: np.ndarray) -> list[tuple[Edit, ...]]:
    """Padded sites and codes as edits."""
    names = species_of(host)
    return [
        tuple((site, names[code]) for site, code in zip(ours, kinds, strict=True) if site >= 0)
        for ours, kinds in zip(sites.tolist(), codes.tolist(), strict=True)
    ]


def draw(
    host: Host, counts: np.ndarray, rng: np.random.Generator, n: int, least: int, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Random crowded cells in canonical form: half with the numbers of a labelled cell's defects, half with any.

    Args:
        host: what is decorated.
        counts: of each rule of the host in labelled cells, shape (cells, rules).
        rng: of the draws.
        n: how many.
        least: smallest number of defects.
        most: largest number of defects.

    Returns:
        Sites and codes, each of shape (n, most).
    """
    rules, names = tuple(sorted(host.rules)), species_of(host)
    of_element = {e: [s for s, found in host.sites() if found == e] for e in host.elements}
    sites, codes = np.full((n, most), -1), np.zeros((n, most), dtype=int)
    for row in range(n):
        if row % 2:
            wanted = counts[rng.integers(len(counts))]
        else:
            shares = rng.dirichlet(np.ones(len(rules)))
            wanted = rng.multinomial(rng.integers(least, most + 1), shares)
        place = 0
        for element, its_sites in of_element.items():
            mine = [
                names.index(r.replacement)
                for r, w in zip(rules, wanted, strict=True)
                if r.element == element
                for _ in range(w)
            ]
            mine = mine[: len(its_sites)]
            sites[row, place : place + len(mine)] = rng.choice(its_sites, len(mine), replace=False)
            codes[row, place : place + len(mine)] = mine
            place += len(mine)
    return canonical(host, sites, codes)


class Records:
    """Prompts and completions as tokens, drawn anew for each batch. A grammar has the number of its host."""

    def __init__(self, cells: list[tuple[Cells, np.ndarray]], hosts: Sequence[Host], tokenizer: Any):
        self.hosts, self.tokenizer = hosts, tokenizer
        self.items = [(c.host, edits, row) for c, _ in cells for edits, row in zip(c.edits, c.values, strict=True)]
        weights = np.concatenate([w for _, w in cells])
        self.weights = weights / weights.sum()
        self._pieces: dict[str, list[int]] = {}
        self.eos = int(tokenizer.eos_token_id)

    def completion(self, host: int, edits: Sequence[Edit]) -> list[int]:
        """Token ids with the end."""
        text = get_encoding(ENCODING).completion(Configuration(self.hosts[host], tuple(edits)))
        ids: list[int] = []
        for word in text.split():
            if word not in self._pieces:
                self._pieces[word] = piece_ids(self.tokenizer, f" {word}")
            ids += self._pieces[word]
        return [*ids, self.eos]

    def prompt(self, host: int, edits: Sequence[Edit], row: np.ndarray, rng: np.random.Generator) -> str:
        """A random subset of what is known, as the task draws it."""
        known = [k for k in range(len(ASKED)) if not np.isnan(row[k])]
        chosen: list[int] = []
        if rng.random() >= PLAIN_SHARE and known:
            if rng.random() < PAIR_SHARE and known[:2] == [0, 1]:
                chosen = [0, 1]
            else:
                odds = 1.0 / np.arange(1, len(known) + 1)
                size = int(rng.choice(len(known), p=odds / odds.sum())) + 1
                chosen = sorted(rng.choice(known, size, replace=False).tolist())
        made = {"vacancy" if species == VACANCY else "substitution" for _, species in edits}
        words = tuple(kind for kind in KINDS if kind in made) if rng.random() < KINDS_SHARE else ()
        return get_encoding(ENCODING).prompt(self.hosts[host], {ASKED[k]: float(row[k]) for k in chosen}, words)

    def batch(self, size: int, rng: np.random.Generator) -> tuple[list[list[int]], list[int], list[list[int]]]:
        """Token ids of prompts, grammars, and token ids of completions, the shorter first."""
        drawn = [self.items[k] for k in rng.choice(len(self.items), size, p=self.weights)]
        drawn.sort(key=lambda item: len(item[1]))
        prompts = self.tokenizer([self.prompt(*item, rng) for item in drawn]).input_ids
        return prompts, [h for h, _, _ in drawn], [self.completion(h, e) for h, e, _ in drawn]
