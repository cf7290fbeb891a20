"""transformers' trainer made to fit: loss of completions, an order of records that nothing changes, no memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft.helpers import disable_input_dtype_casting
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Sampler
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices

from defectgen.errors import DefectgenError, UsageError
from defectgen.llm.loading import out_of_memory
from defectgen.llm.output_layer import OutputLayer
from defectgen.llm.train.checkpoints import best_step, evaluations_since_best
from defectgen.llm.train.dataset import IGNORED
from defectgen.llm.train.finetune_config import FinetuneConfig, PreferenceSettings

LOGITS_AT_ONCE = 2**28
"""Logits that are held at once: 1 GiB of float32, e.g. 2,000 tokens of Llama-3's vocabulary of 128 thousand."""


class LengthOrder(Sampler[int]):
    """Steps of records of similar length, in random order; both by seed and epoch alone.

    The random order of the steps matters: the library's groups come from long to short, again and again, and a model
    that is trained so does not learn where texts end. The order does not depend on the number of processes, on how
    a step is cut into forward passes, or on whether the run was interrupted.
    """

    def __init__(self, lengths: list[int], records_per_step: int, seed: int) -> None:
        self.lengths = lengths
        self.records_per_step = records_per_step
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = get_length_grouped_indices(self.lengths, self.records_per_step, generator=generator)
        steps = [order[first : first + self.records_per_step] for first in range(0, len(order), self.records_per_step)]
        last = (
            [steps.pop()] if steps and len(steps[-1]) < self.records_per_step else []
        )  # what does not fill a step stays last
        shuffled = [steps[k] for k in torch.randperm(len(steps), generator=generator).tolist()] + last
        return iter([index for step in shuffled for index in step])


@dataclass(frozen=True)
class TrainingPlan:
    """What a trainer is told beside the library's arguments.

    Attributes:
        records_per_step: records in one optimizer step, all processes together.
        tokens_a_record: mean number of tokens with a loss in a validation record.
        design: measures the design metric of a model; None if there is none.
        metric: name of what the best checkpoint is chosen by; None if the last one is taken.
        patience: evaluations without a better value before training stops; None for never.
        preference: how pairs are learnt from.
    """

    records_per_step: int
    tokens_a_record: float = 1.0
    design: Callable[[Any], dict[str, float]] | None = None
    metric: str | None = None
    patience: int | None = None
    preference: PreferenceSettings = field(default_factory=PreferenceSettings)


