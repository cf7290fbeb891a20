"""Learning from pairs of proposals of which one was judged better: direct preference optimization."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from defectgen.errors import DefectgenError, UsageError
from defectgen.io.documents import read_json
from defectgen.io.files import write_text
from defectgen.llm.likelihood import Text, log_likelihoods
from defectgen.llm.train.dataset import IGNORED, CompletionDataset, collate
from defectgen.llm.train.finetune_config import FinetuneConfig
from defectgen.llm.train.trainer import CompletionTrainer

REJECTED = "rejected"
"""Field of a record with the worse completion; such records are pairs."""

REFERENCE = "reference.json"
"""In the folder of a run: how much likelier the better completion of each pair was before it."""


def are_pairs(records: Sequence[Mapping[str, Any]], config: FinetuneConfig) -> bool:
    """Whether training records are pairs of a better and a worse completion.

    Raises:
        UsageError: some are and some are not, or the run does not fit pairs: it has no adapter to improve, or its
            design metric asks for labels, of which pairs state none.
    """
    count = sum(REJECTED in record for record in records)
    if 0 < count < len(records):
        raise UsageError(f"{count} of {len(records)} training records are pairs.", "Train on one kind at a time.")
    if count and not config.initial_adapter:
        raise UsageError("got pairs of proposals to train on.", "Name the adapter to improve with --start-from.")
    if count and config.design.targets and config.design.scorer == "labels":
        raise UsageError("pairs of proposals have no labels for the design metric.", "Set design.scorer=surrogate.")
    return count > 0


class PairDataset(CompletionDataset):
    """Pairs as tokens: the better completion like any record, and beside it the worse one.

    Attributes:
        margins: log-likelihood of the better minus that of the worse completion before training, in nats, one a pair.
    """

    margins: Sequence[float]

    def __init__(
        self, records: Sequence[Mapping[str, Any]], tokenizer: Any, max_length: int, context: int | None = None
    ) -> None:
        """See `CompletionDataset`; the records have ``rejected`` too."""
        super().__init__(records, tokenizer, max_length, context)
        worse = [{**record, "completion": record[REJECTED]} for record in records]
        self.worse = CompletionDataset(worse, tokenizer, max_length, context).examples
        self.margins = [0.0] * len(records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.examples[index], REJECTED: self.worse[index], "margin": self.margins[index]}


def collate_pairs(examples: list[dict[str, Any]], pad: int) -> dict[str, torch.Tensor]:
    """Tokens and labels of shape (pairs, 2, width), the better completion first, and margins of shape (pairs,).

    What is not pairs, such as the records of the validation part, is collated as usual.
    """
    if REJECTED not in examples[0]:
        return collate(examples, pad)
    flat = collate([row for example in examples for row in (example, example[REJECTED])], pad)
    margins = torch.tensor([example["margin"] for example in examples])
    return {name: rows.view(len(examples), 2, -1) for name, rows in flat.items()} | {"margins": margins}


class PreferenceTrainer(CompletionTrainer):
    """Trains on pairs; validates on records as usual.

    The loss of a pair is -log sigmoid(beta * (margin - margin before training)) (Rafailov et al. 2023, doi
    10.48550/arXiv.2305.18290), plus `imitation` times the mean loss a token of the better completion, without which
    both completions of a pair may become less likely (Pang et al. 2024, doi 10.48550/arXiv.2404.19733).
    """

    def batch_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], tokens_in_step: torch.Tensor | int | None
    ) -> torch.Tensor:
        """See `CompletionTrainer.batch_loss`; of pairs the sum over them, divided by the pairs of the step."""
        if "margins" not in inputs:
            return super().batch_loss(model, inputs, tokens_in_step)
        ids, labels = (inputs[name].flatten(0, 1) for name in ("input_ids", "labels"))
        losses = self.token_losses(model, ids, labels)
        counts = (labels[:, 1:] != IGNORED).sum(dim=1)
        rows = torch.arange(len(labels), device=losses.device).repeat_interleave(counts)
        nats = -torch.zeros(len(labels), device=losses.device).index_add(0, rows, losses).view(-1, 2)
        gained = nats[:, 0] - nats[:, 1] - inputs["margins"]
        imitation = -nats[:, 0] / counts.view(-1, 2)[:, 0]
        settings = self.plan.preference
        loss = torch.nn.functional.softplus(-settings.beta * gained) + settings.imitation * imitation
        return loss.sum() / (self.plan.records_per_step / self.args.world_size)


def reference_margins(model: Any, tokenizer: Any, records: Sequence[Mapping[str, Any]], output: Path) -> list[float]:
    """How much likelier a model finds the better completion of each pair, in nats.

    Computed once a run: kept in the run's folder, so that a resumed run compares with the same start.

    Args:
        model: causal language model, as training starts.
        tokenizer: of the model.
        records: the pairs.
        output: folder of the run.
    """
    path = output / REFERENCE
    if path.is_file():
        known = read_json(path)
        if not isinstance(known, list) or not all(isinstance(value, float) for value in known):
            raise DefectgenError(f"{path} is damaged.", "Remove it: it is computed again.")
        if len(known) == len(records):
            return known
    texts = [Text(record["prompt"], record[name]) for record in records for name in ("completion", REJECTED)]
    model.eval()
    nats = [judged.nats for judged in log_likelihoods(model, tokenizer, texts)]
    margins = [better - worse for better, worse in zip(nats[::2], nats[1::2], strict=True)]
    write_text(path, json.dumps(margins))
    return margins
