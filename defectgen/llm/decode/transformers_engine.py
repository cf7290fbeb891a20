"""Constrained generation: every completion is valid, and only real choices cost a decoding step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from defectgen.errors import DefectgenError, UsageError
from defectgen.llm.adapter import AdapterCard, check_adapter_files, read_adapter
from defectgen.llm.adapter_weights import merged
from defectgen.llm.decode.attention import share_keys
from defectgen.llm.decode.generator import Completion, Request, Sampling, pick
from defectgen.llm.decode.kv_cache import growing_cache
from defectgen.llm.decode.token_grammar import Cursor, TokenGrammar
from defectgen.llm.loading import ONE_PLACE, Placement, context_length, load_base, out_of_memory
from defectgen.llm.output_layer import OutputLayer
from defectgen.llm.tokens import prompt_ids
from defectgen.tasks.grammar import Grammar

STEP_COST_CPU, STEP_COST_GPU = 24, 4096
"""What a pass over the weights costs, in tokens of one row: reading them, and on a GPU starting the kernels."""

GRAMMARS = 32
"""Compiled grammars that are kept: some MB each."""


class TransformersGenerator:
    """Generation with transformers, on the GPU if there is one."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model.eval()
        share_keys(model)
        self.head = OutputLayer(model)
        self.context = context_length(model.config)
        self.step_cost = STEP_COST_CPU if model.device.type == "cpu" else STEP_COST_GPU
        self.tokenizer = tokenizer
        self._piece_tokens: dict[str, tuple[int, ...]] = {}
        self._grammars: dict[Grammar, TokenGrammar] = {}

    @classmethod
    def from_adapter(
        cls, folder: Path, dtype: str = "auto", *, allow_download: bool = False, placement: Placement = ONE_PLACE
    ) -> tuple[TransformersGenerator, AdapterCard]:
        """An engine for a trained adapter on its base model, and the adapter's card; see `load_generator`.

        Raises:
            DefectgenError: no adapter there, other prompts, or a base model that is missing or does not fit.
        """
        card = read_adapter(folder)
        check_adapter_files(folder)
        quantization, spread = placement.quantization, placement.spread
        model, tokenizer, _ = load_base(card.base_model, dtype, quantization, spread=spread, download=allow_download)
        return cls(merged(model, folder, card.base_model), tokenizer), card

    @classmethod
    def with_card(
        cls, folder: Path, card: AdapterCard, *, download: bool = False, placement: Placement = ONE_PLACE
    ) -> TransformersGenerator:
        """An engine for LoRA weights that have no card beside them.

        Args:
            folder: of the weights.
            card: see `defectgen.llm.foreign_adapter.foreign_card`.
            download: get the base model from the hub, if it is not on this machine.
            placement: of the weights.

        Raises:
            DefectgenError: weights that cannot be read or do not fit, or a base model that is missing.
        """
        quantization, spread = placement.quantization, placement.spread
        model, tokenizer, _ = load_base(card.base_model, "auto", quantization, spread=spread, download=download)
        return cls(merged(model, folder, card.base_model, has_card=False), tokenizer)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """See `Generator`.

        Raises:
            UsageError: guidance without a plain prompt, or a prompt that leaves no room in the model's context.
            DefectgenError: not even one completion fits in the memory.
        """
        if sampling.guidance != 1 and any(request.plain is None for request in requests):
            raise UsageError(f"got guidance {sampling.guidance}, but a request has no plain prompt to compare with.")
        self._check_room(requests)
        jobs = [(index, sample) for index, request in enumerate(requests) for sample in range(request.n)]
        size, first = sampling.batch_size, 0
        while first < len(jobs):
            try:
                done = self._batch(requests, jobs[first : first + size], sampling)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if size == 1:
                    raise DefectgenError(
                        "one completion does not fit in the memory.", "Take a smaller model."
                    ) from error
                size = (size + 1) // 2
                continue
            yield from done
            first += len(done)

    def _check_room(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._check_length(len(prompt_ids(self.tokenizer, request.prompt)) + 1)

    def _check_length(self, length: int) -> None:
        if self.context is not None and length > self.context:
            raise UsageError(
                f"prompt and completion have {length} tokens or more, the model's context holds {self.context}.",
                "Take an adapter of a shorter encoding, or a model with a longer context.",
            )

    def _compile(self, grammar: Grammar) -> TokenGrammar:
        if grammar not in self._grammars:
            if len(self._grammars) >= GRAMMARS:  # a search begins crystals in many ways
                self._grammars.clear()
            self._grammars[grammar] = TokenGrammar(grammar, self.tokenizer, self._piece_tokens)
        return self._grammars[grammar]

    @torch.inference_mode()
    def _batch(
        self, requests: Sequence[Request], jobs: Sequence[tuple[int, int]], sampling: Sampling
    ) -> list[Completion]:
        """Decode one batch: shared prompts once, then chunk by chunk of a choice and what it forces.

        A chunk that is much longer than the others is cut, and its row chooses again when it is through. With
        guidance each completion has two rows in the model, the asked-for prompts first.
        """
        device, guided = self.model.device, sampling.guidance != 1
        cursors = [self._compile(requests[index].grammar).start() for index, _ in jobs]
        rngs = [np.random.default_rng((requests[index].seed, sample)) for index, sample in jobs]
        likelihoods, steps = np.zeros(len(jobs)), np.zeros(len(jobs), dtype=int)
        asked = [requests[index].prompt for index, _ in jobs]
        plain = [requests[index].plain or "" for index, _ in jobs] if guided else []
        begun = list(zip(asked + plain, (tuple(c.pending) for c in cursors * (1 + guided)), strict=True))
        shared = {begin: row for row, begin in enumerate(dict.fromkeys(begun))}
        rows = torch.tensor([shared[begin] for begin in begun], device=device)
        chunks = [[*prompt_ids(self.tokenizer, prompt), *pending] for prompt, pending in shared]
        mask = torch.zeros((len(shared), 0), dtype=torch.long, device=device)
        hidden, cache, mask = self._forward(chunks, growing_cache(self.model.config), mask)
        hidden, mask = hidden[rows], mask[rows]
        cache.batch_select_indices(rows)
        active = list(range(len(jobs)))
        for cursor in cursors:
            cursor.pending.clear()
        while True:
            ready = [row for row, k in enumerate(active) if not cursors[k].pending]
            index = torch.tensor(ready + [len(active) + row for row in ready] * guided, device=device)
            choosing = [active[row] for row in ready]
            drawn = self._draw(hidden[index], [cursors[k] for k in choosing], [rngs[k] for k in choosing], sampling)
            for k, (token, log_probability) in zip(choosing, drawn, strict=True):
                cursors[k].choose(token)
                likelihoods[k] += log_probability
                steps[k] += 1
            kept = [row for row, k in enumerate(active) if not cursors[k].finished]
            if not kept:
                break
            if len(kept) < len(active):
                index = torch.tensor(kept + [len(active) + row for row in kept] * guided, device=device)
                cache.batch_select_indices(index)
                mask = mask[index]
                active = [active[row] for row in kept]
            width = best_width([len(cursors[k].pending) for k in active], self.step_cost)
            chunks = [cursors[k].pending[:width] for k in active]
            hidden, cache, mask = self._forward(chunks * (1 + guided), cache, mask)
            for k in active:
                del cursors[k].pending[:width]
        return [
            Completion(index, cursor.text, float(likelihoods[k]), int(steps[k]))
            for k, ((index, _), cursor) in enumerate(zip(jobs, cursors, strict=True))
        ]

    def _forward(self, chunks: Sequence[Sequence[int]], cache: Any, mask: torch.Tensor) -> tuple[Any, Any, Any]:
        """Run the model over one chunk a row, padded on the right and masked there.

        Returns:
            Hidden state of each row's last token, shape (rows, width); the cache; the mask over it.
        """
        device, width = self.model.device, max(len(chunk) for chunk in chunks)
        lengths = torch.tensor([len(chunk) for chunk in chunks], device=device)
        ids = torch.tensor([[*chunk, *[0] * (width - len(chunk))] for chunk in chunks], device=device)
        offsets = torch.arange(width, device=device)
        before = mask.sum(dim=1)
        self._check_length(int((before + lengths).max()))
        positions = before[:, None] + offsets
        mask = torch.cat([mask, (offsets < lengths[:, None]).long()], dim=1)
        output = self.model.base_model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        states = output.last_hidden_state.to(device)
        last = states[torch.arange(len(chunks), device=device), lengths - 1]
        return last, output.past_key_values, mask

    def _draw(
        self, hidden: torch.Tensor, cursors: Sequence[Cursor], rngs: Sequence[np.random.Generator], sampling: Sampling
    ) -> list[tuple[int, float]]:
        """A token for each cursor among those that its grammar allows, and its log-probability.

        `hidden` has one row a cursor, and with guidance as many more for the plain prompts.
        """
        allowed = [cursor.allowed for cursor in cursors]
        tokens = sorted({token for choices in allowed for token in choices})
        column = {token: k for k, token in enumerate(tokens)}
        logits = self.head(hidden, torch.tensor(tokens, device=hidden.device)).float().cpu().numpy().astype(np.float64)
        drawn = []
        for row, (cursor, choices, rng) in enumerate(zip(cursors, allowed, rngs, strict=True)):
            columns = [column[token] for token in choices]
            asked = guided = _normalized(logits[row, columns])
            if len(logits) > len(cursors):
                plain = _normalized(logits[len(cursors) + row, columns])
                guided = _normalized(plain + sampling.guidance * (asked - plain))
            k = pick(guided + np.array(cursor.weights), rng.random(), sampling, cursor.at_coordinate)
            drawn.append((choices[k], float(asked[k])))
        return drawn


def best_width(lengths: Sequence[int], step_cost: int) -> int:
    """Tokens of each row to process in one pass, where the rows have `lengths` left and shorter ones are padded.

    The width that gets most tokens done for its cost: `step_cost` and a token for each row and place.
    """
    counts = np.array(lengths)
    widths = np.unique(counts)
    done = np.minimum(counts, widths[:, None]).sum(axis=1)
    return int(widths[np.argmax(done / (step_cost + len(counts) * widths))])


def _normalized(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Log-probabilities in nats."""
    return np.asarray(scores - np.logaddexp.reduce(scores))
