"""Crowded cells around what searches find for levels over the whole range, for a language model to learn from."""

from __future__ import annotations

import numpy as np
import polars as pl

from defectgen.core import Configuration, Host, canonicalize
from defectgen.core.hosts import common_title
from defectgen.design.landscape import crowded_model, edits_of
from defectgen.design.limits import Limits, Space
from defectgen.design.proposers import Ask, Budget
from defectgen.design.search import SearchProposer
from defectgen.design.seeds import seed_for
from defectgen.errors import UsageError
from defectgen.score.protocol import Scorer
from defectgen.tasks.defect.defect_task import LEVEL_PAIR

SEARCHED = Budget(evaluations=1500)
"""For each pair of levels."""

NEAREST, NEIGHBOURS = 8, 24
"""Structures of each search, and neighbours of these."""

FRUITLESS = 20
"""Searches in a row that may find nothing new."""


def searched_cells(
    host: Host, rows: pl.DataFrame, scorer: Scorer, count: int, taken: set[str], seed: int
) -> list[Configuration]:
    """Structures that searches found for HOMO and LUMO anywhere in the range of labelled ones, and neighbours of them.

    Random structures crowd where most arrangements are; levels at the ends of the range are hardly among them.

    Args:
        host: of the set.
        rows: its labelled structures, whose levels and numbers of defects bound the search.
        scorer: what the searches go by.
        count: structures wanted.
        taken: canonical keys that are left out.
        seed: of levels and searches.

    Returns:
        Canonical and distinct, `count` of them.

    Raises:
        UsageError: no row has both levels, or the searches find nothing new.
    """
    known = rows.drop_nulls(LEVEL_PAIR)
    if known.is_empty():
        raise UsageError(f"no labelled structure of {common_title(host)} has HOMO and LUMO.", "Leave out --around.")
    sizes = rows["n_defects"].to_list()
    space = Space.of(host, Limits(min(sizes), max(sizes)), max(sizes))
    edits = edits_of(space, crowded_model(scorer, host, LEVEL_PAIR))
    proposer, rng = SearchProposer(space, scorer, SEARCHED), np.random.default_rng(seed)
    homos, lumos = (known[column].to_numpy() for column in LEVEL_PAIR)
    found: dict[str, Configuration] = {}
    fruitless, number = 0, 0
    while len(found) < count:
        homo = rng.uniform(homos.min(), homos.max())
        lumo = rng.uniform(max(homo, lumos.min()), max(homo, lumos.max()))
        ask = Ask(dict(zip(LEVEL_PAIR, (homo, lumo), strict=True)), NEAREST, seed_for(seed, "searched", str(number)))
        nearest = list(proposer.find(ask).configurations)
        near = list(nearest)
        for item in nearest:
            kinds = edits.kinds_of(item)
            if kinds is None:
                continue
            moves = edits.block(kinds, rng, NEIGHBOURS // NEAREST)
            near += [edits.configuration(moves.applied(kinds, row)) for row in range(len(moves))]
        before, number = len(found), number + 1
        found |= {item.key: item for item in canonicalize(near) if item.key not in taken}
        fruitless = 0 if len(found) > before else fruitless + 1
        if fruitless == FRUITLESS:
            raise UsageError(
                f"found only {len(found)} new structures around searches in {common_title(host)}.",
                f"Give --around {len(found)} or less." if found else "Leave out --around.",
            )
    return list(found.values())[:count]
