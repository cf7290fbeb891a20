"""Training on pairs of proposals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from stamped import stamp_records
from training_runs import config, largest_difference

from defectgen.errors import UsageError
from defectgen.llm.adapter import WEIGHTS, read_adapter
from defectgen.llm.decode.transformers_engine import TransformersGenerator
from defectgen.llm.likelihood import Text, log_likelihoods
from defectgen.llm.loading import load_base
from defectgen.llm.train.checkpoints import CHECKPOINTS, checkpoint, run_identity
from defectgen.llm.train.dataset import IGNORED
from defectgen.llm.train.dry_run import dry_run
from defectgen.llm.train.finetune import finetune
from defectgen.llm.train.finetune_config import DesignMetricSettings, FinetuneConfig, LoraSettings
from defectgen.llm.train.initial_adapter import follow_adapter
from defectgen.llm.train.preferences import REFERENCE, PairDataset, PreferenceTrainer, collate_pairs
from defectgen.llm.train.record_folder import read_manifest, read_records


@pytest.fixture(scope="module")
def start(tiny_model_dir: Path, records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter to improve."""
    folder = tmp_path_factory.mktemp("start") / "adapter"
    finetune(config(tiny_model_dir, max_steps=30, eval_steps=30), records, folder)
    return folder


@pytest.fixture(scope="module")
def pairs(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each record beside the completion of the next one, which has another length in half of them."""
    folder = tmp_path_factory.mktemp("pairs") / "pairs"
    shutil.copytree(records, folder)
    rows = read_records(records / "train.jsonl")[:40]
    made = [row | {"rejected": other["completion"]} for row, other in zip(rows, rows[1:] + rows[:1], strict=True)]
    made = [row for row in made if row["rejected"] != row["completion"]]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    return stamp_records(folder)


def margin(adapter: Path, pairs: Path) -> float:
    """How much likelier the better completions are in the mean, in nats."""
    generator, _ = TransformersGenerator.from_adapter(adapter, "float32")
    rows = read_records(pairs / "train.jsonl")
    texts = [Text(row["prompt"], row[name]) for row in rows for name in ("completion", "rejected")]
    nats = [judged.nats for judged in log_likelihoods(generator.model, generator.tokenizer, texts)]
    return (sum(nats[::2]) - sum(nats[1::2])) / len(rows)


def test_the_better_completions_become_likelier(tiny_model_dir: Path, pairs: Path, start: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"initial_adapter": str(start), "max_steps": 20, "eval_steps": 20, "learning_rate": 2e-3}
    result = finetune(config(tiny_model_dir, **changes), pairs, tmp_path / "better")
    assert result.validation_losses
    assert margin(tmp_path / "better", pairs) > margin(start, pairs) + 1
    known = json.loads((tmp_path / "better" / REFERENCE).read_text())
    assert sum(known) / len(known) == pytest.approx(margin(start, pairs), abs=0.05)
    assert read_adapter(tmp_path / "better").training["initial_adapter"]["steps"] == 30


def test_a_resumed_run_on_pairs_ends_where_an_unbroken_one_does(
    tiny_model_dir: Path, pairs: Path, start: Path, tmp_path: Path
) -> None:
    run = config(tiny_model_dir, initial_adapter=str(start), max_steps=8, eval_steps=8)
    finetune(run, pairs, tmp_path / "whole")
    stopped = tmp_path / "stopped"
    (stopped / CHECKPOINTS).mkdir(parents=True)
    identity = run_identity(run.model_dump(), read_manifest(pairs))
    (stopped / "run.json").write_text(json.dumps(identity))
    shutil.copy(tmp_path / "whole" / REFERENCE, stopped)
    half = checkpoint(tmp_path / "whole" / CHECKPOINTS, 4)
    shutil.copytree(half, checkpoint(stopped / CHECKPOINTS, 4))
    finetune(run, pairs, stopped)
    ends = [checkpoint(folder / CHECKPOINTS, 8) for folder in (tmp_path / "whole", stopped)]
    assert largest_difference(*ends) < 1e-6


def test_the_loss_of_a_pair_is_that_of_its_definition(
    tiny_model_dir: Path, pairs: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[float] = []
    original = PreferenceTrainer.compute_loss

    def spy(self: PreferenceTrainer, model: Any, inputs: Any, *about: Any, **more: Any) -> Any:
        loss = original(self, model, inputs, *about, **more)
        if "margins" in inputs:
            found.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(PreferenceTrainer, "compute_loss", spy)
    changes: dict[str, Any] = {"initial_adapter": str(start), "max_steps": 1, "learning_rate": 1e-12, "batch_size": 40}
    finetune(config(tiny_model_dir, **changes), pairs, tmp_path / "run")
    rows = read_records(pairs / "train.jsonl")
    assert len(rows) == 40
    generator, _ = TransformersGenerator.from_adapter(start, "float32")
    texts = [Text(row["prompt"], row["completion"]) for row in rows]
    judged = list(log_likelihoods(generator.model, generator.tokenizer, texts))
    imitation = -sum(one.nats / one.tokens for one in judged) / len(judged)
    # before the first step no pair has moved: -log sigmoid(0) is log 2
    assert found[0] == pytest.approx(torch.log(torch.tensor(2.0)).item() + 0.2 * imitation, abs=0.01)


def test_pairs_are_collated_side_by_side(tiny_model_dir: Path, pairs: Path) -> None:
    _, tokenizer, _ = load_base(str(tiny_model_dir), "float32")
    data = PairDataset(read_records(pairs / "train.jsonl"), tokenizer, 200)
    data.margins = [float(k) for k in range(len(data))]
    batch = collate_pairs([data[k] for k in (3, 1)], tokenizer.eos_token_id)
    assert batch["margins"].tolist() == [3.0, 1.0]
    rows = read_records(pairs / "train.jsonl")
    for place, k in enumerate((3, 1)):
        for side, name in enumerate(("completion", "rejected")):
            kept = batch["labels"][place, side]
            assert tokenizer.decode(kept[kept != IGNORED]) == rows[k][name] + "<eos>"


def test_pairs_need_an_adapter_and_no_other_records(
    tiny_model_dir: Path, pairs: Path, records: Path, tmp_path: Path
) -> None:
    for run in (lambda settings, data: finetune(settings, data, tmp_path / "run"), dry_run):
        with pytest.raises(UsageError, match="Name the adapter to improve with --start-from"):
            run(config(tiny_model_dir), pairs)
        asking = {"initial_adapter": "any", "design": DesignMetricSettings(targets=2)}
        with pytest.raises(UsageError, match=r"Set design\.scorer=surrogate"):
            run(config(tiny_model_dir, **asking), pairs)
    mixed = tmp_path / "mixed"
    shutil.copytree(records, mixed)
    with (mixed / "train.jsonl").open("a") as stream:
        stream.write((pairs / "train.jsonl").read_text())
    stamp_records(mixed)
    with pytest.raises(UsageError, match="40 of 152 training records are pairs"):
        finetune(config(tiny_model_dir), mixed, tmp_path / "run")


def test_a_dry_run_counts_both_of_a_pair(tiny_model_dir: Path, pairs: Path, records: Path, start: Path) -> None:
    run = config(tiny_model_dir, initial_adapter=str(start))
    assert dry_run(run, pairs).memory_bytes > dry_run(run, records).memory_bytes


def test_an_adapter_of_another_scale_makes_the_same_update(
    tiny_model_dir: Path, records: Path, start: Path, tmp_path: Path
) -> None:
    losses = []
    for alpha in (8, 32):
        settings: dict[str, Any] = {"initial_adapter": str(start), "lora": LoraSettings(rank=4, alpha=alpha)}
        still = config(tiny_model_dir, **settings, max_steps=1, eval_steps=1, learning_rate=1e-12)
        losses.append(finetune(still, records, tmp_path / f"{alpha}").validation_losses[-1][1])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert (tmp_path / "8" / WEIGHTS).read_bytes() != (tmp_path / "32" / WEIGHTS).read_bytes()


def test_a_run_follows_the_rank_of_the_adapter_it_starts_from(start: Path, tiny_model_dir: Path) -> None:
    open_rank = FinetuneConfig(base_model=str(tiny_model_dir), initial_adapter=str(start))
    assert follow_adapter(open_rank).lora == LoraSettings(rank=4, alpha=8)
    named = open_rank.model_copy(update={"lora": LoraSettings(rank=2)})
    assert follow_adapter(named) == named
    alone = FinetuneConfig(base_model=str(tiny_model_dir))
    assert follow_adapter(alone) == alone
