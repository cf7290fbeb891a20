"""Labelled structures as proposals: what DFT was done for already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from defectgen.core import Configuration, Host
from defectgen.core.hosts import common_title
from defectgen.design.limits import Space
from defectgen.design.proposers import Ask, Proposal, ProposerOptions
from defectgen.design.ranking import Labels
from defectgen.errors import UsageError
from defectgen.one_line import OneLine


@dataclass(frozen=True, repr=False)
class KnownProposer(OneLine):
    """Every labelled structure within the limits, once, for all asks.

    Attributes:
        labels: by canonical key.
        space: what the limits leave.
    """

    labels: Labels
    space: Space

    def propose(self, host: Host, asks: Sequence[Ask]) -> Iterator[Proposal]:
        """See `defectgen.design.proposers.Proposer`."""
        for key in sorted(self.labels) if asks else ():
            item = Configuration.from_key(host, key)
            if self.space.admits(item):
                yield Proposal(None, item)


def known_proposer(options: ProposerOptions) -> KnownProposer:
    """The labelled structures that options describe.

    Raises:
        UsageError: the host has none.
    """
    if not options.labels:
        host = options.host
        raise UsageError(
            f"no labelled structures of {common_title(host)} are known.", "Use --proposer exhaustive or random."
        )
    return KnownProposer(options.labels, options.space)
