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
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from defectgen.llm.adapter import LORA_CONFIG, WEIGHTS
from defectgen.llm.lora_config import read_lora

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
