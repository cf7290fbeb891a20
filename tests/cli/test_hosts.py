"""`defectgen hosts` as a user calls it."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from defectgen.core import get_host, host_names
from defectgen.design.host_records import host_record, known_hosts, trained_on
from defectgen.errors import DefectgenError, UsageError
from defectgen.llm.adapter import read_adapter
from defectgen.models import SHIPPED_ADAPTER, SHIPPED_CROWDED_ADAPTER, SHIPPED_SURROGATE, shipped
from defectgen.score.surrogate import Surrogate
from defectgen_cli.app import main

GRAPHENE = Structure(Lattice.hexagonal(2.46, 15.0), ["C", "C"], [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]])


@pytest.fixture
def graphene(tmp_path: Path) -> Path:
    path = tmp_path / "graphene.cif"
    GRAPHENE.to(str(path))
    return path


def out(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["hosts", *words]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_the_table_has_a_row_a_host(capsys: pytest.CaptureFixture[str]) -> None:
    lines = out(capsys).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["host", "also", "cell", "sites", "point", "defects", "defect", "crowded", "surrogate"]
    assert lines[3].split() == ["hBN", "BN,", "h-BN", "8x8", "128", "C_B", "v_B", "C_N", "v_N", "16", "16", "16"]
    assert [get_host(line.split()[0]).name for line in lines[1:7]] == list(host_names())
    assert [line.split()[0] for line in lines[1:7]] == ["MoS2", "WSe2", "hBN", "GaSe", "InSe", "BP"]


def test_a_narrow_terminal_shows_the_same_in_whole_rows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = out(capsys)
    monkeypatch.setenv("COLUMNS", "60")
    lines = out(capsys).splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[0].split() == ["host", "cell", "sites", "point", "defects", "models"]
    assert lines[3].split() == ["hBN", "8x8", "128", "C_B", "v_B", "C_N", "v_N", "16/16/16"]
    assert "hBN also BN, h-BN; BP also P." in lines
    assert "models (defect/crowded/surrogate): most" in " ".join(lines)
    assert set(re.findall(r"\w+", wide)) - {"Columns"} <= set(re.findall(r"\w+", " ".join(lines)))
    assert max(map(len, out(capsys, "MoS2").splitlines())) <= 60


def test_json_agrees_with_hosts_and_models(capsys: pytest.CaptureFixture[str]) -> None:
    found = {record["name"]: record for record in json.loads(out(capsys, "--json"))["hosts"]}
    names, surrogate = (SHIPPED_ADAPTER, SHIPPED_CROWDED_ADAPTER), Surrogate.load()
    cards = {name: read_adapter(shipped(name)) for name in names}
    assert list(found) == list(host_names())
    for name, record in found.items():
        host = get_host(name)
        assert (record["supercell"], record["n_sites"]) == (host.size, host.n_sites)
        assert len(record["defects"]) == len(host.rules)
        most = max(part.defects_range[1] for part in surrogate.parts if part.host == name)
        adapters = {model: card.max_defects[name] for model, card in cards.items()}
        assert record["max_defects"] == adapters | {SHIPPED_SURROGATE: most}
        for alias in record["aliases"]:
            assert get_host(alias) == host


def test_one_host_shows_its_record(capsys: pytest.CaptureFixture[str]) -> None:
    text = out(capsys, "bp", "--supercell", "4x5")
    assert text.startswith("BP, also P\n")
    assert "space group Pmna (53), 8 operations" in text
    assert "4x5, 80 sites" in text
    assert "none of the shipped ones was trained on it in this size" in text, "they know 6x6"
    assert not read_adapter(shipped(SHIPPED_ADAPTER)).knows(get_host("P", (4, 5)))
    assert max(map(len, text.splitlines())) <= 80
    assert "most defects: defect-smollm2 18, crowded-smollm2 18, surrogate 18" in out(capsys, "bp")


def test_a_file_shows_its_record_and_symmetry(graphene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = out(capsys, str(graphene))
    assert "C2; a 2.4600, b 2.4600, c 15.0000 angstrom, gamma 120.00" in text
    assert "space group P6/mmm (191), 24 operations" in text
    assert "sites      C: those" in text
    assert "none given; add e.g. --supercell 8x8" in text
    assert "none of the shipped ones" in text
    record = json.loads(out(capsys, str(graphene), "--supercell", "6x6", "--json"))
    assert (record["n_sites"], record["supercell"], record["defects"], record["max_defects"]) == (
        72,
        "6x6",
        ["v_C"],
        {},
    )


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("WS2",), 2, "unknown host 'WS2'. Known hosts: MoS2, WSe2, hBN, GaSe, InSe, BP; any other layer"),
        (("none.cif",), 1, "none.cif is not a file"),
        (("MoS2", "--supercell", "8"), 2, "got supercell '8', expected two numbers from 1 to 99 such as 8x8"),
    ],
)
def test_wrong_calls_get_one_line(
    words: tuple[str, ...], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = out(capsys, *words, code=code)
    assert message in said
    assert said.count("\n") == 1


def test_a_model_covers_what_its_folder_says(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    shutil.copy(shipped(SHIPPED_SURROGATE) / "surrogate.json", folder)
    metadata = json.loads((folder / "surrogate.json").read_text())
    metadata["parts"] = [part for part in metadata["parts"] if part["host"]["name"] == "MoS2"]
    (folder / "surrogate.json").write_text(json.dumps(metadata))
    assert trained_on(folder) == {"MoS2": 24}
    assert {record.name: record.max_defects for record in known_hosts([folder])} == {
        name: {"mine": 24} if name == "MoS2" else {} for name in host_names()
    }
    del metadata["parts"][0]["defects_range"]
    (folder / "surrogate.json").write_text(json.dumps(metadata))
    with pytest.raises(DefectgenError, match=r"surrogate\.json is damaged"):
        trained_on(folder)
    with pytest.raises(DefectgenError, match="holds no trained surrogate"):
        trained_on(tmp_path)


def test_a_record_of_a_file_is_that_of_the_same_host(tmp_path: Path) -> None:
    host = get_host("GaSe")
    path = tmp_path / "GaSe.cif"
    Structure(host.lattice, host.species, host.frac_coords).to(str(path))
    found, built_in = host_record(str(path), supercell=(6, 6)), host_record("GaSe")
    assert replace(found.symmetry, gamma_degree=120, lengths_angstrom=(1, 1, 1)) == replace(
        built_in.symmetry, gamma_degree=120, lengths_angstrom=(1, 1, 1)
    )
    assert found.symmetry.lengths_angstrom == pytest.approx(built_in.symmetry.lengths_angstrom)
    assert (found.formula, found.n_sites) == (built_in.formula, built_in.n_sites)
    with pytest.raises(UsageError, match="unknown host"):
        host_record("GaTe")


def test_the_names_of_people_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["enumerate", "--host", "P", "v_P", "--count"]) == 0
    assert "symmetry-distinct structures of BP 6x6" in capsys.readouterr().err
    assert main(["design", "--host", "BN", "--homo", "0.1", "--defects", "v_Mo"]) == 2
    assert "'v_Mo' is no defect of hBN" in capsys.readouterr().err
