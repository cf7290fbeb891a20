"""SLICES strings: those of the reference package, of pymatgen's own graphs, and of decorated hosts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
import tarfile
import time
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import typer
from pymatgen.analysis.graphs import StructureGraph
from pymatgen.analysis.local_env import EconNN
from pymatgen.core import Lattice, Structure
from synthetic import random_configuration
from typer.testing import CliRunner

from defectgen.core import VACANCY, Configuration, Host, get_host, host_names
from defectgen.data.twodmd import SETS
from defectgen.errors import DefectgenError, UsageError
from defectgen.slices import (
    QuotientGraph,
    ReferencePackage,
    encode_configuration,
    encode_structure,
    graph_of_structure,
    parse_slices,
    space_group_block,
)
from defectgen.slices.reference_package import PYTHON_VARIABLE
from defectgen_cli.slices import slices

GOLDEN = json.loads((Path(__file__).parent / "golden_slices.json").read_text())
"""Random and symmetric decorations, with the sha256 of the reference package's strings."""

NACL = "+ t a ODD a DOD b OOO c OOO d OOO e OOO o Cl Na 0 1 ++o 0 1 +o+ 0 1 o++ 0 1 +oo 0 1 o+o 0 1 oo+ "
DIAMOND = "o s a ODD a DOD b ODD c DDO d OOO e FBF h BBB + ZZZ C C 0 1 o-- 0 1 -o- 0 1 --o 0 1 --- "
PEROVSKITE = (
    "+ v b OOO c OOO d OOO e OOO o Sr Ti O O O 0 2 --o 0 2 -oo 0 2 o-o 0 2 ooo 0 3 -o- 0 3 -oo 0 3 oo- 0 3 ooo "
    "0 4 o-- 0 4 o-o 0 4 oo- 0 4 ooo 1 4 ooo 1 4 +oo 1 3 ooo 1 3 o+o 1 2 ooo 1 2 oo+ "
)
MONOLAYER = "o w n OOO i OOO k OOO o Mo S S 0 1 -oo 0 1 ooo 0 1 o+o 0 2 -oo 0 2 ooo 0 2 o+o "
"""Written by the reference package 2.0.12."""


def rock_salt() -> Structure:
    cell = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    return cell.get_primitive_structure()


def diamond() -> Structure:
    return Structure.from_spacegroup("Fd-3m", Lattice.cubic(3.57), ["C"], [[0, 0, 0]]).get_primitive_structure()


def perovskite() -> Structure:
    corners = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Structure(Lattice.cubic(3.9), ["Sr", "Ti", "O", "O", "O"], corners)


def monolayer() -> Structure:
    sites = [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.1448], [2 / 3, 1 / 3, 0.3552]]
    return Structure(Lattice.hexagonal(3.19, 14.9), ["Mo", "S", "S"], sites)


class TestBulk:
    @pytest.mark.parametrize(
        ("structure", "expected"),
        [(rock_salt(), NACL), (diamond(), DIAMOND), (perovskite(), PEROVSKITE), (monolayer(), MONOLAYER)],
        ids=["rock salt", "diamond", "perovskite", "monolayer"],
    )
    def test_the_strings_of_the_reference(self, structure: Structure, expected: str) -> None:
        assert encode_structure(structure) == expected

    @pytest.mark.parametrize("seed", range(12))
    def test_edges_and_their_order_are_those_of_pymatgens_graph(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        lattice = Lattice.from_parameters(*rng.uniform(3, 6, 3), *rng.uniform(60, 120, 3))
        n = int(rng.integers(1, 7))
        structure = Structure(lattice, rng.choice(["Mg", "O", "Cs"], n), rng.uniform(-0.5, 1.5, (n, 3)))
        graph = StructureGraph.from_local_env_strategy(structure, EconNN()).graph
        assert list(graph_of_structure(structure).edges) == list(graph.edges(data="to_jimage"))

    def test_what_has_no_bonds_or_no_one_element_a_site_is_refused(self) -> None:
        with pytest.raises(DefectgenError, match="no neighbour within 10 angstrom"):
            encode_structure(Structure(Lattice.cubic(20), ["He"], [[0, 0, 0]]))
        for species, sites in ([], []), (["Na"], [[0.0, np.nan, 0.0]]):
            with pytest.raises(DefectgenError, match="no atoms, or coordinates that are no numbers"):
                encode_structure(Structure(Lattice.cubic(4), species, sites))
        with pytest.raises(DefectgenError, match="partially occupied"):
            encode_structure(Structure(Lattice.cubic(4), [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]]))


