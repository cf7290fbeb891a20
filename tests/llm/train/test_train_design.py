"""The design metric, stopping early by it, running out of memory, logs, and what a base model must be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from training_runs import config, largest_difference
from transformers import PretrainedConfig

from defectgen.core import Configuration
from defectgen.errors import DefectgenError, UsageError
from defectgen.llm.adapter import METADATA, WEIGHTS, read_adapter
from defectgen.llm.loading import load_base
from defectgen.llm.output_layer import OutputLayer
from defectgen.llm.train import trainer as trainer_module
from defectgen.llm.train.callbacks import LOG, TENSORBOARD, tensorboard_installed
from defectgen.llm.train.design_metric import CAP_EV, DesignMetric
from defectgen.llm.train.dry_run import dry_run
from defectgen.llm.train.finetune import finetune
from defectgen.llm.train.finetune_config import DesignMetricSettings
from defectgen.llm.train.record_folder import read_records
from defectgen.llm.train.trainer import CompletionTrainer, completion_losses


class Flat:
    """A scorer that gives every configuration the same levels."""

    def __init__(self, homo_ev: float, lumo_ev: float) -> None:
        self.levels = homo_ev, lumo_ev
        self.asked = 0

    def score(self, configurations: Sequence[Configuration]) -> pl.DataFrame:
        self.asked += len(configurations)
        n = len(configurations)
        return pl.DataFrame({"homo_ev": [self.levels[0]] * n, "lumo_ev": [self.levels[1]] * n})


def metric(records: Path, scorer: Any = None, **changes: Any) -> DesignMetric:
    manifest = json.loads((records / "manifest.json").read_text())
    settings = DesignMetricSettings(**({"targets": 5, "samples": 3} | changes))
    training, held_back = (read_records(records / f"{part}.jsonl") for part in ("train", "validation"))
    return DesignMetric.of(settings, manifest, training, held_back, 0, scorer)


def test_the_design_error_is_the_distance_to_the_levels_asked_for(tiny_generator: Any, records: Path) -> None:
    scorer = Flat(0.2, 1.5)
    found = replace(metric(records, scorer), labels={})
    assert len(found.requests) == 5
    validation = {json.dumps(r["values"]) for r in read_records(records / "validation.jsonl")}
    for request, (homo, lumo) in zip(found.requests, found.levels_ev, strict=True):
        assert any(json.loads(v).get("homo_ev") == homo and json.loads(v).get("lumo_ev") == lumo for v in validation)
        assert f"HOMO {homo:.3f} LUMO {lumo:.3f}" in request.prompt
    state = torch.get_rng_state()
    figures = found.measure(tiny_generator.model, tiny_generator.tokenizer)
    assert torch.equal(state, torch.get_rng_state())
    distances = [abs(homo - 0.2) + abs(lumo - 1.5) for homo, lumo in found.levels_ev]
    assert scorer.asked == 5 + 15  # a check before training, then each proposal
    assert figures["eval_design_error_ev"] == pytest.approx(np.minimum(distances, CAP_EV).mean())
    assert figures["eval_design_valued"] == 1.0
    assert figures == found.measure(tiny_generator.model, tiny_generator.tokenizer)
    homo, lumo = found.levels_ev[0][0] + 0.008, found.levels_ev[0][1] - 0.008
    near = replace(found, scorer=Flat(homo, lumo))
    hits = [abs(pair[0] - homo) + abs(pair[1] - lumo) <= 0.02 for pair in found.levels_ev]
    assert 0 < sum(hits) < 5
    within = near.measure(tiny_generator.model, tiny_generator.tokenizer)["eval_design_within_20mev"]
    assert within == pytest.approx(sum(hits) / 5)


class Constant:
    """Labels every configuration alike."""

    def __init__(self, pair: tuple[float, float]) -> None:
        self.pair = pair

    def get(self, _: object) -> tuple[float, float]:
        return self.pair


def test_labels_come_before_the_scorer_and_what_nothing_values_is_a_miss(tiny_generator: Any, records: Path) -> None:
    scorer = Flat(9.0, 9.0)
    found = metric(records, scorer, targets=1)
    labelled = replace(found, labels=Constant(found.levels_ev[0]))  # type: ignore[arg-type]
    figures = labelled.measure(tiny_generator.model, tiny_generator.tokenizer)
    assert figures == {"eval_design_error_ev": 0.0, "eval_design_within_20mev": 1.0, "eval_design_valued": 1.0}
    assert scorer.asked == 1  # the check before training
    nothing = replace(found, scorer=None, labels={}).measure(tiny_generator.model, tiny_generator.tokenizer)
    assert nothing == {"eval_design_error_ev": CAP_EV, "eval_design_within_20mev": 0.0, "eval_design_valued": 0.0}
    far = replace(found, labels={}).measure(tiny_generator.model, tiny_generator.tokenizer)
    assert far["eval_design_error_ev"] == CAP_EV
    assert far["eval_design_valued"] == 1.0


def test_more_targets_than_records_are_refused(records: Path) -> None:
    with pytest.raises(UsageError, match=r"validation records state HOMO and LUMO, design.targets is 500"):
        metric(records, targets=500)


def test_training_stops_early_and_takes_the_best_checkpoint(
    tiny_model_dir: Path, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.5, 0.3, 0.4, 0.3, 0.1])  # steps 2, 4, 6, 8; the last is never measured

    def scripted(_self: DesignMetric, model: Any, _tokenizer: Any) -> dict[str, float]:
        assert hasattr(model, "lm_head")  # the plain model with its adapter in place
        return {"eval_design_error_ev": next(values), "eval_design_within_20mev": 0.0, "eval_design_valued": 1.0}

    monkeypatch.setattr(DesignMetric, "measure", scripted)
    settings = config(
        tiny_model_dir, max_steps=40, eval_steps=2, save_steps=30, patience=2, design=DesignMetricSettings(targets=2)
    )
    result = finetune(settings, records, tmp_path / "run")
    assert (result.steps, result.best_step, result.total_steps) == (8, 4, 40)
    assert result.adapter is not None
    assert [step for step, _ in result.design] == [2, 4, 6, 8]
    shipped = load_file(tmp_path / "run" / WEIGHTS)
    best = load_file(tmp_path / "run" / "checkpoints" / "checkpoint-4" / WEIGHTS)
    assert all(torch.equal(shipped[name], best[name].to(torch.bfloat16)) for name in shipped)
    training = read_adapter(tmp_path / "run").training
    assert (training["best_step"], training["steps"]) == (4, 8)
    rows = [json.loads(line) for line in (tmp_path / "run" / LOG).read_text().splitlines()]
    assert [r["eval_design_error_ev"] for r in rows if "eval_design_error_ev" in r] == [0.5, 0.3, 0.4, 0.3]


def test_patience_without_a_design_metric_watches_the_validation_loss(
    tiny_model_dir: Path, records: Path, tmp_path: Path
) -> None:
    settings = config(tiny_model_dir, max_steps=120, eval_steps=4, patience=2, learning_rate=3.0, warmup_share=0)
    result = finetune(settings, records, tmp_path / "run")
    losses = dict(result.validation_losses)
    assert result.steps < 120
    assert losses[result.best_step] == min(losses.values())
    assert result.steps == result.best_step + 8
    (tmp_path / "run" / METADATA).unlink()  # as if killed before the adapter was written
    assert finetune(settings, records, tmp_path / "run").steps == result.steps


@pytest.mark.parametrize("moment", ["forward", "backward"])
def test_out_of_memory_halves_the_batch_and_changes_nothing_else(
    moment: str, tiny_model_dir: Path, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tiny_model_dir, max_steps=3, accumulation=2, eval_steps=3, save_steps=3)
    finetune(settings, records, tmp_path / "roomy")
    passes: list[int] = []
    forward = CompletionTrainer.compute_loss

    def tight(self: CompletionTrainer, model: Any, inputs: Any, *args: Any, **others: Any) -> Any:
        rows = len(inputs["input_ids"])
        if not model.training:
            return forward(self, model, inputs, *args, **others)
        passes.append(rows)
        if moment == "forward" and rows > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        loss = forward(self, model, inputs, *args, **others)
        if moment == "backward" and len(passes) == 2:  # when the gradient of the first half step is there
            self.accelerator.backward(loss)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss

    monkeypatch.setattr(CompletionTrainer, "compute_loss", tight)
    seen: list[float] = []
    finetune(settings, records, tmp_path / "tight", lambda *about: seen.extend([about[2].get("rows_at_once", 0.0)]))
    halved = [rows for rows in seen if rows]
    if moment == "forward":
        assert halved == [4.0, 2.0]
        assert passes == [8, 4] + [2] * 24
    else:
        assert halved == [4.0]
        assert passes == [8, 8] + [4] * 10
    last = Path("checkpoints") / "checkpoint-3"
    assert largest_difference(tmp_path / "roomy" / last, tmp_path / "tight" / last) < 1e-4


def test_a_record_that_never_fits_is_said(
    tiny_model_dir: Path, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(CompletionTrainer, "compute_loss", never)
    with pytest.raises(DefectgenError, match="one record does not fit into memory"):
        finetune(config(tiny_model_dir), records, tmp_path / "run")


def test_the_loss_in_slices_is_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(6, 50, bias=False)
    layer = OutputLayer(SimpleNamespace(get_output_embeddings=lambda: head, config=PretrainedConfig()))
    labels = torch.randint(50, (23,))
    found = []
    for limit in (10**6, 50 * 5):
        monkeypatch.setattr(trainer_module, "LOGITS_AT_ONCE", limit)
        hidden = torch.linspace(-1, 1, 23 * 6).reshape(23, 6).requires_grad_()
        loss = completion_losses(hidden, labels, layer).sum()
        loss.backward()
        found.append((loss.detach(), hidden.grad))
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-6)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-6)
    expected = -torch.log_softmax(head(hidden), 1)[range(23), labels].sum().detach()
    assert torch.allclose(found[0][0], expected, rtol=1e-5)


def test_curves_are_written_for_tensorboard(tiny_model_dir: Path, records: Path, tmp_path: Path) -> None:
    if not tensorboard_installed():
        pytest.skip("extra tensorboard is not installed: its event files left out")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = finetune(config(tiny_model_dir), records, tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / TENSORBOARD)).Reload()
    assert {"train/loss", "train/learning_rate", "eval/loss"} <= set(events.Tags()["scalars"])
    assert [(e.step, pytest.approx(e.value)) for e in events.Scalars("eval/loss")] == list(result.validation_losses)


class GatedRepoError(OSError):
    """Named as in the hub's library."""


