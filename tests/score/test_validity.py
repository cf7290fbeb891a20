"""What a structure is judged by."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from defectgen.core import VACANCY, Configuration, Host, get_host, host_names
from defectgen.score.protocol import Sample
from defectgen.score.validity import charges_balance, check, closest_pair, n_pieces, vacuum_angstrom


def moved(configuration: Configuration, atom: int, by: tuple[float, float, float]) -> Sample:
    structure = configuration.to_structure()
    structure.translate_sites([atom], by, frac_coords=False)
    return Sample(structure, configuration)


@pytest.mark.parametrize("name", host_names())
def test_hosts_and_their_simple_defects_are_valid(name: str) -> None:
    host = get_host(name)
    for edits in ({}, {0: VACANCY}, {host.n_sites - 1: host.allowed[-1][0]}):
        configuration = Configuration.of(host, edits)
        assert check(Sample(configuration.to_structure(), configuration)).reasons == ()


def test_atoms_that_overlap_are_named(mos2: Host) -> None:
    structure = Configuration.of(mos2, {}).to_structure()
    i, j = 0, min(range(64, 192), key=lambda k: structure.get_distance(0, k))
    vector = structure.lattice.get_cartesian_coords(structure[i].distance_and_image(structure[j])[1])
    step = (structure[j].coords + vector - structure[i].coords) * 0.6
    verdict = check(moved(Configuration.of(mos2, {}), i, tuple(step)))
    assert not verdict.valid
    assert verdict.reasons[0].startswith(("Mo and S 0.9", "S and Mo 0.9"))


def test_an_atom_that_left_the_layer_is_a_second_piece(mos2: Host) -> None:
    gone = check(moved(Configuration.of(mos2, {}), 100, (0.0, 0.0, -4.0)))
    up = check(moved(Configuration.of(mos2, {}), 100, (0.0, 0.0, 4.0)))
    assert "2 separate pieces instead of one layer" in gone.reasons + up.reasons
    assert n_pieces(Configuration.of(mos2, {}).to_structure()) == 1


def test_species_that_the_rules_do_not_allow(mos2: Host) -> None:
    configuration = Configuration.of(mos2, {64: "Mo", 65: "Mo", 66: "Se"})
    reasons = check(Sample(configuration.to_structure(), configuration)).reasons
    assert reasons == ("Mo on a site of S, which MoS2 does not allow",)


def test_vacuum_is_measured_wherever_the_layer_lies(mos2: Host) -> None:
    structure = Configuration.of(mos2, {}).to_structure()
    z = mos2.site_cart_coords[:, 2]
    expected = mos2.lattice[2][2] - float(np.ptp(z))
    assert vacuum_angstrom(structure) == pytest.approx(expected)
    structure.translate_sites(range(len(structure)), [0, 0, 0.3])
    assert vacuum_angstrom(structure) == pytest.approx(expected)
    flat = Structure(Lattice(np.diag([1, 1, 0.5]) @ structure.lattice.matrix), structure.species, structure.frac_coords)
    configuration = Configuration.of(mos2, {})
    assert any("angstrom of vacuum" in reason for reason in check(Sample(flat, configuration)).reasons)


def test_charges_are_balanced_where_that_makes_sense() -> None:
    def crystal(*species: str) -> Structure:
        points = [[0.25 * k, 0.25 * (k % 2), 0.1 * k] for k in range(len(species))]
        return Structure(Lattice.cubic(8.0), list(species), points)

    assert charges_balance(crystal("Na", "Cl"))
    assert charges_balance(crystal("Mg", "O"))
    assert charges_balance(crystal("Cu", "Zn")), "alloys have no charges to balance"
    assert charges_balance(crystal("Si"))
    assert not charges_balance(crystal("Na", "Na", "Cl"))
    assert check(Sample(crystal("Na", "Na", "Cl"))).reasons[-1] == "no oxidation states add up to zero"


def test_images_of_small_cells_count() -> None:
    squeezed = Structure(Lattice.cubic(1.0), ["Mo"], [[0, 0, 0]])
    assert closest_pair(squeezed) == "Mo and Mo 1.00 angstrom apart"
    assert check(Sample(squeezed.replace_species({"Mo": "Bk"}))).reasons == ("no covalent radius of Bk is known",)


def test_structures_of_the_data_are_valid(twodmd: object) -> None:
    frame = twodmd.filter(density="high").sample(40, seed=1)  # type: ignore[attr-defined]
    for row in frame.iter_rows(named=True):
        configuration = Configuration.from_key(get_host(row["host"]), row["configuration"])
        assert check(Sample(configuration.to_structure(), configuration)).valid, row["id"]
