"""An ensemble on a device, as it is trained and as a GPU scores with it; `NetworkFile` is the same without torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from defectgen.core.configuration import Edit
from defectgen.core.host import Host
from defectgen.score.network.network_cells import Rows, combine, rows_of
from defectgen.score.network.network_file import NetworkFile
from defectgen.score.network.network_model import Ensemble, Shape
from defectgen.score.network.network_training import Geometries, predict


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

    def __repr__(self) -> str:
        return f"Network({self.model.members} members; {', '.join(host.title for host in self.hosts)})"

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The hosts that it was trained on."""
        return tuple(g.host for g in self.geometries.hosts)

    def rows(self, host: Host, decorations: Sequence[Sequence[Edit]]) -> Rows:
        """Configurations of a host as arrays.

        Raises:
            UsageError: a host or a defect that the network was not trained on.
        """
        return rows_of(self.geometries.hosts, host, decorations)

    def outputs(self, rows: Rows, step: int = 256) -> NDArray[np.float64]:
        """What each member gives, shape (members, n, 7); see `defectgen.score.network.network_cells.OUTPUTS`."""
        return predict(self.model, self.geometries, rows, self.linear, step)

    def values(self, rows: Rows, step: int = 256) -> dict[str, NDArray[np.float64]]:
        """Properties by column, of the mean of the members channel by channel, each of shape (n,)."""
        return combine(self.outputs(rows, step).mean(axis=0))

    def score(
        self, host: Host, decorations: Sequence[Sequence[Edit]], step: int = 256
    ) -> dict[str, NDArray[np.float64]]:
        """`values` of configurations of a host."""
        return self.values(self.rows(host, decorations), step)

    def arrays(self, about: Mapping[str, Any] | None = None) -> NetworkFile:
        """The same without torch, with what else is known."""
        weights = {name: value.detach().float().cpu().numpy() for name, value in self.model.state_dict().items()}
        spin = tuple(bool(value) for value in self.geometries.spin.tolist())
        shape = dataclasses.asdict(self.model.shape)
        return NetworkFile(self.geometries.hosts, spin, shape, weights, self.linear, dict(about or {}))

    def save(self, path: Path, about: Mapping[str, Any] | None = None) -> None:
        """Write it, and what is known about it, to one file."""
        self.arrays(about).save(path)

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> Network:
        """The inverse of `save`.

        Raises:
            DefectgenError: see `NetworkFile.load`.
        """
        found = NetworkFile.load(path)
        model = Ensemble(found.members, len(found.hosts), Shape(**found.shape))
        model.load_state_dict({name: torch.tensor(array) for name, array in found.weights.items()})
        return cls(model.to(device), Geometries(found.geometries, found.spin, device), found.linear)
