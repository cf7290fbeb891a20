"""Files as people have them, with the right answer to each, through the library and the commands."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import defectgen as dg
from defectgen.io.crystal_files import read_crystals
from defectgen.io.structures import read_structure, read_structures
from defectgen.metrics.atom_distances import far_enough
from defectgen.metrics.charge_balance import smact_valid
from defectgen.metrics.crystal_matching import groups
from defectgen.metrics.generated_entries import read_entries
from defectgen.score.potentials.m3gnet import VARIABLE
from defectgen_cli.app import main

INPUTS = Path(__file__).parent / "inputs"

WS2 = [
    "c00_plain.cif",
    "c01_esd.cif",
    "c03_global_block.cif",
    "c05_occ_dot.cif",
    "c07_crlf.cif",
    "c08_bom.cif",
    "c09_latin1.cif",
    "c10_nosym.cif",
    "c11_HMonly.cif",
    "c15_oxi.cif",
    "c20_3decimals.cif",
    "c23_trailing_text.cif",
    "c29_magcif.cif",
    "c30_symops_187.cif",
    "p00_plain.vasp",
    "p01_sel_cart.vasp",
    "p02_negscale.vasp",
    "p05_threescales.vasp",
    "p06_pv.vasp",
    "p07_vasp642.vasp",
    "p07b_vasp642hash.vasp",
    "p09_crlf.vasp",
    "p10_lowercase_k.vasp",
    "p11_repeat.vasp",
    "p12_scale_cart.vasp",
    "CONTCAR_relaxed",
]

REFUSED = {
    "fmt/c02_qcell.cif": "no cell",
    "fmt/c13_D.cif": "'D' is no element",
    "fmt/c14_X.cif": "'X' is no element",
    "fmt/c16_partial.cif": r"occupancy 0\.5 of atom 3 \(S\)",
    "fmt/c19_idop_with_sg.cif": "names a space group and the formula W1 S2, but has only .* the atoms S1 W1",
    "fmt/c21_2decimals.cif": r"coordinates have 2 decimals, which places atoms to 0\.10 angstrom",
    "fmt/c24_dup.cif": "atoms 1 and 4 are on one place",
    "fmt/c25_empty.cif": "is empty",
    "fmt/p03_vasp4.vasp": "names no elements",
    "fmt/p13_missing_row.vasp": "fewer rows than atoms",
    "pot/05_on_top.vasp": "atoms 1 and 2 are on one place",
    "pot/07_vasp4.vasp": "names no elements",
    "misc/far_x1000.vasp": "has atom 1 at 1e[+]05 cell vectors from the origin",
}

BOTH = "v_Mo+v_S+Se_S"
PAIR = "W_Mo+v_S"

RECOGNIZED = {
    "score1/00_ref.cif": ("MoS2", "8x8", BOTH),
    "score1/01_ase_mx2_vS.vasp": ("MoS2", "8x8", "v_S"),
    "score1/02_gamma60.cif": ("MoS2", "8x8", BOTH),
    "score1/04_vac_along_a.cif": ("MoS2", "8x8", BOTH),
    "score1/05_bn_swapped.cif": ("BN", "8x8", "pristine"),
    "score1/06_bn_ref.cif": ("BN", "8x8", "v_B+C_N"),
    "score1/12_P_ref.cif": ("P", "6x6", "v_P+N_P"),
    "score1/14_relaxed_shift.cif": ("MoS2", "8x8", BOTH),
    "score1/15_shuffled.vasp": ("MoS2", "8x8", BOTH),
    "score1/18_oxi.cif": ("MoS2", "8x8", BOTH),
    "score2/POSCAR": ("MoS2", "8x8", PAIR),
    "score2/b_POSCAR": ("MoS2", "8x8", PAIR),
    "score2/c_upper.CIF": ("MoS2", "8x8", PAIR),
    "score2/f_spaces name ü.cif": ("MoS2", "8x8", PAIR),
    "score2/g_TTF.extxyz": ("MoS2", "8x8", PAIR),
    "score2/h_FFT.extxyz": ("MoS2", "8x8", PAIR),
    "score2/ref.vasp": ("MoS2", "8x8", PAIR),
    "score2/sub/CONTCAR": ("MoS2", "8x8", PAIR),
    "score2/t_6x6.cif": ("MoS2", "6x6", "v_Mo"),
    "score2/t_7x7.cif": ("MoS2", "7x7", "v_Mo"),
    "score3/01_ase_BN_vB.vasp": ("BN", "8x8", "v_B"),
    "score3/02_ase_BN_C_N.cif": ("BN", "8x8", "C_N"),
    "score3/04_GaSe_minus.cif": ("GaSe", "6x6", "v_Ga"),
}

NO_VALUE = {
    "score1/05_bn_swapped.cif": "pristine hBN",
    "score1/08_graphene8x8.cif": "C is another compound",
    "score1/09_MoSe2_8x8.cif": "MoSe2 is another compound",
    "score2/CONTCAR_empty": "is empty, expected a structure",
    "score2/d_trunc.cif": "Wrong number of values in loop",
    "score2/e_bin.cif": "is no text, expected a CIF",
    "score2/i_mid_nocell.extxyz#2": "has no cell",
    "score2/j_zero_c.extxyz": "has no cell",
    "score2/k_twoblocks.cif": "2 of 2 blocks have atoms",
    "score2/l_partial.cif": "occupancy 0.5 of atom 191 (W)",
    "score2/m_adatom_plus_vac.cif": "atom 191 lies 0.92 angstrom from the nearest site",
    "score2/n_adatom.cif": "got 193 atoms, expected at most 192",
    "score2/p_Nb.cif": "Nb_Mo is no known defect",
    "score2/q_H_S.cif": "H_S is no known defect",
    "score2/s_X_S.cif": "'X' is no element",
    "score2/t_6x6.cif": "does not cover this supercell",
    "score2/t_7x7.cif": "does not cover this supercell",
}

COUNTS = {
    "bp_vac_b": [1, 32],
    "cri3": [1, 1, 8, 16, 36],
    "gase_AA": [2, 2, 24, 40, 24],
    "gase_AB": [4, 4, 42, 80, 42],
    "mosse": [1, 1, 1, 3, 5, 5, 3, 5, 3],
    "mote2_1tp": [1, 2, 16, 40, 52],
    "silicene": [1, 8],
    "ws2": [1, 1, 3, 5, 7],
    "ws2_2x1cell": [1, 1, 12, 20, 25],
    "ws2_60": [1, 1, 3, 5, 7],
    "ws2_lean_c": [1, 1, 3, 5, 7],
    "ws2_rect": [1, 1, 12, 20, 25],
    "ws2_vac_b": [1, 1, 3, 5, 7],
}


@pytest.mark.parametrize("name", WS2)
def test_tungsten_disulfide_in_many_words(name: str) -> None:
    structure = read_structure(INPUTS / "fmt" / name)
    assert structure.composition.formula == "W1 S2"
    assert abs(structure.lattice.a - 3.18) < 0.02
    assert abs(structure.distance_matrix[0, 1] - 2.41) < 0.04, "sulfur is bound to tungsten"


@pytest.mark.parametrize(("name", "formula"), [("c12_graphene_sym", "C2"), ("c17_upper_label", "Mo1 Se2")])
def test_other_files_in_few_words(name: str, formula: str) -> None:
    assert read_structure(INPUTS / "fmt" / f"{name}.cif").composition.formula == formula


def test_hydrogen_is_there() -> None:
    assert read_structure(INPUTS / "fmt" / "c28_H.cif").composition.formula == "H1 W1 S2"


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_what_cannot_be_read_says_why_and_commands_agree(
    name: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = INPUTS / name
    with pytest.raises(dg.DefectgenError, match=reason) as caught:
        dg.read_structure(path)
    assert "\n" not in str(caught.value)
    for words in (["score", str(path)], ["enumerate", "--host", str(path), "--supercell", "2x2", "v_S"]):
        assert main(words) in (1, 2)
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert len(lines) == 1
        assert str(caught.value).split(": ", 1)[1].rstrip(".")[:60] in lines[0]


@pytest.mark.parametrize(("name", "wanted"), RECOGNIZED.items())
def test_what_the_library_makes_of_it(name: str, wanted: tuple[str, str, str]) -> None:
    found = dg.read_structure(INPUTS / name)
    assert isinstance(found, dg.Configuration)
    assert (found.host.name, found.host.size, found.label) == wanted


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    """The rows of `defectgen score` on the three folders."""
    import contextlib
    import io

    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(io.StringIO()):
        main(["score", *(str(INPUTS / name) for name in ("score1", "score2", "score3")), "--json"])
    found = json.loads(text.getvalue())["structures"]
    return {str(Path(row["file"]).relative_to(INPUTS)): row for row in found}


def test_the_command_names_each_file(rows: dict[str, dict[str, Any]]) -> None:
    frames = {f"score2/i_mid_nocell.extxyz#{number}": ("MoS2", "8x8", PAIR) for number in (1, 3)}
    assert set(rows) == set(RECOGNIZED) | set(NO_VALUE) | set(frames)
    for name, wanted in (RECOGNIZED | frames).items():
        assert (rows[name]["host"], rows[name]["supercell"], rows[name]["label"]) == wanted, name
        if name not in NO_VALUE:
            assert rows[name]["formation_energy_ev"] is not None, name
    for name, reason in NO_VALUE.items():
        assert rows[name]["homo_ev"] is None, name
        assert reason in rows[name]["note"], name


def test_what_the_reader_took_for_granted_is_told_once() -> None:
    (guessed,) = read_structures(INPUTS / "fmt" / "c11_HMonly.cif")
    assert any("4 fractional coordinates rounded" in line for line in guessed.warnings)
    assert sum("Spacegroup from _symmetry_space_group_name_H-M used" in line for line in guessed.warnings) == 1
    (plain,) = read_structures(INPUTS / "fmt" / "c00_plain.cif")
    assert plain.warnings == ()


def test_one_structure_in_other_words_is_one_configuration(rows: dict[str, dict[str, Any]]) -> None:
    for label in (BOTH, PAIR):
        same = [row for name, row in rows.items() if row["label"] == label and name in RECOGNIZED]
        assert len(same) >= 6
        assert len({row["configuration"] for row in same}) == 1
        assert len({row["homo_ev"] for row in same}) == 1


@pytest.mark.parametrize(("name", "counts"), COUNTS.items())
def test_counts_of_other_hosts(name: str, counts: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--host", str(INPUTS / "enum" / f"{name}.cif"), "--supercell", "4x4", "--max-defects", "2", "--count"]
    assert main(["enumerate", *words, "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out).values()) == counts


def test_a_distorted_layer_has_a_way_in(capsys: pytest.CaptureFixture[str]) -> None:
    path = INPUTS / "enum2" / "a_cdw_0.04.cif"
    with pytest.raises(dg.DefectgenError, match=r"give --symmetry-tolerance 0\.01"):
        dg.read_host(path, (2, 2))
    host = dg.read_host(path, (2, 2), symmetry_tolerance=0.01)
    words = ["--host", str(path), "--supercell", "2x2", "--symmetry-tolerance", "0.01", "--max-defects", "1", "--count"]
    assert main(["enumerate", *words, "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert sum(counts.values()) == sum(1 for _ in dg.enumerate(host, max_defects=1)) > 2
    with pytest.raises(dg.UsageError, match="got a symmetry tolerance of 0 angstrom"):
        dg.read_host(path, (2, 2), symmetry_tolerance=0.0)
    assert dg.read_host(INPUTS / "enum2" / "c_noisy_mos2.cif", (2, 2)).name == "MoS2"
    for name, reason in (("d_bulk2H", r"at most 3\.0 angstrom of vacuum"), ("e_ribbon", "vacuum along 2 axes")):
        with pytest.raises(dg.DefectgenError, match=reason):
            dg.read_host(INPUTS / "enum2" / f"{name}.cif", (2, 2), symmetry_tolerance=0.01)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nan", r"pretty_formula is nan, the crystal is WS2"),
        ("latin", "(cannot be read as a table|damaged or no CSV file).*invalid utf-8"),
    ],
)
def test_a_table_that_contradicts_itself_is_one_line_in_every_command(
    name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEFECTGEN_CACHE", str(tmp_path / "cache"))
    path = str(INPUTS / "misc" / f"{name}.csv")
    (tmp_path / "hull.csv").write_text("formula,formation_energy_per_atom\nWS2,-0.8\n")
    for words in (
        ["evaluate", "bulk", path],
        ["build-data", "--task", "bulk", "--data", path, "-o", str(tmp_path / "records")],
        ["stability", path, "--hull", str(tmp_path / "hull.csv"), "-o", str(tmp_path / "study")],
    ):
        assert main(words) == 1
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert len(lines) == 1
        assert re.search(reason, lines[0], re.IGNORECASE), lines[0]


@pytest.mark.parametrize("name", ["bom", "crlf"])
def test_tables_of_other_editors_are_read(name: str) -> None:
    rows = list(read_crystals(INPUTS / "misc" / f"{name}.csv"))
    plain = list(read_crystals(INPUTS / "bulk_probe.csv"))
    assert [row.digest for row in rows] == [row.digest for row in plain]
    assert [row.name for row in rows if row.structure is None] == ["on_top"]


def test_generated_crystals_are_told_apart_and_judged() -> None:
    """1 to 6 are rock salt in six settings, 8 and 9 the two hands of quartz."""
    pytest.importorskip("smact", reason="composition rules need the extra bulk")
    rows = pl.read_csv(INPUTS / "bulk_probe.csv")
    entries = read_entries([INPUTS / "bulk_probe.csv"]).entries
    crystals = {name: entry.crystal for name, entry in zip(rows["material_id"], entries, strict=True) if entry.crystal}
    names = list(crystals)
    assert len(names) == 23
    group = dict(zip(names, groups(list(crystals.values())), strict=True))
    assert len({group[name] for name in names[:6]}) == 1
    assert [name for name in names if group[name] == group["kcl_same_cell"]] == ["kcl_same_cell"]
    assert {name for name in names if not far_enough(crystals[name])} == {"Fe3O4", "close_0.49", "on_top"}
    assert {name for name in names if not smact_valid(crystals[name])} == {"NaNe", "NaCl2", "Pu2O", "Fe3O4"}
    assert {"Ne_fcc", "H2_box", "CuAu"} < set(names)


def test_a_potential_takes_any_atoms_that_it_knows(capsys: pytest.CaptureFixture[str]) -> None:
    """With real weights: a lone atom, sparse metals and a layer have energies, Po and what cannot be read have none."""
    pytest.importorskip("matgl", reason="M3GNet needs the m3gnet extra")
    if not os.environ.get(VARIABLE):
        pytest.skip(f"{VARIABLE} is not set: tests on real M3GNet weights left out")
    assert main(["score", "--scorer", "m3gnet", str(INPUTS / "pot"), "--json"]) == 3
    found = {Path(row["file"]).stem[:2]: row for row in json.loads(capsys.readouterr().out)["structures"]}
    assert set(found) == {"01", "02", "03", "04", "05", "07", "08"}
    formulas = {"01": "Mo", "02": "Cs", "03": "Zr", "08": "WS2"}
    for name, row in found.items():
        assert (row["energy_per_atom_ev"] is not None) == (name in formulas), name
        assert row["note"] if name not in formulas else row["formula"] == formulas[name]
    assert found["02"]["energy_per_atom_ev"] == pytest.approx(-0.86, abs=0.1), "Cs by PBE"
    assert found["08"]["energy_per_atom_ev"] < -7.5 < found["01"]["energy_per_atom_ev"] < 0, "a crystal is bound"
    assert found["01"]["max_force_ev_angstrom"] == found["01"]["max_stress_gpa"] == 0, "nothing pulls a lone atom"
    assert "never saw Po" in found["04"]["note"]


def test_a_damaged_frame_costs_that_frame_only(tmp_path: Path) -> None:
    frame = (INPUTS / "score2" / "g_TTF.extxyz").read_text().splitlines()
    short = [*frame[:20], *frame[21:]]
    words = [*frame[:5], frame[5].replace(".", "x", 1), *frame[6:]]
    odd = ["many", *frame[1:]]
    (tmp_path / "all.extxyz").write_text("\n".join([*frame, *short, *frame, *words, *frame, *odd, *frame]) + "\n")
    found = list(read_structures(tmp_path / "all.extxyz"))
    assert [item.structure is None for item in found] == [False, True, False, True, False, True, False]
    assert f"it has {int(frame[0]) - 1} rows of atoms, expected {frame[0]}" in found[1].note
    assert "expected the number of atoms" in found[5].note


def test_files_that_are_left_out_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    (run / "structures").mkdir(parents=True)
    (run / "candidates.csv").write_text("rank\n")
    text = (INPUTS / "score2" / "ref.vasp").read_text()
    (run / "structures" / "1.vasp").write_text(text)
    (run / "other.vasp").write_text(text)
    (tmp_path / "free").mkdir()
    for name in ("poscar_old", "notes.txt", "run.out", ".hidden.vasp"):
        (tmp_path / "free" / name).write_text(text)
    assert main(["score", str(run), str(tmp_path / "free"), "--json"]) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert [Path(row["file"]).name for row in answer["structures"]] == ["1.vasp", "poscar_old"]
    assert [Path(name).name for name in answer["skipped"]] == ["notes.txt", "run.out"]
    assert "skipped 2 files that are no structures by their names: notes.txt, run.out" in captured.err
