"""Model cards as the model hub's own library reads them."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import ModelCard

from defectgen.io.hub_card import base_fields, hub_header, model_index
from defectgen.llm.adapter import read_adapter
from defectgen.llm.adapter_text import adapter_markdown
from defectgen.models import SHIPPED_ADAPTER, SHIPPED_BULK_ADAPTER, SHIPPED_SURROGATE, shipped
from defectgen.score.surrogate.model_card import model_card


def test_the_card_of_the_shipped_surrogate_is_filed_with_its_errors() -> None:
    folder = shipped(SHIPPED_SURROGATE)
    text = (folder / "README.md").read_text()
    metadata = json.loads((folder / "surrogate.json").read_text())
    assert text == model_card(metadata)
    data = ModelCard(text).data
    assert data.license == "cc-by-4.0"
    found = {(item.dataset_name, item.metric_name): item.metric_value for item in data.eval_results}
    errors = metadata["errors"]["test"]
    assert found["WSe2", "gap, MAE in meV"] == pytest.approx(errors["WSe2"]["band_gap_ev"]["mae_mev"], abs=1e-4)
    assert {name for name, _ in found} == set(errors)


def test_the_card_of_the_shipped_adapter_names_its_base_model() -> None:
    folder = shipped(SHIPPED_ADAPTER)
    card = ModelCard((folder / "README.md").read_text())
    assert (card.data.base_model, card.data.library_name) == ("HuggingFaceTB/SmolLM2-135M-Instruct", "peft")
    assert card.data.to_dict() == ModelCard(adapter_markdown(read_adapter(folder))).data.to_dict()
    assert card.text.lstrip().startswith("# LoRA adapter")


def test_the_card_of_the_adapter_for_crystals_tells_which_weights_it_has_and_what_came_before() -> None:
    folder = shipped(SHIPPED_BULK_ADAPTER)
    card = read_adapter(folder)
    text = adapter_markdown(card)
    assert (folder / "README.md").read_text().startswith(text)
    kept, losses = card.training["best_step"], dict(card.training["validation_losses"])
    assert kept < card.training["steps"]
    assert losses[kept] == min(losses.values())
    assert f"| validation loss | {losses[kept]:.4f} nats a token, after step {kept}, which was kept |" in text
    assert [row.split(":")[0] for row in text.splitlines() if row.startswith("| before")] == [
        "| before | 150 steps", "| before | 211 steps",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("meta-llama/Meta-Llama-3-8B", {"base_model": "meta-llama/Meta-Llama-3-8B"}),
        ("/data/llama", {}),
        ("./models/llama", {}),
        ("models", {}),
    ],
)
def test_a_folder_is_no_name_on_the_hub(base: str, expected: dict[str, str]) -> None:
    assert base_fields(base) == expected


def test_a_header_without_figures_has_no_index() -> None:
    lines = hub_header(license=None, tags=["a: b"], model__index=None)
    assert ModelCard("\n".join([*lines, "# Title"])).data.to_dict() == {"tags": ["a: b"]}
    index = model_index("m", [("S", "test", "gap", 1.23456), ("S", "test", "level", 2.0)])
    assert [metric["value"] for metric in index[0]["results"][0]["metrics"]] == [1.2346, 2.0]
