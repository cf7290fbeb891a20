"""A campaign's model: trained on all its results, kept in its folder, its errors written down each time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from defectgen.campaign.campaign_model import FILE, Base, CampaignModel, learn
from defectgen.campaign.folder import MODEL, Campaign
from defectgen.campaign.store import DONE, StructureRow, table_of
from defectgen.campaign.transfer import Offset, base_values, offsets
from defectgen.errors import DefectgenError
from defectgen.io.documents import DocumentError, json_lines
from defectgen.io.files import write_text
from defectgen.one_line import OneLine

HISTORY = "history.jsonl"
"""One line each time that something was learnt: results, rounds, errors."""


@dataclass(frozen=True, repr=False)
class Learnt(OneLine):
    """What came out of learning.

    Attributes:
        model: the scorer.
        rounds: that results are of.
        offsets: of the computed values from 2DMD's, where the campaign started from it.
    """

    model: CampaignModel
    rounds: int
    offsets: tuple[Offset, ...]


def learn_campaign(campaign: Campaign, advance: Callable[[int], None] = lambda _: None) -> Learnt:
    """Train the model of a campaign on all its results, and write it down.

    Raises:
        DefectgenError: too few results.
    """
    done = [row for row in campaign.store.rows() if row.state == DONE]
    base: Base | None = base_values if campaign.config.start else None
    model = learn(
        [row.configuration for row in done], table_of(done), seed=campaign.config.seed, base=base, advance=advance
    )
    folder = campaign.folder / MODEL
    history = read_history(campaign)
    rounds = max((row.round for row in done), default=0)
    entry = {
        "results": len(done),
        "rounds": rounds,
        "cpu_s": round(sum(row.cpu_s for row in done), 1),
        "errors": {column: vars(judged) for column, judged in model.judged.items()},
    }
    kept = [item for item in history if item["results"] != len(done)]
    model.save(folder)
    write_text(folder / HISTORY, "".join(f"{json.dumps(item)}\n" for item in [*kept, entry]))
    return Learnt(model, rounds, tuple(offsets(done)) if campaign.config.start else ())


def load_model(campaign: Campaign) -> CampaignModel | None:
    """The model of a campaign; None before anything is learnt.

    Raises:
        DefectgenError: it is damaged.
    """
    folder = campaign.folder / MODEL
    if not (folder / FILE).is_file():
        return None
    return CampaignModel.load(folder, base_values if campaign.config.start else None)


def outdated(model: CampaignModel | None, rows: Sequence[StructureRow]) -> int:
    """How many results a model has not seen."""
    seen = set() if model is None else set(model.keys)
    return sum(row.state == DONE and row.key not in seen for row in rows)


def read_history(campaign: Campaign) -> list[dict[str, Any]]:
    """What was learnt before, oldest first.

    Raises:
        DefectgenError: the file is damaged.
    """
    path: Path = campaign.folder / MODEL / HISTORY
    if not path.is_file():
        return []
    try:
        return [item for _, item in json_lines(path)]
    except DocumentError as error:
        raise DefectgenError(str(error), "Remove it, and learn again.") from error
