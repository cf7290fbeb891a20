"""The parts of a layer around its attention, on flat tokens, as they are or compiled.

All layers and all passes have the same shapes, so each part is compiled once. Compilation is tried within a limit of
time; what fails or takes longer leaves the parts as they are.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

SWITCH = "GPU_COMPILE"
"""Variable: 0 keeps the parts as they are."""
LIMIT_S = 40.0
"""For the compilation of all parts."""
IGNORED = -100
"""Label of a token that carries no loss."""


@dataclass(frozen=True)
class Pieces:
    """What is done to T tokens of a model of width W with rotated heads of size D.

    Attributes:
        before: (x, norm, qkv, cos, sin) to queries, keys and values, each of shape (T, heads, D).
        after: (x, mixed, o, norm, gate and up, down) to x after the layer, shape (T, W).
        nats: (logits, labels) to the sum of the negative log-likelihoods and its gradient by the logits.
        compiled: whether by torch.compile.
    """

    before: Callable[..., tuple[Tensor, Tensor, Tensor]]
    after: Callable[..., Tensor]
    nats: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    compiled: bool = False

    def faster(self, backend: str = "inductor") -> Pieces:
        """The same, to be compiled at the first call."""
        return Pieces(
            *(torch.compile(part, dynamic=False, fullgraph=True, backend=backend)
              for part in (self.before, self.after, self.nats)),
            compiled=True,
        )  # fmt: skip


def pieces_of(heads: int, kv_heads: int, head_dim: int, eps: float) -> Pieces:
    """The parts for one shape of a model, not compiled."""
    half, turned = head_dim // 2, heads + kv_heads

    def before(x: Tensor, norm: Tensor, qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = functional.rms_norm(x, norm.shape, norm, eps)
        found = functional.linear(h, qkv).view(x.shape[0], turned + kv_heads, head_dim)
        qk = found[:, :turned]
        qk = qk * cos + torch.cat([-qk[..., half:], qk[..., :half]], dim=-1) * sin
        parts = qk[:, :heads], qk[:, heads:], found[:, turned:]
        if torch.compiler.is_compiling():  # outputs that are no views of one: their gradients are added inside
            return parts[0].clone(), parts[1].clone(), parts[2].clone()
        return parts

    def after(x: Tensor, mixed: Tensor, o: Tensor, norm: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
        x = x + functional.linear(mixed, o)
        gate, up = functional.linear(functional.rms_norm(x, norm.shape, norm, eps), gate_up).chunk(2, dim=-1)
        return x + functional.linear(functional.silu(gate) * up, down)

    return Pieces(before, after, negative_likelihoods)


def negative_likelihoods(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of -log p of labels in nats, and its gradient by the logits.

    Args:
        logits: shape (n, vocabulary).
        labels: shape (n,), `IGNORED` where there is no loss.
    """
    wide, real = logits.float(), labels != IGNORED
    wanted = labels.clamp(min=0)[:, None]
    whole = wide.logsumexp(dim=1, keepdim=True)
    nats = ((whole - wide.gather(1, wanted))[:, 0] * real).sum()
    order = torch.arange(logits.shape[1], device=logits.device)
    gradient = ((wide - whole).exp() - (order == wanted).float()) * real[:, None]
    return nats, gradient.to(logits.dtype)


class TextLoss(torch.autograd.Function):
    """Sum of the negative log-likelihoods of labels, logits chunk by chunk: they are never in memory together."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, labels: Tensor, head: Tensor, nats: Callable[..., tuple[Tensor, Tensor]], chunk: int
    ) -> Tensor:
        """Loss, shape (), of hidden states of shape (T, W) with a frozen head of shape (vocabulary, W)."""
        loss, gradient = hidden.new_zeros((), dtype=torch.float32), torch.empty_like(hidden)
        for first in range(0, len(hidden), chunk):
            part = slice(first, first + chunk)
            found, by_logits = nats(functional.linear(hidden[part], head), labels[part])
            loss = loss + found
            torch.mm(by_logits, head, out=gradient[part])
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        """By the hidden states."""
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0].to(gradient.dtype), None, None, None, None


class _TooSlow(Exception):  # noqa: N818
    pass


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise in the main thread after so many seconds, again and again, since compilers catch exceptions."""

    def ring(*_: Any) -> None:
        raise _TooSlow(f"longer than {seconds:g} s")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 2.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def wanted() -> bool:
    """Whether compilation is to be tried."""
    return os.environ.get(SWITCH, "1") != "0"


def compiled(pieces: Pieces, use: Callable[[Pieces], None], limit: float = LIMIT_S) -> Pieces | None:
    """The parts compiled by a first use, or None with a line that says why not."""
    from torch._functorch import config

    start = time.monotonic()
    if hasattr(config, "force_non_lazy_backward_lowering"):
        config.force_non_lazy_backward_lowering = True  # in this thread, within the limit
    try:
        with limited(limit):
            faster = pieces.faster()
            use(faster)
    except Exception as error:  # a compiler may raise anything; the parts work without it
        told, spent = f"{type(error).__name__}: {error}".splitlines()[0][:200], time.monotonic() - start
        print(f"not compiled after {spent:.0f} s: {told}", flush=True)
        torch._dynamo.reset()
        return None
    print(f"compiled in {time.monotonic() - start:.0f} s", flush=True)
    return faster
