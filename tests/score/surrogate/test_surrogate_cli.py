"""`defectgen surrogate train` and `evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic import distinct_configurations, write_set

from defectgen.core import Host
from defectgen_cli.app import main


@pytest.mark.usefixtures("own_cache")
def test_train_then_evaluate(
    tiny_2dmd: Path, tmp_path: Path, mos2: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from defectgen.score.surrogate import training
    from defectgen.score.trees import TreeSettings

    trees = TreeSettings(20, 3, 0.2)
    for function in (training.train_surrogate, training.fit_surrogate):
        monkeypatch.setitem(function.__kwdefaults__, "low_trees", trees)
    model, metrics = tmp_path / "model", tmp_path / "metrics.json"
    assert main(["surrogate", "train", "--data", str(tiny_2dmd), "-o", str(model), "--seed", "3", "--json"]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert trained["hosts"] == ["MoS2", "WSe2"]
    assert trained["rows"]["MoS2/train"] == 48
    command = ["surrogate", "evaluate", "--data", str(tiny_2dmd), "--model", str(model), "-o", str(metrics), "--json"]
    page = tmp_path / "pages" / "parity.html"
    assert main([*command, "--page", str(page)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads(metrics.read_text())
    assert (result["n_rows"], result["n_evaluated"], result["n_seen"]) == (140, 14, 126)
    assert result["sets"] == trained["test"], "on the same data, what it has not seen is the test part"
    assert result["means"]["homo_ev"]["mae_mev"] == pytest.approx(
        (result["sets"]["MoS2"]["homo_ev"]["mae_mev"] + result["sets"]["WSe2"]["homo_ev"]["mae_mev"]) / 2
    )
    assert page.read_text(encoding="utf-8").count("<svg") == 2 * len(result["sets"]["MoS2"])
    assert main([*command, "--page", str(page)]) == 2
    assert "exists already" in capsys.readouterr().err
    command = ["surrogate", "evaluate", "--data", str(tiny_2dmd), "--sets", "MoS2", "--cross-validate", "--json"]
    assert main(command) == 0
    crossed = json.loads(capsys.readouterr().out)
    assert crossed["n_evaluated"] == crossed["sets"]["MoS2"]["homo_ev"]["n"] == 60, "every row is judged once"
    assert main([*command, "--model", str(model)]) == 2
    assert "Leave out --model" in capsys.readouterr().err
    fresh = tmp_path / "fresh"
    write_set(fresh, "MoS2", distinct_configurations(mos2, 15, 99, (3,)))
    assert main(["surrogate", "evaluate", "--data", str(fresh), "--model", str(model)]) == 0
    assert "15 structures that the surrogate has not seen (0 seen ones left out)" in capsys.readouterr().out


@pytest.mark.usefixtures("own_cache")
def test_wrong_calls_are_one_line(tiny_2dmd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["surrogate", "evaluate", "--data", str(tiny_2dmd), "--model", str(tmp_path)]) == 1
    assert "holds no trained surrogate" in capsys.readouterr().err
    assert main(["surrogate", "train", "--data", str(tmp_path / "no"), "-o", str(tmp_path / "m")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    wrong_set = ["surrogate", "train", "--data", str(tiny_2dmd), "-o", str(tmp_path / "m"), "--sets", "MoS3"]
    assert main(wrong_set) == 2
    assert "unknown set 'MoS3'" in capsys.readouterr().err


@pytest.mark.usefixtures("own_cache")
def test_surrogates_of_two_halves_have_seen_different_classes(
    tmp_path: Path, mos2: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from defectgen.score.surrogate import Surrogate, training
    from defectgen.score.trees import TreeSettings

    for function in (training.train_surrogate, training.fit_surrogate):
        monkeypatch.setitem(function.__kwdefaults__, "low_trees", TreeSettings(20, 3, 0.2))
    data = tmp_path / "data"
    write_set(data, "MoS2", distinct_configurations(mos2, 100, 4, (1, 2, 3)))
    found = {}
    for half in ("a", "b"):
        model = tmp_path / half
        assert main(["surrogate", "train", "--data", str(data), "-o", str(model), "--half", half, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["rows"] == {
            "MoS2/train": 40,
            "MoS2/validation": 5,
            "MoS2/test": 10,
        }
        found[half] = Surrogate.load(model)
        assert found[half].metadata["command"].endswith(f"--half {half}")
        assert f"only half {half} of the classes" in found[half].metadata["split"]
    assert len(found["a"].seen) == len(found["b"].seen) == 45
    assert not found["a"].seen & found["b"].seen
    command = ["surrogate", "evaluate", "--data", str(data), "--model", str(tmp_path / "b"), "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["n_evaluated"] == 55, "the test part and the other half"
    assert main(["surrogate", "train", "--data", str(data), "-o", str(tmp_path / "c"), "--half", "c"]) == 2
    assert "got half 'c', expected a or b" in capsys.readouterr().err
