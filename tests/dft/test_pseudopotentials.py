"""Pseudopotentials by their heads: kind, cutoffs, electrons, functional; and, where pw.x is there, a run with PAW.

The heads are those of files that come with Quantum ESPRESSO 6.7, and what its ld1.x writes.
"""

from __future__ import annotations

import os
import runpy
import shutil
from pathlib import Path

import pytest

import defectgen as dg
from defectgen.dft.codes import CODES
from defectgen.dft.codes.pseudo_headers import NORM_CONSERVING, PAW, ULTRASOFT, PseudoHeader, read_header
from defectgen.dft.codes.pseudopotentials import content_mark
from defectgen.dft.compute import DONE, compute
from defectgen.dft.inputs import dft_inputs
from defectgen.dft.result import Fingerprint
from defectgen.dft.results import dft_results
from defectgen.dft.settings import load_settings

ROWS = """<PP_INFO>
</PP_INFO>
<PP_HEADER>
   0                   Version Number
  {element}                    Element
   {kind}                   pseudopotential
    F                  Nonlinear Core Correction
 SLA  PW   PBE  PBE    PBE  Exchange-Correlation functional
    6.00000000000      Z valence
  -31.39526325800      Total energy
  {cutoffs} Suggested cutoff for wfc and rho
    2                  Max angular momentum component
</PP_HEADER>
"""

ONE_LINE = (
    '<UPF version="2.0.1">\n  <PP_INFO>\n    2P  2  1  1.00      1.200      1.400\n  </PP_INFO>\n  <PP_HEADER '
    'generated="Generated using \'atomic\' code by A. Dal Corso  v.6.7MaX" author="anonymous" element=" B" '
    'pseudo_type="PAW" relativistic="scalar" is_ultrasoft="true" is_paw="true" functional=" SLA  PW   PBX  PBC" '
    'z_valence="3.0000000000000000" wfc_cutoff="42.588737836306613" rho_cutoff="170.35495134522645" l_max="1"/>\n'
)

ONCV = """<UPF version="2.0.1">
    <PP_HEADER
       generated="Generated using ONCVPSP code by D. R. Hamann"
       element="Mo"
       pseudo_type="NC"
       is_ultrasoft="F"
       functional="{functional}"
       z_valence="   14.00"
       rho_cutoff="   6.01000000000E+00"
       number_of_proj="6"/>
"""

GTH = "Mo GTH-PBE-q14 of CP2K\n42 14 0\n10 11 2 3 2001 0\n"

RRKJ3 = "O\n    {kind}\n    F    T\n    1    4    3    4\n"


def test_heads_of_all_formats(tmp_path: Path) -> None:
    def header(name: str, text: str) -> PseudoHeader:
        (tmp_path / name).write_text(text)
        return read_header(tmp_path / name)

    assert header("B.UPF", ONE_LINE) == PseudoHeader(PAW, 3.0, 42.588737836306613, 170.35495134522645, "PBE")
    assert header("Mo.upf", ONCV.format(functional="PBE")) == PseudoHeader(NORM_CONSERVING, 14.0, functional="PBE")
    assert header("O.UPF", ROWS.format(element="O", kind="US  Ultrasoft", cutoffs="0.0 0.0")) == PseudoHeader(
        ULTRASOFT, 6.0, functional="PBE"
    )
    asked = header("P.UPF", ROWS.format(element="O", kind="NC  Norm - Conserving", cutoffs="30.0 240.0"))
    assert (asked.kind, asked.wave_cutoff_ry, asked.density_cutoff_ry) == (NORM_CONSERVING, 30.0, 240.0)
    assert header("Mo.gth", GTH) == PseudoHeader(NORM_CONSERVING, 14.0)
    assert header("O.RRKJ3", RRKJ3.format(kind=3)).kind == ULTRASOFT
    assert header("S.RRKJ3", RRKJ3.format(kind=2)).kind == NORM_CONSERVING
    assert header("Ni.van", "binary").kind == ULTRASOFT
    assert header("empty.UPF", "") == PseudoHeader()
    assert read_header(tmp_path / "absent.UPF") == PseudoHeader()


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("SLA  PW   PBE  PBE", "PBE"), (" SLA  PW   PSX  PSC", "PBEsol"), ("PBESOL", "PBEsol"),
        (" SLA  PZ   NOGX NOGC", "LDA"), ("SLA-PW-PBX-PBC", "PBE"), ("B3LYP", ""),
    ],
)  # fmt: skip
def test_functionals_by_name_and_by_their_parts(words: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "Mo.upf").write_text(ONCV.format(functional=words))
    assert read_header(tmp_path / "Mo.upf").functional == name


@pytest.fixture
def vacancy() -> dg.Configuration:
    return dg.Configuration.from_key(dg.host("MoS2", "3x3"), "VAC@B00")


def written(item: dg.Configuration, folder: Path, pseudo: Path, *overrides: str) -> tuple[str, tuple[str, ...]]:
    made = dft_inputs(item, folder, "qe", settings=load_settings("2dmd", [f"qe.pseudo_dir={pseudo}", *overrides]))
    return (folder / made.calculations[0].name / "pw.in").read_text(), made.notes


def cutoffs(text: str) -> float:
    """That of the density by that of the waves."""
    wave, density = (float(text.partition(f"{name} ")[2].split()[1]) for name in ("ecutwfc", "ecutrho"))
    return density / wave


