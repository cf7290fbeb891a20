"""Every shipped configuration of the defect task: its records within its limits, and two steps at toy width.

The tokenizers are the real ones; the model is a random one with their vocabulary and the real context.
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from stamped import stamp_records
from synthetic import distinct_configurations
from tiny_model import save_tiny_llama

from defectgen.config import load_config, package_folder
from defectgen.core import Configuration, Host, get_host
from defectgen.core.properties import COLUMNS
from defectgen.data.assets import asset_path
from defectgen.data.records import RecordSettings
from defectgen.errors import DefectgenError, UsageError
from defectgen.llm.train.finetune_config import FinetuneConfig
from defectgen.tasks.defect.defect_task import DefectTask
from defectgen.tasks.defect.encodings import get_encoding, kinds_of

VARIABLE = "DEFECTGEN_TOKENIZERS"
CONFIGS = sorted(package_folder("defectgen_configs").glob("defect/*.yaml"))
BASES = {
    "smollm2-135m": ("smollm2", "", 8192),
    "meta-llama/Meta-Llama-3-8B": ("llama3", "<|end_of_text|>", 8192),
    "meta-llama/Llama-2-7b-hf": ("llama2", "</s>", 4096),
    "google/gemma-7b-it": ("gemma", "<eos>", 8192),
    "mistralai/Mistral-7B-Instruct-v0.2": ("mistral", "</s>", 32768),
}
"""Tokenizer, its end of text, and the context of each base model."""


@cache
def tokenizer(base_model: str) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    name, end, _ = BASES[base_model]
    if name == "smollm2":
        try:
            return AutoTokenizer.from_pretrained(asset_path(base_model))
        except (DefectgenError, OSError) as error:
            pytest.skip(f"tokenizer of SmolLM2 left out: {error}")
    folder = os.environ.get(VARIABLE, "")
    if not folder:
        pytest.skip(f"{VARIABLE} is not set: tokenizer of {name} left out (docs/task.md says where it comes from)")
    return PreTrainedTokenizerFast(tokenizer_file=str(Path(folder) / name / "tokenizer.json"), eos_token=end)


@pytest.fixture(scope="module")
def toy_models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of width 16 of each base model's family, that reads the real tokens."""
    return cache(lambda base_model: make_toy_model(base_model, tmp_path_factory.mktemp("toy")))


def make_toy_model(base_model: str, folder: Path) -> Path:
    name = BASES[base_model][0]
    return save_tiny_llama(
        tokenizer(base_model),
        folder,
        name if name in ("gemma", "mistral") else "llama",
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=BASES[base_model][2],
        initializer_range=0.02,
    )


def record(encoding: str, configuration: Configuration) -> dict[str, Any]:
    """An instruction record as `build-data` writes it, with the longest conditions there are."""
    host, task = configuration.host, DefectTask(encoding)  # type: ignore[arg-type]
    values = dict.fromkeys(COLUMNS, -0.1234)
    return {
        "id": configuration.key,
        "host": host.name,
        "supercell": "x".join(str(n) for n in host.supercell),
        "configuration": configuration.canonical().key,
        "values": values,
        "prompt": task.prompt(host, values, kinds_of(configuration)),
        "completion": task.completion(configuration),
    }


