"""A plain training loop for LoRA adapters on one GPU: token budgets, a learning rate set from outside, one file out.

`defectgen finetune` is the way to train with checkpoints and resuming; here a run has seconds, not steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from peft.helpers import disable_input_dtype_casting

from defectgen.llm.loading import out_of_memory
from defectgen.llm.output_layer import OutputLayer
from defectgen.llm.tokens import ANCHORS, piece_ids
from defectgen.llm.train.trainer import completion_losses

Example = tuple[Sequence[int], Sequence[int], float]
"""Tokens of a prompt, tokens of its completion with the end, and the weight of the record."""

ROUND = 8
"""Rows are padded to a multiple of so many tokens."""


class RecordTokens:
    """Tokens of many records: texts that are alike are split once, the others all together."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.eos = int(tokenizer.eos_token_id)

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of prompts, as `defectgen.llm.tokens.prompt_ids` gives them."""
        distinct = list(dict.fromkeys(texts))
        ids = self.tokenizer(distinct, return_attention_mask=False).input_ids if distinct else []
        known = dict(zip(distinct, ids, strict=True))
        return [known[text] for text in texts]

    def texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of any completions, as `defectgen.llm.tokens.piece_ids` gives them, with the end."""
        anchor = list(self.tokenizer(ANCHORS[0], add_special_tokens=False).input_ids)
        anchored = [ANCHORS[0] + text for text in texts]
        options = {"add_special_tokens": False, "return_attention_mask": False}
        rows = self.tokenizer(anchored, **options).input_ids if texts else []
        return [
            [*(row[len(anchor) :] if row[: len(anchor)] == anchor else piece_ids(self.tokenizer, text)), self.eos]
            for row, text in zip(rows, texts, strict=True)
        ]


class LoraRun:
    """LoRA weights in training on a frozen base model.

    On a GPU the base is in bfloat16 and the LoRA weights in 32 bits under autocast; on a processor all is in 32 bits.

    Attributes:
        model: of peft, with the LoRA weights.
        tokenizer: of the base.
        steps: optimizer steps so far.
    """

    def __init__(
        self, base: Any, tokenizer: Any, rank: int, alpha: float, *, learning_rate: float = 1e-3,
        tokens_at_once: int = 8192, clip: float = 1.0,
    ) -> None:  # fmt: skip
        """LoRA weights for all linear layers of a causal model that is loaded already.

        Args:
            base: the model.
            tokenizer: of the model.
            rank: of the updates.
            alpha: updates are multiplied by alpha / rank.
            learning_rate: of AdamW.
            tokens_at_once: of one forward pass, padding included; halved where memory runs out.
            clip: largest norm of the gradient.
        """
        self.tokenizer, self.clip, self.tokens_at_once = tokenizer, clip, tokens_at_once
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")
        self.model = get_peft_model(base, config)
        self.weights = {n: w for n, w in self.model.named_parameters() if w.requires_grad}
        self.device = next(iter(self.weights.values())).device
        self.head = OutputLayer(self.model.get_base_model())
        self.optimizer = torch.optim.AdamW(
            self.weights.values(), lr=learning_rate, weight_decay=0.0, fused=self.device.type == "cuda"
        )
        self.steps = 0

    @property
    def causal(self) -> Any:
        """The causal model that holds the LoRA layers."""
        return self.model.get_base_model()

    def autocast(self) -> AbstractContextManager[Any]:
        """The arithmetic of forward passes; for losses of one's own too."""
        stack = ExitStack()
        stack.enter_context(disable_input_dtype_casting(self.model))
        stack.enter_context(torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"))
        return stack

    def step(self, batch: Sequence[Example]) -> torch.Tensor:
        """One optimizer step on records.

        The loss is the sum over records of weight times the negative log-likelihood of the completion, divided by
        the tokens of all completions: with weights of 1 the mean over tokens.

        Returns:
            The loss in nats a token, on the device, shape ().
        """
        self.model.train()
        total = sum(len(completion) for _, completion, _ in batch)
        with self.autocast():
            loss = self._accumulate(batch, total)
        self.update()
        return loss

    def _accumulate(self, batch: Sequence[Example], total: int) -> torch.Tensor:
        """Gradients of a batch, pass by pass; cut anew where memory runs out."""
        while True:
            loss = torch.zeros((), device=self.device)
            try:
                for part in self.passes(batch):
                    share = self.losses(part).sum() / total
                    share.backward()
                    loss += share.detach()
                return loss
            except RuntimeError as error:
                if not out_of_memory(error) or self.tokens_at_once < 2 * ROUND:
                    raise
            self.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            self.tokens_at_once //= 2

    def update(self) -> None:
        """An optimizer step on the gradients at hand, which are clipped before and gone after it."""
        torch.nn.utils.clip_grad_norm_(self.weights.values(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1

    def passes(self, batch: Sequence[Example]) -> Iterator[list[Example]]:
        """Records of similar length, so many that a pass has at most `tokens_at_once` with the padding."""
        part: list[Example] = []
        for example in sorted(batch, key=lambda x: len(x[0]) + len(x[1])):
            width = _padded(len(example[0]) + len(example[1]))  # the longest so far
            if part and (len(part) + 1) * width > self.tokens_at_once:
                yield part
                part = []
            part.append(example)
        if part:
            yield part

    def losses(self, part: Sequence[Example]) -> torch.Tensor:
        """Weighted cross entropies of the tokens of completions, in nats, in one pass, shape (tokens,)."""
        width = _padded(max(len(prompt) + len(completion) for prompt, completion, _ in part))
        ids = np.zeros((len(part), width), dtype=np.int64)
        wanted = np.zeros((len(part), width), dtype=bool)
        for row, (prompt, completion, _) in enumerate(part):
            end = len(prompt) + len(completion)
            ids[row, : len(prompt)], ids[row, len(prompt) : end] = prompt, completion
            wanted[row, len(prompt) : end] = True
        places = np.flatnonzero(np.roll(wanted, -1, axis=1))  # a prompt has a token, so nothing wraps
        targets = torch.from_numpy(ids[wanted]).to(self.device)
        weights = np.repeat([weight for *_, weight in part], wanted.sum(axis=1)).astype(np.float32)
        inputs = torch.from_numpy(ids).to(self.device, non_blocking=True)
        hidden = self.causal.base_model(input_ids=inputs, use_cache=False).last_hidden_state
        chosen = hidden.flatten(0, 1)[torch.from_numpy(places).to(self.device)]
        return completion_losses(chosen, targets, self.head) * torch.from_numpy(weights).to(self.device)


def cosine(share: float, warmup: float = 0.03) -> float:
    """Share of the peak learning rate after this share of a run: a rise, then a cosine to 0."""
    if share < warmup:
        return share / warmup
    return 0.5 * (1 + math.cos(math.pi * min((share - warmup) / (1 - warmup), 1.0)))


def _padded(tokens: int) -> int:
    return -(-tokens // ROUND) * ROUND
