"""A plain training loop for LoRA adapters on one GPU: token budgets, a learning rate set from outside, one file out.

`defectgen finetune` is the way to train with checkpoints and resuming; here a run has seconds, not steps.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.helpers import disable_input_dtype_casting
from safetensors.torch import load_file, save_file

from defectgen.llm.adapter import LORA_CONFIG, WEIGHTS, read_lora
from defectgen.llm.loading import load_base, out_of_memory
from defectgen.llm.output_layer import OutputLayer
from defectgen.llm.tokens import ANCHORS, piece_ids
from defectgen.llm.train.trainer import completion_losses

RUN = "run.json"
"""Beside the weights: what the adapter's card says of the run."""

Example = tuple[Sequence[int], Sequence[int], float]
"""Tokens of a prompt, tokens of its completion with the end, and the weight of the record."""

ROUND = 8
"""Rows are padded to a multiple of so many tokens."""


class RecordTokens:
    """Tokens of many records: texts that are alike are split once, the others all together."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.eos = int(tokenizer.eos_token_id)
        self._pieces: dict[str, list[int]] = {}

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of prompts, as `defectgen.llm.tokens.prompt_ids` gives them."""
        distinct = list(dict.fromkeys(texts))
        ids = self.tokenizer(distinct, return_attention_mask=False).input_ids if distinct else []
        known = dict(zip(distinct, ids, strict=True))
        return [known[text] for text in texts]

    def edits(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of lists of edits, e.g. `` VAC A00 Se B14``, with the end."""
        found = []
        for text in texts:
            ids: list[int] = []
            for piece in re.findall(r" \S+ \S+", text):
                if piece not in self._pieces:
                    self._pieces[piece] = piece_ids(self.tokenizer, piece)
                ids += self._pieces[piece]
            found.append([*ids, self.eos])
        return found

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
        records_seen: records so far.
    """

    def __init__(
        self,
        base_folder: str | Path,
        rank: int,
        alpha: float,
        device: str,
        initial_adapter: Path | None = None,
        *,
        learning_rate: float = 1e-3,
        targets: str | list[str] = "all-linear",
        tokens_at_once: int = 24_576,
        clip: float = 1.0,
        seed: int = 42,
    ) -> None:
        """Load the base model.

        Args:
            base_folder: of the base model, see `defectgen.llm.base.base_model_path`.
            rank: of the updates.
            alpha: updates are multiplied by alpha / rank.
            device: ``cuda`` or ``cpu``.
            initial_adapter: folder of an adapter to go on from, of this rank or a smaller one.
            learning_rate: until `set_lr`.
            targets: weight matrices that get an update.
            tokens_at_once: of one forward pass, padding included; halved where memory runs out.
            clip: largest norm of the gradient.
            seed: of the start of the LoRA weights.
        """
        torch.manual_seed(seed)
        cuda = device.startswith("cuda")
        base, self.tokenizer, _ = load_base(str(base_folder), "bfloat16" if cuda else "float32", place=False)
        self._start(base.to(device), rank, alpha, targets, learning_rate, tokens_at_once, clip)
        if initial_adapter is not None:
            self.load(initial_adapter)

    @classmethod
    def of(
        cls, base: Any, tokenizer: Any, rank: int, alpha: float, *, learning_rate: float = 1e-3,
        targets: str | list[str] = "all-linear", tokens_at_once: int = 24_576, clip: float = 1.0,
    ) -> LoraRun:  # fmt: skip
        """A run on a causal model that is loaded already."""
        run = cls.__new__(cls)
        run.tokenizer = tokenizer
        run._start(base, rank, alpha, targets, learning_rate, tokens_at_once, clip)
        return run

    def _start(
        self, base: Any, rank: int, alpha: float, targets: Any, learning_rate: float, tokens_at_once: int, clip: float
    ) -> None:
        self.rank, self.alpha, self.targets, self.clip = rank, alpha, targets, clip
        self.tokens_at_once = tokens_at_once
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, task_type="CAUSAL_LM")
        self.model = get_peft_model(base, config)
        self.weights = {n: w for n, w in self.model.named_parameters() if w.requires_grad}
        self.device = next(iter(self.weights.values())).device
        self.head = OutputLayer(self.model.get_base_model())
        self.optimizer = torch.optim.AdamW(
            self.weights.values(), lr=learning_rate, weight_decay=0.0, fused=self.device.type == "cuda"
        )
        self.steps = self.records_seen = 0
        self._sampling: Any = None

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

    def set_lr(self, learning_rate: float) -> None:
        """Of the steps from here on."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

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
        self.records_seen += len(batch)
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

    @torch.no_grad()
    def evaluate(self, examples: Sequence[Example]) -> float:
        """Mean loss in nats a token of completions."""
        self.model.eval()
        tokens = sum(len(completion) for _, completion, _ in examples)
        with self.autocast():
            return float(sum(self.losses(part).sum() for part in self.passes(examples)) / tokens)

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

    @torch.inference_mode(False)
    @torch.no_grad()
    def sampling_model(self) -> Any:
        """A plain causal model with the updates of now in its weights, for `TensorSampler`; made once, then refreshed.

        The base weights are never changed, so that nothing is lost to rounding from one refresh to the next.
        """
        layers = {n: m for n, m in self.causal.named_modules() if hasattr(m, "lora_A") and hasattr(m, "base_layer")}
        if self._sampling is None:
            plain = copy.deepcopy(self.model).unload()
            plain.requires_grad_(False)
            self._sampling = plain.eval()
        for name, layer in layers.items():
            base = layer.base_layer.weight
            change = layer.lora_B["default"].weight.float() @ layer.lora_A["default"].weight.float()
            merged = base.float() + change * (self.alpha / self.rank)
            self._sampling.get_submodule(name).weight.copy_(merged.to(base.dtype))
        return self._sampling

    def state(self) -> dict[str, torch.Tensor]:
        """A copy of the LoRA weights, for `restore`."""
        return {name: weight.detach().clone() for name, weight in self.weights.items()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put back the weights that `state` gave."""
        for name, weight in self.weights.items():
            weight.copy_(state[name])

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Take the updates of an adapter of this rank or a smaller one."""
        rank, alpha = read_lora(folder)
        factor = alpha / rank / (self.alpha / self.rank)
        found = load_file(folder / WEIGHTS)
        if rank > self.rank or len(found) != len(self.weights):
            raise SystemExit(f"{folder}: got rank {rank} and {len(found)} matrices, expected at most {self.rank} and "
                             f"{len(self.weights)}")  # fmt: skip
        for name, weight in self.weights.items():
            known = found[name.replace(".default.", ".")].to(weight)
            if ".lora_B." in name:
                weight.zero_()
                weight[:, :rank] = known * factor
            else:
                weight[:rank] = known

    def save(self, folder: Path, card_fields: Mapping[str, Any]) -> None:
        """Write weights in bfloat16, the configuration of the adapter, and what its card is made of later.

        Args:
            folder: of the adapter.
            card_fields: figures of the run; rank, alpha, steps and records seen are added.
        """
        folder.mkdir(parents=True, exist_ok=True)
        state = get_peft_model_state_dict(self.model, save_embedding_layers=False)
        weights = {key: weight.detach().to("cpu", torch.bfloat16).contiguous() for key, weight in state.items()}
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
        config = self.model.peft_config["default"]
        before, config.inference_mode = config.inference_mode, True
        config.save_pretrained(str(folder))
        config.inference_mode = before
        values = json.loads((folder / LORA_CONFIG).read_text(encoding="utf-8"))
        values["base_model_name_or_path"] = None  # the card names it
        if isinstance(values["target_modules"], list):
            values["target_modules"].sort()
        (folder / LORA_CONFIG).write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        run = {"rank": self.rank, "alpha": self.alpha, "targets": self.targets, "steps": self.steps,
               "records_seen": self.records_seen}  # fmt: skip
        (folder / RUN).write_text(json.dumps(run | dict(card_fields), indent=1) + "\n", encoding="utf-8")


def cosine(share: float, warmup: float = 0.03) -> float:
    """Share of the peak learning rate after this share of a run: a rise, then a cosine to 0."""
    if share < warmup:
        return share / warmup
    return 0.5 * (1 + math.cos(math.pi * min((share - warmup) / (1 - warmup), 1.0)))


def _padded(tokens: int) -> int:
    return -(-tokens // ROUND) * ROUND
