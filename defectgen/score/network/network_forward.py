"""The forward pass of an ensemble over cells of one host, without torch.

The members stand side by side in the last axis, so that what a class of pairs lets through is looked up for all of
them at once. What depends on a defect's site and kind alone is found once for the host, and what is the same for all
defects of a cell is added to them, not multiplied again for each.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from defectgen.score.network.network_cells import GAP_ROUNDING
from defectgen.score.network.pair_geometry import HostGeometry

Array = NDArray[np.float32]
Indices = NDArray[np.int64]

TOGETHER = 4
"""Cells whose messages are found together: what their pairs let through stays in a core's cache."""


class HostForward:
    """An ensemble as it looks at cells of one host; M members of width W."""

    def __init__(
        self, weights: Mapping[str, Array], shape: Mapping[str, int], geometry: HostGeometry, host: int, spin: bool
    ) -> None:
        """Find what all cells of the host share.

        Args:
            weights: by name, each with a first axis for the member.
            shape: width, rounds and heads.
            geometry: of the host.
            host: its number in the ensemble's hosts.
            spin: whether the channels of its cells may differ.
        """
        self._weights, self._rounds, self._heads, self._width = weights, shape["rounds"], shape["heads"], shape["width"]
        self._members = len(weights["offset"])
        self._spin = spin
        self._cells = geometry.host.n_sites // geometry.host.n_basis
        self._pairs = geometry.pairs.astype(np.int64)
        self._n_kinds = len(geometry.kinds)
        flat = geometry.nodes.reshape(-1, geometry.nodes.shape[-1])
        nodes = np.concatenate([flat, np.zeros_like(flat[:1])])  # the last one stands for no defect
        self._odd = nodes[:, -1]
        h = self._dense("second", _silu(self._dense("first", nodes[None])))
        self._begin = self._side_by_side(h)
        self._begin[-1] = 0
        self._filters = [
            self._side_by_side(
                self._dense(f"filters.{k}.second", _silu(self._dense(f"filters.{k}.first", geometry.classes[None])))
            )
            for k in range(self._rounds)
        ]
        self._offset, self._scale = (weights[name][:, host][:, None] for name in ("offset", "scale"))
        self._seen = self._normalized(self._begin)
        self._seen[-1] = 0
        if self._rounds:
            self._sent = self._layer("senders.0", self._seen)
            self._sent[-1] = 0
            self._turned = self._times(self._seen, self._update(0)[0])
            self._paired = self._seen * weights["pair_energies.weight"].reshape(-1)

    def __call__(self, sites: Indices, kinds: Indices) -> Array:
        """`OUTPUTS` of each member, the energy per defect, shape (M, n, 7).

        Args:
            sites: of the defects of n cells, -1 for none, which come last, shape (n, most).
            kinds: number of each defect's kind, likewise.
        """
        n = len(sites)
        there = sites >= 0
        mask = None if there.all() else there[..., None].astype(np.float32)
        count = np.maximum(there.sum(axis=1), 1).astype(np.float32)[:, None]
        sites = np.maximum(sites, 0)
        code = np.where(there, sites // self._cells * self._n_kinds + kinds, len(self._begin) - 1)
        classes = self._pairs[sites[:, :, None], sites[:, None, :]]
        told = np.concatenate([np.log(count) / np.float32(3), self._odd[code].sum(axis=1)[:, None] % 2], axis=1)
        h = self._begin[code]
        summary = np.zeros((self._members, n, self._width), dtype=np.float32)
        pair_energy = np.zeros((self._members, n), dtype=np.float32)
        for k in range(self._rounds):
            mean = self._apart(h.sum(axis=1) / count)
            summary += _silu(self._summarized(k, mean, summary, told))
            seen = self._normalized(h) if k else None
            sent = self._sent[code] if seen is None else _masked(self._layer(f"senders.{k}", seen), mask)
            message = self._messages(k, classes, sent)
            if seen is None:
                energies = np.einsum("cnx,cnx->cx", self._paired[code], message)
                pair_energy = energies.reshape(n, self._members, self._width).sum(axis=2).T
                pair_energy = pair_energy + self._weights["pair_energies.bias"][:, 0] * count[:, 0]
            of_seen, of_message, of_summary = self._update(k)
            change = self._times(message, of_message)
            change += self._turned[code] if seen is None else self._times(seen, of_seen)
            whole = summary @ of_summary + self._weights[f"updates.{k}.bias"]
            change += self._side_by_side(whole)[:, None]
            h += self._layer(f"writers.{k}", _silu(change))
            _masked(h, mask)
        kept = _masked(self._normalized(h), mask)
        return self._read(kept, mask, count, summary, told, pair_energy)

    def _read(
        self, kept: Array, mask: Array | None, count: Array, summary: Array, told: Array, pair_energy: Array
    ) -> Array:
        """What is read out of the last state of all defects."""
        n, most = kept.shape[:2]
        weights, m, w = self._weights, self._members, self._width
        hidden = _masked(_silu(self._layer("energies.0", kept)), mask)
        summed = self._apart(hidden.sum(axis=1))
        energy = (summed @ weights["energies.1.weight"])[..., 0] + weights["energies.1.bias"][:, 0] * count[:, 0]
        energy = ((energy + pair_energy) / count[:, 0])[..., None]
        attention = np.matmul(self._apart(kept.reshape(n * most, m * w)), weights["attention.weight"])
        attention += weights["attention.bias"]
        attention = np.ascontiguousarray(attention.reshape(m, n, most, self._heads).transpose(0, 1, 3, 2))
        if mask is not None:
            attention += np.where(mask[None, :, None, :, 0] == 0, np.float32(-1e4), np.float32(0))
        attention -= attention.max(axis=3, keepdims=True)
        np.exp(attention, out=attention)
        attention /= attention.sum(axis=3, keepdims=True)
        stood = kept.reshape(n, most, m, w).transpose(2, 0, 1, 3)
        pooled = np.matmul(attention, stood).reshape(m, n, -1)
        mean = self._apart(kept.sum(axis=1) / count)
        told = np.broadcast_to(told, (m, *told.shape))
        read = np.concatenate([pooled, mean, summary, told], axis=-1)
        values = self._dense("readout.1", _silu(self._dense("readout.0", read)))
        raw = np.concatenate([values[..., :4], energy, values[..., 4:]], axis=-1)
        return _assembled(self._offset + self._scale * raw, self._spin)

    def _summarized(self, k: int, mean: Array, summary: Array, told: Array) -> Array:
        """The layer of round `k` that looks at a cell as a whole, shape (M, n, W)."""
        weight, w = self._weights[f"summaries.{k}.weight"], self._width
        found = mean @ weight[:, :w] + told @ weight[:, 2 * w :] + self._weights[f"summaries.{k}.bias"]
        return np.asarray(found + summary @ weight[:, w : 2 * w] if k else found)

    def _update(self, k: int) -> tuple[Array, Array, Array]:
        """Weights of what a defect is, of its message and of its cell, each of shape (M, W, W)."""
        weight, w = self._weights[f"updates.{k}.weight"], self._width
        return weight[:, :w], weight[:, w : 2 * w], weight[:, 2 * w :]

    def _messages(self, k: int, classes: Indices, sent: Array) -> Array:
        """What reaches each defect, shape (n, most, M * W)."""
        n, most, width = sent.shape
        message = np.empty_like(sent)
        through = np.empty((min(TOGETHER, n), most, most, width), dtype=np.float32)
        for start in range(0, n, TOGETHER):
            part = slice(start, start + TOGETHER)
            here = classes[part]
            some = np.take(self._filters[k], here, axis=0, out=through[: len(here)], mode="clip")
            np.einsum("cijx,cjx->cix", some, sent[part], out=message[part])
        return message

    def _dense(self, name: str, x: Array) -> Array:
        """A layer of all members, shape (M or 1, ..., n_in) to (M, ..., n_out)."""
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        flat = x.reshape(len(x), -1, x.shape[-1])
        return np.asarray((np.matmul(flat, weight) + bias).reshape(len(weight), *x.shape[1:-1], weight.shape[-1]))

    def _layer(self, name: str, x: Array) -> Array:
        """The same with the members side by side, shape (..., M * W)."""
        found = self._times(x, self._weights[f"{name}.weight"])
        found += self._weights[f"{name}.bias"].reshape(-1)
        return found

    def _times(self, x: Array, weight: Array) -> Array:
        """Members side by side times a matrix of each, shape (..., M * W)."""
        found = np.empty(x.shape, dtype=np.float32)
        np.matmul(self._apart(x.reshape(-1, x.shape[-1])), weight, out=self._apart(found.reshape(-1, x.shape[-1])))
        return found

    def _apart(self, x: Array) -> Array:
        """A view of shape (M, n, W) of members side by side, shape (n, M * W)."""
        return x.reshape(len(x), self._members, self._width).transpose(1, 0, 2)

    def _side_by_side(self, x: Array) -> Array:
        """The inverse of `_apart`, a copy."""
        return np.ascontiguousarray(x.transpose(1, 0, 2)).reshape(x.shape[1], -1)

    def _normalized(self, h: Array) -> Array:
        """Each member's features with mean 0 and spread 1; a copy."""
        x = h.reshape(-1, self._width)
        each = np.float32(1 / self._width)
        found = x - (np.einsum("nw->n", x) * each)[:, None]
        squares = np.einsum("nw,nw->n", found, found) * each
        found *= (1 / np.sqrt(squares + np.float32(1e-5)))[:, None]
        return np.asarray(found.reshape(h.shape))


def _masked(x: Array, mask: Array | None) -> Array:
    """0 where there is no defect, in place."""
    if mask is not None:
        x *= mask
    return x


def _silu(x: Array) -> Array:
    """In place."""
    below = np.negative(x)
    np.exp(below, out=below)
    below += 1
    x /= below
    return x


def _assembled(values: Array, spin: bool) -> Array:
    """See `defectgen.score.network.network_model.assemble`."""
    homo, gap, rest = values[..., 0:2], values[..., 2:4], values[..., 4:6]
    if not spin:
        homo, gap = np.repeat(homo[..., :1], 2, axis=-1), np.repeat(gap[..., :1], 2, axis=-1)
    gap = np.logaddexp(np.float32(0), GAP_ROUNDING * gap) / GAP_ROUNDING
    return np.concatenate([homo, gap, rest, values[..., 6:7] * np.float32(spin)], axis=-1)