def test_the_density_has_four_times_the_cutoff_of_norm_conserving_ones_alone(
    vacancy: dg.Configuration, tmp_path: Path
) -> None:
    pseudo = tmp_path / "pseudo"
    pseudo.mkdir()
    (pseudo / "Mo.gth").write_text(GTH)
    (pseudo / "S.upf").write_text(ONCV.format(functional="PBE"))
    text, notes = written(vacancy, tmp_path / "nc", pseudo)
    assert cutoffs(text) == pytest.approx(4)
    assert notes == ()
    assert "starting_magnetization(1) = 0.0714" in text  # 1 Bohr magneton of the file's 14 electrons
    (pseudo / "B.UPF").write_text(ONE_LINE)  # not in these cells: those with it are to be computed alike
    assert cutoffs(written(vacancy, tmp_path / "mixed", pseudo)[0]) == pytest.approx(8)
    assert cutoffs(written(vacancy, tmp_path / "own", pseudo, "qe.density_cutoff_factor=12")[0]) == pytest.approx(12)
    (pseudo / "B.UPF").unlink()
    (pseudo / "S.upf").write_text("of no known form")
    assert cutoffs(written(vacancy, tmp_path / "unknown", pseudo)[0]) == pytest.approx(8)
    assert cutoffs(written(vacancy, tmp_path / "far", Path("/elsewhere"))[0]) == pytest.approx(8)


def test_what_the_files_ask_for_is_said(tmp_path: Path) -> None:
    carbon = dg.Configuration.from_key(dg.host("BN", "2x2"), "C@B00")
    pseudo = tmp_path / "pseudo"
    pseudo.mkdir()
    for name in ("B.UPF", "N.UPF"):
        (pseudo / name).write_text(ONE_LINE)
    (pseudo / "C.upf").write_text(ONCV.format(functional="SLA  PZ   NOGX NOGC"))
    _, notes = written(carbon, tmp_path / "in", pseudo, "qe.density_cutoff_factor=4")
    assert notes == (
        "B.UPF asks for a cutoff_ev of 579, the settings have 500",
        "B.UPF asks for a density up to 170 Ry, these inputs have 147 (qe.density_cutoff_factor 4.6 reaches it)",
        "C.upf was made for LDA, these calculations are of PBE",
        "N.UPF asks for a cutoff_ev of 579, the settings have 500",
        "N.UPF asks for a density up to 170 Ry, these inputs have 147 (qe.density_cutoff_factor 4.6 reaches it)",
    )


def test_pseudopotentials_are_the_same_by_content_or_else_by_name() -> None:
    def of(*setups: tuple[str, str]) -> Fingerprint:
        return Fingerprint("qe", setups=setups)

    assert of(("B", "B.UPF#0123abcd")).differs(of(("B", "other.UPF#0123abcd"))) == ""
    assert of(("B", "B.UPF#0123abcd")).differs(of(("B", "B.UPF"))) == ""
    assert "B.UPF#99999999 for B" in of(("B", "B.UPF#0123abcd")).differs(of(("B", "B.UPF#99999999")))
    assert "C.UPF for B" in of(("B", "B.UPF#0123abcd")).differs(of(("B", "C.UPF")))


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("pw.x") is None or shutil.which("ld1.x") is None,
    reason="no pw.x (apt-get install quantum-espresso)",
)
def test_from_inputs_to_results_with_paw_data_sets(tmp_path: Path) -> None:
    script = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "examples" / "paw_for_pwx.py"))
    pseudo = tmp_path / "pseudo"
    script["main"](str(pseudo), "B", "N", "C")
    assert {read_header(path).kind for path in pseudo.iterdir()} == {PAW}
    carbon = dg.Configuration.from_key(dg.host("BN", "2x2"), "C@B00")
    folder = tmp_path / "in"
    wanted = [
        "kpoint_length_angstrom=5",
        "relax=false",
        "cutoff_ev=250",
        "vacuum_angstrom=10",
        f"qe.pseudo_dir={pseudo}",
    ]
    text, _ = written(carbon, folder, pseudo, *wanted)
    assert cutoffs(text) == pytest.approx(8)
    names = ["001_C_N", "host_BN_2x2"]
    assert [item.status for item in compute(folder, only=names)] == [DONE, DONE]
    rows = {row["role"]: row for row in dft_results(folder).frame.to_dicts()}
    assert rows["defect"]["basis"] == "density to 2000 eV"
    assert rows["defect"]["level_method"] == "vacuum level"
    assert rows["defect"]["total_magnetization_mu_b"] == pytest.approx(1.0, abs=0.1)
    assert rows["host"]["band_gap_ev"] == pytest.approx(4.9, abs=0.4)
    for name in names:  # pw.x prints the whole MD5 sum of what it has read
        printed = (folder / name / "run.log").read_text()
        used = CODES["qe"].read(folder / name / "out" / "pwscf.xml").fingerprint.setups
        assert all(f"MD5 check sum: {setup.partition('#')[2]}" in printed for _, setup in used)
    other = pseudo / "B.paw.UPF"
    before = content_mark(other)
    other.write_text(other.read_text().replace("Author: anonymous", "Author: another"))
    os.utime(other)
    assert content_mark(other) != before
