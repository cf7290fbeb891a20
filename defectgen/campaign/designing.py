"""A campaign as what a design looks things up in: its host, its model, its results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from defectgen.campaign.campaign_model import CampaignModel
from defectgen.campaign.folder import Campaign
from defectgen.campaign.learning import load_model
from defectgen.campaign.store import DONE
from defectgen.core import Host
from defectgen.design.ranking import Labels
from defectgen.errors import UsageError
from defectgen.one_line import OneLine


@dataclass(frozen=True, repr=False)
class Knowledge(OneLine):
    """What a campaign knows.

    Attributes:
        host: the pristine supercell with the defects that are allowed.
        model: predicts.
        labels: computed values by canonical key and column.
        labels_by: what computed them: ``DFT``, or a potential by its name.
        max_defects: most defects in a cell.
    """

    host: Host
    model: CampaignModel
    labels: Labels
    labels_by: str
    max_defects: int


def knowledge_of(folder: Path | str) -> Knowledge:
    """What the campaign in a folder knows, for `defectgen.design.request.DesignRequest`.

    Raises:
        UsageError: no campaign there, or one that has learnt nothing.
        DefectgenError: it is damaged.
    """
    campaign = Campaign.open(folder)
    model = load_model(campaign)
    if model is None:
        raise UsageError(
            f"{folder} has learnt nothing yet.", f"Give it results, then: defectgen campaign learn {folder}"
        )
    labels = {row.key: dict(row.computed) for row in campaign.store.rows() if row.state == DONE}
    return Knowledge(campaign.host, model, labels, _computed_by(campaign), campaign.config.max_defects)


def _computed_by(campaign: Campaign) -> str:
    """``DFT``, or the campaign's calculator of ASE by its name, without its package."""
    config = campaign.config
    return config.settings.ase.calculator.rpartition(":")[2] if config.engine == "ase" else "DFT"
