"""How a training run went: its losses, its best step, and what of it a model card says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerState

from defectgen import __version__
from defectgen.llm.train.checkpoints import DESIGN_METRIC, best_step, evaluations_since_best
from defectgen.llm.train.finetune_config import FinetuneConfig
from defectgen.llm.train.trainer import TrainingPlan, processes

Losses = tuple[tuple[int, float], ...]
Figures = tuple[tuple[int, dict[str, float]], ...]


@dataclass(frozen=True)
class FinetuneResult:
    """How a run ended.

    Attributes:
        adapter: folder of the adapter; None if the run was interrupted.
        steps: optimizer steps done, earlier sessions of the same run included.
        total_steps: optimizer steps of the whole run.
        best_step: step whose weights the adapter has.
        losses: (step, training loss) in nats a token.
        validation_losses: (step, validation loss).
        design: (step, figures of the design metric), see `DesignMetric.measure`.
        seconds: wall time of this session.
    """

    adapter: Path | None
    steps: int
    total_steps: int
    best_step: int
    losses: Losses
    validation_losses: Losses
    design: Figures
    seconds: float


@dataclass(frozen=True)
class TrainingHistory:
    """A run so far.

    Attributes:
        steps: optimizer steps done, earlier sessions included.
        total_steps: optimizer steps of the whole run.
        best_step: step whose weights are taken.
        is_over: whether all steps are done, or patience is at its end.
        losses: (step, training loss) in nats a token.
        validation_losses: (step, validation loss).
        design: (step, figures of the design metric).
    """

    steps: int
    total_steps: int
    best_step: int
    is_over: bool
    losses: Losses
    validation_losses: Losses
    design: Figures

    @classmethod
    def of(cls, state: TrainerState, plan: TrainingPlan) -> TrainingHistory:
        """From what transformers' trainer keeps."""
        rows, metric = state.log_history, plan.metric
        waited = evaluations_since_best(rows, metric) if metric else 0
        return cls(
            state.global_step,
            state.max_steps,
            (best_step(rows, metric) if metric else None) or state.global_step,
            state.global_step >= state.max_steps or (plan.patience is not None and waited >= plan.patience),
            tuple((int(row["step"]), float(row["loss"])) for row in rows if "loss" in row),
            tuple((int(row["step"]), float(row["eval_loss"])) for row in rows if "eval_loss" in row),
            tuple((int(row["step"]), _design_figures(row)) for row in rows if DESIGN_METRIC in row),
        )

    def for_card(self, config: FinetuneConfig, command: str, before: Any) -> dict[str, Any]:
        """What the card of the adapter says of the run; numbers that are not finite are left out.

        Args:
            config: of the run.
            command: how to call it again.
            before: of the adapter that it started from; None if there was none.
        """
        figures = _finite(self.design)
        return {
            "defectgen": __version__,
            "command": command,
            "config": config.model_dump(exclude={"initial_adapter"}),
            "steps": self.steps,
            "best_step": self.best_step,
            "records_seen": self.steps * config.batch_size * config.accumulation,
            "losses": [row for row in self.losses if math.isfinite(row[1])][-1:],
            "validation_losses": [row for row in self.validation_losses if math.isfinite(row[1])],
            **({"design": figures} if figures else {}),
            **({"processes": processes()} if processes() > 1 else {}),
            **({"initial_adapter": before} if before else {}),
        }

    def result(self, output: Path, seconds: float) -> FinetuneResult:
        """For the caller of a run that took so many seconds in this session."""
        return FinetuneResult(
            adapter=output if self.is_over else None,
            steps=self.steps,
            total_steps=self.total_steps,
            best_step=self.best_step,
            losses=self.losses,
            validation_losses=self.validation_losses,
            design=self.design,
            seconds=seconds,
        )


def _finite(figures: Sequence[tuple[int, dict[str, float]]]) -> list[tuple[int, dict[str, float]]]:
    return [(step, {name: x for name, x in row.items() if math.isfinite(x)}) for step, row in figures]


def _design_figures(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if name.startswith("eval_design_")}
