"""Several networks at once: every weight has a first axis for the member of the ensemble."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from defectgen.score.network.network_cells import GAP_ROUNDING, OUTPUTS
from defectgen.score.network.pair_geometry import N_NODE_FEATURES, N_PAIR_FEATURES, N_TOLD


@dataclass(frozen=True)
class Shape:
    """Size of a network.

    Attributes:
        width: of all hidden layers.
        rounds: of messages between the defects.
        heads: of the weighted means that levels are read from.
    """

    width: int = 48
    rounds: int = 3
    heads: int = 4


@dataclass(frozen=True)
class Batch:
    """Cells as tensors; n is the largest number of defects, and what is missing is masked.

    Attributes:
        nodes: features, shape (..., cells, n, N_NODE_FEATURES).
        pairs: numbers of the pairs' classes, shape (..., cells, n, n), 0 where either is masked.
        classes: features of each class of pairs, shape (n_classes, N_PAIR_FEATURES); those of class 0 are not used.
        mask: 1 for defects, shape (..., cells, n).
        spin: 1 where the two channels may differ, shape (..., cells).
        hosts: number of each cell's host, shape (..., cells).
    """

    nodes: Tensor
    pairs: Tensor
    classes: Tensor
    mask: Tensor
    spin: Tensor
    hosts: Tensor


class Dense(nn.Module):
    """A linear layer for each member."""

    def __init__(self, members: int, n_in: int, n_out: int, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(members, n_in, n_out) * scale * n_in**-0.5)
        self.bias = nn.Parameter(torch.zeros(members, 1, n_out))

    def forward(self, x: Tensor) -> Tensor:
        """Shape (members, ..., n_in) to (members, ..., n_out)."""
        flat = x.reshape(x.shape[0], -1, x.shape[-1])
        return torch.baddbmm(self.bias, flat, self.weight).reshape(*x.shape[:-1], -1)


class Filter(nn.Module):
    """What a pair lets through: found once for each class of pairs, and looked up for each pair."""

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.first = Dense(members, N_PAIR_FEATURES, width)
        self.second = Dense(members, width, width)

    def forward(self, classes: Tensor) -> Tensor:
        """Shape (members, n_classes, N_PAIR_FEATURES) to (members, n_classes, width), 0 for class 0."""
        found = self.second(functional.silu(self.first(classes)))
        return torch.cat([torch.zeros_like(found[:, :1]), found[:, 1:]], dim=1)


class Ensemble(nn.Module):
    """Message passing between all defects of a cell, for all members at once."""

    def __init__(self, members: int, n_hosts: int, shape: Shape, dropout: float = 0.0) -> None:
        """Random weights.

        Args:
            members: number of networks.
            n_hosts: number of hosts.
            shape: of each network.
            dropout: in messages and readout, while training.
        """
        super().__init__()
        width = shape.width
        self.offset = nn.Buffer(torch.zeros(members, n_hosts, len(OUTPUTS)))  # zero and unit of what is read out
        self.scale = nn.Buffer(torch.ones(members, n_hosts, len(OUTPUTS)))
        self.members, self.shape, self.dropout = members, shape, dropout
        self.first = Dense(members, N_NODE_FEATURES, width)
        self.second = Dense(members, width, width)
        self.senders = nn.ModuleList(Dense(members, width, width) for _ in range(shape.rounds))
        self.filters = nn.ModuleList(Filter(members, width) for _ in range(shape.rounds))
        self.updates = nn.ModuleList(Dense(members, 3 * width, width) for _ in range(shape.rounds))
        self.writers = nn.ModuleList(Dense(members, width, width, 0.5) for _ in range(shape.rounds))
        self.summaries = nn.ModuleList(Dense(members, 2 * width + N_TOLD, width) for _ in range(shape.rounds))
        self.pair_energies = Dense(members, width, 1, 0.1)
        self.energies = nn.ModuleList([Dense(members, width, width), Dense(members, width, 1, 0.1)])
        self.attention = Dense(members, width, shape.heads)
        self.readout = nn.ModuleList(
            [
                Dense(members, (shape.heads + 2) * width + N_TOLD, 2 * width),
                Dense(members, 2 * width, len(OUTPUTS) - 1, 0.3),
            ]
        )

    def forward(self, batch: Batch) -> Tensor:
        """`OUTPUTS` of each cell, shape (members, cells, 7); batches of shape (1, cells, ...) go to all members."""
        members, width = self.members, self.shape.width
        mask = batch.mask.expand(members, *batch.mask.shape[1:])[..., None]
        nodes = batch.nodes.expand(members, *batch.nodes.shape[1:])
        cells, n = mask.shape[1:3]
        count = mask.sum(dim=2)
        odd = (nodes[..., -1:] * mask).sum(dim=2) % 2
        told = torch.cat([torch.log(count.clamp(min=1.0)) / 3, odd], dim=-1)
        classes = batch.classes.expand(members, -1, -1)
        first_class = torch.arange(members, device=mask.device)[:, None] * classes.shape[1]
        looked_up = (batch.pairs.expand(members, -1, -1, -1).flatten(1) + first_class).flatten()
        h = self.second(functional.silu(self.first(nodes))) * mask
        pair_energy = torch.zeros(members, cells, 1, dtype=h.dtype, device=h.device)
        summary = torch.zeros(members, cells, width, dtype=h.dtype, device=h.device)
        layers = zip(self.senders, self.filters, self.updates, self.writers, self.summaries, strict=True)
        for number, (send, filters, update, write, summarize) in enumerate(layers):
            mean = (h * mask).sum(dim=2) / count.clamp(min=1.0)
            summary = summary + functional.silu(summarize(torch.cat([mean, summary, told], dim=-1)))
            sent = send(_normalized(h)) * mask
            through = filters(classes).flatten(0, 1).index_select(0, looked_up).reshape(members, cells, n, n, width)
            message = (through * sent[:, :, None]).sum(dim=3)
            if number == 0:  # before anything is mixed: a sum over pairs of defects, as in a cluster expansion
                pair_energy = (self.pair_energies(_normalized(h) * message) * mask).sum(dim=2)
            state = torch.cat([_normalized(h), message, summary[:, :, None, :].expand(-1, -1, n, -1)], dim=-1)
            change = functional.silu(update(state))
            if self.dropout and self.training:
                change = functional.dropout(change, self.dropout)
            h = (h + write(change)) * mask
        kept = _normalized(h) * mask
        energy = (self.energies[1](functional.silu(self.energies[0](kept))) * mask).sum(dim=2)
        energy = (energy + pair_energy) / count.clamp(min=1.0)
        weights = torch.softmax(self.attention(kept).masked_fill(mask == 0, -1e4), dim=2)
        pooled = torch.einsum("ecnh,ecnw->echw", weights, kept).flatten(2)
        mean = kept.sum(dim=2) / count.clamp(min=1.0)
        read = torch.cat([pooled, mean, summary, told], dim=-1)
        hidden = functional.silu(self.readout[0](read))
        if self.dropout and self.training:
            hidden = functional.dropout(hidden, self.dropout)
        values = self.readout[1](hidden)
        raw = torch.cat([values[..., :4], energy, values[..., 4:]], dim=-1)
        hosts = batch.hosts.expand(members, -1)
        member = torch.arange(members, device=hosts.device)[:, None]
        return assemble(self.offset[member, hosts] + self.scale[member, hosts] * raw, batch.spin.expand(members, -1))


def assemble(values: Tensor, spin: Tensor) -> Tensor:
    """`OUTPUTS` from seven free numbers: gaps are positive, and both channels are one where there is no spin."""
    spin = spin[..., None]
    homo = torch.cat([values[..., 0:1], torch.where(spin > 0, values[..., 1:2], values[..., 0:1])], dim=-1)
    gap = torch.cat([values[..., 2:3], torch.where(spin > 0, values[..., 3:4], values[..., 2:3])], dim=-1)
    gap = functional.softplus(GAP_ROUNDING * gap) / GAP_ROUNDING
    return torch.cat([homo, gap, values[..., 4:6], values[..., 6:7] * spin], dim=-1)


def _normalized(h: Tensor) -> Tensor:
    return functional.layer_norm(h, h.shape[-1:])
