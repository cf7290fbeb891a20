"""Instruction records as tokens, ready for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import Dataset

from defectgen.errors import UsageError
from defectgen.llm.tokens import piece_ids, prompt_ids

IGNORED = -100
"""Label of a token that carries no loss."""

Record = TypeVar("Record")


def drawn(records: Sequence[Record], count: int, seed: int) -> list[Record]:
    """Up to `count` of the records, drawn at random and in their order: files are sorted by set."""
    if len(records) <= count:
        return list(records)
    places = np.random.default_rng(seed).choice(len(records), count, replace=False)
    return [records[k] for k in sorted(places.tolist())]


class CompletionDataset(Dataset[dict[str, list[int]]]):
    """Records as tokens; only the completion and the end of the text carry a loss."""

    def __init__(
        self, records: Sequence[Mapping[str, Any]], tokenizer: Any, max_length: int, context: int | None = None
    ) -> None:
        """Split the records into tokens.

        Args:
            records: with ``prompt`` and ``completion``.
            tokenizer: of the base model.
            max_length: longest record that the run allows, in tokens.
            context: most tokens that the base model was made for, if it says.

        Raises:
            UsageError: a longer record, or one that the tokenizer cannot write.
        """
        self.examples: list[dict[str, list[int]]] = []
        for record in records:
            prompt = prompt_ids(tokenizer, record["prompt"])
            try:
                completion = [*piece_ids(tokenizer, record["completion"]), tokenizer.eos_token_id]
            except ValueError as error:
                raise UsageError(f"record {record.get('id')}: {error}.", "Choose another base model.") from error
            length = len(prompt) + len(completion)
            if context is not None and length > context:
                part = "the prompt alone" if len(prompt) > context else "the record"
                raise UsageError(
                    f"record {record.get('id')} has {length} tokens ({len(prompt)} in the prompt); {part} is longer "
                    f"than the base model's context of {context}.",
                    "Build the data with --encoding edits, or choose a base model with a longer context.",
                )
            if length > max_length:
                raise UsageError(
                    f"record {record.get('id')} has {length} tokens, max_length is {max_length}.",
                    f"Set max_length={length} or more, or build the data with --encoding edits.",
                )
            self.examples.append({"input_ids": prompt + completion, "labels": [IGNORED] * len(prompt) + completion})

    @property
    def completion_tokens(self) -> int:
        """Tokens that carry a loss."""
        return sum(label != IGNORED for example in self.examples for label in example["labels"])

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.examples[index]


def collate(examples: list[dict[str, list[int]]], pad: int) -> dict[str, torch.Tensor]:
    """Pad on the right: under causal attention nothing that counts sees the padding, so no mask is needed."""
    width = max(len(example["input_ids"]) for example in examples)
    ids = torch.full((len(examples), width), pad)
    labels = torch.full((len(examples), width), IGNORED)
    for row, example in enumerate(examples):
        ids[row, : len(example["input_ids"])] = torch.tensor(example["input_ids"])
        labels[row, : len(example["labels"])] = torch.tensor(example["labels"])
    return {"input_ids": ids, "labels": labels}
