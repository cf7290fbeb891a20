"""The file of an ensemble, and its values without torch: importing that takes longer than a design."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from defectgen.core.configuration import Edit
from defectgen.core.host import Host
from defectgen.errors import DefectgenError
from defectgen.io.documents import parse_json, require_object
from defectgen.io.files import write_whole
from defectgen.score.network.network_cells import GAP_ROUNDING, OUTPUTS, Rows, combine, counts_of, rows_of
from defectgen.score.network.pair_geometry import N_NODE_FEATURES, N_PAIR_FEATURES, N_TOLD, HostGeometry
from defectgen.score.threads import n_workers, single_blas

FORMAT = 4
"""Of the files written and read."""

STEP = 16
"""Cells that are looked at together: their pairs stay in a core's cache."""

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class NetworkFile:
    """A trained ensemble as arrays; `defectgen.score.network.network_model.Ensemble` says what they do.

    Attributes:
        geometries: of the hosts, in the order that it was trained with.
        spin: whether the channels of each host's cells may differ.
        shape: width, rounds and heads.
        weights: by name, each with a first axis for the member.
        linear: formation energy of each kind of defect, of each member, shape (members, hosts * most kinds), in eV.
        about: what else is known.
    """

    geometries: tuple[HostGeometry, ...]
    spin: tuple[bool, ...]
    shape: Mapping[str, int]
    weights: Mapping[str, Array]
    linear: NDArray[np.float64]
    about: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"NetworkFile({self.members} members; {', '.join(host.title for host in self.hosts)})"

    @property
    def members(self) -> int:
        """Number of networks."""
        return len(self.linear)

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The hosts that it was trained on."""
        return tuple(geometry.host for geometry in self.geometries)

    def covers(self, host: Host) -> bool:
        """Whether it has values of all that the host's rules allow."""
        rules = set(host.rules)
        return any((host == g.host or host.is_like(g.host)) and rules <= set(g.kinds) for g in self.geometries)

    def alone(self, name: str) -> NetworkFile:
        """The same for one of its hosts, in all its sizes."""
        numbers = [k for k, host in enumerate(self.hosts) if host.name == name]
        geometries = tuple(self.geometries[k] for k in numbers)
        spin = tuple(self.spin[k] for k in numbers)
        weights = {
            key: array[:, numbers] if key in ("offset", "scale") else array for key, array in self.weights.items()
        }
        linear = self.linear.reshape(self.members, len(self.geometries), -1)[:, numbers]
        linear = linear[..., : max(len(geometry.kinds) for geometry in geometries)].reshape(self.members, -1)
        return replace(self, geometries=geometries, spin=spin, weights=weights, linear=linear)

    def score(self, host: Host, decorations: Sequence[Sequence[Edit]]) -> dict[str, NDArray[np.float64]]:
        """Properties by column of configurations of a host: the mean of the members, each of shape (n,).

        Raises:
            UsageError: a host or a defect that the network was not trained on.
        """
        rows = rows_of(self.geometries, host, decorations)
        return combine(self.outputs(rows).mean(axis=0))

    def outputs(self, rows: Rows) -> NDArray[np.float64]:
        """What each member gives, `OUTPUTS` with the whole formation energy, shape (members, n, 7)."""
        found = np.zeros((self.members, len(rows), len(OUTPUTS)))
        order = np.lexsort((rows.sizes, rows.hosts))
        ends = np.flatnonzero(np.diff(rows.hosts[order])) + 1
        parts = [same[start : start + STEP] for same in np.split(order, ends) for start in range(0, len(same), STEP)]

        def find(chosen: NDArray[np.int64]) -> None:
            found[:, chosen] = self._outputs(rows.some(chosen))

        with single_blas(), ThreadPoolExecutor(n_workers()) as pool:
            if parts:
                find(parts[0])  # what is found once is found here
            list(pool.map(find, parts[1:]))
        at = OUTPUTS.index("energy")
        most = self.linear.shape[1] // len(self.geometries)
        found[..., at] = found[..., at] * rows.sizes + self.linear @ counts_of(rows, len(self.geometries), most).T
        return found

    @cached_property
    def _filters(self) -> list[list[NDArray[np.float32]]]:
        """For each host and round what each class of pairs lets through, shape (members, n_classes, width)."""
        return [
            [
                self._dense(f"filters.{k}.second", _silu(self._dense(f"filters.{k}.first", g.classes[None])))
                for k in range(self.shape["rounds"])
            ]
            for g in self.geometries
        ]

    def _dense(self, name: str, x: Array) -> Array:
        """A layer of all members, shape (members or 1, ..., n_in) to (members, ..., n_out)."""
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        flat = x.reshape(len(x), -1, x.shape[-1])
        return np.asarray((np.matmul(flat, weight) + bias).reshape(len(weight), *x.shape[1:-1], weight.shape[-1]))

    def _outputs(self, rows: Rows) -> Array:
        """Of cells of one host."""
        host = int(rows.hosts[0])
        geometry, n = self.geometries[host], int(rows.sizes.max(initial=1))
        sites, kinds = rows.sites[:, :n], rows.kinds[:, :n]
        there = sites >= 0
        mask = there[None, ..., None].astype(np.float32)
        sites, kinds = np.maximum(sites, 0), np.maximum(kinds, 0)
        cells = geometry.host.n_sites // geometry.host.n_basis
        nodes = geometry.nodes[sites // cells, kinds] * mask[0]
        classes = geometry.pairs[sites[:, :, None], sites[:, None, :]]
        both = (there[:, :, None] & there[:, None, :])[..., None]
        count = np.maximum(mask.sum(axis=2), 1)
        odd = (nodes[..., -1:] * mask[0]).sum(axis=1)[None] % 2
        told = np.concatenate([np.log(count) / np.float32(3), odd], axis=-1)
        h = self._dense("second", _silu(self._dense("first", nodes[None]))) * mask
        summary = np.zeros((self.members, len(sites), h.shape[-1]), dtype=np.float32)
        pair_energy = np.zeros((self.members, len(sites), 1), dtype=np.float32)
        told = np.broadcast_to(told, (self.members, *told.shape[1:]))
        for k in range(self.shape["rounds"]):
            mean = (h * mask).sum(axis=2) / count
            summary = summary + _silu(self._dense(f"summaries.{k}", np.concatenate([mean, summary, told], axis=-1)))
            seen = _normalized(h)
            sent = self._dense(f"senders.{k}", seen) * mask
            message = np.stack(
                [
                    np.einsum("cijw,cjw->ciw", table[classes] * both, mine)
                    for table, mine in zip(self._filters[host][k], sent, strict=True)
                ]
            )
            if k == 0:
                pair_energy = (self._dense("pair_energies", seen * message) * mask).sum(axis=2)
            around = np.broadcast_to(summary[:, :, None], h.shape)
            change = _silu(self._dense(f"updates.{k}", np.concatenate([seen, message, around], axis=-1)))
            h = (h + self._dense(f"writers.{k}", change)) * mask
        kept = _normalized(h) * mask
        energy = (self._dense("energies.1", _silu(self._dense("energies.0", kept))) * mask).sum(axis=2)
        energy = (energy + pair_energy) / count
        attention = np.where(mask == 0, np.float32(-1e4), self._dense("attention", kept))
        attention = np.exp(attention - attention.max(axis=2, keepdims=True))
        attention /= attention.sum(axis=2, keepdims=True)
        pooled = np.einsum("ecnh,ecnw->echw", attention, kept).reshape(self.members, len(sites), -1)
        read = np.concatenate([pooled, kept.sum(axis=2) / count, summary, told], axis=-1)
        values = self._dense("readout.1", _silu(self._dense("readout.0", read)))
        raw = np.concatenate([values[..., :4], energy, values[..., 4:]], axis=-1)
        offset, scale = (self.weights[name][:, host][:, None] for name in ("offset", "scale"))
        return _assembled(offset + scale * raw, self.spin[host])

    def as_saved(self) -> NetworkFile:
        """With weights in half precision, as `load` finds them: what is said of its errors is then of the file."""
        weights = {name: array.astype(np.float16).astype(np.float32) for name, array in self.weights.items()}
        return replace(self, weights=weights, linear=self.linear.astype(np.float32).astype(np.float64))

    def save(self, path: Path) -> None:
        """Write the weights in half precision, the hosts' features and what is known, to one file."""
        tensors: dict[str, Any] = {f"model.{name}": array.astype(np.float16) for name, array in self.weights.items()}
        tensors["linear"] = self.linear.astype(np.float32)
        for k, geometry in enumerate(self.geometries):
            tensors |= {f"host.{k}.{name}": np.ascontiguousarray(a) for name, a in geometry.arrays().items()}
        metadata = {
            "format": FORMAT,
            "members": self.members,
            "shape": dict(self.shape),
            "hosts": [host.to_dict() for host in self.hosts],
            "spin": list(self.spin),
            "about": dict(self.about),
        }
        content = save(tensors, metadata={"network": json.dumps(metadata)})  # save_file writes for the owner only
        write_whole(path, lambda part: part.write_bytes(content))

    @classmethod
    def load(cls, path: Path) -> NetworkFile:
        """The inverse of `save`.

        Raises:
            DefectgenError: no such file, another format, or an ensemble with weights missing or not finite.
        """
        try:
            with safe_open(path, framework="np") as file:
                told = (file.metadata() or {}).get("network", "{}")
                metadata = require_object(parse_json(told, str(path)), str(path))
                tensors = {key: file.get_tensor(key) for key in list(file.keys())}
        except (OSError, SafetensorError, TypeError, ValueError) as error:  # TypeError: numbers that numpy lacks
            raise DefectgenError(f"{path} cannot be read as a network ({error}).") from error
        if metadata.get("format") != FORMAT:
            raise DefectgenError(
                f"{path} holds a network of format {metadata.get('format')}, expected {FORMAT}.",
                "Train it again: defectgen surrogate train --networks N.",
            )
        try:
            hosts = [Host.from_dict(record) for record in metadata["hosts"]]
            geometries = tuple(
                HostGeometry.from_arrays(host, {n: tensors[f"host.{k}.{n}"] for n in ("nodes", "pairs", "classes")})
                for k, host in enumerate(hosts)
            )
            shape = {name: int(metadata["shape"][name]) for name in ("width", "rounds", "heads")}
            weights = {
                key.removeprefix("model."): value.astype(np.float32)
                for key, value in tensors.items()
                if key.startswith("model.")
            }
            spin = tuple(bool(value) for value in metadata["spin"])
            found = cls(geometries, spin, shape, weights, tensors["linear"].astype(np.float64), metadata["about"])
            found._check(int(metadata["members"]))
        except (DefectgenError, LookupError, TypeError, ValueError, AttributeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DefectgenError(f"{path}: a member of the ensemble is missing or damaged ({reason}).") from error
        features = [array for geometry in geometries for array in (geometry.nodes, geometry.classes)]
        if not all(bool(np.isfinite(array).all()) for array in (*weights.values(), found.linear, *features)):
            raise DefectgenError(f"{path}: weights that are not finite.")
        return found

    def _check(self, members: int) -> None:
        """Raise ValueError unless all weights and features are there with their shapes."""
        if members < 1 or not 0 <= self.shape["rounds"] <= len(self.weights):
            raise ValueError(f"{members} members of {self.shape['rounds']} rounds")
        expected = weight_shapes(members, len(self.geometries), self.shape)
        for name in sorted({*expected, *self.weights}):
            shape = self.weights[name].shape if name in self.weights else None
            if shape != expected.get(name):
                raise ValueError(f"{name} has shape {shape}, expected {expected.get(name)}")
        most_kinds = max(len(geometry.kinds) for geometry in self.geometries)
        if self.linear.shape != (members, len(self.geometries) * most_kinds):
            raise ValueError(f"linear has shape {self.linear.shape}, expected {members} members of all kinds")
        if len(self.spin) != len(self.geometries):
            raise ValueError(f"spin of {len(self.spin)} hosts, expected {len(self.geometries)}")
        for geometry in self.geometries:
            geometry.check()


def weight_shapes(members: int, n_hosts: int, shape: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Shape of each array of an ensemble by name."""
    width, heads, n_out = shape["width"], shape["heads"], len(OUTPUTS)
    dense = {
        "first": (N_NODE_FEATURES, width),
        "second": (width, width),
        "pair_energies": (width, 1),
        "energies.0": (width, width),
        "energies.1": (width, 1),
        "attention": (width, heads),
        "readout.0": ((heads + 2) * width + N_TOLD, 2 * width),
        "readout.1": (2 * width, n_out - 1),
    }
    for k in range(shape["rounds"]):
        dense |= {
            f"senders.{k}": (width, width),
            f"filters.{k}.first": (N_PAIR_FEATURES, width),
            f"filters.{k}.second": (width, width),
            f"updates.{k}": (3 * width, width),
            f"writers.{k}": (width, width),
            f"summaries.{k}": (2 * width + N_TOLD, width),
        }
    found: dict[str, tuple[int, ...]] = dict.fromkeys(("offset", "scale"), (members, n_hosts, n_out))
    for name, (n_in, n) in dense.items():
        found |= {f"{name}.weight": (members, n_in, n), f"{name}.bias": (members, 1, n)}
    return found


def _silu(x: Array) -> Array:
    return np.asarray(x / (1 + np.exp(-x)))


def _normalized(h: Array) -> Array:
    centred = h - h.mean(axis=-1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(1e-5)))


def _assembled(values: Array, spin: bool) -> Array:
    """See `defectgen.score.network.network_model.assemble`."""
    homo, gap, rest = values[..., 0:2], values[..., 2:4], values[..., 4:6]
    if not spin:
        homo, gap = np.repeat(homo[..., :1], 2, axis=-1), np.repeat(gap[..., :1], 2, axis=-1)
    gap = np.logaddexp(np.float32(0), GAP_ROUNDING * gap) / GAP_ROUNDING
    return np.concatenate([homo, gap, rest, values[..., 6:7] * np.float32(spin)], axis=-1)
