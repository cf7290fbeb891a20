"""The language model inside a search: edits judged alike in all images, proposals to begin with, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from tiny_model import tiny_generator, tiny_model_dir

from defectgen.core import Configuration, get_host
from defectgen.core.symmetry import site_permutations
from defectgen.design.edit_moves import Edits
from defectgen.design.landscape import Account, crowded_model, edits_of
from defectgen.design.limits import Limits, Space
from defectgen.design.model_guide import ModelGuide
from defectgen.design.model_proposer import ModelProposer
from defectgen.design.proposers import Ask, Budget, Proposal
from defectgen.design.search import DRAWN_SHARE, SearchProposer
from defectgen.design.tree_search import PER_JUDGED, SparingPrior
from defectgen.errors import UsageError
from defectgen.llm.decode.generator import Sampling
from defectgen.llm.likelihood import Text, log_likelihoods
from defectgen.score.surrogate import Surrogate
from defectgen.tasks.defect.defect_task import DefectTask

__all__ = ["tiny_generator", "tiny_model_dir"]

HOST, VALUES = get_host("MoS2"), {"homo_ev": 0.6, "lumo_ev": 1.2}
SPACE = Space.of(HOST, Limits(5, 12), 12)


@cache
def surrogate() -> Surrogate:
    return Surrogate.load()


def edits() -> Edits:
    return edits_of(SPACE, crowded_model(surrogate(), HOST, tuple(VALUES)))


def model(generator: Any, encoding: str = "edits") -> ModelProposer:
    sampling = Sampling(temperature=1.0)
    return ModelProposer(generator, DefectTask(encoding), 5, 12, (), sampling, properties=frozenset(VALUES))


def test_an_edit_is_as_likely_in_every_image(tiny_generator: Any) -> None:
    some, rng = edits(), np.random.default_rng(1)
    prior = ModelGuide(model(tiny_generator)).prior(Ask(VALUES, 1, 0), some)
    assert prior is not None
    kind_of = some.draw(rng)
    permutation = site_permutations(HOST)[500]
    image = np.empty_like(kind_of)
    image[permutation] = kind_of
    table, other = prior([kind_of, image])
    # operations that leave the decoration alone are rare; here there is none, so that each site has one image
    assert other[permutation] == pytest.approx(table, abs=2e-3)
    assert np.isfinite(table[some.options]).all(), "whatever may be made, changed or left"
    assert np.isneginf(table).sum() == table.size - len(some.options[0])


def test_it_is_the_likelihood_behind_the_edits_of_earlier_sites(tiny_generator: Any) -> None:
    some = edits()
    item = Configuration.of(HOST, some.configuration(some.draw(np.random.default_rng(2))).edits).canonical()
    kinds = some.kinds_of(item)
    prior = ModelGuide(model(tiny_generator)).prior(Ask(VALUES, 1, 0), some)
    assert prior is not None
    assert kinds is not None
    [table] = prior([kinds])
    numbers = {(rule.element, rule.replacement): k for k, rule in enumerate(some.host.rules)}
    task = DefectTask()
    grammar = task.grammar(HOST, some.most + 1, min_defects=0)
    texts = [
        Text(task.prompt(HOST, VALUES), task.completion(Configuration.of(HOST, item.edits[:n])), grammar)
        for n in range(len(item.edits) + 1)
    ]
    judged = [found.nats for found in log_likelihoods(tiny_generator.model, tiny_generator.tokenizer, texts)]
    own = sum(table[site, numbers[HOST.site_element(site), new]] for site, new in item.edits)
    end = ModelGuide(model(tiny_generator)).prior(Ask({"homo_ev": 0.1}, 1, 0), some)
    assert end is not None
    assert own > judged[-1], "but for the end, which costs something"
    assert own == pytest.approx(judged[-1] - _end(tiny_generator, texts[-1]), abs=2e-3)
    assert not np.allclose(end([kinds])[0][some.options], table[some.options], atol=1e-2), "what is asked for counts"


def _end(generator: Any, text: Text) -> float:
    """The log-probability that nothing follows."""
    from defectgen.llm.alternatives import EditPlaces, piece_log_probabilities
    from defectgen.llm.decode.token_grammar import TokenGrammar
    from defectgen.tasks.grammar import END

    words = text.completion.split()
    pieces = tuple(f" {new} {site}" for new, site in zip(words[::2], words[1::2], strict=True))
    assert text.grammar is not None
    grammar = TokenGrammar(text.grammar, generator.tokenizer)
    wanted = (*(() for _ in pieces), (END,))
    [judged] = piece_log_probabilities(generator.model, grammar, [EditPlaces(text.prompt, pieces, wanted)])
    return float(judged[-1][0])


def test_a_search_begins_with_its_proposals_and_asks_it_for_edits(tiny_generator: Any) -> None:
    guide, ask = ModelGuide(model(tiny_generator), starts=3), Ask(VALUES, 4, 0)
    drawn = guide.drawn(HOST, ask)
    assert 1 <= len(drawn) <= 3
    asked: list[int] = []

    class Counting(ModelGuide):
        def prior(self, ask: Ask, edits: Edits) -> Any:
            inner = super().prior(ask, edits)
            assert inner is not None

            def counted(kinds: Any) -> Any:
                asked.append(len(kinds))
                return inner(kinds)

            return counted

    search = SearchProposer(SPACE, surrogate(), Budget(evaluations=3000))
    guided = replace(search, guide=Counting(guide.proposer, starts=3))
    found, again, plain = guided.find(ask), guided.find(ask), search.find(ask)
    assert sum(asked) > 0
    assert found.configurations == again.configurations
    assert found.configurations != plain.configurations
    assert ModelGuide(model(tiny_generator), starts=0).drawn(HOST, ask) == []


def test_a_prior_is_asked_for_what_the_budget_allows() -> None:
    now, asked = [0.0], []

    def slow(kinds: Any) -> list[Any]:
        asked.append(len(kinds))
        now[0] += 2.0 * len(kinds)
        return [np.zeros((1, 1)) for _ in kinds]

    def judged(budget: Budget, calls: int) -> list[int]:
        asked.clear()
        prior = SparingPrior(slow, Account(budget, clock=lambda: now[0]))
        given = [prior([np.zeros(1, dtype=np.int64)] * 4) for _ in range(calls)]
        assert all(len(tables) == 4 for tables in given)
        assert [sum(table is not None for table in tables) for tables in given if tables[0] is not None] == asked
        return list(asked)

    assert judged(Budget(evaluations=6 * PER_JUDGED), 3) == [4, 2], "so many structures for each"
    assert judged(Budget(seconds=10.0), 3) == [1, 4], "alone at first, then as many as there is time for"
    assert judged(Budget(seconds=7.0), 3) == [1, 2]
    assert judged(Budget(seconds=3.0), 3) == [1]


def test_proposals_are_drawn_while_there_is_time() -> None:
    now, each_s = [0.0], [0.0]
    sizes: list[int] = []

    class Drawing:
        def propose(self, _: Any, asks: Any) -> Any:
            sizes.append(asks[0].n)
            now[0] += each_s[min(len(sizes), len(each_s)) - 1] * asks[0].n
            for k in range(asks[0].n):
                yield Proposal(0, Configuration.of(HOST, [(len(sizes) * 20 + k, HOST.allowed[1][0])]).canonical())

    guide: Any = ModelGuide(Drawing(), starts=9, has_prior=False)  # type: ignore[arg-type]

    def drawn(seconds: float | None, *each: float) -> tuple[list[int], float]:
        """Sizes of the batches and the seconds that they took, by those of a proposal in each batch."""
        sizes.clear()
        began, each_s[:] = now[0], each
        budget = Budget(evaluations=3000) if seconds is None else Budget(seconds=seconds)
        guide.drawn(HOST, Ask(VALUES, 1, 0), Account(budget, clock=lambda: now[0]).seconds_for(DRAWN_SHARE))
        return list(sizes), now[0] - began

    assert drawn(20.0, 1.0) == ([1, 2, 1], 4.0), "a fifth of the budget, and no second more"
    assert drawn(20.0, 3.0) == ([1], 3.0), "another one would not fit"
    assert drawn(20.0, 30.0) == ([1], 30.0), "the first is drawn whatever it takes"
    assert drawn(20.0, 1.5, 0.5) == ([1, 1, 2, 2], 4.0), "by what the last batch took: the first one warms up"
    assert drawn(60.0, 0.5) == ([1, 2, 4, 2], 4.5)
    assert drawn(60.0, 0.0) == ([1, 2, 4, 2], 0.0)
    assert drawn(None, 1.0) == ([9], 9.0)


def test_models_that_cannot_guide_are_refused(tiny_generator: Any) -> None:
    with pytest.raises(UsageError, match="writes symbols, and the search reads edits"):
        ModelGuide(model(tiny_generator, "symbols"))
    with pytest.raises(UsageError, match="does not tell the search how likely edits are"):
        ModelGuide(model(object()))
    ModelGuide(model(object(), "symbols"), has_prior=False)
