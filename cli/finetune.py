"""`defectgen finetune`: LoRA on instruction records."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from defectgen_cli.options import JsonOption, SetOption
from defectgen_cli.output import emit, say


def finetune(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="YAML file, or a shipped one: smollm2-cpu, llama3-8b.")
    ],
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Records made by build-data.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the adapter.")],
    start_from: Annotated[
        Path | None,
        typer.Option(
            "--start-from", metavar="ADAPTER", help="Go on from this trained adapter instead of from nothing."
        ),
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Registered name, folder, or name on the hub.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop after this many steps.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the run.")] = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a language model with LoRA on instruction records.

    The loss counts the completion only. Checkpoints are written on the way: after Ctrl-C, SIGTERM
    or a kill, the same command goes on from the last one.
    """
    from defectgen.config import find_config, load_config
    from defectgen.llm.config import FinetuneConfig

    settings = load_config(
        FinetuneConfig,
        find_config(config, "defect"),
        overrides or (),
        initial_adapter=None if start_from is None else str(start_from),
        base_model=base_model,
        max_steps=max_steps,
        seed=seed,
    )
    say("loading libraries and base model ...")
    from defectgen.llm.train import finetune as train

    started = time.monotonic()
    first: list[int] = []

    def report(step: int, total: int, figures: dict[str, float]) -> None:
        first.append(step)
        named = {"loss": "loss", "eval_loss": "validation loss"}
        shown = [f"{title} {float(figures[key]):.4f}" for key, title in named.items() if key in figures]
        if shown:
            pace = (time.monotonic() - started) / max(step - first[0] + 1, 1)
            say(f"step {step}/{total}: {', '.join(shown)}, about {(total - step) * pace / 60:.0f} min left")

    given = [("--base-model", base_model), ("--max-steps", max_steps), ("--seed", seed)]
    changes = [f"{name} {value}" for name, value in given if value is not None]
    changes += ["--start-from ADAPTER"] if start_from is not None else []
    changes += [f"--set {item}" for item in overrides or ()]
    command = " ".join(["defectgen finetune", Path(config).stem, "--data RECORDS -o ADAPTER", *changes])
    result = train(settings, data, output, report, command)
    summary = {
        "adapter": result.adapter,
        "steps": result.steps,
        "total_steps": result.total_steps,
        "validation_losses": result.validation_losses,
        "seconds": round(result.seconds, 1),
        "finished": result.adapter is not None,
    }
    if result.adapter is None:
        emit(summary, as_json)
        say(f"stopped after step {result.steps} of {result.total_steps}; the same command goes on from there.")
        raise typer.Exit(130)
    last = f", validation loss {result.validation_losses[-1][1]:.4f}" if result.validation_losses else ""
    emit(summary, as_json, f"adapter in {result.adapter} after {result.steps} steps{last}")
