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


@pytest.mark.parametrize("suffix", [".extxyz", ".db", ".zip"])
def test_several_structures_come_back_from_one_file(suffix: str, tmp_path: Path) -> None:
    host = get_host("WSe2", (4, 4))
    rng = np.random.default_rng(3)
    wanted = {f"cell-{k}": random_configuration(host, k, rng).canonical() for k in (1, 2, 4)}
    given = {**wanted, "cell-4": wanted["cell-4"].to_structure()}  # atoms as they are, beside configurations
    [path] = write_structures(tmp_path / f"cells{suffix}", given)
    found = list(read_structures(path))
    assert [item.note for item in found] == [""] * 3
    read = [configuration_from_structure(host, item.structure).canonical() for item in found if item.structure]
    assert read == list(wanted.values())


def test_values_go_with_the_structures(tmp_path: Path) -> None:
    from ase.db import connect
    from ase.io import read

    one = OutputStructure("best", Configuration.of(get_host("BN"), {0: VACANCY}), {"homo_ev": -1.25, "label": "v_B"})
    write_structures(tmp_path, [one], ["extxyz", "db", "vasp", "poscar"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.vasp", "structures.db", "structures.extxyz"]
    assert read(tmp_path / "structures.extxyz").info == {"name": "best", "homo_ev": -1.25, "label": "v_B"}
    [row] = connect(tmp_path / "structures.db").select()
    assert (row.name, row.data["values"]) == ("best", {"homo_ev": -1.25, "label": "v_B"})


def test_calls_that_cannot_be_met_say_why(tmp_path: Path) -> None:
    cell = Configuration.of(get_host("BN", (3, 3)), {0: VACANCY})
    for target, structures, formats, message in (
        (tmp_path / "cells.pdf", {"a": cell}, None, "no known suffix"),
        (tmp_path, {"a": cell}, ["pdf"], "unknown format 'pdf'"),
        (tmp_path / "a.cif", {"a": cell, "b": cell}, None, "holds one structure, got 2"),
        (tmp_path, [OutputStructure("a", cell)] * 2, ["cif"], "two structures have the name a"),
        (tmp_path, {}, ["cif"], "no structures to write"),
    ):
        with pytest.raises(UsageError, match=message):
            write_structures(target, structures, formats)
    assert list(tmp_path.iterdir()) == []