class TestText:
    def test_each_space_group_has_its_own_block(self) -> None:
        assert len({space_group_block(number) for number in range(1, 231)}) == 230
        assert [space_group_block(n) for n in (1, 2, 187, 227)] == [
            "o z o", "+ z o", "o w n OOO i OOO k OOO o", "o s a ODD a DOD b ODD c DDO d OOO e FBF h BBB + ZZZ",
        ]  # fmt: skip

    @pytest.mark.parametrize("text", [NACL, DIAMOND, PEROVSKITE, MONOLAYER])
    def test_parsing_inverts_writing(self, text: str) -> None:
        assert parse_slices(text).text() == text
        assert parse_slices(text.strip()) == parse_slices(text)

    def test_a_string_without_block_and_a_bond_beyond_the_next_cell(self) -> None:
        graph = QuotientGraph(None, ("C",), ((0, 0, (2, -3, 0)),))
        assert graph.text() == "C 0 0 +-o "
        assert parse_slices(graph.text()) == QuotientGraph(None, ("C",), ((0, 0, (1, -1, 0)),))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "no SLICES string"),
            ("0 1 ooo", "no SLICES string"),
            ("Na Cl 0 1", "no SLICES string"),
            ("Na Cl 0 1 oox", "no SLICES string"),
            ("q q Na Cl 0 1 ooo", "block 'q q' of the SLICES string is unknown"),
            ("Na Cl 0 2 ooo", "edge of atom 2, but 2 atoms"),
        ],
    )
    def test_other_text_is_refused_in_one_line(self, text: str, message: str) -> None:
        with pytest.raises(DefectgenError, match=message) as caught:
            parse_slices(text)
        assert "\n" not in str(caught.value)


