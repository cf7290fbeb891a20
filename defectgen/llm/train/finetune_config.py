"""What a fine-tuning run is made of; every field can stand in a YAML file of configs/."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from defectgen.config import StageConfig

MOST = 100_000_000
"""Largest count that a run can mean."""


class LoraSettings(StageConfig):
    """Low-rank adaptation (Hu et al., ICLR 2022, doi 10.48550/arXiv.2106.09685)."""

    rank: int = Field(default=32, ge=1, le=4096, description="rank of the update of each weight matrix")
    alpha: int = Field(default=64, gt=0, le=1_000_000, description="scale: updates are multiplied by alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout before the first factor")
    targets: str | list[str] = Field(default="all-linear", description="weight matrices that get an update")


class DesignMetricSettings(StageConfig):
    """The design metric, measured at every evaluation: how far proposals miss the levels asked for."""

    targets: int = Field(
        default=0, ge=0, le=MOST, description="validation records whose levels are asked for; 0: not measured"
    )
    samples: int = Field(default=4, ge=1, le=MOST, description="completions for each of them")
    scorer: Literal["labels", "surrogate"] = Field(
        default="labels", description="what values a proposal whose label the records do not hold: nothing, or"
    )
    surrogate: str | None = Field(default=None, description="folder of a surrogate; the shipped one if none is named")


class PreferenceSettings(StageConfig):
    """How much a pair of proposals teaches, see `defectgen.llm.train.preferences.PreferenceTrainer`."""

    beta: float = Field(default=0.2, gt=0, description="how firmly the model is held to what it was before")
    imitation: float = Field(default=0.2, ge=0, description="weight of the better proposal's own loss")


class FinetuneConfig(StageConfig):
    """One fine-tuning run."""

    base_model: str = Field(description="registered name, folder, or name on the hub")
    lora: LoraSettings = LoraSettings()
    initial_adapter: str | None = Field(default=None, description="folder of a trained adapter to go on from")
    learning_rate: float = Field(default=1e-4, gt=0, description="peak; falls to 0 along a cosine")
    warmup_share: float = Field(default=0.03, ge=0, lt=1, description="share of steps with rising learning rate")
    epochs: float = Field(default=1.0, gt=0, le=1_000_000, description="passes over the training records")
    max_steps: int | None = Field(default=None, ge=1, le=MOST, description="stop after this many steps instead")
    batch_size: int = Field(default=24, ge=1, le=MOST, description="records in one forward pass")
    accumulation: int = Field(
        default=1, ge=1, le=MOST, description="forward passes in one optimizer step, shared out among the processes"
    )
    max_length: int = Field(
        default=256, ge=8, le=MOST, description="longest record in tokens; a longer one is an error"
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        default="auto", description="arithmetic; auto takes bfloat16 where the processor has it"
    )
    gradient_checkpointing: bool = Field(default=False, description="trade time for memory")
    quantization: Literal["none", "4bit"] = Field(default="none", description="of the frozen base (4bit: extra gpu)")
    eval_steps: int = Field(
        default=100, ge=1, le=MOST, description="steps between evaluations on the validation records"
    )
    eval_records: int = Field(
        default=480, ge=1, le=MOST, description="validation records, drawn at random, for the loss"
    )
    design: DesignMetricSettings = DesignMetricSettings()
    preference: PreferenceSettings = PreferenceSettings()
    patience: int | None = Field(
        default=None,
        ge=1,
        le=MOST,
        description="stop after this many evaluations without a better design metric (validation loss if that is "
        "not measured), and take the best checkpoint",
    )
    save_steps: int = Field(default=100, ge=1, le=MOST, description="steps between checkpoints")
    seed: int = Field(
        default=42, ge=0, lt=2**32, description="of the adapter's start, the order of records and the samples"
    )