class CompletionTrainer(Trainer):
    """transformers' trainer with the output layer applied to the positions of the completion only.

    Attributes:
        plan: see `TrainingPlan`.
        rows_at_once: most records in one forward pass; halved when memory runs out.
    """

    def __init__(self, plan: TrainingPlan, **of_library: Any) -> None:
        """A trainer that prints nothing on stdout, which is for results."""
        super().__init__(**of_library)
        self.plan = plan
        self.rows_at_once = int(self.args.per_device_train_batch_size)
        self.remove_callback(PrinterCallback)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        loss = self.batch_loss(model, inputs, num_items_in_batch)
        return (loss, {"loss": loss.detach()}) if return_outputs else loss

    def batch_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], tokens_in_step: torch.Tensor | int | None
    ) -> torch.Tensor:
        """The share of a batch in the loss of its step; outside of training, of the validation part.

        Args:
            model: in training or not.
            inputs: of `collate`.
            tokens_in_step: tokens with a loss in the step, of all batches and processes; None: those of the batch.
        """
        loss = self.token_losses(model, inputs["input_ids"], inputs["labels"]).sum()
        labels = inputs["labels"][:, 1:]
        if not model.training:
            # transformers takes the mean over records: so that this is the mean over all their tokens
            return loss / (len(labels) * self.plan.tokens_a_record)
        if tokens_in_step is None:
            return loss / (labels != IGNORED).sum()
        return loss / (tokens_in_step / self.args.world_size)  # gradients of the processes are averaged

    def token_losses(self, model: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross entropies of the tokens that carry a loss, in nats, row after row.

        Args:
            model: in training or not.
            ids: tokens, shape (rows, width).
            labels: the same tokens, or `IGNORED`.
        """
        wanted = labels[:, 1:] != IGNORED
        targets = labels[:, 1:][wanted]
        if self.args.world_size > 1:  # gradients are exchanged in the wrapped model's own forward
            places = wanted.any(dim=0).nonzero()[:, 0]
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=places).logits
            return _cross_entropy(logits[wanted[:, places]], targets)
        causal = model.get_base_model()
        with (
            disable_input_dtype_casting(model),
            torch.autocast(ids.device.type, torch.bfloat16, enabled=self.args.bf16),
        ):
            hidden = causal.base_model(input_ids=ids, use_cache=False).last_hidden_state
            return completion_losses(hidden[:, :-1][wanted], targets, OutputLayer(causal))

    def training_step(
        self,
        model: Any,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """One forward and backward pass, cut in halves until it fits into memory: the gradient is the same.

        Raises:
            DefectgenError: memory runs out with a single record, or in a run of several processes; or the loss is no
                finite number and the last checkpoint is to be taken.
        """
        if num_items_in_batch is None:
            num_items_in_batch = (inputs["labels"][:, 1:] != IGNORED).sum()
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        before = [None if weight.grad is None else weight.grad.clone() for weight in weights]
        while True:
            try:
                starts = range(0, len(inputs["input_ids"]), self.rows_at_once)
                parts = [{k: v[i : i + self.rows_at_once] for k, v in inputs.items()} for i in starts]
                loss = sum(
                    (super(CompletionTrainer, self).training_step(model, part, num_items_in_batch) for part in parts),
                    torch.zeros((), device=self.args.device),
                )
                break
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                self._check_divisible(len(inputs["input_ids"]), error)
            for weight, gradient in zip(weights, before, strict=True):
                weight.grad = None if gradient is None else gradient.clone()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.rows_at_once = (min(self.rows_at_once, len(inputs["input_ids"])) + 1) // 2
            self.log({"rows_at_once": float(self.rows_at_once)})
        if self.plan.metric is None and not bool(torch.isfinite(loss)):  # else the best checkpoint before it is taken
            raise DefectgenError(
                f"the loss of step {self.state.global_step + 1} is {float(loss)}, no finite number.",
                "Take a lower learning_rate, and another folder.",
            )
        return loss

    def _check_divisible(self, rows: int, error: Exception) -> None:
        if min(self.rows_at_once, rows) == 1:
            raise DefectgenError(
                "one record does not fit into memory.",
                "Set gradient_checkpointing=true, quantization=4bit, or take a shorter encoding.",
            ) from error
        if self.args.world_size > 1:
            raise DefectgenError(
                f"out of memory in process {self.args.process_index} with {rows} records at once.",
                "Halve batch_size and double accumulation: the run goes on from its last checkpoint.",
            ) from error

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The validation loss and the design metric; saves what is best, stops when it has been so for long."""
        metrics = dict(super().evaluate(*args, **kwargs))
        if self.plan.design is not None:
            figures = self._measure(self.plan.design)
            self.log(figures)
            metrics.update(figures)
        metric, patience = self.plan.metric, self.plan.patience
        if metric is not None:
            history = self.state.log_history
            if best_step(history, metric) == self.state.global_step:
                self.control.should_save = True
            if patience is not None and evaluations_since_best(history, metric) >= patience:
                self.control.should_training_stop = True
        return metrics

    def _measure(self, design: Callable[[Any], dict[str, float]]) -> dict[str, float]:
        """The figures that the first process measured, in every process."""
        box: list[Any] = [None]
        if self.is_world_process_zero():
            box = [design(self.accelerator.unwrap_model(self.model).get_base_model())]
        if self.args.world_size > 1:
            torch.distributed.broadcast_object_list(box)
        return dict(box[0])

    def _get_dataloader(
        self,
        dataset: Any,
        description: str,  # noqa: ARG002
        batch_size: int,
        sampler_fn: Callable[[Any], Sampler[int] | None] | None = None,
        is_training: bool = False,  # noqa: ARG002
        dataloader_key: str | None = None,  # noqa: ARG002
    ) -> Any:
        """The library's asks for the package ``datasets``, which a folder of that name in a checkout passes for."""
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_size,
            sampler=None if sampler_fn is None else sampler_fn(dataset),
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthOrder:  # noqa: ARG002
        data: Any = self.train_dataset
        return LengthOrder([len(x["input_ids"]) for x in data], self.plan.records_per_step, self.args.data_seed or 0)


def completion_losses(hidden: torch.Tensor, labels: torch.Tensor, head: OutputLayer) -> torch.Tensor:
    """Cross entropies of the tokens that follow, in nats, shape (tokens,).

    Logits beyond `LOGITS_AT_ONCE` are computed in slices, and again in the backward pass.

    Args:
        hidden: last hidden states, shape (tokens, width).
        labels: the tokens, shape (tokens,).
        head: the output layer.
    """
    rows = max(LOGITS_AT_ONCE // head.n_tokens, 1)
    if len(labels) <= rows:
        return _cross_entropy(head(hidden), labels)

    def part(states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return _cross_entropy(head(states), tokens)

    parts = [
        checkpoint(part, states, tokens, use_reentrant=False)
        for states, tokens in zip(hidden.split(rows), labels.split(rows), strict=True)
    ]
    return torch.cat(parts)


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")


def processes() -> int:
    """Number of processes that `torchrun` or `accelerate launch` started for this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def share_out(batch_size: int, accumulation: int, world: int) -> tuple[int, int]:
    """Batch size and accumulation of each process, so that an optimizer step sees the same records.

    Raises:
        UsageError: the records of a step cannot be shared out evenly.
    """
    if accumulation % world == 0:
        return batch_size, accumulation // world
    if batch_size * accumulation % world == 0:
        rows = batch_size * accumulation // world
        passes = next(n for n in range(1, rows + 1) if rows % n == 0 and rows // n <= batch_size)
        return rows // passes, passes
    raise UsageError(
        f"batch_size {batch_size} x accumulation {accumulation} records cannot be shared among {world} processes.",
        "Choose values whose product is a multiple of the number of processes.",
    )


def arguments(config: FinetuneConfig, folder: Path, dtype: torch.dtype, validated: bool) -> TrainingArguments:
    """What transformers' trainer is told.

    Args:
        config: of the run.
        folder: of the checkpoints.
        dtype: arithmetic.
        validated: whether there are validation records.
    """
    gpu = torch.cuda.is_available()
    batch_size, accumulation = share_out(config.batch_size, config.accumulation, processes())
    made = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup_share,
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        bf16=dtype == torch.bfloat16,
        use_cpu=not gpu,
        ddp_backend=None if gpu or processes() == 1 else "gloo",
        ddp_find_unused_parameters=False,
        logging_steps=10,
        eval_strategy="steps" if validated else "no",
        eval_steps=config.eval_steps if validated else None,
        save_strategy="steps",
        save_steps=config.save_steps,
        prediction_loss_only=True,
        remove_unused_columns=False,
        dataloader_pin_memory=gpu,
        report_to=[],
        disable_tqdm=True,
        seed=config.seed,
        data_seed=config.seed,
    )
    if made.n_gpu > 1:  # one process, one GPU: several are used through a launcher
        made._n_gpu = 1
    return made
