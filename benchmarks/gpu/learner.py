"""The language model in training, its proposals for wishes, and what they are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from composition_tables import CompositionTables
from passes import Losses
from plain_llama import PlainLlama
from sampler import Sampler

from defectgen.core.configuration import Edit
from defectgen.core.host import Host
from defectgen.llm.loading import load_base
from defectgen.score.network.ensemble import Network
from defectgen.tasks.defect.composition_grammar import CompositionGrammar
from defectgen.tasks.defect.encodings import get_encoding

ENCODING = "composition"
PROMPT_TOKENS = 96
"""Room for the longest prompt."""


class Learner:
    """The language model in training: losses under the grammar, steps, and proposals."""

    def __init__(self, base: Path, rank: int, device: str, toy: bool, grammars: Sequence[CompositionGrammar]) -> None:
        causal, self.tokenizer, _ = load_base(str(base), "bfloat16" if device == "cuda" else "float32")
        causal.requires_grad_(False)
        self.tables = CompositionTables.of(grammars, self.tokenizer, device)
        self.device = device
        self.model = PlainLlama(causal, self.tables.tokens, rank, 2.0 * rank)
        pool = torch.cuda.graph_pool_handle() if device == "cuda" else None
        self.losses = Losses(self.model, self.tables, PROMPT_TOKENS + self.tables.longest, 600 if toy else 7_680, pool)
        hosts = {grammar.host for grammar in grammars}
        asked = [get_encoding(ENCODING).prompt(h, {"homo_ev": -0.888, "lumo_ev": -0.888}) for h in hosts]
        width = max(len(self.tokenizer(text).input_ids) for text in asked)
        self.sampler = Sampler(self.model, self.tables, self.tokenizer, 16 if toy else 4096, width, pool)
        self.optimizer = torch.optim.AdamW(self.model.trained, lr=1e-3, weight_decay=0.0, betas=(0.9, 0.98))

    def update(self, rate: float) -> None:
        """An optimizer step on the gradients at hand, which are clipped before and zero after it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.nn.utils.clip_grad_norm_(self.model.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)

    def state(self) -> list[torch.Tensor]:
        """A copy of the weights in training."""
        return [weight.detach().clone() for weight in self.model.trained]

    @torch.no_grad()
    def restore(self, state: Sequence[torch.Tensor]) -> None:
        """Put back what `state` gave."""
        for weight, value in zip(self.model.trained, state, strict=True):
            weight.copy_(value)


@dataclass(frozen=True)
class Wish:
    """HOMO and LUMO wanted in one host, in eV."""

    host: int
    homo: float
    lumo: float


class Bench:
    """Draws proposals for wishes and judges them."""

    def __init__(self, hosts: Sequence[Host], learner: Learner) -> None:
        self.hosts, self.learner = hosts, learner

    def sample(self, wishes: Sequence[Wish], n: int, temperature: float, seed: int) -> tuple[list[Wish], Any]:
        """`n` proposals for each wish, one wish after the other."""
        asked = [wish for wish in wishes for _ in range(n)]
        prompts = self.learner.tokenizer([self.text(wish) for wish in asked]).input_ids
        found = self.learner.sampler.sample(prompts, [wish.host for wish in asked], temperature, seed)
        return asked, found

    def text(self, wish: Wish) -> str:
        return get_encoding(ENCODING).prompt(self.hosts[wish.host], {"homo_ev": wish.homo, "lumo_ev": wish.lumo})

    def outputs(
        self, judge: Network, hosts: Sequence[int], edits: Sequence[Sequence[Edit]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """HOMO and LUMO by a judge and the spread of its members, each of shape (n, 2)."""
        values, spread = np.full((len(edits), 2), np.nan), np.zeros((len(edits), 2))
        numbers = np.asarray(hosts)
        for host in np.unique(numbers):
            rows = np.flatnonzero(numbers == host)
            outputs = judge.outputs(judge.rows(self.hosts[host], [edits[k] for k in rows]), 2048)
            mean = outputs.mean(axis=0)
            homo, lumo = outputs[..., 0:2].max(-1), (outputs[..., 0:2] + outputs[..., 2:4]).min(-1)
            values[rows, 0] = mean[:, 0:2].max(-1)
            values[rows, 1] = (mean[:, 0:2] + mean[:, 2:4]).min(-1)
            spread[rows] = np.stack([homo.std(axis=0), lumo.std(axis=0)], axis=1)
        return values, spread


def distances(wishes: Sequence[Wish], values: np.ndarray) -> np.ndarray:
    """|HOMO - wanted| + |LUMO - wanted| in eV, shape (n,)."""
    wanted = np.array([(w.homo, w.lumo) for w in wishes])
    return np.asarray(np.abs(values - wanted).sum(axis=1))


def rewards(wishes: Sequence[Wish], found: Any, values: np.ndarray, spread: np.ndarray, n: int) -> np.ndarray:
    """Advantage of each proposal within its wish: nearer is better, on a logarithmic scale, and repeats count less."""
    score = -np.log(distances(wishes, values) + 0.5 * spread.sum(axis=1) + 0.01)
    for first in range(0, len(wishes), n):
        seen: set[Any] = set()
        for k in range(first, first + n):
            score[k] -= 0.7 * (found.edits[k] in seen)
            seen.add(found.edits[k])
    groups = score.reshape(-1, n)
    return np.asarray(((groups - groups.mean(1, keepdims=True)) / (groups.std(1, keepdims=True) + 0.1)).reshape(-1))
