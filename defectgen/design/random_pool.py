"""One pool of random decorations for all targets of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from defectgen.core.configuration import canonicalize
from defectgen.core.host import Host
from defectgen.core.hosts import common_title
from defectgen.design.limits import Space
from defectgen.design.proposers import POOL, Ask, Proposal, ProposerOptions
from defectgen.design.seeds import seed_for
from defectgen.errors import UsageError
from defectgen.tasks.defect.site_grammar import allowed_for_kinds


@dataclass(frozen=True)
class RandomPool:
    """One pool of random decorations for all asks.

    Attributes:
        space: what they are drawn from.
        count: structures in the pool.
        seed: of the pool.
    """

    space: Space
    count: int
    seed: int

    def propose(self, host: Host, asks: Sequence[Ask]) -> Iterator[Proposal]:
        """See `defectgen.design.proposers.Proposer`."""
        if not asks:
            return
        rng = np.random.default_rng(seed_for(self.seed, host.name, "random"))
        drawn = canonicalize([self.space.draw(rng) for _ in range(self.count)])
        yield from (Proposal(None, item) for item in drawn)


def random_proposer(options: ProposerOptions) -> RandomPool:
    """The pool that options describe.

    Raises:
        UsageError: no number of defects that the host has sites for.
    """
    host, limits = options.host, options.limits
    changeable = sum(bool(allowed) for allowed in allowed_for_kinds(host, limits.kinds)) * host.n_sites // host.n_basis
    most = limits.max_defects or options.most
    if most is None or most > changeable:
        raise UsageError(
            f"got at most {most or 'any number of'} defects for random structures of {common_title(host)}, expected "
            f"1 to {changeable}.",
            "Give --max-defects (max_defects=).",
        )
    return RandomPool(options.space, POOL if options.pool is None else options.pool, options.seed)
