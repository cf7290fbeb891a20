"""A proposer: what the enumeration gives, in its order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import defectgen as dg
from defectgen.design.proposers import Ask, Proposal, ProposerEntry, ProposerOptions


@dataclass(frozen=True)
class InOrder:
    """Proposes the first structures up to a number of defects."""

    most: int

    def propose(self, host: dg.Host, asks: Sequence[Ask]) -> Iterator[Proposal]:
        for index, ask in enumerate(asks):
            found = dg.enumerate(host, max_defects=self.most)
            yield from (Proposal(index, item) for item, _ in zip(found, range(ask.n), strict=False))


def make(options: ProposerOptions) -> InOrder:
    return InOrder(options.limits.max_defects or 1)


IN_ORDER = ProposerEntry("what the enumeration gives", make, repeats=False)
