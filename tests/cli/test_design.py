"""`design` and `score` called wrongly: one clear line, the right exit code, nothing written."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure

from defectgen.core import Configuration, Host, get_host
from defectgen.design.engine import raw_reference
from defectgen.design.limits import Limits, Space
from defectgen.errors import UsageError
from defectgen.llm.adapter import training_configurations
from defectgen.models import SHIPPED_ADAPTER, shipped
from defectgen.score.surrogate import Surrogate
from defectgen_cli.app import main


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit code and the error line."""
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    lines = [line for line in captured.err.splitlines() if line.startswith(("error:", "Error"))]
    assert len(lines) == 1, captured.err
    return code, lines[0]


LEVELS = ("--homo", 0.1, "--lumo", 1.1)


def test_unknown_host(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, line = refused(capsys, "design", "--host", "MoS3", *LEVELS, "-o", tmp_path / "out")
    assert code == 2
    assert "unknown host 'MoS3'. Known hosts: MoS2, " in line
    assert "--host FILE.cif" in line
    assert "needs a surrogate of its values, or a campaign" in line
    assert not (tmp_path / "out").exists()


def test_a_layer_of_ones_own_needs_a_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, line = refused(capsys, "design", "--host", "WS2.cif", *LEVELS, "-o", tmp_path / "out")
    assert code == 2
    assert "no model knows the defects of a layer of your own" in line
    assert "surrogate train --host WS2.cif" in line
    assert "campaign new WS2.cif" in line


def test_no_target(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, line = refused(capsys, "design", "--host", "MoS2", "-o", tmp_path / "out")
    assert code == 2
    assert "no target given" in line
    assert "--homo" in line


def test_table_and_options_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, line = refused(capsys, "design", "--host", "MoS2", *LEVELS, "--targets", tmp_path / "t.csv")
    assert code == 2
    assert "--targets" in line


def test_folder_of_another_run_or_of_the_user(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for extra in ((), ("--overwrite",)):
        code, line = refused(capsys, "design", "--host", "MoS2", *LEVELS, "-o", tmp_path, *extra)
        assert code == 2
        assert str(tmp_path) in line
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_host_that_the_models_do_not_know(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(shipped(SHIPPED_ADAPTER), adapter)
    card = json.loads((adapter / "defectgen.json").read_text())
    (adapter / "defectgen.json").write_text(json.dumps(card | {"hosts": ["MoS2", "WSe2"]}))
    code, line = refused(capsys, "design", "--host", "hBN", *LEVELS, "--model", adapter, "-o", tmp_path / "out")
    assert code == 2
    assert "trained on MoS2, WSe2, not on hBN" in line


@pytest.mark.usefixtures("own_cache")
def test_a_base_model_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, line = refused(capsys, "design", "--host", "MoS2", *LEVELS, "--proposer", "llm", "-o", tmp_path / "out")
    assert code == 1
    assert "Run: defectgen fetch smollm2-135m" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [("--reference", "vacuum"), ("--kinds", "interstitial"), ("--max-defects", 500)])
def test_values_that_do_not_exist(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[object, ...]
) -> None:
    code, line = refused(capsys, "design", "--host", "MoS2", *LEVELS, "-o", tmp_path / "out", *words)
    assert code == 2
    assert str(words[1]) in line


def test_an_adapter_that_is_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, line = refused(capsys, "design", "--host", "MoS2", *LEVELS, "--model", tmp_path, "-o", tmp_path / "out")
    assert code == 1
    assert "is no trained adapter" in line


def test_structures_that_are_no_decoration(capsys: pytest.CaptureFixture[str], tmp_path: Path, mos2: Host) -> None:
    shifted = Configuration.of(mos2, {}).to_structure()
    shifted.translate_sites([7], [0.0, 0.0, 2.5], frac_coords=False)
    shifted.to(tmp_path / "shifted.cif")
    code, line = refused(capsys, "score", tmp_path / "shifted.cif", "--host", "MoS2")
    assert code == 1
    assert "is no decoration of MoS2 8x8: atom 7 lies" in line
    code, line = refused(capsys, "score", tmp_path / "none.cif")
    assert code == 1
    assert "is not a file" in line


def test_records_need_a_known_encoding_and_a_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, line = refused(capsys, "build-data", "--data", tmp_path, "--encoding", "smiles", "-o", tmp_path / "r")
    assert code == 2
    assert "edits, composition, symbols, crystal" in line
    code, line = refused(capsys, "build-data", "--data", tmp_path / "no", "-o", tmp_path / "r")
    assert code == 2
    assert "is not a folder" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("no-such-config",), "smollm2-cpu"),
        (("smollm2-cpu", "--set", "lora.rnk=4"), "Did you mean 'lora.rank'?"),
        (("smollm2-cpu", "--set", "learning_rate=fast"), "learning_rate: got 'fast'"),
        (("smollm2-cpu", "--set", "oops"), "expected key=value"),
    ],
)
def test_configurations_that_do_not_fit(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    code, line = refused(capsys, "finetune", *words, "--data", tmp_path, "-o", tmp_path / "out")
    assert code == 2
    assert message in line


def test_every_shipped_configuration_fits(tmp_path: Path) -> None:
    from defectgen.config import find_config, load_config
    from defectgen.llm.train.finetune_config import FinetuneConfig

    slides = load_config(FinetuneConfig, find_config("llama3-8b", "defect"))
    assert (slides.learning_rate, slides.epochs, slides.quantization) == (1e-4, 10, "none")
    assert load_config(FinetuneConfig, find_config("smollm2-cpu", "defect")).base_model == "smollm2-135m"
    changed = load_config(FinetuneConfig, find_config("smollm2-cpu", "defect"), ["lora.rank=8"], max_steps=5)
    assert (changed.lora.rank, changed.max_steps) == (8, 5)
    broken = tmp_path / "broken.yaml"
    broken.write_text("base_model: [")
    with pytest.raises(UsageError, match="cannot be read as YAML"):
        load_config(FinetuneConfig, broken)


def test_relaxation_needs_a_potential(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    call = ("design", "--host", "MoS2", *LEVELS, "-o", tmp_path / "out", "--potential")
    code, line = refused(capsys, *call, "emt")
    assert code == 2
    assert "got potential 'emt', expected m3gnet or chgnet" in line
    code, line = refused(capsys, *call, "m3gnet", "--m3gnet", tmp_path / "none")
    assert code == 2
    assert "is not a folder" in line
    code, line = refused(capsys, *call[:-1], "--potential-use", "filter")
    assert code == 2
    assert "got --potential-use filter without a potential" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("least", "most", "said"), [(10, 12, "has no cells with 10 to 12 defects"), (2, 9, "zeros")])
def test_a_raw_zero_that_nothing_tells_is_refused(mos2: Host, least: int, most: int, said: str) -> None:
    known = training_configurations(shipped(SHIPPED_ADAPTER))[f"{mos2.name} {mos2.size}"]
    with pytest.raises(UsageError, match=said):
        raw_reference(mos2, Surrogate.load(), known, least, most)
    assert abs(raw_reference(mos2, Surrogate.load(), known, 2, 3).mean_shift_ev) < 1


def test_fewer_structures_than_asked_for_are_written_and_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    call = ["design", "--host", "MoS2", "--homo", "0.1", "--max-defects", "1", "--proposer", "exhaustive", "--json"]
    assert main([*call, "-n", "50", "-o", str(tmp_path / "few")]) == 3
    captured = capsys.readouterr()
    found = len(list((tmp_path / "few" / "structures").glob("*.cif")))
    assert 0 < found < 50
    assert captured.err.count(f"target 1: {found} distinct candidates found, 50 asked for.") == 1
    assert main([*call, "-n", str(found), "-o", str(tmp_path / "all")]) == 0


def test_a_search_begins_with_the_structure_of_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, mos2: Host
) -> None:
    """A search that begins with a structure of the wanted levels has it first, one without misses it."""
    item = Space.of(mos2, Limits(9, 9), 9).draw(np.random.default_rng(7))
    item.to_structure().to(tmp_path / "start.vasp", fmt="poscar")
    levels = Surrogate.load().score([item])
    words = [word for name in ("homo", "lumo") for word in (f"--{name}", f"{levels[f'{name}_ev'][0]:.9f}")]
    call = ["design", "--host", "MoS2", *words, "--proposer", "search", "--budget", "300", "-n", "1", "--json",
            "--rank-by", "distance"]  # fmt: skip
    best = {}
    for name, more in (("cold", []), ("warm", ["--from", str(tmp_path / "start.vasp")])):
        assert main([*call, *more, "-o", str(tmp_path / name)]) == 0
        (best[name],) = json.loads(capsys.readouterr().out)["best"]
    assert best["warm"]["configuration"] == item.canonical().key
    assert best["warm"]["distance_ev"] < 1e-6 < best["cold"]["distance_ev"]


