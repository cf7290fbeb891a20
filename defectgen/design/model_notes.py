"""What a language model leaves out of what is wanted of it."""

from __future__ import annotations

from collections.abc import Collection

from defectgen.core.properties import BY_COLUMN
from defectgen.design.mix import LLM
from defectgen.design.request import DesignRequest
from defectgen.llm.adapter import AdapterCard

GUIDED_SEARCH = "llm-search"
"""The search with a language model in it."""

PRIOR_ENCODING = "edits"
"""The encoding in which the next piece is the next edit, so that the model can be the prior of a tree."""


def model_notes(request: DesignRequest, card: AdapterCard, model: str, proposers: Collection[str]) -> list[str]:
    """A line for each wish that the language model is not told, and for a search that it cannot guide.

    Args:
        request: host and targets.
        card: of the adapter.
        model: its name.
        proposers: names of those that propose; without the language model among them there is nothing to say.
    """
    if not {LLM, GUIDED_SEARCH} & set(proposers):
        return []
    notes = []
    known = card.covered_ev.get(request.host.name, {})
    wanted = dict.fromkeys(column for target in request.targets for column, _ in target.values)
    if unknown := [BY_COLUMN[column].title for column in wanted if column not in known]:
        notes.append(f"the language model {model} was not trained on {', '.join(unknown)}: it proposes without it.")
    if GUIDED_SEARCH in proposers and card.encoding != PRIOR_ENCODING:
        notes.append(
            f"the language model {model} writes {card.encoding}, not {PRIOR_ENCODING}: llm-search begins with its "
            "proposals, and its tree goes without the model's prior."
        )
    return notes
