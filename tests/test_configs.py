"""Every shipped configuration fits its stage, and the published runs have the published values."""

from __future__ import annotations

from pathlib import Path

import pytest

from defectgen.config import config_name, find_config, load_config, package_folder
from defectgen.dft.settings import DftSettings
from defectgen.errors import UsageError
from defectgen.execution.clusters import ClusterConfig
from defectgen.llm.train.finetune_config import FinetuneConfig

FILES = sorted(package_folder("defectgen_configs").glob("*/*.yaml"))


def test_the_groups_are_those_of_the_tasks() -> None:
    assert {path.parent.name for path in FILES} == {"bulk", "defect", "dft", "executors"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_configuration_is_found_by_its_name_and_loads(path: Path) -> None:
    name = f"{path.parent.name}/{path.stem}"
    assert find_config(name, "defect") == path
    assert config_name(path) == name
    if path.parent.name == "dft":
        assert load_config(DftSettings, path).description
    elif path.parent.name == "executors":
        assert load_config(ClusterConfig, path).description
    else:
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


@pytest.mark.parametrize("text", [".inf", "nan", "1e309", "-.inf", "inf", ".nan", "'1e309'"])
@pytest.mark.parametrize("key", ["learning_rate", "warmup_share", "epochs", "preference.beta", "lora.dropout"])
def test_a_number_that_is_not_finite_is_refused_wherever_it_stands(key: str, text: str, tmp_path: Path) -> None:
    outer, _, inner = key.rpartition(".")
    file = tmp_path / "run.yaml"
    file.write_text(f"base_model: x\n{outer}: {{{inner}: {text}}}\n" if outer else f"base_model: x\n{key}: {text}\n")
    with pytest.raises(UsageError, match="finite"):
        load_config(FinetuneConfig, file)
    file.write_text("base_model: x\n")
    with pytest.raises(UsageError, match="finite"):
        load_config(FinetuneConfig, file, [f"{key}={text}"])
    with pytest.raises(ValueError, match="finite"):
        FinetuneConfig.model_validate(
            {"base_model": "x", key: float("inf")} if not outer else {"base_model": "x", outer: {inner: float("nan")}}
        )


@pytest.mark.parametrize(
    "content",
    [b"", b"# nothing yet\n", b"base_model: caf\xe9", b"- 1", b"a: [", b"base_model: x\nbase_model: y", b"[" * 9999],
)
def test_a_file_that_is_no_configuration_gets_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_bytes(content)
    with pytest.raises(UsageError) as error:
        load_config(FinetuneConfig, tmp_path / "run.yaml")
    assert "\n" not in str(error.value)
    assert "run.yaml" in str(error.value)


@pytest.mark.parametrize("change", ["lora.rank=100000", "epochs=1e300", "seed=99999999999", "batch_size=1000000000"])
def test_a_number_that_no_run_can_mean_is_refused(change: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("base_model: x\n")
    with pytest.raises(UsageError, match="less than"):
        load_config(FinetuneConfig, tmp_path / "run.yaml", [change])
