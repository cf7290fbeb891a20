"""A Llama in plain tensors whose passes are captured once and replayed: on a GPU a small model waits for launches.

The updates of LoRA are kept for all layers together and added to the weights at each pass, so that training and
sampling see the same numbers; nothing of the base model is changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pieces import Pieces, pieces_of
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from defectgen.llm.adapter import LORA_CONFIG, WEIGHTS
from defectgen.llm.lora_config import read_lora

MATRICES = {
    "q_proj": "self_attn", "k_proj": "self_attn", "v_proj": "self_attn", "o_proj": "self_attn",
    "gate_proj": "mlp", "up_proj": "mlp", "down_proj": "mlp",
}  # fmt: skip
TOGETHER = {
    "qkv": ("q_proj", "k_proj", "v_proj"), "o_proj": ("o_proj",), "gate_up": ("gate_proj", "up_proj"),
    "down_proj": ("down_proj",),
}  # fmt: skip
"""Matrices of one input, stacked along the output: one product in place of several."""


class _Merge(torch.autograd.Function):
    """Stacked matrices with their updates; gradients go to the updates, by products in the matrices' precision."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, scale: float, *updates: Tensor) -> Tensor:
        """Base of shape (layers, out, in); ups of shape (layers, out_k, r), then downs, (layers, r, in)."""
        ctx.scale, short = scale, [update.to(base.dtype) for update in updates]
        ctx.save_for_backward(*short)
        half, first, made = len(updates) // 2, 0, torch.empty_like(base)
        for up, down in zip(short[:half], short[half:], strict=True):
            rows = slice(first, first + up.shape[1])
            torch.baddbmm(base[:, rows], up, down, alpha=scale, out=made[:, rows])
            first += up.shape[1]
        return made

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        """By ups, then by downs."""
        half, first = len(ctx.saved_tensors) // 2, 0
        ups, downs = [], []
        for up, down in zip(ctx.saved_tensors[:half], ctx.saved_tensors[half:], strict=True):
            part = grads[0][:, first : first + up.shape[1]]
            ups.append(torch.bmm(part, down.transpose(1, 2)).float() * ctx.scale)
            downs.append(torch.bmm(up.transpose(1, 2), part).float() * ctx.scale)
            first += up.shape[1]
        return None, None, *ups, *downs


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
        single = {
            name: torch.stack([getattr(getattr(layer, part), name).weight.detach() for layer in layers])
            for name, part in MATRICES.items()
        }
        self.base = {name: torch.cat([single[n] for n in parts], dim=1) for name, parts in TOGETHER.items()}
        self.plain = self.pieces = pieces_of(self.heads, self.kv_heads, self.head_dim, self.eps)
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
        for name, weight in single.items():
            n_out, n_in = weight.shape[1:]
            start = torch.rand(self.n_layers, rank, n_in, generator=generator, device=self.device) * 2 - 1
            self.down[name] = (start * n_in**-0.5).requires_grad_()
            self.up[name] = torch.zeros(self.n_layers, n_out, rank, device=self.device).requires_grad_()

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Take the updates of an adapter of this rank or a smaller one."""
        lora = read_lora(folder)
        rank, alpha = lora.rank, lora.alpha
        if rank > self.rank:
            raise ValueError(f"{folder}: got rank {rank}, expected at most {self.rank}")
        found, prefix = load_file(folder / WEIGHTS), "base_model.model.model.layers"
        for name, part in MATRICES.items():
            self.up[name].zero_()
            for layer in range(self.n_layers):
                key = f"{prefix}.{layer}.{part}.{name}.lora_"
                self.down[name][layer, :rank] = found[f"{key}A.weight"].to(self.down[name])
                self.up[name][layer, :, :rank] = found[f"{key}B.weight"].to(self.up[name]) * (alpha / rank / self.scale)

    @property
    def trained(self) -> list[Tensor]:
        """All weights in training."""
        return [*self.down.values(), *self.up.values()]

    def merged(self) -> dict[str, Tensor]:
        """The matrices with their updates, as `TOGETHER` names them, each of shape (layers, out, in)."""
        return {
            name: _Merge.apply(
                self.base[name], self.scale, *(self.up[n] for n in parts), *(self.down[n] for n in parts)
            )
            for name, parts in TOGETHER.items()
        }

    def rotations(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines for positions of shape (rows, tokens), each of shape (rows * tokens, 1, head_dim)."""
        angles = positions.reshape(-1, 1, 1).float() * self.frequencies
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos().to(self.dtype), angles.sin().to(self.dtype)

    def hidden(
        self, ids: Tensor, positions: Tensor, weights: dict[str, Tensor],
        attend: Callable[[int, Tensor, Tensor, Tensor], Tensor], pieces: Pieces | None = None,
    ) -> Tensor:  # fmt: skip
        """Last hidden states, shape (rows, tokens, width).

        Args:
            ids: shape (rows, tokens).
            positions: of the same shape.
            weights: what `merged` gave.
            attend: gets layer, queries, keys and values of shape (rows, heads, tokens, head_dim).
            pieces: parts of a layer, for passes of one size with gradients.
        """
        made = pieces or self.plain
        layers = {name: weight.unbind(0) for name, weight in weights.items()}
        (rows, length), shape = ids.shape, (*ids.shape, -1, self.head_dim)
        x = functional.embedding(ids.flatten(), self.embedding)
        if torch.is_grad_enabled():
            x.requires_grad_()  # the first layer is like the others
        cos, sin = self.rotations(positions)
        for layer in range(self.n_layers):
            before, after = self.norms[layer]
            heads = made.before(x, before, layers["qkv"][layer], cos, sin)
            mixed = attend(layer, *(part.view(shape).transpose(1, 2) for part in heads))
            mixed = mixed.transpose(1, 2).reshape(rows * length, -1)
            x = made.after(
                x, mixed, layers["o_proj"][layer], after, layers["gate_up"][layer], layers["down_proj"][layer]
            )
        return functional.rms_norm(x, self.last_norm.shape, self.last_norm, self.eps).view(rows, length, -1)

    def repeated(self, k: Tensor) -> Tensor:
        """Keys or values for all heads."""
        return k.repeat_interleave(self.heads // self.kv_heads, dim=1)

    def causal_attention(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Of whole texts that are padded on the right."""
        del layer
        if q.is_cuda and not _flash(q, k, v):
            k, v = self.repeated(k), self.repeated(v)
        grouped = q.shape[1] != k.shape[1]
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)

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


def _flash(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether the fused attention takes fewer heads of keys than of queries; others would be slow with them."""
    cuda = torch.backends.cuda
    return bool(cuda.can_use_flash_attention(cuda.SDPAParams(q, k, v, None, 0.0, True, True)))


class Replay:
    """A graph with all that it reads: the function holds tensors whose memory would be given to others otherwise."""

    def __init__(self, graph: Any, body: Callable[[], None]) -> None:
        self.graph, self.body = graph, body

    def __call__(self) -> None:
        """Run it again."""
        self.graph.replay()


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
    return Replay(graph, body)
