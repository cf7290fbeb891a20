"""Cells with a wished vacuum: the layer in the middle, the same in every file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure

from defectgen.core import VACANCY, Configuration, get_host
from defectgen.core.hosts import HOSTS
from defectgen.core.matching import configuration_from_structure
from defectgen.core.vacuum import host_with_vacuum, structure_with_vacuum
from defectgen.errors import UsageError
from defectgen.io.structures import read_structures
from defectgen.io.writers import write_structures


@pytest.mark.parametrize("name", list(HOSTS))
def test_every_format_has_the_same_centred_cell(name: str, tmp_path: Path) -> None:
    host = get_host(name)
    item = Configuration.of(host, {host.n_sites - 1: host.rules[-1].replacement, 3: host.rules[0].replacement})
    moved = Configuration(host_with_vacuum(host, 15.0), item.edits)
    files = write_structures(tmp_path, {"one": moved}, ["cif", "poscar", "extxyz", "db", "zip"])
    found = [next(read_structures(path)).structure for path in sorted(files)]
    assert len(found) == 5
    for cell in found:
        assert cell is not None
        z = np.sort(cell.cart_coords[:, 2])
        assert cell.lattice.c - (z[-1] - z[0]) == pytest.approx(15.0, abs=1e-6)
        assert z[0] == pytest.approx(cell.lattice.c - z[-1], abs=1e-6)
        np.testing.assert_allclose(cell.lattice.matrix, moved.host.supercell_lattice, atol=1e-6)
        order = np.lexsort(np.round(cell.cart_coords, 4).T)
        first = np.lexsort(np.round(found[0].cart_coords, 4).T)
        np.testing.assert_allclose(cell.cart_coords[order], found[0].cart_coords[first], atol=1e-6)
        assert configuration_from_structure(host, cell).canonical() == item.canonical()
    plane = item.to_structure().cart_coords[:, :2], moved.to_structure().cart_coords[:, :2]
    np.testing.assert_allclose(*plane, atol=1e-9)


def test_a_layer_across_the_border_of_its_cell_is_one_layer() -> None:
    cell = Configuration.of(get_host("P"), {0: VACANCY}).to_structure()
    heights = cell.frac_coords[:, 2]
    lowered, wrapped = cell.frac_coords.copy(), cell.frac_coords.copy()
    lowered[:, 2] = heights - heights[0]
    wrapped[:, 2] = (lowered[:, 2] + 0.98) % 1.0
    assert np.ptp(wrapped[:, 2]) > 0.5 > np.ptp(lowered[:, 2])
    expected = structure_with_vacuum(cell, 20.0)
    for frac in (lowered, wrapped):
        found = structure_with_vacuum(Structure(cell.lattice, cell.species, frac), 20.0)
        np.testing.assert_allclose(found.cart_coords[:, 2], expected.cart_coords[:, 2], atol=1e-6)


@pytest.mark.parametrize("vacuum", [0.0, -3.0, 1e9, float("nan")])
def test_a_vacuum_out_of_range_is_refused(vacuum: float) -> None:
    with pytest.raises(UsageError, match="expected 5 to 100"):
        host_with_vacuum(get_host("MoS2"), vacuum)
