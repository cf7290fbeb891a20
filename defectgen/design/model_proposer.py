"""The language model as a proposer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from defectgen.core.host import Host
from defectgen.design.limits import Space
from defectgen.design.proposers import Ask, Proposal
from defectgen.llm.decode.generator import Generator, Request, Sampling
from defectgen.one_line import OneLine
from defectgen.tasks.defect.defect_task import DefectTask


@dataclass(frozen=True, repr=False)
class ModelProposer(OneLine):
    """The language model under the grammar of valid completions.

    Attributes:
        generator: the engine.
        task: prompts and completions.
        min_defects: fewest defects in a proposal.
        max_defects: most defects in a proposal.
        kinds: kinds of defects to make; empty for any.
        sampling: how tokens are drawn.
        space: if given, what is outside it is no proposal: the grammar knows numbers and kinds only.
        properties: columns that prompts may state; None for all.
    """

    generator: Generator
    task: DefectTask
    min_defects: int
    max_defects: int
    kinds: tuple[str, ...]
    sampling: Sampling
    space: Space | None = None
    properties: frozenset[str] | None = None

    def propose(self, host: Host, asks: Sequence[Ask]) -> Iterator[Proposal]:
        """See `defectgen.design.proposers.Proposer`."""
        grammar = self.task.grammar(host, self.max_defects, min_defects=self.min_defects, kinds=self.kinds)
        plain = self.task.prompt(host, {}, self.kinds)
        requests = []
        for ask in asks:
            values = {c: v for c, v in ask.values.items() if self.properties is None or c in self.properties}
            requests.append(Request(self.task.prompt(host, values, self.kinds), grammar, ask.n, ask.seed, plain))
        for completion in self.generator.generate(requests, self.sampling):
            configuration = self.task.parse(host, completion.text)
            if self.space is not None and not self.space.admits(configuration):
                yield Proposal(completion.request, None, "outside the limits")
            else:
                yield Proposal(completion.request, configuration.canonical())
