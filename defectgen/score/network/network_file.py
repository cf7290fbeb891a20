"""The file of an ensemble, and its values without torch: importing that takes longer than a design."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
from defectgen.score.network.network_cells import OUTPUTS, Rows, combine, counts_of, rows_of, rows_of_sites
from defectgen.score.network.network_forward import HostForward
from defectgen.score.network.pair_geometry import N_NODE_FEATURES, N_PAIR_FEATURES, N_TOLD, HostGeometry
from defectgen.score.threads import in_parts

FORMAT = 4
"""Of the files written and read."""

STEP = 32
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

    def score_sites(
        self, host: Host, sites: NDArray[np.int64], kinds: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float64]]:
        """The same from numbers.

        Args:
            host: one that it covers.
            sites: of the defects of each configuration, -1 where there are fewer than the most, shape (n, most).
            kinds: number of each defect's kind in the host's rules, likewise.
        """
        rows = rows_of_sites(self.geometries, host, sites, kinds)
        return combine(self.outputs(rows).mean(axis=0))

    def outputs(self, rows: Rows) -> NDArray[np.float64]:
        """What each member gives, `OUTPUTS` with the whole formation energy, shape (members, n, 7)."""
        found = np.zeros((self.members, len(rows), len(OUTPUTS)))
        order = np.lexsort((rows.sizes, rows.hosts))
        ends = np.flatnonzero(np.diff(rows.hosts[order])) + 1
        parts = [same[start : start + STEP] for same in np.split(order, ends) for start in range(0, len(same), STEP)]

        def find(chosen: NDArray[np.int64]) -> None:
            most = int(rows.sizes[chosen].max(initial=1))
            forward = self._forward[int(rows.hosts[chosen[0]])]
            found[:, chosen] = forward(rows.sites[chosen, :most], rows.kinds[chosen, :most])

        in_parts(find, parts)
        at = OUTPUTS.index("energy")
        most = self.linear.shape[1] // len(self.geometries)
        found[..., at] = found[..., at] * rows.sizes + self.linear @ counts_of(rows, len(self.geometries), most).T
        return found

    @cached_property
    def _forward(self) -> list[HostForward]:
        """The forward pass of each host."""
        return [
            HostForward(self.weights, self.shape, geometry, number, spin)
            for number, (geometry, spin) in enumerate(zip(self.geometries, self.spin, strict=True))
        ]

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
