"""LoRA training on records: what carries a loss, what is saved, and how a run goes on."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from stamped import stamp_adapter, stamp_records
from training_runs import config
from transformers import Trainer

from defectgen.core.properties import COLUMNS, USUAL
from defectgen.data.records import RecordSettings, build_data
from defectgen.data.sources import read_dataset
from defectgen.data.splits import split_by_class
from defectgen.errors import DefectgenError, UsageError
from defectgen.llm.adapter import METADATA, TRAINING_CONFIGURATIONS, WEIGHTS, read_adapter, training_configurations
from defectgen.llm.decode.generator import Request, Sampling
from defectgen.llm.decode.transformers_engine import TransformersGenerator
from defectgen.llm.likelihood import Text, log_likelihoods
from defectgen.llm.loading import load_base
from defectgen.llm.train.callbacks import LOG
from defectgen.llm.train.checkpoints import CHECKPOINTS, checkpoint
from defectgen.llm.train.dataset import IGNORED, CompletionDataset, collate, drawn
from defectgen.llm.train.finetune import finetune
from defectgen.llm.train.record_folder import read_records
from defectgen.tasks.defect.defect_task import DefectTask


def test_only_the_completion_carries_a_loss(tiny_model_dir: Path, records: Path) -> None:
    _, tokenizer, _ = load_base(str(tiny_model_dir), "float32")
    rows = read_records(records / "train.jsonl")
    dataset = CompletionDataset(rows, tokenizer, 200)
    for row, example in zip(rows, dataset.examples, strict=True):
        kept = [token for token in example["labels"] if token != IGNORED]
        assert tokenizer.decode(kept) == row["completion"] + "<eos>"
        assert tokenizer.decode(example["input_ids"]) == row["prompt"] + row["completion"] + "<eos>"
    batch = collate(dataset.examples[:3], tokenizer.eos_token_id)
    assert batch["input_ids"].shape == batch["labels"].shape
    assert (batch["labels"] != IGNORED).sum() == sum(
        label != IGNORED for example in dataset.examples[:3] for label in example["labels"]
    )


def test_training_lowers_the_loss_and_saves_a_usable_adapter(
    tiny_model_dir: Path, records: Path, tmp_path: Path
) -> None:
    result = finetune(config(tiny_model_dir, max_steps=60, eval_steps=20), records, tmp_path / "adapter")
    assert result.adapter == tmp_path / "adapter"
    assert result.validation_losses[-1][1] < 0.8 * result.losses[0][1]
    card = read_adapter(tmp_path / "adapter")
    assert card.encoding == "edits"
    assert card.hosts == ("MoS2", "WSe2")
    assert set(card.covered_ev["MoS2"]) == set(USUAL)
    train = {json.loads(line)["configuration"] for line in (records / "train.jsonl").read_text().splitlines()}
    assert set().union(*training_configurations(tmp_path / "adapter").values()) == train
    generator, _ = TransformersGenerator.from_adapter(tmp_path / "adapter", "float32")
    plain, _, _ = load_base(str(tiny_model_dir), "float32")
    changed = [
        name
        for name, weight in generator.model.state_dict().items()
        if not torch.equal(weight, plain.state_dict()[name])
    ]
    assert any("q_proj" in name for name in changed)
    assert not any("embed" in name or "norm" in name for name in changed)
    from defectgen.core import get_host

    task = DefectTask()
    request = Request(task.prompt(get_host("MoS2"), {"homo_ev": 0.1}), task.grammar(get_host("MoS2"), 3), 8, 0)
    assert len(list(generator.generate([request], Sampling()))) == 8
    with pytest.raises(UsageError, match="already holds a trained adapter"):
        finetune(config(tiny_model_dir), records, tmp_path / "adapter")
    weights = tmp_path / "adapter" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(DefectgenError, match=r"has 1000 bytes, defectgen\.json says"):
        TransformersGenerator.from_adapter(tmp_path / "adapter", "float32")


def test_training_goes_on_from_an_adapter(tiny_model_dir: Path, records: Path, tmp_path: Path) -> None:
    first = finetune(config(tiny_model_dir, max_steps=40, eval_steps=20), records, tmp_path / "first")
    more = {"initial_adapter": str(tmp_path / "first"), "max_steps": 2, "eval_steps": 1}
    second = finetune(config(tiny_model_dir, **more), records, tmp_path / "second")
    assert second.validation_losses[0][1] == pytest.approx(first.validation_losses[-1][1], rel=0.05)
    before = read_adapter(tmp_path / "second").training["initial_adapter"]
    assert before["steps"] == 40
    assert "| before | 40 steps: `not recorded` |" in (tmp_path / "second" / "README.md").read_text()
    few = tmp_path / "few"
    shutil.copytree(records, few)
    rows = [line for line in (records / "train.jsonl").read_text().splitlines() if '"host": "WSe2"' in line]
    (few / "train.jsonl").write_text("".join(line + "\n" for line in rows))
    manifest = json.loads((few / "manifest.json").read_text())
    del manifest["max_defects"]["MoS2"], manifest["covered_ev"]["MoS2"]
    (few / "manifest.json").write_text(json.dumps(manifest))
    stamp_records(few)
    finetune(config(tiny_model_dir, **more), few, tmp_path / "narrow")
    assert training_configurations(tmp_path / "narrow") == training_configurations(tmp_path / "first")
    for field in ("hosts", "max_defects", "covered_ev"):
        assert getattr(read_adapter(tmp_path / "narrow"), field) == getattr(read_adapter(tmp_path / "first"), field)
    with pytest.raises(UsageError, match=r"adapter of .*tiny-llama.*, the run is for another/base"):
        finetune(config(Path("another/base"), **more), records, tmp_path / "third")
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "first", other)
    held_back = json.loads((records / "validation.jsonl").read_text().splitlines()[0])
    known = {f"{held_back['host']} {held_back['supercell']}": [held_back["configuration"]]}
    (other / TRAINING_CONFIGURATIONS).write_text(json.dumps(known))
    with pytest.raises(DefectgenError, match=r"training_configurations\.json has .* bytes"):
        finetune(config(tiny_model_dir, **more | {"initial_adapter": str(other)}), records, tmp_path / "leak")
    stamp_adapter(other)
    with pytest.raises(UsageError, match="holds back"):
        finetune(config(tiny_model_dir, **more | {"initial_adapter": str(other)}), records, tmp_path / "leak")


def test_files_of_others_are_never_replaced(tiny_model_dir: Path, records: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("precious")
    with pytest.raises(UsageError, match="holds other files"):
        finetune(config(tiny_model_dir, max_steps=1), records, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_records_with_other_prompts_are_refused(tiny_model_dir: Path, records: Path, tmp_path: Path) -> None:
    shutil.copytree(records, tmp_path / "old")
    manifest = json.loads((records / "manifest.json").read_text())
    (tmp_path / "old" / "manifest.json").write_text(json.dumps(manifest | {"prompt_version": 0}))
    with pytest.raises(UsageError, match="records of prompt version 0, this is"):
        finetune(config(tiny_model_dir), tmp_path / "old", tmp_path / "run")


def test_the_validation_loss_is_the_mean_over_tokens(tiny_model_dir: Path, records: Path, tmp_path: Path) -> None:
    found = []
    for size in (1, 5, 14):
        still = config(tiny_model_dir, max_steps=1, eval_steps=1, batch_size=size, learning_rate=1e-12)
        found.append(finetune(still, records, tmp_path / f"{size}").validation_losses[-1][1])
    model, tokenizer, _ = load_base(str(tiny_model_dir), "float32")
    texts = [Text(row["prompt"], row["completion"]) for row in read_records(records / "validation.jsonl")]
    judged = list(log_likelihoods(model, tokenizer, texts))
    assert found == pytest.approx([-sum(one.nats for one in judged) / sum(one.tokens for one in judged)] * 3, rel=1e-5)


def test_a_run_that_lacks_its_adapter_alone_takes_no_further_step(
    tiny_model_dir: Path, records: Path, tmp_path: Path
) -> None:
    first = finetune(config(tiny_model_dir, max_steps=3), records, tmp_path / "run")
    weights = (tmp_path / "run" / WEIGHTS).read_bytes()
    (tmp_path / "run" / METADATA).unlink()
    again = finetune(config(tiny_model_dir, max_steps=3), records, tmp_path / "run")
    assert (again.steps, again.validation_losses) == (first.steps, first.validation_losses)
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == weights


def test_a_folder_of_another_run_is_refused(tiny_model_dir: Path, records: Path, tmp_path: Path) -> None:
    finetune(config(tiny_model_dir, max_steps=2), records, tmp_path / "run")
    (tmp_path / "run" / METADATA).unlink()
    with pytest.raises(UsageError, match="holds another run"):
        finetune(config(tiny_model_dir, max_steps=3), records, tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(UsageError, match="checkpoints of an unknown run"):
        finetune(config(tiny_model_dir, max_steps=2), records, tmp_path / "run")


def test_too_long_records_and_missing_files_are_named(tiny_model_dir: Path, records: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="max_length is 12"):
        finetune(config(tiny_model_dir, max_length=12), records, tmp_path / "short")
    rows = read_records(records / "train.jsonl")[:1]
    _, tokenizer, _ = load_base(str(tiny_model_dir), "float32")
    with pytest.raises(UsageError, match=r"the prompt alone is longer than the base model's context of 10"):
        CompletionDataset(rows, tokenizer, 200, context=10)
    length = len(CompletionDataset(rows, tokenizer, 200).examples[0]["input_ids"])
    with pytest.raises(UsageError, match="the record is longer than the base model's context"):
        CompletionDataset(rows, tokenizer, 200, context=length - 1)
    with pytest.raises(DefectgenError, match="holds no records"):
        finetune(config(tiny_model_dir), tmp_path, tmp_path / "none")
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n')
    with pytest.raises(DefectgenError, match="line 1"):
        read_records(tmp_path / "bad.jsonl")


def test_adapters_of_other_prompts_are_refused(tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).touch()
    card = {
        "base_model": "smollm2-135m",
        "encoding": "edits",
        "prompt_version": 99,
        "hosts": ["MoS2"],
        "max_defects": {},
        "covered_ev": {},
    }
    (tmp_path / METADATA).write_text(json.dumps(card))
    with pytest.raises(DefectgenError, match="prompt version 99"):
        read_adapter(tmp_path)
    (tmp_path / METADATA).write_text("{}")
    with pytest.raises(DefectgenError, match="not an adapter card"):
        read_adapter(tmp_path)


def test_records_never_replace_foreign_files(tiny_2dmd: Path, tmp_path: Path) -> None:
    frame = split_by_class(read_dataset(tiny_2dmd), seed=1)
    (tmp_path / "train.jsonl").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        build_data(frame, tmp_path, RecordSettings(), overwrite=True)
    (tmp_path / "manifest.json").write_text('{"tool": "another"}')
    with pytest.raises(UsageError, match="is not of records"):
        build_data(frame, tmp_path, RecordSettings(), overwrite=True)
    assert (tmp_path / "train.jsonl").read_text() == "mine"


def test_a_failed_start_does_not_claim_the_folder(tiny_model_dir: Path, records: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="max_length is 12"):
        finetune(config(tiny_model_dir, max_length=12), records, tmp_path / "run")
    assert finetune(config(tiny_model_dir, max_steps=1), records, tmp_path / "run").steps == 1


def test_folders_that_cannot_be_written_are_named(
    tiny_model_dir: Path, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="adapter cannot be written: Not a directory"):
        finetune(config(tiny_model_dir), records, tmp_path / "file" / "adapter")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_save_optimizer_and_scheduler", full)
        with pytest.raises(DefectgenError, match=r"the disk of .* is full"):
            finetune(config(tiny_model_dir, max_steps=2, save_steps=1), records, tmp_path / "full")
    assert finetune(config(tiny_model_dir, max_steps=2, save_steps=1), records, tmp_path / "full").steps == 2


def test_records_say_which_properties_are_missing(tmp_path: Path) -> None:
    with pytest.raises(DefectgenError, match="no rows"):
        build_data(
            pl.DataFrame(
                schema=dict.fromkeys(COLUMNS, pl.Float64)
                | dict.fromkeys(["set", "id", "configuration", "split"], pl.String)
            ),
            tmp_path / "x",
            RecordSettings(),
        )


def test_a_loss_that_is_no_number_ends_the_run(tiny_model_dir: Path, records: Path, tmp_path: Path) -> None:
    with pytest.raises(DefectgenError, match=r"the loss of step \d+ is nan, no finite number"):
        finetune(config(tiny_model_dir, learning_rate=1e300, max_steps=6), records, tmp_path / "run")
    assert not (tmp_path / "run" / METADATA).exists()


def test_a_run_without_a_finite_evaluation_ends_in_words(tiny_model_dir: Path, records: Path, tmp_path: Path) -> None:
    run = config(tiny_model_dir, learning_rate=1e300, max_steps=6, eval_steps=2, patience=1)
    with pytest.raises(DefectgenError, match=r"no evaluation gave a finite number.*Take a lower learning_rate"):
        finetune(run, records, tmp_path / "run")
    assert not (tmp_path / "run" / METADATA).exists()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / "run" / LOG).read_text().splitlines()]
    assert any(row.get("eval_loss", 0) is None for row in rows)


def test_a_damaged_checkpoint_is_named_and_not_gone_on_from(
    tiny_model_dir: Path, records: Path, tmp_path: Path
) -> None:
    run = config(tiny_model_dir, max_steps=8, eval_steps=8)
    finetune(run, records, tmp_path / "run")
    (tmp_path / "run" / METADATA).unlink()
    last = checkpoint(tmp_path / "run" / CHECKPOINTS, 8)
    content = (last / WEIGHTS).read_bytes()
    (last / WEIGHTS).write_bytes(content[:-1] + bytes([content[-1] ^ 64]))
    with pytest.raises(
        DefectgenError, match=r"checkpoint-8/adapter_model\.safetensors is not the file.*Remove the fold"
    ):
        finetune(run, records, tmp_path / "run")
    shutil.rmtree(last)
    assert finetune(run, records, tmp_path / "run").steps == 8


def test_validation_records_are_drawn_from_all_of_them() -> None:
    records = list(range(1000))
    chosen = drawn(records, 100, seed=3)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == 100
    assert chosen[-1] > 900
    assert chosen == drawn(records, 100, seed=3) != drawn(records, 100, seed=4)
    assert drawn(records, 2000, seed=0) == records
