"""Inputs of pw.x: pseudopotentials, moments, k points."""

from __future__ import annotations

from pathlib import Path

import pytest

import defectgen as dg
from defectgen.dft.codes import CODES
from defectgen.dft.inputs import dft_inputs
from defectgen.dft.settings import load_settings


@pytest.fixture
def vacancy() -> dg.Configuration:
    return dg.Configuration.from_key(dg.host("MoS2", "3x3"), "VAC@B00")


@pytest.fixture
def pseudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "pseudo"
    folder.mkdir()
    for name in ("Mo.pbe-spn-kjpaw_psl.1.0.0.UPF", "s_pbe_v1.4.uspp.F.UPF", "Se.upf", "README.md"):
        (folder / name).touch()
    monkeypatch.setenv("ESPRESSO_PSEUDO", str(folder))
    return folder


def written(vacancy: dg.Configuration, folder: Path, *overrides: str, name: str = "001_v_S") -> str:
    dft_inputs(vacancy, folder, "qe", settings=load_settings("2dmd", overrides))
    return (folder / name / "pw.in").read_text()


def test_pseudopotentials_are_found_by_their_element(vacancy: dg.Configuration, pseudo: Path, tmp_path: Path) -> None:
    text = written(vacancy, tmp_path / "in")
    assert f"pseudo_dir       = '{pseudo}'" in text
    assert "Mo1 95.95 Mo.pbe-spn-kjpaw_psl.1.0.0.UPF" in text
    assert "S  32.06 s_pbe_v1.4.uspp.F.UPF" in text
    code = CODES["qe"]
    assert code.missing(tmp_path / "in" / "001_v_S") == ""
    (pseudo / "s_pbe_v1.4.uspp.F.UPF").unlink()
    assert code.missing(tmp_path / "in" / "001_v_S").startswith(
        f"the folder of pseudopotentials {pseudo} has no s_pbe_v1.4.uspp.F.UPF (the inputs have it from ESPRESSO_PSEUDO"
    )
    with pytest.raises(dg.DefectgenError, match=r"holds no pseudopotential of S, expected a file such as S\.UPF"):
        written(vacancy, tmp_path / "none")
    for name in ("S.UPF", "S.gth"):
        (pseudo / name).touch()
    with pytest.raises(dg.DefectgenError, match=r"holds 2 pseudopotentials of S: S\.UPF, S\.gth"):
        written(vacancy, tmp_path / "two")
    assert " S.gth\n" in written(vacancy, tmp_path / "named", "qe.pseudopotentials={S: S.gth}")


def test_a_folder_of_another_machine_is_taken_as_it_is(
    vacancy: dg.Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ESPRESSO_PSEUDO", raising=False)
    text = written(vacancy, tmp_path / "in")
    assert "pseudo_dir       = '../pseudo'" in text
    assert "S  32.06 S.UPF" in text
    why = CODES["qe"].missing(tmp_path / "in" / "001_v_S")
    assert why.startswith(
        f"the folder of pseudopotentials {tmp_path / 'in' / 'pseudo'} is not there, which should hold Mo.UPF, S.UPF"
    )
    assert "pseudopotentials are expected in ../pseudo" in (tmp_path / "in" / "README.md").read_text()
    far = written(vacancy, tmp_path / "far", "qe.pseudo_dir=/elsewhere/sssp")
    assert "pseudo_dir       = '/elsewhere/sssp'" in far


@pytest.mark.usefixtures("pseudo")
def test_moments_are_shares_of_the_electrons(vacancy: dg.Configuration, tmp_path: Path) -> None:
    text = written(vacancy, tmp_path / "in")
    assert "starting_magnetization(1) = 0.1667" in text  # 1 of molybdenum's 6 electrons, in Bohr magnetons
    host = written(vacancy, tmp_path / "on", 'spin="on"', name="host_MoS2_3x3")
    assert "nspin            = 2" in host
    assert "starting_magnetization(1) = 0.0" in host  # without any pw.x stops


@pytest.mark.usefixtures("pseudo")
def test_one_k_point_has_real_wave_functions(vacancy: dg.Configuration, tmp_path: Path) -> None:
    assert "K_POINTS gamma" in written(vacancy, tmp_path / "in", "kpoint_length_angstrom=5")
    assert "3 3 1  0 0 0" in written(vacancy, tmp_path / "mesh", "kpoint_length_angstrom=28")
