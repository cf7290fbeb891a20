"""Model cards as the model hub's own library reads them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from defectgen.io.hub_card import base_fields, hub_header, model_index
from defectgen.llm.adapter import read_adapter
from defectgen.llm.adapter_text import adapter_markdown
from defectgen.models import SHIPPED_ADAPTER, SHIPPED_BULK_ADAPTER, SHIPPED_SLICES, SHIPPED_SURROGATE, shipped
from defectgen.score.surrogate.model_card import model_card

CARDS = sorted(path.parent for path in shipped(SHIPPED_SURROGATE).parent.glob("*/README.md"))


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
    made = ModelCard(adapter_markdown(read_adapter(folder)))
    assert {key: value for key, value in card.data.to_dict().items() if key != "model-index"} == made.data.to_dict()
    assert card.text.lstrip().startswith("# LoRA adapter")


def test_the_card_of_the_adapter_for_crystals_tells_which_weights_it_has_and_what_came_before() -> None:
    folder = shipped(SHIPPED_BULK_ADAPTER)
    card = read_adapter(folder)
    text = adapter_markdown(card)
    assert (folder / "README.md").read_text().split("---\n", 2)[2].startswith(text.split("---\n", 2)[2])
    kept, losses = card.training["best_step"], dict(card.training["validation_losses"])
    assert kept < card.training["steps"]
    assert losses[kept] == min(losses.values())
    assert f"| validation loss | {losses[kept]:.4f} nats a token, after step {kept}, which was kept |" in text
    assert [row.split(":")[0] for row in text.splitlines() if row.startswith("| before")] == [
        "| before | 150 steps", "| before | 211 steps",
    ]  # fmt: skip


@pytest.mark.parametrize("folder", CARDS, ids=lambda folder: folder.name)
def test_figures_in_the_header_of_a_shipped_card_stand_in_its_text(folder: Path) -> None:
    card = ModelCard((folder / "README.md").read_text())
    assert card.data.model_name == folder.name
    shown = {float(number) for number in re.findall(r"(?<![\w.])\d+(?:\.\d+)?", card.text)}
    missing = [
        (item.dataset_name, item.metric_name, item.metric_value)
        for item in card.data.eval_results
        if not shown & {item.metric_value, round(item.metric_value, 2), round(item.metric_value, 1)}
    ]
    assert len(card.data.eval_results) >= 6
    assert missing == []


def test_shipped_cards_call_hosts_as_people_do() -> None:
    assert {folder.name for folder in CARDS} >= {
        SHIPPED_ADAPTER,
        SHIPPED_BULK_ADAPTER,
        SHIPPED_SURROGATE,
        "slices-catboost",
    }
    for folder in CARDS:
        if (folder / "defectgen.json").exists() and read_adapter(folder).hosts:
            text = (folder / "README.md").read_text()
            made = adapter_markdown(read_adapter(folder))
            assert [line for line in made.splitlines() if line.startswith(("| BP |", "| hBN |"))]
            assert set(re.findall(r"^\| (?:BP|hBN|MoS2) \| \d+ \|", made, re.M)) <= set(
                re.findall(r"^\| \w+ \| \d+ \|", text, re.M)
            )
            assert not re.search(r"\b(?:BN|P)\b(?!_)", text.split("---\n", 2)[2]), folder.name


def test_the_card_of_slices_and_catboost_has_the_errors_of_the_docs() -> None:
    docs = Path(__file__).parents[2] / "docs" / "slices.md"
    own = [
        line.rstrip(" |") for line in (shipped(SHIPPED_SLICES) / "README.md").read_text().splitlines() if "%) |" in line
    ]
    assert len(own) == 8
    assert [line for line in own if line not in docs.read_text()] == []


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
