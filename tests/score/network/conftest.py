"""A small untrained ensemble over the six built-in hosts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from defectgen.core import get_host, host_names
from defectgen.score.network.ensemble import Network
from defectgen.score.network.network_model import Ensemble, Shape
from defectgen.score.network.network_training import Geometries
from defectgen.score.network.pair_geometry import HostGeometry

SHAPE = Shape(width=12, rounds=2, heads=2)


@pytest.fixture(scope="session")
def geometries() -> Geometries:
    """Of the six hosts; MoS2 and WSe2 have one spin channel."""
    hosts = [HostGeometry.of(get_host(name)) for name in host_names()]
    return Geometries(hosts, [geometry.host.name not in ("MoS2", "WSe2") for geometry in hosts])


@pytest.fixture(scope="session")
def network(geometries: Geometries) -> Network:
    """Two members with random weights."""
    torch.manual_seed(3)
    linear = np.random.default_rng(4).normal(2.0, 1.0, (2, len(geometries.hosts) * geometries.most_kinds))
    return Network(Ensemble(2, len(geometries.hosts), SHAPE), geometries, linear)