def test_structures_that_no_search_can_begin_with(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, mos2: Host
) -> None:
    call = ("design", "--host", "MoS2", *LEVELS, "-o", tmp_path / "out", "--from", tmp_path / "start.cif", "--proposer")
    Configuration.of(get_host("WSe2"), {}).to_structure().to(tmp_path / "start.cif")
    code, line = refused(capsys, *call, "search")
    assert code == 1
    assert "start.cif is no decoration of MoS2 8x8" in line
    Configuration.of(mos2, {0: "W"}).to_structure().to(tmp_path / "start.cif")
    code, line = refused(capsys, *call, "search", "--max-defects", 20, "--min-defects", 4)
    assert code == 2
    assert "cannot begin with W_Mo (1 defect): it looks at" in line
    code, line = refused(capsys, *call, "random,exhaustive")
    assert code == 2
    assert "none of which begins with a structure" in line
    assert not (tmp_path / "out").exists()


def test_known_structures_are_not_novel(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    call = ("design", "--host", "MoS2", *LEVELS, "-o", tmp_path / "out", "--novel", "--proposer")
    for names in ("known", "known,random"):
        code, line = refused(capsys, *call, names)
        assert code == 2
        assert "contradict each other" in line


def test_dft_inputs_of_the_candidates_belong_to_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    call = ["design", "--host", "MoS2", "--homo", "0.1", "--max-defects", "1", "--proposer", "exhaustive", "-n", "1"]
    assert main([*call, "--inputs", "vasp", "-o", str(out)]) == 0
    assert f"DFT inputs in {out / 'vasp-inputs'}" in capsys.readouterr().out.replace("\n", " ")
    folders = {path.name for path in (out / "vasp-inputs").iterdir() if path.is_dir()}
    assert {"001_v_S", "host_MoS2_8x8", "element_S"} <= folders
    assert "vasp-inputs/001_v_S/INCAR" in json.loads((out / "manifest.json").read_text())["files"]
    assert main([*call, "--overwrite", "--inputs", "vasp", "--vacuum", "25", "-o", str(out)]) == 0
    heights = [Structure.from_file(path).lattice.c for path in (out / "structures").glob("*.vasp")]
    heights += [Structure.from_file(path).lattice.c for path in (out / "vasp-inputs").glob("00*/POSCAR")]
    assert len(heights) == 2
    assert max(heights) - min(heights) < 1e-3
    assert main([*call, "--overwrite", "--inputs", "gpaw", "--inputs-settings", "lcao", "-o", str(out)]) == 0
    assert (out / "gpaw-inputs" / "inputs.json").is_file()
    assert not (out / "vasp-inputs").exists()
    capsys.readouterr()
    code, line = refused(capsys, *call, "--inputs", "vaspp", "-o", tmp_path / "no")
    assert code == 2
    assert "unknown DFT code 'vaspp'. Did you mean vasp?" in line


def test_the_published_baseline_ranks_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["design", "--host", "MoS2", "--band-gap", "1.14", "--max-defects", "1", "--proposer", "exhaustive"]
    assert main([*call, "-n", "1", "--scorer", "slices-catboost", "--json", "-o", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"]["surrogate"] == "SlicesCatBoost"
    assert (found["best"][0]["label"], found["best"][0]["novel"]) == ("v_S", False)
    assert found["best"][0]["band_gap_ev"] == pytest.approx(1.145, abs=0.1)
    for words, message in (
        (("--scorer", "chgnet"), "a potential, which has no levels. Use --potential chgnet."),
        (("--scorer", "slices"), "Did you mean slices-catboost?"),
        (("--scorer", "slices-catboost", "--surrogate", "x"), "got --surrogate and --scorer slices-catboost"),
    ):
        code, line = refused(capsys, *call, *words, "-o", tmp_path / "no")
        assert code == 2
        assert message in line


@pytest.mark.parametrize(("terminal", "times"), [(True, 1), (False, 2)])
def test_a_warning_stands_once_in_a_terminal(
    terminal: bool, times: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setenv("TERM", "dumb")
    call = ["design", "--host", "MoS2", "--homo", "50", "--max-defects", "1", "-n", "1"]
    assert main([*call, "-o", str(tmp_path / "out")]) == 0
    captured = capsys.readouterr()
    assert (captured.out + captured.err).count("HOMO 50.000 eV is outside") == times
    assert captured.err.count("HOMO 50.000 eV is outside") == 1
