"""A Llama in plain tensors whose passes are captured once and replayed: on a GPU a small model waits for launches.

The updates of LoRA are kept for all layers together and added to the weights at each pass, so that training and
sampling see the same numbers; nothing of the base model is changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from defectgen.llm.adapter import LORA_CONFIG, WEIGHTS
from defectgen.llm.decode.tensor_grammar import END_COLUMN, PAD, GrammarTables, Places, Samples

MATRICES = {
    "q_proj": "self_attn", "k_proj": "self_attn", "v_proj": "self_attn", "o_proj": "self_attn",
    "gate_proj": "mlp", "up_proj": "mlp", "down_proj": "mlp",
}  # fmt: skip


class PlainLlama:
    """Weights of a Llama of transformers, with updates of rank r for every matrix of every layer.

    Attributes:
        down: by matrix, shape (layers, r, in); `up`: shape (layers, out, r): the weights in training.
    """

    def __init__(self, causal: Any, tokens: Tensor, rank: int, alpha: float, seed: int = 0) -> None:
        """Copy the weights.

        Args:
            causal: a LlamaForCausalLM.
            tokens: ids that completions use, shape (M,).
            rank: of the updates.
            alpha: updates are multiplied by alpha / rank.
            seed: of the start.
        """
        config, layers = causal.config, causal.model.layers
        self.device, self.dtype = causal.device, causal.dtype
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps, self.scale, self.rank, self.alpha = config.rms_norm_eps, alpha / rank, rank, alpha
        self.n_layers = len(layers)
        self.embedding = causal.get_input_embeddings().weight.detach()
        self.whole_head = causal.get_output_embeddings().weight.detach()
        self.head = self.whole_head[tokens].float()
        self.base = {
            name: torch.stack([getattr(getattr(layer, part), name).weight.detach() for layer in layers])
            for name, part in MATRICES.items()
        }
        self.norms = [
            (layer.input_layernorm.weight.detach(), layer.post_attention_layernorm.weight.detach()) for layer in layers
        ]
        self.last_norm = causal.model.norm.weight.detach()
        parameters = getattr(config, "rope_parameters", None) or {}
        theta = parameters.get("rope_theta", getattr(config, "rope_theta", 10000.0))
        powers = torch.arange(0, self.head_dim, 2, device=self.device).float() / self.head_dim
        self.frequencies = 1.0 / theta**powers
        generator = torch.Generator(self.device).manual_seed(seed)
        self.down, self.up = {}, {}
        for name, weight in self.base.items():
            n_out, n_in = weight.shape[1:]
            start = torch.rand(self.n_layers, rank, n_in, generator=generator, device=self.device) * 2 - 1
            self.down[name] = (start * n_in**-0.5).requires_grad_()
            self.up[name] = torch.zeros(self.n_layers, n_out, rank, device=self.device).requires_grad_()

    @property
    def trained(self) -> list[Tensor]:
        """All weights in training."""
        return [*self.down.values(), *self.up.values()]

    def merged(self) -> dict[str, Tensor]:
        """The matrices with their updates."""
        return {
            name: torch.baddbmm(weight.float(), self.up[name], self.down[name], alpha=self.scale).to(self.dtype)
            for name, weight in self.base.items()
        }

    def rotations(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines for positions of shape (rows, tokens), each of shape (rows, 1, tokens, head_dim)."""
        angles = positions[:, None, :, None].float() * self.frequencies
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos().to(self.dtype), angles.sin().to(self.dtype)

    def hidden(
        self, ids: Tensor, positions: Tensor, weights: dict[str, Tensor],
        attend: Callable[[int, Tensor, Tensor, Tensor], Tensor],
    ) -> Tensor:  # fmt: skip
        """Last hidden states, shape (rows, tokens, width); `attend` gets layer, queries, keys and values."""
        layers = {name: weight.unbind(0) for name, weight in weights.items()}
        x = functional.embedding(ids, self.embedding)
        cos, sin = self.rotations(positions)
        rows, length = ids.shape
        for layer in range(self.n_layers):
            before, after = self.norms[layer]
            h = self._norm(x, before)
            q, k, v = (
                functional.linear(h, layers[name][layer]).view(rows, length, -1, self.head_dim).transpose(1, 2)
                for name in ("q_proj", "k_proj", "v_proj")
            )
            mixed = attend(layer, _rotate(q, cos, sin), _rotate(k, cos, sin), v)
            mixed = mixed.transpose(1, 2).reshape(rows, length, -1)
            x = x + functional.linear(mixed, layers["o_proj"][layer])
            h = self._norm(x, after)
            gate = functional.silu(functional.linear(h, layers["gate_proj"][layer]))
            x = x + functional.linear(gate * functional.linear(h, layers["up_proj"][layer]), layers["down_proj"][layer])
        return self._norm(x, self.last_norm)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        wide = x.float()
        return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)).to(self.dtype)

    def repeated(self, k: Tensor) -> Tensor:
        """Keys or values for all heads."""
        return k.repeat_interleave(self.heads // self.kv_heads, dim=1)

    def causal_attention(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Of whole texts that are padded on the right."""
        del layer
        return functional.scaled_dot_product_attention(q, self.repeated(k), self.repeated(v), is_causal=True)

    def scores(self, hidden: Tensor) -> Tensor:
        """Of the tokens in use, shape (..., M), in 32 bits."""
        return functional.linear(hidden.float(), self.head)

    def save(self, folder: Path, run: dict[str, Any]) -> None:
        """An adapter as peft reads it, and what its card is made of."""
        folder.mkdir(parents=True, exist_ok=True)
        prefix, found = "base_model.model.model.layers", {}
        for name, part in MATRICES.items():
            for layer in range(self.n_layers):
                for letter, weights in (("A", self.down), ("B", self.up)):
                    value = weights[name].detach()[layer].to("cpu", torch.bfloat16).contiguous()
                    found[f"{prefix}.{layer}.{part}.{name}.lora_{letter}.weight"] = value
        save_file(found, folder / WEIGHTS, metadata={"format": "pt"})
        from peft import LoraConfig

        targets = sorted(MATRICES)
        config = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, target_modules=targets, task_type="CAUSAL_LM", inference_mode=True
        )
        config.save_pretrained(str(folder))
        values = json.loads((folder / LORA_CONFIG).read_text(encoding="utf-8"))
        values["base_model_name_or_path"] = None
        values["target_modules"] = targets
        (folder / LORA_CONFIG).write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        about = {"rank": self.rank, "alpha": self.alpha, "targets": "all-linear"} | run
        (folder / "run.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin


def captured(body: Callable[[], None], pool: Any) -> Callable[[], None]:
    """A function of no arguments as a CUDA graph, or itself where capture fails."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            body()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, pool=pool):
            body()
    except RuntimeError as error:
        print(f"not captured, run piece by piece: {str(error).splitlines()[0]}", flush=True)
        torch.cuda.synchronize()
        return body
    return graph.replay


class Losses:
    """Gradients of constrained log-likelihoods, pass by pass, at a few fixed sizes."""

    def __init__(self, model: PlainLlama, tables: GrammarTables, longest: int, tokens: int, pool: Any = None) -> None:
        """Prepare.

        Args:
            model: in training.
            tables: grammars.
            longest: most tokens of a prompt with its completion.
            tokens: of one pass.
            pool: memory of CUDA graphs, shared.
        """
        self.model, self.tables, self.tokens, self.pool = model, tables, tokens, pool
        self.widths = sorted({min(longest, w) for w in (64, 96, 128, 160, longest)})
        self._passes: dict[int, tuple[dict[str, Tensor], Callable[[], None]]] = {}
        self._follower: tuple[dict[str, Tensor], Callable[[], None]] | None = None
        for weight in model.trained:
            weight.grad = torch.zeros_like(weight)

    def backward(
        self, prompts: Sequence[Sequence[int]], grammar: Sequence[int], completions: Sequence[Sequence[int]],
        weight: np.ndarray,
    ) -> Tensor:  # fmt: skip
        """Add the gradient of -sum(weight * log-likelihood); log-likelihoods in nats, shape (rows,)."""
        device, longest = self.model.device, self.tables.longest
        lengths = np.array([len(p) + len(c) for p, c in zip(prompts, completions, strict=True)])
        before = np.array([len(p) for p in prompts])
        ids = np.zeros((len(lengths), self.widths[-1]), dtype=np.int64)
        endings = np.full((len(lengths), longest), PAD, dtype=np.int64)
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            ids[row, : len(prompt)] = prompt
            ids[row, len(prompt) : lengths[row]] = completion
            endings[row, : len(completion)] = completion
        columns, allowed, slots, choices = self._follow(np.asarray(grammar), endings)
        whole = {
            "ids": torch.as_tensor(ids, device=device),
            "before": torch.as_tensor(before, device=device),
            "weight": torch.as_tensor(weight, dtype=torch.float32, device=device),
        }
        found = torch.zeros(len(lengths), device=device)
        at = np.searchsorted(self.widths, lengths)
        for k, width in enumerate(self.widths):
            mine = np.flatnonzero(at == k)
            rows, steps = max(1, self.tokens // width), min(width, longest)
            for first in range(0, len(mine), rows):
                part = torch.as_tensor(mine[first : first + rows], device=device)
                n = len(part)
                if width not in self._passes:
                    self._passes[width] = self._prepare(width, rows, steps, allowed.shape[2])
                buffers, run = self._passes[width]
                buffers["weight"].zero_()
                buffers["weight"][:n] = whole["weight"][part]
                buffers["ids"][:n] = whole["ids"][part, :width]
                buffers["before"][:n] = whole["before"][part]
                for name, values in (
                    ("columns", columns),
                    ("allowed", allowed),
                    ("slots", slots),
                    ("choices", choices),
                ):
                    buffers[name][:n] = values[part, :steps]
                run()
                found[part] = buffers["nats"][:n]
        return found

    def _follow(self, grammar: np.ndarray, endings: np.ndarray, rows: int = 512) -> tuple[Tensor, ...]:
        """`GrammarTables.along` in one replay, and which tokens were real choices."""
        device, tables = self.model.device, self.tables
        if self._follower is None:
            width = tables.columns.shape[1] + 1
            shape = (rows, tables.longest)
            held = {
                "grammar": torch.zeros(rows, dtype=torch.long, device=device),
                "endings": torch.full(shape, PAD, dtype=torch.long, device=device),
                "columns": torch.zeros((*shape, width), dtype=torch.long, device=device),
                "allowed": torch.zeros((*shape, width), dtype=torch.bool, device=device),
                "slots": torch.zeros(shape, dtype=torch.long, device=device),
            }

            def body() -> None:
                written = tables.column_of[held["endings"].clamp(min=0)]
                written = torch.where(held["endings"] == PAD, END_COLUMN, written)
                places = tables.start(held["grammar"])
                for step in range(tables.longest):
                    columns, allowed = tables.allowed(places)
                    taken = (allowed & (columns == written[:, step, None])).int().argmax(dim=1)
                    held["columns"][:, step] = columns
                    held["allowed"][:, step] = allowed
                    held["slots"][:, step] = taken
                    places, _ = tables.advance(places, taken)

            with torch.no_grad():
                self._follower = held, captured(body, self.pool) if device.type == "cuda" else body
        held, run = self._follower
        parts = []
        for first in range(0, len(grammar), rows):
            n = min(rows, len(grammar) - first)
            held["grammar"][:n] = torch.as_tensor(grammar[first : first + n], device=device)
            held["endings"][:n] = torch.as_tensor(endings[first : first + n], device=device)
            with torch.no_grad():
                run()
            choices = (held["allowed"][:n].sum(dim=2) > 1) & (held["endings"][:n] != PAD)
            parts.append((held["columns"][:n].clone(), held["allowed"][:n].clone(), held["slots"][:n].clone(), choices))
        return tuple(torch.cat(values) for values in zip(*parts, strict=True))

    def _prepare(self, width: int, rows: int, steps: int, slots: int) -> tuple[dict[str, Tensor], Callable[[], None]]:
        device = self.model.device
        shape = (rows, steps)
        buffers = {
            "ids": torch.zeros((rows, width), dtype=torch.long, device=device),
            "before": torch.ones(rows, dtype=torch.long, device=device),
            "columns": torch.zeros((*shape, slots), dtype=torch.long, device=device),
            "allowed": torch.ones((*shape, slots), dtype=torch.bool, device=device),
            "slots": torch.zeros(shape, dtype=torch.long, device=device),
            "choices": torch.zeros(shape, dtype=torch.bool, device=device),
            "weight": torch.zeros(rows, device=device),
            "nats": torch.zeros(rows, device=device),
        }
        positions = torch.arange(width, device=device).expand(rows, width)
        order = torch.arange(steps, device=device)

        def body() -> None:
            hidden = self.model.hidden(buffers["ids"], positions, self.model.merged(), self.model.causal_attention)
            places = (buffers["before"][:, None] - 1 + order).clamp(max=width - 1)
            chosen = hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[2]))
            scores = self.model.scores(chosen).gather(2, buffers["columns"])
            scores = scores.masked_fill(~buffers["allowed"], -1e9)
            nats = scores.log_softmax(dim=2).gather(2, buffers["slots"][..., None])[..., 0]
            nats = (nats * buffers["choices"]).sum(dim=1)
            buffers["nats"].copy_(nats.detach())
            (-(nats * buffers["weight"]).sum()).backward()

        if device.type != "cuda":
            return buffers, body
        kept = [w.grad.clone() for w in self.model.trained]
        run = captured(body, self.pool)
        for weight, value in zip(self.model.trained, kept, strict=True):
            weight.grad.copy_(value)
        return buffers, run


class TextLosses:
    """Gradients of log-likelihoods of any completions, over the whole vocabulary, at a few fixed sizes."""

    def __init__(self, model: PlainLlama, longest: int, tokens: int, pool: Any = None) -> None:
        """Prepare; the arguments are those of `Losses`."""
        self.model, self.tokens, self.pool = model, tokens, pool
        self.widths = sorted({min(longest, w) for w in (192, 256, 320, 448, longest)})
        self._passes: dict[int, tuple[Tensor, Tensor, Tensor, Callable[[], None]]] = {}
        self.loss = torch.zeros((), device=model.device)
        for weight in model.trained:
            weight.grad = torch.zeros_like(weight)

    def backward(self, examples: Sequence[tuple[Sequence[int], Sequence[int], float]]) -> Tensor:
        """Add the gradient of the mean loss of the tokens of completions; that loss in nats, shape ()."""
        total = sum(len(completion) for _, completion, _ in examples)
        self.loss.zero_()
        lengths = np.array([len(p) + len(c) for p, c, _ in examples])
        at = np.searchsorted(self.widths, lengths)
        for k, width in enumerate(self.widths):
            mine, rows = np.flatnonzero(at == k), max(1, self.tokens // width)
            for first in range(0, len(mine), rows):
                if width not in self._passes:
                    self._passes[width] = self._prepare(width, rows)
                ids, labels, share, run = self._passes[width]
                found = _rows([examples[j] for j in mine[first : first + rows]], rows, width)
                ids.copy_(torch.as_tensor(found[0]))
                labels.copy_(torch.as_tensor(found[1]))
                share.fill_(1 / total)
                run()
        return self.loss.clone()

    @torch.no_grad()
    def evaluate(self, examples: Sequence[tuple[Sequence[int], Sequence[int], float]]) -> float:
        """Mean loss in nats a token of completions."""
        device, weights, loss = self.model.device, self.model.merged(), 0.0
        width = max(len(p) + len(c) for p, c, _ in examples)
        rows = max(1, self.tokens // width)
        for first in range(0, len(examples), rows):
            part = examples[first : first + rows]
            ids, labels = (torch.as_tensor(x, device=device) for x in _rows(part, len(part), width))
            loss += float(self._loss(ids, labels, weights))
        return loss / sum(len(completion) for _, completion, _ in examples)

    def _loss(self, ids: Tensor, labels: Tensor, weights: dict[str, Tensor]) -> Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        hidden = self.model.hidden(ids, positions, weights, self.model.causal_attention)
        logits = functional.linear(hidden, self.model.whole_head).float().flatten(0, 1)
        return functional.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED, reduction="sum")

    def _prepare(self, width: int, rows: int) -> tuple[Tensor, Tensor, Tensor, Callable[[], None]]:
        device = self.model.device
        ids = torch.zeros((rows, width), dtype=torch.long, device=device)
        labels = torch.full((rows, width), IGNORED, dtype=torch.long, device=device)
        share = torch.zeros((), device=device)

        def body() -> None:
            loss = self._loss(ids, labels, self.model.merged()) * share
            self.loss.add_(loss.detach())
            loss.backward()

        if device.type != "cuda":
            return ids, labels, share, body
        kept = [w.grad.clone() for w in self.model.trained]
        before = self.loss.clone()
        run = captured(body, self.pool)
        for weight, value in zip(self.model.trained, kept, strict=True):
            weight.grad.copy_(value)
        self.loss.copy_(before)
        return ids, labels, share, run


IGNORED = -100


def _rows(examples: Sequence[Any], rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and the label of each place, which is the token after it, both of shape (rows, width)."""
    ids, labels = np.zeros((rows, width), dtype=np.int64), np.full((rows, width), IGNORED, dtype=np.int64)
    for row, (prompt, completion, _) in enumerate(examples):
        end = len(prompt) + len(completion)
        ids[row, : len(prompt)], ids[row, len(prompt) : end] = prompt, completion
        labels[row, len(prompt) - 1 : end - 1] = completion
    return ids, labels


class Sampler:
    """Draws lists of edits with a step that is captured once: model, grammar and choice in one replay."""

    def __init__(
        self, model: PlainLlama, tables: GrammarTables, tokenizer: Any, rows: int, prompt: int, pool: Any = None
    ) -> None:
        """Prepare the room.

        Args:
            model: as it is at each call of `sample`.
            tables: grammars.
            tokenizer: of the prompts.
            rows: drawn together.
            prompt: most tokens of a prompt.
            pool: memory of CUDA graphs, shared.
        """
        self.model, self.tables, self.tokenizer, self.rows, self.prompt, self.pool = (
            model,
            tables,
            tokenizer,
            rows,
            prompt,
            pool,
        )
        device, room = model.device, prompt + tables.longest
        shape = (model.n_layers, rows, model.kv_heads, room, model.head_dim)
        self.keys, self.values = (torch.zeros(shape, dtype=model.dtype, device=device) for _ in range(2))
        self.weights = {name: torch.empty_like(weight) for name, weight in model.base.items()}
        zero = torch.zeros(rows, dtype=torch.long, device=device)
        self.places = Places(
            zero.clone(), zero.clone(), zero.clone(), zero.clone(), torch.zeros(rows, dtype=torch.bool, device=device)
        )
        self.ids, self.position, self.slot = (
            zero.clone()[:, None],
            zero.clone(),
            torch.zeros(1, dtype=torch.long, device=device),
        )
        self.seen = torch.zeros((rows, room), dtype=torch.bool, device=device)
        self.scores = torch.zeros((rows, len(tables.tokens)), device=device)
        self.nats, self.heat = torch.zeros(rows, device=device), torch.ones(1, device=device)
        self.written = torch.full((rows, tables.longest), PAD, dtype=torch.long, device=device)
        self.complete = torch.full((rows, tables.longest), PAD, dtype=torch.long, device=device)
        self.step = torch.zeros(1, dtype=torch.long, device=device)
        self._run: Callable[[], None] | None = None

    def _cached(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values, model = self.keys[layer], self.values[layer], self.model
        keys.index_copy_(2, self.slot, k)
        values.index_copy_(2, self.slot, v)
        groups = model.heads // model.kv_heads
        q = q.reshape(self.rows, model.kv_heads, groups, model.head_dim)
        weights = torch.matmul(q, keys.transpose(2, 3)) * model.head_dim**-0.5
        weights = weights.float().masked_fill(~self.seen[:, None, None], -1e9).softmax(dim=-1).to(q.dtype)
        return torch.matmul(weights, values).reshape(self.rows, model.heads, 1, model.head_dim)

    def _choose(self) -> None:
        """Draw from the scores at hand, and note what was written."""
        tables, places = self.tables, self.places
        columns, allowed = tables.allowed(places)
        scores = self.scores.gather(1, columns).masked_fill(~allowed, -1e9)
        noise = torch.empty_like(scores).exponential_().clamp(min=1e-30).log()
        slots = (scores - self.heat * noise).argmax(dim=1)
        taken = slots[:, None]
        chosen = scores.gather(1, taken)[:, 0] - scores.logsumexp(dim=1)
        self.nats += torch.where(places.ended, 0.0, chosen)
        self.ids.copy_(tables.tokens[columns.gather(1, taken)])
        self.written.index_copy_(1, self.step, torch.where(places.ended, PAD, self.ids[:, 0])[:, None])
        after, edit = tables.advance(places, slots)
        self.complete.index_copy_(1, self.step, edit[:, None])
        for name in ("node", "last", "count", "ended"):
            getattr(places, name).copy_(getattr(after, name))
        self.step += 1

    def _body(self) -> None:
        self.seen.index_fill_(1, self.slot, True)
        hidden = self.model.hidden(self.ids, self.position[:, None], self.weights, self._cached)
        self.scores.copy_(self.model.scores(hidden[:, -1]))
        self.position += 1
        self.slot += 1
        self._choose()

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[Sequence[int]], grammar: Sequence[int], temperature: float, seed: int
    ) -> Samples:
        """One completion for each prompt (token ids), in their order."""
        for name, weight in self.model.merged().items():
            self.weights[name].copy_(weight)
        torch.manual_seed(seed)
        self.heat.fill_(temperature)
        parts = [range(first, min(first + self.rows, len(prompts))) for first in range(0, len(prompts), self.rows)]
        made = [self._batch([prompts[k] for k in part], [grammar[k] for k in part]) for part in parts]
        width = max(tokens.shape[1] for tokens, _, _ in made)
        tokens = torch.cat([functional.pad(t, (0, width - t.shape[1]), value=PAD) for t, _, _ in made])
        known = self.tables.edits
        edits = [tuple(known[e] for e in row[row >= 0].tolist()) for _, complete, _ in made for row in complete.numpy()]
        return Samples(tokens, edits, np.concatenate([nats.numpy() for _, _, nats in made]))

    def _batch(self, prompts: Sequence[Sequence[int]], grammar: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        model, device, n, width = self.model, self.model.device, len(prompts), self.prompt
        full = [*prompts, *[prompts[-1]] * (self.rows - n)]
        kinds = torch.tensor([*grammar, *[grammar[-1]] * (self.rows - n)], device=device)
        if max(map(len, full)) > width:
            raise ValueError(f"got a prompt of {max(map(len, full))} tokens, expected at most {width}")
        ids = torch.tensor([[*[0] * (width - len(p)), *p] for p in full], device=device)
        lengths = torch.tensor([len(p) for p in full], device=device)
        if self._run is None:
            self._start(kinds, lengths)
            self._run = captured(self._body, self.pool) if device.type == "cuda" else self._body
        self._start(kinds, lengths)
        positions = (torch.arange(width, device=device) - (width - lengths)[:, None]).clamp(min=0)
        order = torch.arange(width, device=device)
        for first in range(0, self.rows, 512):  # the prompts, in pieces that fit
            part = slice(first, first + 512)
            mask = (order <= order[:, None]) & self.seen[part, None, :width]
            mask = (mask | torch.eye(width, dtype=torch.bool, device=device))[:, None]

            def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, part: slice = part, mask: Tensor = mask) -> Tensor:
                self.keys[layer, part, :, :width] = k
                self.values[layer, part, :, :width] = v
                return functional.scaled_dot_product_attention(q, model.repeated(k), model.repeated(v), attn_mask=mask)

            hidden = model.hidden(ids[part], positions[part], self.weights, attend)
            self.scores[part] = model.scores(hidden[:, -1])
        self._choose()
        for step in range(1, self.tables.longest):
            self._run()
            if step % 8 == 0 and bool(self.places.ended.all()):
                break
        used = max(1, int((self.written[:n] != PAD).sum(dim=1).max()))
        return (
            self.written[:n, :used].cpu().clone(),
            self.complete[:n, :used].cpu().clone(),
            self.nats[:n].double().cpu(),
        )

    def _start(self, kinds: Tensor, lengths: Tensor) -> None:
        begin = self.tables.start(kinds)
        for name in ("grammar", "node", "last", "count", "ended"):
            getattr(self.places, name).copy_(getattr(begin, name))
        order = torch.arange(self.prompt, device=kinds.device)
        self.seen.zero_()
        self.seen[:, : self.prompt] = order >= (self.prompt - lengths)[:, None]
        self.position.copy_(lengths)
        self.slot.fill_(self.prompt)
        self.step.zero_()
        self.nats.zero_()
        self.written.fill_(PAD)
        self.complete.fill_(-1)


assert END_COLUMN == 0  # the tables put the end first; scores of what a row may not write are never drawn
