"""An adapter whose weights or settings are not what was trained is refused before a model gets them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from stamped import stamp_adapter
from training_runs import config

from defectgen.errors import DefectgenError
from defectgen.llm.adapter import (
    LORA_CONFIG,
    METADATA,
    TRAINING_CONFIGURATIONS,
    WEIGHTS,
    AdapterCard,
    read_adapter,
)
from defectgen.llm.adapter_weights import check_fit
from defectgen.llm.decode.transformers_engine import TransformersGenerator
from defectgen.llm.loading import load_base, load_model_config
from defectgen.llm.lora_config import read_lora
from defectgen.llm.rank_reduction import shrink_adapter
from defectgen.llm.train.finetune import finetune


@pytest.fixture(scope="module")
def trained(tiny_model_dir: Path, records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "adapter"
    finetune(config(tiny_model_dir, max_steps=2), records, folder)
    shutil.rmtree(folder / "checkpoints")
    return folder


@pytest.fixture
def adapter(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "adapter"))


def with_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        change(weights)
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})

    return apply


def with_settings(**settings: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / LORA_CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))

    return apply


def drop_pair(weights: dict[str, torch.Tensor]) -> None:
    name = next(name for name in sorted(weights) if "lora_A" in name)
    del weights[name], weights[name.replace("lora_A", "lora_B")]


def add_pair(weights: dict[str, torch.Tensor]) -> None:
    for name in [name for name in weights if "layers.0.self_attn.q_proj" in name]:
        weights[name.replace("layers.0", "layers.7")] = weights[name].clone()


def poison(value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def apply(weights: dict[str, torch.Tensor]) -> None:
        weights[max(weights)][1, 1] = value

    return apply


def resize(weights: dict[str, torch.Tensor]) -> None:
    name = next(name for name in sorted(weights) if "lora_A" in name)
    weights[name] = weights[name][:, :-1].contiguous()


WRONG = [
    (with_weights(lambda w: w.pop(min(w))), "has no partner"),
    (with_weights(drop_pair), "lacks 2 matrices"),
    (with_weights(add_pair), "changes 2 matrices that the model has not"),
    (with_weights(poison(float("nan"))), "not finite"),
    (with_weights(poison(float("inf"))), "not finite"),
    (with_weights(resize), r"is 4 x \d+, expected 4 x \d+"),
    (with_weights(lambda w: w.update({"base_model.model.lm_head.weight": torch.ones(2, 2)})), "no matrix of an update"),
    (with_weights(lambda w: w.clear()), "holds no weights"),
    (lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9]), "cannot be read"),
    (lambda folder: (folder / WEIGHTS).write_bytes(b"\xff" * 64), "cannot be read"),
    (with_settings(r=8), "expected rank 8"),
]


@pytest.mark.parametrize(("change", "reason"), WRONG, ids=range(len(WRONG)))
@pytest.mark.parametrize("stamped", [True, False])
def test_wrong_weights_are_refused_with_and_without_checksums(
    change: Callable[[Path], None], reason: str, stamped: bool, adapter: Path, tiny_model_dir: Path
) -> None:
    change(adapter)
    stamp_adapter(adapter)
    if not stamped:
        path = adapter / METADATA
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "files"}))
    for read in (
        lambda: TransformersGenerator.from_adapter(adapter),
        lambda: check_fit(adapter, load_model_config(str(tiny_model_dir)), "tiny"),
    ):
        with pytest.raises(DefectgenError, match=reason) as error:
            read()
        assert "\n" not in str(error.value)


def test_a_changed_file_is_told_by_its_checksum(adapter: Path) -> None:
    for name in (WEIGHTS, LORA_CONFIG, TRAINING_CONFIGURATIONS):
        content = (adapter / name).read_bytes()
        (adapter / name).write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
        with pytest.raises(DefectgenError, match=rf"{name} is not the file that was written"):
            TransformersGenerator.from_adapter(adapter)
        (adapter / name).write_bytes(content)
    assert TransformersGenerator.from_adapter(adapter)[1].files.keys() == {
        WEIGHTS,
        LORA_CONFIG,
        TRAINING_CONFIGURATIONS,
    }


SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"target_modules": "(a+)+$"}, "expected a list of names or 'all-linear'"),
    ({"target_modules": ["(a+)+$"]}, "expected names of matrices"),
    ({"target_modules": []}, "expected names of matrices"),
    ({"target_modules": ["q_proj"] * 5000}, "expected names of matrices"),
    ({"target_modules": {"a": 1}}, "expected a list or a text"),
    ({"layer_replication": [[0, 100000]]}, "only plain LoRA"),
    ({"rank_pattern": {".*": 4000}}, "only plain LoRA"),
    ({"alpha_pattern": {"(a|a)*": 1}}, "only plain LoRA"),
    ({"layers_pattern": "x"}, "only plain LoRA"),
    ({"modules_to_save": ["lm_head"]}, "only plain LoRA"),
    ({"auto_mapping": {"base_model_class": "x", "parent_library": "os"}}, "only plain LoRA"),
    ({"use_dora": True}, "only plain LoRA"),
    ({"use_rslora": True}, "only plain LoRA"),
    ({"bias": "all"}, "only plain LoRA"),
    ({"unheard_of": 1}, "only plain LoRA"),
    ({"peft_type": "PROMPT_TUNING"}, "expected 'LORA'"),
    ({"r": "4"}, "r is '4', expected a whole number"),
    ({"r": True}, "r is True, expected a whole number"),
    ({"r": 0}, "expected 1 to 4096"),
    ({"r": 10**9}, "expected 1 to 4096"),
    ({"lora_alpha": -1}, "above 0"),
    ({"lora_alpha": 1e300}, "at most 1e6"),
]


@pytest.mark.parametrize(("settings", "reason"), SETTINGS, ids=range(len(SETTINGS)))
def test_settings_of_a_stranger_are_bounded(settings: dict[str, Any], reason: str, adapter: Path) -> None:
    with_settings(**settings)(adapter)
    stamp_adapter(adapter)
    for read in (
        lambda: read_lora(adapter),
        lambda: TransformersGenerator.from_adapter(adapter),
        lambda: shrink_adapter(adapter, adapter.parent / "small", 2),
    ):
        with pytest.raises(DefectgenError, match=reason) as error:
            read()
        assert "\n" not in str(error.value)


def test_a_rank_beyond_the_numbers_is_refused(adapter: Path) -> None:
    path = adapter / LORA_CONFIG
    path.write_text(path.read_text().replace('"r": 4', '"r": 1e309'))
    with pytest.raises(DefectgenError, match="got 1e309, expected finite numbers"):
        read_lora(adapter)


CARDS: list[tuple[dict[str, Any], str]] = [
    ({"hosts": "MoS2"}, "hosts"),
    ({"hosts": [["MoS2"]]}, r"hosts\.0"),
    ({"max_defects": [3]}, "max_defects"),
    ({"max_defects": {"MoS2": "many"}}, r"max_defects\.MoS2"),
    ({"covered_ev": {"MoS2": {"homo_ev": [1.0]}}}, "covered_ev of MoS2, homo_ev"),
    ({"covered_ev": {"MoS2": {"homo_ev": [2.0, 1.0]}}}, "covered_ev of MoS2, homo_ev"),
    ({"base_model": ["x"]}, "base_model"),
    ({"prompt_version": None}, "prompt_version"),
    ({"data": []}, "data"),
    ({"data": {"settings": 1}}, "settings"),
    ({"data": {"elements": "MoS"}}, "elements"),
    ({"data": {"max_atoms": 10**9}}, "max_atoms"),
    ({"training": "x"}, "training"),
    ({"more": 1}, "unknown key 'more'"),
]


@pytest.mark.parametrize(("values", "where"), CARDS, ids=range(len(CARDS)))
def test_a_card_with_values_of_another_kind_is_refused(values: dict[str, Any], where: str, adapter: Path) -> None:
    path = adapter / METADATA
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(DefectgenError, match=f"not an adapter card.*{where}") as error:
        read_adapter(adapter)
    assert "\n" not in str(error.value)


def test_a_base_model_of_the_hub_needs_permission(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    asked: list[tuple[str, Any]] = []

    def refuse(name: str, **options: Any) -> None:
        asked.append((name, options))
        raise OSError("no connection")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)  # which has a message of its own
    for kind in ("AutoTokenizer", "AutoConfig", "AutoModelForCausalLM"):
        monkeypatch.setattr(getattr(transformers, kind), "from_pretrained", refuse)
    path = adapter / METADATA
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model": "stranger/model"}))
    with pytest.raises(DefectgenError, match=r"works on stranger/model of the model hub.*Add --allow-download"):
        TransformersGenerator.from_adapter(adapter)
    with pytest.raises(DefectgenError, match="cannot be loaded from the hub"):
        TransformersGenerator.from_adapter(adapter, allow_download=True)
    assert [(name, options["local_files_only"], options["trust_remote_code"]) for name, options in asked] == [
        ("stranger/model", True, False),
        ("stranger/model", False, False),
    ]


def test_a_folder_that_is_no_base_model_says_what_is_missing(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    for missing, pattern in (
        ("config.json", "config.json"),
        ("tokenizer.json", "tokenizer*"),
        ("safetensors", "model*"),
    ):
        with pytest.raises(DefectgenError, match=rf"base holds no base model: its .*{missing}\) is missing") as error:
            load_base(str(folder), "float32")
        assert "\n" not in str(error.value)
        for path in tiny_model_dir.glob(pattern):
            shutil.copy(path, folder)
    load_base(str(folder), "float32")


def test_a_card_of_crystals_covers_what_both_runs_saw() -> None:
    def card(elements: list[str], most: int, covered: dict[str, list[float]]) -> AdapterCard:
        data = {"elements": elements, "max_atoms": most, "covered": covered, "records": {"train": 3}}
        return AdapterCard("base", "bulk", 1, (), {}, {}, data)

    later = card(["Na", "S"], 4, {"band_gap": [0.0, 1.0]})
    both = later.after(card(["Li", "O"], 20, {"band_gap": [0.5, 3.0], "e_above_hull": [0.0, 0.1]}))
    assert both.data["elements"] == ["Li", "Na", "O", "S"]
    assert both.data["max_atoms"] == 20
    assert both.data["covered"] == {"band_gap": [0.0, 3.0], "e_above_hull": [0.0, 0.1]}
    assert both.data["records"] == {"train": 3}
    plain = AdapterCard("base", "bulk", 1, (), {}, {}, {"elements": ["Na"]})
    assert plain.after(AdapterCard("base", "bulk", 1, (), {}, {})).data == {"elements": ["Na"]}, (
        "not known of the earlier"
    )
