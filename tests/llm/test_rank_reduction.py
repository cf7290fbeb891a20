"""A smaller adapter: the nearest of its rank, and a working one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from defectgen.errors import UsageError
from defectgen.llm.adapter import AdapterCard, read_adapter
from defectgen.llm.rank_reduction import shrink_adapter

PREFIX = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter whose one update has the singular values 8, 4, 2 and 1."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(n, 4, generator=generator)).Q for n in (9, 7))
    values = torch.tensor([8.0, 4.0, 2.0, 1.0])
    weights = {f"{PREFIX}.lora_A.weight": right.T.contiguous(), f"{PREFIX}.lora_B.weight": (left * values).contiguous()}
    save_file(weights, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}))
    (folder / "training_configurations.json").write_text('{"MoS2 8x8": []}')
    settings = {"copies": 1, "rotations": False, "seed": 1}
    data = {"settings": settings, "data_sha256": "0" * 64, "records": {}, "structures": {}}
    data["structures"] = {"train": 1, "validation": 1, "test": 1}
    config = {"lora": {"rank": 4, "alpha": 8, "targets": "all-linear"}, "learning_rate": 1e-3, "seed": 1}
    config |= {"batch_size": 1, "accumulation": 1}
    training = {"defectgen": "0", "config": config, "steps": 1, "validation_losses": ()}
    AdapterCard("tiny", "edits", 1, (), {}, {}, data, training).write(folder)
    return folder


def update(folder: Path) -> torch.Tensor:
    weights = load_file(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / config["r"]
    return scale * weights[f"{PREFIX}.lora_B.weight"] @ weights[f"{PREFIX}.lora_A.weight"]


def test_the_update_is_the_nearest_of_its_rank(adapter: Path, tmp_path: Path) -> None:
    result = shrink_adapter(adapter, tmp_path / "small", 2)
    assert result.mean_kept == pytest.approx((64 + 16) / (64 + 16 + 4 + 1))
    left, values, right = torch.linalg.svd(update(adapter), full_matrices=False)
    nearest = (left[:, :2] * values[:2]) @ right[:2]
    assert torch.allclose(update(tmp_path / "small"), nearest, atol=1e-5)
    assert torch.linalg.matrix_rank(update(tmp_path / "small"), tol=1e-4) == 2
    note = read_adapter(tmp_path / "small").training["shrunk"]
    assert (note["from_rank"], note["rank"]) == (4, 2)
    assert "cut to rank 2, 94.1%" in (tmp_path / "small" / "README.md").read_text()


def test_rows_of_tokens_stay_as_they_are(adapter: Path, tmp_path: Path) -> None:
    name = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
    weights = load_file(adapter / "adapter_model.safetensors") | {name: torch.arange(6.0).reshape(2, 3)}
    save_file(weights, adapter / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["trainable_token_indices"] = {"embed_tokens": [4, 5]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    read_adapter(adapter).write(adapter)
    shrink_adapter(adapter, tmp_path / "small", 2)
    assert torch.equal(load_file(tmp_path / "small" / "adapter_model.safetensors")[name], weights[name])


@pytest.mark.parametrize("rank", [0, 4, 9])
def test_a_rank_that_is_not_lower_is_refused(adapter: Path, tmp_path: Path, rank: int) -> None:
    with pytest.raises(UsageError, match="expected 1 to 3"):
        shrink_adapter(adapter, tmp_path / "small", rank)
    assert not (tmp_path / "small").exists()


def test_nothing_is_overwritten(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        shrink_adapter(adapter, tmp_path, 2)
