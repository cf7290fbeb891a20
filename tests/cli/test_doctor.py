"""What is there, what is not, and the way to get it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from defectgen import installation
from defectgen.dft.codes import CODES, gpaw
from defectgen_cli.app import main


def findings(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, object]]]:
    code = main(["doctor", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["healthy"] is (code == 0)
    return code, {f"{item['group']}/{item['name']}": item for item in result["findings"]}


def test_what_the_tests_need_is_there(own_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = findings(capsys)
    assert code == 0
    assert found["packages/torch"]["state"] == "ok"
    for model in ("surrogate", "defect-smollm2", "crowded-smollm2"):
        assert set(str(found[f"models/{model}"]["text"]).split(", ")) == {"MoS2", "WSe2", "hBN", "GaSe", "InSe", "BP"}
    assert found["models/bulk-smollm2"]["text"] == "bulk crystals of 86 elements"
    assert found["data sets/2dmd"]["state"] == "missing"
    assert str(found["data sets/2dmd"]["advice"]).startswith("defectgen fetch 2dmd")
    assert str(own_cache) in str(found["system/cache"]["text"])


def test_every_thing_that_is_not_there_has_its_advice(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_cache.name
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(installation, "version", missing)
    monkeypatch.setattr(gpaw, "_has_gpaw", lambda _: False)
    monkeypatch.setenv("DEFECTGEN_2DMD", "/no/such/folder")
    found = list(installation.examine())
    lacking = [item for item in found if item.state != "ok"]
    assert {item.name for item in lacking} >= {"torch", "m3gnet", "GPAW", "VASP", "smollm2-135m", "DEFECTGEN_2DMD"}
    assert {item.name for item in found if item.group == "DFT codes"} == {code.title for code in CODES.values()}
    assert all(item.advice for item in lacking)
    assert not any(item.advice for item in found if item.state == "ok")


def test_variables_may_name_what_the_commands_take(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert own_cache.name
    (tmp_path / "mp20.csv").touch()
    monkeypatch.setenv("DEFECTGEN_MP20", str(tmp_path / "mp20.csv"))
    monkeypatch.setenv("DEFECTGEN_M3GNET", "M3GNet-MP-2021.2.8-PES")
    monkeypatch.setenv("DEFECTGEN_2DMD", str(tmp_path / "mp20.csv"))
    states = {item.name: item.state for item in installation.examine() if item.group == "folders that variables name"}
    assert states == {"DEFECTGEN_2DMD": "broken", "DEFECTGEN_MP20": "ok", "DEFECTGEN_M3GNET": "ok"}


def missing(package: str) -> str:
    raise installation.PackageNotFoundError(package)


def test_a_damaged_model_is_named_and_the_code_is_1(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert own_cache.name
    monkeypatch.setattr(installation, "shipped", lambda name: tmp_path / name)
    code, found = findings(capsys)
    assert code == 1
    assert found["models/surrogate"]["state"] == "broken"
    assert main(["doctor"]) == 1
    assert "BAD surrogate" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [60, 80])
def test_the_page_fits_the_terminal(
    columns: int, own_cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert own_cache.name
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    paths = [line for line in lines if len(line) > columns]
    assert all("/" in line for line in paths), "a path is not broken"
    assert lines[-1] == "Everything that is needed is there."
