"""The steps for the networks and for crowded cells, rehearsed at toy scale on the processor from made-up data."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import distinct_configurations, write_set

from defectgen.core import get_host
from defectgen.llm.decode.generator import Request, Sampling
from defectgen.llm.decode.transformers_engine import TransformersGenerator
from defectgen.tasks.defect.defect_task import DefectTask
from defectgen_cli.app import main

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu"
SETS = {"MoS2_500": ("MoS2", (4, 5, 6)), "WSe2_500": ("WSe2", (3, 4))}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "2dmd"
    for seed, (name, (host, sizes)) in enumerate(SETS.items()):
        write_set(root, name, distinct_configurations(get_host(host), 40, seed, sizes))
    return root


@pytest.mark.slow
def test_networks_judge_and_the_model_of_crowded_cells_loads(data: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    kit, out, collected = tmp_path / "kit", tmp_path / "out", tmp_path / "collected"
    environment = os.environ | {
        "PYTHON": sys.executable, "WORK": str(tmp_path / "work"), "STEPS": "networks crowded", "NETWORKS_S": "60",
        "CROWDED_S": "240", "TOTAL_S": "400", "BASE": str(tiny_model_dir), "OMP_NUM_THREADS": "1",
    }  # fmt: skip

    def run(*words: str | Path) -> str:
        done = subprocess.run(
            [str(word) for word in words], capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, FOLDER / "rows.py", "--data", data, "-o", kit / "networks", "--random", "30")
    sets = ["--data", str(data), "--sets", ",".join(SETS), "--encoding", "composition"]
    assert main(["build-data", *sets, "-o", str(tmp_path / "records")]) == 0
    (kit / "crowded").mkdir()
    (kit / "crowded" / "manifest.json").write_bytes((tmp_path / "records" / "manifest.json").read_bytes())
    packed = gzip.compress((tmp_path / "records" / "train.jsonl").read_bytes())
    (kit / "crowded" / "train.jsonl.gz").write_bytes(packed)
    told = run("bash", FOLDER / "run.sh", kit, out, "toy")
    assert "networks exit 0" in told, told
    assert "crowded exit 0" in told, told
    run(sys.executable, FOLDER / "collect.py", out, "--kit", kit, "-o", collected, "--base-model", tiny_model_dir)
    figures = json.loads((collected / "crowded" / "crowded.json").read_text())
    assert set(figures["test"]) == set(figures["random"]) == {"MoS2", "WSe2"}
    assert all(value["distinct"] > 0 for value in figures["test"].values())
    assert figures["records"]["steps"] == figures["rounds"]["rounds"] == 2
    generator, card = TransformersGenerator.from_adapter(collected / "crowded" / "adapter", "float32")
    assert (card.encoding, card.max_defects) == ("composition", {"MoS2": 6, "WSe2": 4})
    host = get_host("MoS2")
    grammar = DefectTask("composition").grammar(host, 6, min_defects=4)
    [made] = generator.generate([Request("MoS2 8x8:", grammar, 1, 0)], Sampling())
    assert 4 <= DefectTask("composition").parse(host, made.text).n_defects <= 6