def write_records(encoding: str, folder: Path) -> Path:
    """A folder of records of 3x3 MoS2: a whole 8x8 cell costs minutes with a vocabulary of 128 thousand."""
    configurations = distinct_configurations(get_host("MoS2", (3, 3)), 8, 1, (1, 2, 3))
    records = [record(encoding, configuration) for configuration in configurations]
    for part, rows in (("train", records[:6]), ("validation", records[6:]), ("test", [])):
        rows = [{**row, "split": part} for row in rows]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = {
        "prompt_version": get_encoding(encoding).version,
        "settings": asdict(RecordSettings(encoding=encoding)),
        "data_sha256": "0" * 64,
        "records": {"train/MoS2": 6, "validation/MoS2": 2},
        "structures": {"train": 6, "validation": 2, "test": 0},
        "max_defects": {"MoS2": 3},
        "hosts": {"MoS2 3x3": get_host("MoS2", (3, 3)).to_dict()},
        "covered_ev": {"MoS2": {}},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return stamp_records(folder)


def test_the_documented_configurations_are_there() -> None:
    wanted = {"smollm2-cpu", "smollm2-gpu", "llama3-8b", "llama3-8b-qlora", "llama2-7b", "gemma-7b", "mistral-7b"}
    assert wanted <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_says_where_it_is_from_and_refuses_unknown_keys(path: Path) -> None:
    assert load_config(FinetuneConfig, path).base_model in BASES
    comment = "".join(line for line in path.read_text().splitlines(True) if line.startswith("#"))
    assert "Hardware: " in comment
    assert re.search(r"--encoding (edits|symbols|crystal)\b", comment)
    for wrong, right in (("learning_rte", "learning_rate"), ("design.target", "design.targets")):
        with pytest.raises(UsageError, match=rf"unknown key '{wrong}'. Did you mean '{right}'\?"):
            load_config(FinetuneConfig, path, [f"{wrong}=1"])


def test_the_published_values_are_kept() -> None:
    path = next(path for path in CONFIGS if path.stem == "llama3-8b")
    config = load_config(FinetuneConfig, path)
    assert (config.learning_rate, config.epochs, config.quantization) == (1e-4, 10, "none")
    other = load_config(FinetuneConfig, path.with_stem("llama3-8b-qlora")).model_dump()
    differs = {key for key, value in config.model_dump().items() if other[key] != value}
    assert differs == {"batch_size", "accumulation", "quantization"}
    assert other["batch_size"] * other["accumulation"] == config.batch_size * config.accumulation


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_two_steps_at_toy_width_with_the_real_tokenizer(
    path: Path, toy_models: Any, mos2: Host, tmp_path: Path
) -> None:
    from defectgen.llm.adapter import read_adapter
    from defectgen.llm.train.dataset import CompletionDataset
    from defectgen.llm.train.finetune import finetune

    config = load_config(FinetuneConfig, path)
    found = re.search(r"--encoding (\w+)", path.read_text())
    assert found is not None
    base = toy_models(config.base_model)
    whole = [record(found[1], item) for item in distinct_configurations(mos2, 3, 2, (3, 25))]  # 13 % are defects
    CompletionDataset(whole, tokenizer(config.base_model), config.max_length, BASES[config.base_model][2])
    records = write_records(found[1], tmp_path)
    targets = min(config.design.targets, 1)
    toy = {
        "base_model": str(base),
        "quantization": "none",
        "dtype": "float32",  # few processors have bfloat16
        "max_steps": 2,
        "batch_size": 1,
        "accumulation": 1,
        "eval_records": 1,
        "eval_steps": 2,
        "design": config.design.model_copy(update={"targets": targets, "samples": 2, "scorer": "labels"}),
    }
    result = finetune(config.model_copy(update=toy), records, tmp_path / "adapter")
    assert result.steps == 2
    assert len(result.design) == targets
    vocabulary = json.loads((base / "config.json").read_text())["vocab_size"]
    assert result.validation_losses[0][1] == pytest.approx(math.log(vocabulary), rel=0.1)  # it knows nothing yet
    assert read_adapter(tmp_path / "adapter").encoding == found[1]


def test_the_launcher_file_spreads_the_layers_of_llama() -> None:
    values = yaml.safe_load((package_folder("defectgen_configs") / "accelerate-fsdp.yaml").read_text())
    assert values["distributed_type"] == "FSDP"
    assert values["fsdp_config"]["fsdp_state_dict_type"] == "FULL_STATE_DICT"  # the adapter is taken from a checkpoint
    from transformers.models.llama import modeling_llama

    assert hasattr(modeling_llama, values["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"])
