"""The folders of charges as doped's own parser reads them: which are defects, and in which charge."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import vasprun_files
from vasprun_files import write_vasprun

import defectgen as dg

pytest.importorskip("doped", reason="doped is not installed: the extra exports brings it")

HOST = dg.host("MoS2", "3x3")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Inputs of v_S in three charges, each with what VASP leaves; a charge costs 0.1 eV."""
    made = dg.dft_inputs(dg.enumerate(HOST, "v_S"), tmp_path / "vasp", code="vasp", charges=(-1, 0, 1))
    names = [item.name for item in made.calculations]
    assert names == ["001_v_S_-1", "001_v_S_+0", "001_v_S_+1", "host_MoS2_3x3", "element_S"]
    for item in made.calculations:
        energy = -7.2 * len(item.structure) + 0.1 * item.charge
        channels = [[(-1.0, 1.0), (0.6, 0.0)]] * (2 if item.moments else 1)
        write_vasprun(tmp_path / "vasp" / item.name, item.structure, energy, channels, charge=item.charge)
    return tmp_path / "vasp"


def parsed(folder: Path) -> dict[str, tuple[int, float]]:
    from doped.analysis import DefectsParser

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = DefectsParser(
            output_path=str(folder), bulk_path=f"host_{HOST.name}_{HOST.size}", skip_corrections=True, processes=1,
            json_filename=False,
        )  # fmt: skip
    return {name: (entry.charge_state, entry.get_ediff()) for name, entry in found.defect_dict.items()}


def test_charges_by_their_electrons(folder: Path) -> None:
    found = parsed(folder)
    assert {name: charge for name, (charge, _) in found.items()} == {
        "001_v_S_-1": -1, "001_v_S_+0": 0, "001_v_S_+1": 1,
    }  # fmt: skip
    assert [found[name][1] for name in sorted(found)] == pytest.approx([7.2, 7.3, 7.1])


def test_charges_by_the_names_of_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = {element: f"PAW_PBE {element}_own 01Jan2030" for element in vasprun_files.TITLES}
    for path in folder.glob("*/vasprun.xml"):
        text = path.read_text(encoding="latin-1")
        for element, title in vasprun_files.TITLES.items():
            text = text.replace(title, unknown[element])
        path.write_text(text, encoding="latin-1")
    monkeypatch.setenv("PMG_VASP_PSP_DIR", str(folder / "nowhere"))
    assert {name: charge for name, (charge, _) in parsed(folder).items()} == {
        "001_v_S_-1": -1, "001_v_S_+0": 0, "001_v_S_+1": 1,
    }  # fmt: skip
