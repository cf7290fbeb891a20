"""`generate` from the command line: real runs of a tiny model, and calls that are refused with one line."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import polars as pl
import pytest
from pymatgen.core import Lattice, Structure
from tiny_model import tiny_model_dir

from defectgen.core.crystal import Crystal
from defectgen.generate import crystal_request as request
from defectgen.metrics.atom_distances import radii_apart
from defectgen_cli.app import main

__all__ = ["tiny_model_dir"]  # a fixture

SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Li", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture
def salt(tmp_path: Path) -> Path:
    SALT.get_primitive_structure().to(tmp_path / "licl.cif")
    return tmp_path / "licl.cif"


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit code and the error line."""
    code = main([str(word) for word in ("generate", *words)])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    lines = [line for line in captured.err.splitlines() if line.startswith(("error:", "Error"))]
    assert len(lines) == 1, captured.err
    return code, lines[0]


def test_conditional_generation(capsys: pytest.CaptureFixture[str], tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    words = ["--formula", "NaCl", "--spacegroup", "225", "--e-above-hull", "0", "--max-atoms", "4", "--min-distance"]
    call = ["generate", "--model", str(tiny_model_dir), "-n", "5", *words, "0.1", "-o", str(folder), "--json"]
    assert main(call) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert (result["valid"], result["trained"]) == (5, False)
    assert "never trained on crystals" in captured.err
    table = pl.read_parquet(folder / "samples.parquet").filter(pl.col("valid"))
    assert table["formula"].to_list() == ["NaCl"] * 5
    assert len(list((folder / "structures").glob("*.cif"))) == 5
    conditions = json.loads((folder / "manifest.json").read_text())["settings"]["conditions"]
    assert conditions == {"formula": "NaCl", "spacegroup": 225, "e_above_hull": 0.0}
    assert main(call) == 2
    assert "is not empty" in capsys.readouterr().err


@pytest.fixture
def adapter(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """An adapter that says it was trained on cells of up to two atoms of Na and Cl."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from defectgen.llm.adapter import METADATA, AdapterCard
    from defectgen.tasks.bulk.crystal_text import BULK_PROMPT_VERSION

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(model, lora).save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    data = {"max_atoms": 2, "elements": ["Cl", "Na"]}
    card = AdapterCard(str(tiny_model_dir), "bulk", BULK_PROMPT_VERSION, (), {}, {}, data)
    (tmp_path / "adapter" / METADATA).write_text(json.dumps(asdict(card)))
    return tmp_path / "adapter"


def test_an_adapter_brings_its_elements_and_largest_cell(
    capsys: pytest.CaptureFixture[str], adapter: Path, tmp_path: Path
) -> None:
    call = ["generate", "--model", str(adapter), "-n", "12", "--min-distance", "0", "--json"]
    assert main([*call, "-o", str(tmp_path / "own")]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["trained"] is True
    assert "warning" not in captured.err
    cells = [Structure.from_file(file) for file in sorted((tmp_path / "own" / "structures").iterdir())]
    assert all(radii_apart(Crystal.from_structure(cell), 0.75) for cell in cells)
    species = [cell.species for cell in cells]
    assert len(species) == 12
    assert {len(atoms) for atoms in species} == {1, 2}
    assert {atom.symbol for atoms in species for atom in atoms} == {"Na", "Cl"}
    assert main([*call, "--radii", "0", "--elements", "Na,K", "-o", str(tmp_path / "other")]) == 0
    rules = [json.loads((tmp_path / name / "manifest.json").read_text())["settings"] for name in ("own", "other")]
    assert [rule["radii"] for rule in rules] == [0.75, 0.0]
    assert f"not in the training data of {adapter}: K" in capsys.readouterr().err
    assert main([*call, "--formula", "KCl", "-o", str(tmp_path / "none")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.endswith("formula KCl has K, which the allowed elements leave out. Name them with --elements.")


def test_coordinates_are_drawn_colder_and_charges_lean_to_balance_unless_told(
    capsys: pytest.CaptureFixture[str], adapter: Path, tmp_path: Path, salt: Path
) -> None:
    call = ["generate", "--model", str(adapter), "-n", "1", "--min-distance", "0", "--radii", "0", "--json"]
    found = []
    for k, words in enumerate(
        (
            [],
            ["--temperature", "0.4"],
            ["--coordinate-temperature", "1.2", "--balance", "0"],
            ["--formula", "NaCl"],
            ["--free", "--max-draws", "1"],
        )
    ):
        main([*call, *words, "-o", str(tmp_path / f"{k}")])
        settings = json.loads((tmp_path / f"{k}" / "manifest.json").read_text())["settings"]
        found.append(tuple(settings[key] for key in ("temperature", "coordinate_temperature", "balance")))
    assert found == [(1.0, 0.7, 5.0), (0.4, 0.4, 5.0), (1.0, 1.2, 0.0), (1.0, 0.7, 0.0), (1.0, None, 0.0)]
    capsys.readouterr()
    for words in (["--free"], ["--infill", salt, "--mask", "Li"]):
        code, line = refused(capsys, *call[1:-1], *words, "--coordinate-temperature", "0.5", "-o", tmp_path / "no")
        assert code == 2
        assert "is for coordinates under the grammar. Leave out --free and --infill." in line


def test_an_adapter_is_asked_as_it_was_trained(
    capsys: pytest.CaptureFixture[str], adapter: Path, tmp_path: Path
) -> None:
    """LoRA weights of another program have no card: their prompts are named, and those of a card hold."""
    call = ["generate", "--model", str(adapter), "-n", "2", "--min-distance", "0", "--radii", "0"]
    assert main([*call, "--prompts", "gruver2024", "-o", str(tmp_path / "a")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "was trained on the prompts defectgen, got --prompts gruver2024" in line
    (adapter / "defectgen.json").unlink()
    assert main([*call, "-o", str(tmp_path / "a")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "LoRA weights without a card, so that its prompts are not known" in line
    assert line.endswith("Name them: defectgen generate --prompts gruver2024 or defectgen.")
    assert main([*call, "--prompts", "llama", "-o", str(tmp_path / "a")]) == 2
    assert "unknown prompts 'llama'" in capsys.readouterr().err
    words = ["--prompts", "gruver2024", "--formula", "NaCl", "--max-atoms", "2"]
    assert main([*call, *words, "-o", str(tmp_path / "b")]) == 0
    settings = json.loads((tmp_path / "b" / "manifest.json").read_text())["settings"]
    assert (settings["prompts"], settings["trained"]) == ("gruver2024", True)
    assert set(pl.read_parquet(tmp_path / "b" / "samples.parquet")["formula"]) == {"NaCl"}


def test_fewer_crystals_than_asked_for_are_written_and_said(
    capsys: pytest.CaptureFixture[str], adapter: Path, tmp_path: Path
) -> None:
    call = ["generate", "--model", str(adapter), "-n", "9", "--max-draws", "7"]
    code = main([*call, "-o", str(tmp_path / "few"), "--json"])
    captured = capsys.readouterr()
    valid = json.loads(captured.out)["valid"]
    assert 0 < valid <= 7
    assert code == 3
    assert f"only {valid} of 9 crystals are valid after 7 draws." in captured.err
    assert len(list((tmp_path / "few" / "structures").iterdir())) == valid


def test_infill(capsys: pytest.CaptureFixture[str], tiny_model_dir: Path, tmp_path: Path, salt: Path) -> None:
    call = ["generate", "--model", str(tiny_model_dir), "-n", "6", "--infill", str(salt), "--mask", "Li"]
    assert main([*call, "--any-element", "--elements", "Na,K,Li", "-o", str(tmp_path / "out")]) == 0
    assert "6 valid crystals of the untrained" in capsys.readouterr().out
    table = pl.read_parquet(tmp_path / "out" / "samples.parquet")
    assert set(table["raw_text"]) <= {"Na\n", "K\n"}
    assert set(table["formula"]) <= {"NaCl", "KCl"}
    assert set(table["task"]) == {"infill"}


def test_free_decoding_counts_what_is_no_crystal(
    capsys: pytest.CaptureFixture[str], tiny_model_dir: Path, tmp_path: Path
) -> None:
    call = ["generate", "--model", str(tiny_model_dir), "-n", "2", "--free", "--max-draws", "3", "--max-atoms", "1"]
    assert main([*call, "-o", str(tmp_path / "out"), "--json"]) == 1
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert (result["draws"], result["valid"]) == (3, 0)
    assert sum(result["rejected"].values()) == 3
    assert "only 0 of 2 crystals are valid after 3 draws" in captured.err


def test_sigterm_keeps_what_was_drawn(
    capsys: pytest.CaptureFixture[str], tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(n: int, seed: int) -> Iterator[tuple[str, str]]:  # noqa: ARG001 - ended after one
        yield "5.0 5.0 5.0\n90 90 90\nNa\n0.00 0.00 0.00", ""
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        yield "", "not reached"

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(request, "open_draw", lambda *_: draw)
    assert main(["generate", "--model", str(tiny_model_dir), "-n", "3", "-o", str(tmp_path / "out")]) == 130
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["complete"], manifest["counts"]["draws"]) == (False, 1)
    assert "what was drawn so far is in" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_error_is_raised_once_the_draws_are_written(
    capsys: pytest.CaptureFixture[str], tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(n: int, seed: int) -> Iterator[tuple[str, str]]:  # noqa: ARG001 - fails after one
        yield "5.0 5.0 5.0\n90 90 90\nNa\n0.00 0.00 0.00", ""
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(request, "open_draw", lambda *_: draw)
    assert main(["generate", "--model", str(tiny_model_dir), "-n", "3", "-o", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert "error: RuntimeError: CUDA out of memory" in captured.err
    assert captured.out == ""
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["complete"] is False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--formula", "Met8"), "got formula 'Met8'"),
        (("--formula", "Mg3Al2Si3O12", "--max-atoms", 10), "one formula unit of Mg3Al2Si3O12 has 20 atoms"),
        (("--spacegroup", 300), "got space group 300, expected a number from 1 to 230"),
        (("--e-above-hull", -0.1), "got e_above_hull -0.1, expected 0 or more"),
        (("--elements", "Na,Ln"), "got Ln, expected symbols of elements"),
        (("--elements", "Na", "--formula", "NaCl"), "has Cl, which the allowed elements leave out"),
        (("--mask", "Na"), "--mask and --any-element go with --infill"),
        (("--infill", "x.cif", "--formula", "NaCl", "--max-atoms", 3), "got --infill and formula, max_atoms"),
        (("--free", "--engine", "vllm"), "got --free with --engine vllm"),
        (("--engine", "abacus"), "unknown engine 'abacus'"),
        (("--engine", "vllm"), "vllm runs trained adapters"),
        (("--top-p", 0), "got top_p 0.0"),
    ],
)
def test_calls_that_ask_for_the_impossible(
    capsys: pytest.CaptureFixture[str], tiny_model_dir: Path, tmp_path: Path, words: tuple[object, ...], message: str
) -> None:
    code, line = refused(capsys, "--model", tiny_model_dir, "-o", tmp_path / "out", *words)
    assert code == 2
    assert message in line
    assert not (tmp_path / "out").exists()


def test_crystals_that_cannot_be_mutated(
    capsys: pytest.CaptureFixture[str], tiny_model_dir: Path, tmp_path: Path, salt: Path
) -> None:
    def call(*words: object) -> tuple[int, str]:
        return refused(capsys, "--model", tiny_model_dir, "-o", tmp_path / "out", *words)

    code, line = call("--infill", salt, "--mask", "Fe")
    assert (code, "expected one of the crystal: Li, Cl" in line) == (2, True)
    code, line = call("--infill", salt)
    assert (code, "--infill needs --mask, one of Li, Cl" in line) == (2, True)
    (tmp_path / "empty.cif").write_text("")
    code, line = call("--infill", tmp_path / "empty.cif", "--mask", "Li")
    assert (code, "empty.cif: is empty, expected a structure" in line) == (1, True)
    code, line = call("--infill", tmp_path / "none.cif", "--mask", "Li")
    assert (code, "none.cif is not a file" in line) == (1, True)
    mixed = Structure(Lattice.cubic(3), [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]])
    mixed.to(tmp_path / "mixed.cif")
    code, line = call("--infill", tmp_path / "mixed.cif", "--mask", "Fe")
    assert (code, "mixed.cif: cannot be read as CIF (occupancy 0.5 of atom 1 (Fe), expected 1)" in line) == (1, True)


@pytest.mark.usefixtures("own_cache")
def test_models_that_do_not_fit(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from defectgen.models import SHIPPED_ADAPTER, shipped

    code, line = refused(capsys, "--model", shipped(SHIPPED_ADAPTER), "-o", tmp_path / "out")
    assert (code, "writes defects" in line) == (2, True)
    assert "build-data --task bulk" in line
    code, line = refused(capsys, "--model", "smollm2-135m", "-o", tmp_path / "out")
    assert (code, "defectgen fetch smollm2-135m" in line) == (1, True)
    code, line = refused(capsys, "-o", tmp_path / "out")  # the shipped one, whose base model is not fetched
    assert (code, "defectgen fetch smollm2-135m" in line) == (1, True)
    code, line = refused(capsys, "--model", "./nowhere/at/all", "-o", tmp_path / "out")
    assert (code, "expected an existing folder" in line) == (2, True)


def test_a_sweep_goes_on_where_it_was_interrupted(
    capsys: pytest.CaptureFixture[str], adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Complete points are kept, the interrupted one is drawn as a whole; another setting is refused."""
    from defectgen.generate import sweep

    monkeypatch.setenv("DEFECTGEN_CACHE", str(tmp_path / "cache"))
    SALT.get_primitive_structure().to(tmp_path / "licl.cif")
    pl.DataFrame({"cif": [(tmp_path / "licl.cif").read_text()]}).write_csv(tmp_path / "test.csv")
    folder = tmp_path / "sweep"
    call = ["sweep", "--model", str(adapter), "--reference", str(tmp_path / "test.csv"), "-o", str(folder)]
    call += ["-n", "4", "--temperatures", "0.5,1.5", "--top-p", "1.0", "--min-distance", "0", "--radii", "0"]
    real, drawn = sweep.sample_crystals, []

    def stopped(*args: object, **words: object) -> object:
        drawn.append(1)
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return real(*args, **words)  # type: ignore[arg-type]

    monkeypatch.setattr(sweep, "sample_crystals", stopped)
    assert main(call) == 130
    assert sorted(path.name for path in folder.iterdir()) == ["sweep.json", "t0.5-p1"]
    first = (folder / "t0.5-p1" / "manifest.json").read_bytes()
    capsys.readouterr()
    assert main([*call, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["drawn_now"], len(result["points"]), len(drawn)) == (1, 2, 3)
    assert (folder / "t0.5-p1" / "manifest.json").read_bytes() == first
    table = pl.read_csv(folder / "sweep.csv")
    assert table["temperature"].to_list() == [0.5, 1.5]
    assert table["draws"].to_list() == [4, 4]
    assert table["raw_structural"].is_between(0, 1).all()
    svg = (folder / "sweep.svg").read_text()
    marks = table.filter(pl.col("valid").is_not_null() & pl.col("cov_recall").is_not_null()).height
    assert svg.count(">T ") == marks
    capsys.readouterr()
    assert main([*call, "--balance", "3"]) == 2
    assert "holds a sweep with balance 5.0" in capsys.readouterr().err
    assert main(["hot" if word == "0.5,1.5" else word for word in call]) == 2
    assert "got --temperatures 'hot', expected numbers" in capsys.readouterr().err
