"""Engines by name, and what is said where one is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from defectgen.errors import DefectgenError, UsageError
from defectgen.llm.adapter import METADATA, WEIGHTS
from defectgen.llm.decode.engines import load_generator
from defectgen.tasks.defect.encodings import get_encoding


@pytest.fixture
def adapter(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """An adapter folder that lacks nothing but its weights."""
    card = {
        "base_model": str(tiny_model_dir),
        "encoding": "edits",
        "prompt_version": get_encoding("edits").version,
        "hosts": ["MoS2"],
        "max_defects": {"MoS2": 3},
        "covered_ev": {},
    }
    (tmp_path / METADATA).write_text(json.dumps(card))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 8}))
    (tmp_path / WEIGHTS).touch()
    return tmp_path


def test_an_unknown_engine_is_named_with_the_known_ones(adapter: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown engine 'vlm'\. Expected one of: transformers, vllm\."):
        load_generator("vlm", adapter)


def test_a_missing_vllm_is_one_line_that_says_how_to_get_it(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(DefectgenError) as error:
        load_generator("vllm", adapter)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("engine vllm is not installed")
    assert "pip install 'defectgen[vllm]'" in str(error.value)
    assert "docs/engines.md" in str(error.value)