class TestDecorations:
    @pytest.mark.parametrize("row", GOLDEN, ids=lambda row: f"{row['host']}-{row['configuration'][:20]}")
    def test_the_strings_of_the_reference(self, row: dict[str, object]) -> None:
        text = encode_configuration(Configuration.from_key(get_host(str(row["host"])), str(row["configuration"])))
        assert parse_slices(text).space_group == row["space_group"]
        assert len(text) == row["characters"]
        assert hashlib.sha256(text.encode()).hexdigest() == row["sha256"]

    @pytest.mark.parametrize("name", host_names())
    @pytest.mark.parametrize("size", [(1, 1), (2, 2), (2, 3), (4, 4)], ids=str)
    def test_the_general_path_gives_the_same(self, name: str, size: tuple[int, int]) -> None:
        host = get_host(name, size)
        rng = np.random.default_rng(3)
        for n_defects in sorted({0, 1, 2, host.n_sites // 4, host.n_sites // 2, host.n_sites - 2}):
            item = random_configuration(host, n_defects, rng)
            assert encode_configuration(item) == encode_structure(item.to_structure()), item.key

    @pytest.mark.parametrize("empty", [0, 1, 2])
    def test_with_a_whole_sublattice_empty(self, empty: int) -> None:
        host = get_host("MoS2", (3, 3))
        item = Configuration.of(host, {host.site_index(empty, i, j): VACANCY for i in range(3) for j in range(3)})
        assert encode_configuration(item) == encode_structure(item.to_structure())

    def test_with_antisites_that_make_the_sublattices_alike(self) -> None:
        host = get_host("BN", (2, 2))
        item = Configuration.of(host, {host.site_index(0, i, j): "N" for i in range(2) for j in range(2)})
        assert parse_slices(encode_configuration(item)).space_group == 191, "graphene's, which BN does not have"
        assert encode_configuration(item) == encode_structure(item.to_structure())

    def test_in_the_real_cell_with_vacancies_side_by_side(self, mos2: Host) -> None:
        near = [mos2.site_index(basis, i, j) for basis in range(3) for i in range(3) for j in range(3)]
        item = Configuration.of(mos2, dict.fromkeys(near, VACANCY))
        assert encode_configuration(item) == encode_structure(item.to_structure())

    def test_a_symmetry_image_has_the_same_space_group_and_as_many_edges(self, wse2: Host) -> None:
        rng = np.random.default_rng(5)
        for n_defects in (1, 2, 3, 8):
            item = random_configuration(wse2, n_defects, rng)
            one, other = (parse_slices(encode_configuration(x)) for x in (item, item.random_image(rng)))
            assert (one.space_group, len(one.edges)) == (other.space_group, len(other.edges))

    def test_an_atom_alone_is_refused(self) -> None:
        host = dataclasses.replace(get_host("BN", (1, 1)), lattice=((11, 0, 0), (0, 11, 0), (0, 0, 20)))
        with pytest.raises(DefectgenError, match="no neighbour"):
            encode_configuration(Configuration.of(host, {0: VACANCY}))
        with pytest.raises(DefectgenError, match="every site vacant"):
            encode_configuration(Configuration.of(host, {0: VACANCY, 1: VACANCY}))

    def test_a_cell_takes_milliseconds(self, mos2: Host) -> None:
        rng = np.random.default_rng(0)
        items = [random_configuration(mos2, 3, rng) for _ in range(20)]
        encode_configuration(items[0])
        start = time.process_time()
        for item in items:
            encode_configuration(item)
        assert (time.process_time() - start) / len(items) < 0.0038, "a fiftieth of the reference's 0.19 s"


FAKE_PACKAGE = """
from pymatgen.core import Lattice, Structure
class SLICES:
    def __init__(self, relax_model=None, graph_method=None):
        print("noise on stdout")
        assert graph_method == "econnn"
        self.relax_model = relax_model
    def structure2SLICES(self, structure):
        assert self.relax_model is None
        return " ".join(site.specie.symbol for site in structure)
    def SLICES2structure(self, text):
        assert self.relax_model == "m3gnet"
        if "He" in text:
            raise TypeError("no lattice\\nbasis")
        return Structure(Lattice.cubic(3.0), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]), -3.0
"""


@pytest.fixture
def fake_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReferencePackage:
    """An interpreter whose package `slices` answers at once."""
    folder = tmp_path / "fake" / "slices"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "core.py").write_text(FAKE_PACKAGE)
    monkeypatch.setenv("PYTHONPATH", str(folder.parent))
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    return ReferencePackage.from_environment()


class TestReferencePackage:
    def test_what_goes_in_and_out(self, fake_package: ReferencePackage) -> None:
        (text, seconds), *_ = fake_package.encode([rock_salt()])
        assert text == "Cl Na"
        assert seconds >= 0
        (structure,) = fake_package.decode([NACL])
        assert structure.composition.reduced_formula == "CsCl"
        assert structure.volume == pytest.approx(27)

    def test_a_string_that_it_cannot_decode_is_named(self, fake_package: ReferencePackage) -> None:
        good, bad = fake_package.decode([NACL, "He 0 0 oo+"])
        assert isinstance(good, Structure)
        assert bad == "TypeError: no lattice basis"

    def test_without_it_one_line_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
        with pytest.raises(DefectgenError, match=r"DEFECTGEN_SLICES_PYTHON is not set.*docs/slices.md"):
            ReferencePackage.from_environment()
        with pytest.raises(DefectgenError, match=r"cannot be run \(No such file or directory\)"):
            ReferencePackage(tmp_path / "python").decode([NACL])
        with pytest.raises(DefectgenError, match="No module named 'slices'") as caught:
            ReferencePackage(Path(sys.executable)).decode([NACL])
        assert "\n" not in str(caught.value)


class TestCommand:
    def run(self, *words: object) -> tuple[int, str, str]:
        app = typer.Typer(pretty_exceptions_enable=False)
        app.command()(slices)
        done = CliRunner().invoke(app, [str(word) for word in words])
        error = str(done.exception) if isinstance(done.exception, DefectgenError) else ""
        return done.exit_code, done.stdout, error + done.stderr

    def test_decorations_and_crystals(self, tmp_path: Path, mos2: Host) -> None:
        item = Configuration.of(mos2, {0: VACANCY, 70: "Se"})
        mixed = Structure.from_sites(list(item.to_structure())[::-1])
        mixed.to(str(tmp_path / "mixed.vasp"), fmt="poscar")
        rock_salt().to(str(tmp_path / "salt.cif"))
        code, out, _ = self.run(tmp_path / "mixed.vasp", tmp_path / "salt.cif", "--json")
        assert code == 0
        one, other = json.loads(out)["structures"]
        assert one["slices"] == encode_configuration(item), "whatever the order in the file"
        assert (one["host"], one["n_atoms"], one["space_group"]) == (
            "MoS2",
            191,
            parse_slices(one["slices"]).space_group,
        )
        assert (other["host"], other["n_edges"], other["space_group"]) == (
            None,
            len(parse_slices(other["slices"]).edges),
            225,
        )
        code, out, _ = self.run(tmp_path / "salt.cif", tmp_path / "mixed.vasp")
        assert [line.strip() for line in out.splitlines()] == [other["slices"].strip(), one["slices"].strip()]

    def test_a_relaxed_decoration_keeps_its_own_bonds_and_order(self, tmp_path: Path, mos2: Host) -> None:
        structure = Configuration.of(mos2, {0: VACANCY}).to_structure()
        structure.translate_sites([5], [0, 0, 0.05], frac_coords=False)
        structure.to(str(tmp_path / "relaxed.vasp"), fmt="poscar")
        code, out, _ = self.run(tmp_path / "relaxed.vasp", "--json")
        (row,) = json.loads(out)["structures"]
        assert (code, row["host"], row["space_group"]) == (0, None, 1)

    @pytest.mark.usefixtures("fake_package")
    def test_decoding_writes_files(self, tmp_path: Path) -> None:
        strings = tmp_path / "strings.txt"
        strings.write_text(f"{NACL}\n\n{DIAMOND}\n")
        code, out, _ = self.run("--decode", strings, "-o", tmp_path / "made")
        assert (code, [Path(line).name for line in out.split()]) == (0, ["0001-CsCl.cif", "0002-CsCl.cif"])
        assert Structure.from_file(tmp_path / "made" / "0001-CsCl.cif").volume == pytest.approx(27)
        code, _, error = self.run("--decode", strings, "-o", tmp_path / "made")
        assert "exists already" in error
        strings.write_text(f"He 0 0 oo+\n{NACL}\n")
        code, out, error = self.run("--decode", strings, "-o", tmp_path / "some")
        assert code == 3
        assert [Path(line).name for line in out.split()] == ["0002-CsCl.cif"]
        assert "string 1: TypeError: no lattice basis" in error
        assert "1 of 2 failed." in error

    def test_one_bad_file_costs_no_other_string(self, tmp_path: Path) -> None:
        (tmp_path / "bad.cif").write_text("nonsense")
        rock_salt().to(str(tmp_path / "good.cif"))
        code, out, error = self.run(tmp_path / "bad.cif", tmp_path / "good.cif")
        assert code == 3
        assert " Na Cl 0 1 " in out
        assert str(tmp_path / "bad.cif") in error
        assert "1 of 2 failed" in error

    def test_wrong_calls(self, tmp_path: Path) -> None:
        strings = tmp_path / "strings.txt"
        strings.write_text("hello\n")
        for words, message in (
            ([strings, "--decode"], "needs a folder"),
            ([strings, "-o", tmp_path / "x"], "goes with --decode"),
            ([strings, "--decode", "-o", tmp_path / "x"], "no SLICES string"),
            ([tmp_path / "none.cif"], "is not a file"),
        ):
            code, _, error = self.run(*words)
            assert code, words
            assert message in error
        assert issubclass(UsageError, DefectgenError)


@pytest.fixture(scope="module")
def reference() -> ReferencePackage:
    """The real reference package."""
    if not os.environ.get(PYTHON_VARIABLE):
        pytest.skip(f"{PYTHON_VARIABLE} is not set: comparison with the reference package left out")
    return ReferencePackage.from_environment()


def test_fresh_decorations_and_crystals_equal_the_reference(reference: ReferencePackage) -> None:
    rng = np.random.default_rng(20)
    items = [random_configuration(get_host(name), int(rng.integers(1, 20)), rng) for name in host_names()]
    crystals = [rock_salt(), diamond(), perovskite(), monolayer()]
    expected = [text for text, _ in reference.encode([*(item.to_structure() for item in items), *crystals])]
    found = [*map(encode_configuration, items), *map(encode_structure, crystals)]
    assert found == expected, [item.key for item in items]


@pytest.mark.slow
def test_real_structures_of_all_sets_equal_the_reference(
    reference: ReferencePackage, twodmd: pl.DataFrame, twodmd_dir: Path
) -> None:
    compared = 0
    for info in SETS:
        keys = twodmd.filter(set=info.name)["configuration"].sample(65, seed=11)
        items = [Configuration.from_key(get_host(info.host), key) for key in keys]
        originals = []
        archive = twodmd_dir / "csv_cif" / f"{info.density}_density_defects" / info.name / "initial.tar.gz"
        with tarfile.open(archive) as tar, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for member in (m for m in tar if m.name.endswith(".cif")):
                originals.append(Structure.from_str(tar.extractfile(member).read().decode(), "cif"))  # type: ignore[union-attr]
                if len(originals) == 5:
                    break
        expected = reference.encode([*(item.to_structure() for item in items), *originals])
        found = [*map(encode_configuration, items), *map(encode_structure, originals)]
        assert found == [text for text, _ in expected]
        compared += len(found)
    assert compared == 560


@pytest.mark.slow
def test_decoding_gives_rock_salt_back(reference: ReferencePackage) -> None:
    (structure,) = reference.decode([NACL])
    assert structure.composition.reduced_formula == "NaCl"
    assert structure.lattice.abc == pytest.approx([5.69 / 2**0.5] * 3, rel=0.02)
    (reason,) = reference.decode([MONOLAYER])
    assert isinstance(reason, str)
