"""A trained ensemble with its hosts: from configurations to values with a spread, and to and from a file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from defectgen.core.configuration import Edit
from defectgen.core.host import Host
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.documents import parse_json, require_object
from defectgen.io.files import write_whole
from defectgen.score.network.network_model import Ensemble, Shape
from defectgen.score.network.network_training import Geometries, Rows, combine, predict
from defectgen.score.network.pair_geometry import HostGeometry

FORMAT = 3
"""Of the files written and read."""


class Network:
    """Members that answer together; their mean is the answer, their spread a measure of doubt."""

    def __init__(self, model: Ensemble, geometries: Geometries, linear: NDArray[np.float64]) -> None:
        """An ensemble on its device.

        Args:
            model: the members.
            geometries: of the hosts, in the order that the model was trained with.
            linear: formation energy of each kind of defect, of each member, shape (members, hosts * most kinds).
        """
        self.model, self.geometries, self.linear = model.eval(), geometries, linear
        self._kinds = [{(r.element, r.replacement): k for k, r in enumerate(g.kinds)} for g in geometries.hosts]

    def __repr__(self) -> str:
        return f"Network({self.model.members} members; {self._titles})"

    @property
    def _titles(self) -> str:
        return ", ".join(host.title for host in self.hosts)

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The hosts that it was trained on."""
        return tuple(g.host for g in self.geometries.hosts)

    def rows(self, host: Host, decorations: Sequence[Sequence[Edit]]) -> Rows:
        """Configurations of a host as arrays.

        Raises:
            UsageError: a host or a defect that the network was not trained on.
        """
        number = next((k for k, known in enumerate(self.hosts) if host == known or host.is_like(known)), None)
        if number is None:
            raise UsageError(f"the network does not cover {host.title}.", f"It covers: {self._titles}.")
        kinds, elements = self._kinds[number], host.site_elements
        most = max((len(edits) for edits in decorations), default=0)
        sites, chosen = (np.full((len(decorations), max(most, 1)), -1, dtype=np.int64) for _ in range(2))
        for row, edits in enumerate(decorations):
            for place, (site, species) in enumerate(edits):
                kind = kinds.get((elements[site], species))
                if kind is None:
                    raise UsageError(f"the network does not know {species} on {elements[site]} in {host.name}.")
                sites[row, place], chosen[row, place] = site, kind
        numbers = np.full(len(decorations), number)
        return Rows(numbers, sites, chosen, np.full((len(decorations), 7), np.nan), np.zeros_like(numbers))

    def outputs(self, rows: Rows, step: int = 256) -> NDArray[np.float64]:
        """What each member gives, shape (members, n, 7); see `defectgen.score.network.network_model.OUTPUTS`."""
        return predict(self.model, self.geometries, rows, self.linear, step)

    def values(self, rows: Rows, step: int = 256) -> dict[str, NDArray[np.float64]]:
        """Properties by column, of the mean of the members channel by channel, each of shape (n,)."""
        return combine(self.outputs(rows, step).mean(axis=0))

    def score(
        self, host: Host, decorations: Sequence[Sequence[Edit]], step: int = 256
    ) -> dict[str, NDArray[np.float64]]:
        """`values` of configurations of a host."""
        return self.values(self.rows(host, decorations), step)

    def save(self, path: Path, about: Mapping[str, Any] | None = None) -> None:
        """Write members (half precision), features of the hosts, and what is known about them, to one file."""
        tensors = {f"model.{k}": v.detach().half().cpu() for k, v in self.model.state_dict().items()}
        tensors["linear"] = torch.tensor(self.linear, dtype=torch.float32)
        for k, geometry in enumerate(self.geometries.hosts):
            for name, array in geometry.arrays().items():
                tensors[f"host.{k}.{name}"] = torch.tensor(array)
        metadata = {
            "format": FORMAT,
            "members": self.model.members,
            "shape": dataclasses.asdict(self.model.shape),
            "hosts": [g.host.to_dict() for g in self.geometries.hosts],
            "spin": [bool(s) for s in self.geometries.spin.tolist()],
            "about": dict(about or {}),
        }
        write_whole(path, lambda part: save_file(tensors, part, metadata={"network": json.dumps(metadata)}))

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> Network:
        """The inverse of `save`.

        Raises:
            DefectgenError: no such file, another format, or an ensemble with weights missing or not finite.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = require_object(
                    parse_json((file.metadata() or {}).get("network", "{}"), str(path)), str(path)
                )
                tensors = {key: file.get_tensor(key) for key in list(file.keys())}
        except (OSError, SafetensorError, ValueError) as error:
            raise DefectgenError(f"{path} cannot be read as a network ({error}).") from error
        if metadata.get("format") != FORMAT:
            raise DefectgenError(
                f"{path} holds a network of format {metadata.get('format')}, expected {FORMAT}.",
                "Train it again: defectgen surrogate train --networks N.",
            )
        try:
            hosts = [Host.from_dict(record) for record in metadata["hosts"]]
            features = [
                HostGeometry.from_arrays(
                    host, {n: tensors[f"host.{k}.{n}"].numpy() for n in ("nodes", "pairs", "classes")}
                )
                for k, host in enumerate(hosts)
            ]
            model = Ensemble(metadata["members"], len(hosts), Shape(**metadata["shape"]))
            state = {k.removeprefix("model."): v.float() for k, v in tensors.items() if k.startswith("model.")}
            model.load_state_dict(state)
            linear = tensors["linear"].double().numpy()
            spin = [bool(value) for value in metadata["spin"]]
        except (DefectgenError, LookupError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DefectgenError(f"{path}: a member of the ensemble is missing or damaged ({reason}).") from error
        if not all(bool(torch.isfinite(v).all()) for v in state.values()) or not np.isfinite(linear).all():
            raise DefectgenError(f"{path}: weights that are not finite.")
        return cls(model.to(device), Geometries(features, spin, device), linear)
