"""`defectgen init`: configurations to begin with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from defectgen.config import config_keys, find_config, load_config, package_folder
from defectgen.dft.settings import DftSettings
from defectgen.errors import UsageError
from defectgen.execution.clusters import ClusterConfig
from defectgen.llm.train.finetune_config import FinetuneConfig
from defectgen_cli.app import main

SHIPPED = sorted(f"{path.parent.name}/{path.stem}" for path in package_folder("defectgen_configs").glob("*/*.yaml"))

MODELS = {"dft": DftSettings, "executors": ClusterConfig}


def test_all_configurations_are_listed_on_lines_that_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line[0] != " "] == SHIPPED
    assert max(map(len, lines)) <= 80
    assert all(len(line.split()) > 1 for line in lines if line[0] != " "), "each says what it is"


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_written_is_the_shipped_one_and_every_other_key_works_as_it_is_told(name: str, tmp_path: Path) -> None:
    path, model = tmp_path / "mine.yaml", MODELS.get(name.split("/")[0], FinetuneConfig)
    assert main(["init", name, "-o", str(path)]) == 0
    shipped = package_folder("defectgen_configs") / f"{name}.yaml"
    assert load_config(model, path) == load_config(model, shipped)
    told = [line.removeprefix("#   ").split("  # ")[0] for line in path.read_text().splitlines() if line[:4] == "#   "]
    assert told
    assert load_config(model, path, [line.replace(": ", "=", 1) for line in told]) == load_config(model, shipped)
    given = set(yaml.safe_load(path.read_text()))
    every = {key.name for key in config_keys(model)}
    assert {line.split(":")[0] for line in told} <= every
    assert {key.split(".")[0] for key in every} == {line.split(":")[0].split(".")[0] for line in told} | given


def test_every_key_says_what_it_means() -> None:
    silent = [key.name for model in (*MODELS.values(), FinetuneConfig) for key in config_keys(model) if not key.meaning]
    assert silent == []


def test_a_file_that_is_there_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("precious")
    assert main(["init", "smollm2-cpu", "-o", str(path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert path.read_text() == "precious"
    assert main(["init", "smollm2-cpu", "-o", str(path), "--overwrite", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"output": str(path), "from": "defect/smollm2-cpu"}
    assert "next: defectgen finetune" in captured.err


def test_a_file_needs_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "-o", str(tmp_path / "mine.yaml")]) == 2
    assert "mine.yaml without a configuration. Name one" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_none_names_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "smollm3"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "error: no configuration 'smollm3'. Did you mean smollm2-gpu? Expected a YAML file or one of: "
    )
    assert "smollm2-cpu" in error


def test_only_what_fits_is_named_where_a_configuration_is_misspelt() -> None:
    with pytest.raises(UsageError) as caught:
        find_config("slrm", "executors")
    assert str(caught.value).endswith("Did you mean slurm? Expected a YAML file or one of: pbs, slurm, two-workers.")
    with pytest.raises(UsageError, match=r"bulk/smollm2-cpu, gemma-7b, .*dft/lcao"):
        find_config("none", "defect")
