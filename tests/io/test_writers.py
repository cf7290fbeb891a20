from pathlib import Path

import gemmi
import numpy as np
import pytest
from pymatgen.core import Structure
from sample_runs import random_configuration

from defectgen.core import VACANCY, Configuration, configuration_from_structure, get_host, host_names
from defectgen.errors import UsageError
from defectgen.io.structures import read_configuration, read_structures
from defectgen.io.writers import (
    OutputStructure,
    cif_text,
    poscar_text,
    register_format,
    unregister_format,
    write_structures,
    writer_of,
)

EXACT = 1e-12
"""Fractional coordinates are read back to this."""


@pytest.mark.filterwarnings("ignore:Issues encountered while parsing CIF")
@pytest.mark.parametrize("name", host_names())
@pytest.mark.parametrize(("form", "suffix"), [("cif", "cif"), ("poscar", "vasp")])
def test_round_trip(name: str, form: str, suffix: str, tmp_path: Path) -> None:
    host = get_host(name)
    rng = np.random.default_rng(11)
    for number in range(6):
        configuration = random_configuration(host, 1 + 2 * number, rng).canonical()
        path = tmp_path / f"{number}.{suffix}"
        writer_of(form).write(path, [OutputStructure("one", configuration)])
        assert read_configuration(host, path).canonical() == configuration
        assert sites_in(path, configuration) == dict(enumerate(configuration.species))


def sites_in(path: Path, configuration: Configuration) -> dict[int, str]:
    """What the file has on each site, by coordinates alone and without any shift."""
    structure = Structure.from_file(path)
    host = configuration.host
    assert np.allclose(structure.lattice.parameters[:3], np.linalg.norm(host.supercell_lattice, axis=1), atol=1e-9)
    found = dict.fromkeys(range(host.n_sites), VACANCY)
    for atom in structure:
        difference = atom.frac_coords - host.site_frac_coords
        distance = np.abs(difference - np.rint(difference)).max(axis=1)
        assert distance.min() < EXACT
        found[int(distance.argmin())] = atom.specie.symbol
    return found


def test_poscar_has_one_block_an_element_and_says_what_it_is() -> None:
    configuration = Configuration.from_key(get_host("GaSe"), "VAC@A00+In@B11+S@C22+S@D33")
    lines = poscar_text(configuration).splitlines()
    assert lines[0] == f"GaSe 6x6 {configuration.label} {configuration.key}"
    assert lines[5:8] == ["Ga Se In S", "70 70 1 2", "Direct"]
    assert len(lines) == 8 + 143
    assert len(Structure.from_str(poscar_text(configuration), fmt="poscar")) == 143


def test_cif_is_p1_with_every_atom_named_once() -> None:
    configuration = Configuration.from_key(get_host("MoS2"), "VAC@A00+Se@B11")
    block = gemmi.cif.read_string(cif_text(configuration)).sole_block()
    assert block.find_value("_space_group_IT_number") == "1"
    small = gemmi.make_small_structure_from_block(block)
    assert len(small.sites) == 191
    assert len({site.label for site in small.sites}) == 191
    assert small.cell.volume == pytest.approx(abs(np.linalg.det(configuration.host.supercell_lattice)))


def test_the_same_structures_give_the_same_zip(tmp_path: Path) -> None:
    item = {"v": Configuration.of(get_host("BN", (3, 3)), {0: VACANCY})}
    paths = [write_structures(tmp_path / name, item)[0] for name in ("a.zip", "b.zip")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