class LocalEntryNotFoundError(OSError):
    """Named as in the hub's library."""


@pytest.mark.parametrize(
    ("cause", "token", "message"),
    [
        (GatedRepoError("403"), None, "is gated on the hub, and the access token is missing"),
        (GatedRepoError("403"), "hf_x", "is gated on the hub, and the access token is refused"),
        (LocalEntryNotFoundError("no"), None, "is not in the hub's local cache, and the hub cannot be reached"),
        (ValueError("strange"), None, r"cannot be loaded from the hub \(You are"),
    ],
)
def test_what_keeps_a_model_on_the_hub_is_one_line(
    cause: Exception, token: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("You are trying to\nuse a model that is far away") from cause

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(DefectgenError, match=message) as caught:
        load_base("meta-llama/Meta-Llama-3-8B")
    assert "\n" not in str(caught.value)


def test_4bit_weights_are_prepared_for_training(
    tiny_model_dir: Path, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The norms of a base in bfloat16 become float32, as for a quantized one; see test_sharded.py for the real ones."""
    from defectgen.llm.train import finetune as finetune_module

    def load(name: str, _dtype: str, quantization: str, *, place: bool) -> Any:
        assert (quantization, place) == ("4bit", False)
        model, tokenizer, _ = load_base(name, "bfloat16")
        loaded.append(model)
        return model, tokenizer, torch.float32

    loaded: list[Any] = []
    monkeypatch.setattr(finetune_module, "load_base", load)
    finetune(config(tiny_model_dir, quantization="4bit", max_steps=1), records, tmp_path / "run")
    assert loaded[0].model.norm.weight.dtype == torch.float32


def test_a_dry_run_counts_what_training_then_does(tiny_model_dir: Path, records: Path, tmp_path: Path) -> None:
    settings = config(tiny_model_dir, max_steps=None, epochs=0.5, accumulation=2)
    planned = dry_run(settings, records)
    done = finetune(settings, records, tmp_path / "run")
    assert planned.steps == done.total_steps
    assert planned.train_records == len(read_records(records / "train.jsonl"))
    weights = load_file(tmp_path / "run" / WEIGHTS)
    assert planned.trained_weights == sum(weight.numel() for weight in weights.values())
    base, _, _ = load_base(str(tiny_model_dir), "float32")
    assert planned.weights == sum(weight.numel() for weight in base.parameters())
    assert planned.longest_tokens > planned.longest_prompt_tokens > 0
    bigger = dry_run(settings.model_copy(update={"batch_size": 16}), records)
    assert planned.memory_bytes > 4 * planned.weights + 16 * planned.trained_weights
    assert bigger.memory_bytes > planned.memory_bytes
    with pytest.raises(UsageError, match="max_length is 12"):
        dry_run(config(tiny_model_dir, max_length=12), records)
