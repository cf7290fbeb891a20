"""Every shipped configuration fits its stage, and the published runs have the published values."""

from __future__ import annotations

from pathlib import Path

import pytest

from defectgen.config import config_name, find_config, load_config, package_folder
from defectgen.errors import UsageError
from defectgen.llm.train.finetune_config import FinetuneConfig

FILES = sorted(package_folder("defectgen_configs").glob("*/*.yaml"))


def test_the_groups_are_those_of_the_tasks() -> None:
    assert {path.parent.name for path in FILES} == {"bulk", "defect"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_configuration_is_found_by_its_name_and_loads(path: Path) -> None:
    name = f"{path.parent.name}/{path.stem}"
    assert find_config(name, "defect") == path
    assert config_name(path) == name
    assert load_config(FinetuneConfig, path).base_model


@pytest.mark.parametrize(("size", "records_per_step", "epochs"), [("7b", 256, 65), ("13b", 256, 44), ("70b", 32, 21)])
def test_the_published_bulk_runs_have_the_published_values(size: str, records_per_step: int, epochs: int) -> None:
    """Gruver et al. 2024, arXiv:2402.04379, appendix A.4."""
    config = load_config(FinetuneConfig, find_config(f"bulk/llama2-{size}", "defect"))
    assert config.base_model == f"meta-llama/Llama-2-{size}-hf"
    assert (config.lora.rank, config.lora.alpha, config.learning_rate) == (8, 32, 5e-4)
    assert (config.batch_size * config.accumulation, config.epochs) == (records_per_step, epochs)
    assert config.quantization == "4bit"


def test_a_bare_name_belongs_to_the_group_that_is_asked_for() -> None:
    assert find_config("smollm2-cpu", "defect").parent.name == "defect"
    assert find_config("smollm2-cpu", "bulk").parent.name == "bulk"


@pytest.mark.parametrize("name", ["bulk/none", "none", "../bulk/llama2-7b", "bulk", "/etc/passwd/x", ""])
def test_an_unknown_name_lists_what_there_is(name: str) -> None:
    with pytest.raises(UsageError) as error:
        find_config(name, "defect")
    assert f"no configuration {name!r}." in str(error.value)
    assert "bulk/llama2-7b" in str(error.value)
    assert ", smollm2-cpu" in str(error.value)


def test_a_file_of_the_users_own_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base_model: x\n")
    assert find_config(str(file), "defect") == file
    assert config_name(file) == "mine"
