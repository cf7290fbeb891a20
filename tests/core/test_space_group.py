"""Space groups of the built-in hosts, as in the literature on them."""

from __future__ import annotations

import pytest

from defectgen.core import get_host
from defectgen.core.space_group import host_symmetry


@pytest.mark.parametrize(
    ("name", "number", "n_operations", "sites"),
    [
        ("MoS2", 187, 12, ("Mo", "S")),  # 1H, D3h
        ("WSe2", 187, 12, ("W", "Se")),
        ("BN", 187, 12, ("B", "N")),
        ("GaSe", 187, 12, ("Ga", "Se")),
        ("InSe", 187, 12, ("In", "Se")),
        ("P", 53, 8, ("P",)),  # D2h
    ],
)
def test_layers_have_their_space_group(name: str, number: int, n_operations: int, sites: tuple[str, ...]) -> None:
    found = host_symmetry(get_host(name))
    assert (found.number, found.n_operations, found.distinct_sites) == (number, n_operations, sites)
    assert found.gamma_degree == pytest.approx(90.0 if name == "P" else 120.0)
    assert found.lengths_angstrom[2] == get_host(name).lattice[2][2]
