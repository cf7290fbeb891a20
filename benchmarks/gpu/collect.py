"""Turns what came back from the GPU into adapters with cards, and prints what was measured.

    python benchmarks/gpu/collect.py RETURNED --kit runs/gpu -o runs/gpu/collected

An adapter of step NAME is described by the manifest of records in KIT/NAME, or in its own folder.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import tarfile
from pathlib import Path
from typing import Annotated, Any

import typer
from prepare import BASE

from defectgen import __version__
from defectgen.llm.adapter import (
    LORA_CONFIG,
    METADATA,
    TRAINING_CONFIGURATIONS,
    WEIGHTS,
    make_card,
    read_adapter,
    record_identity,
)
from defectgen.llm.train.finetune_config import FinetuneConfig, LoraSettings
from defectgen.llm.train.initial_adapter import earlier_run

RUN, MANIFEST, SEEN = "run.json", "manifest.json", "seen.json"


def main(
    returned: Annotated[Path, typer.Argument(help="Folder with the files that came back.")],
    kit: Annotated[Path, typer.Option("--kit", help="Folder of prepare.py.")] = Path("runs/gpu"),
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the results.")] = Path("runs/gpu/collected"),
    base_model: Annotated[str, typer.Option(help="What the adapters are of.")] = BASE,
) -> None:
    """Unpack, write cards, print a table."""
    summary = returned / "summary.txt"
    if summary.is_file():
        print(summary.read_text(encoding="utf-8"))
    for step in unpack(returned, output):
        for weights in sorted(step.rglob(WEIGHTS)):
            folder = weights.parent
            name = "-".join(folder.relative_to(output).parts)
            if not (folder / RUN).is_file():
                print(f"{name}: no {RUN}, so no card")
                continue
            print(finish(folder, _records_folder(folder, step, kit), base_model))
        for figures in sorted(step.rglob("figures.json")):
            print(f"{figures.relative_to(output)}: {_short(json.loads(figures.read_text(encoding='utf-8')))}")


def unpack(returned: Path, output: Path) -> list[Path]:
    """The folders of the steps, from whole archives and from those in parts."""
    output.mkdir(parents=True, exist_ok=True)
    archives: dict[str, list[Path]] = {}
    for path in sorted(returned.rglob("*.tar.gz*")):
        if match := re.fullmatch(r"(.+)\.tar\.gz(\.\d)?", path.name):
            archives.setdefault(match[1], []).append(path)
    for name, parts in archives.items():
        shutil.rmtree(output / name, ignore_errors=True)
        with tarfile.open(fileobj=io.BytesIO(b"".join(part.read_bytes() for part in parts))) as archive:
            archive.extractall(output, filter="data")
    return [output / name for name in archives]


def finish(folder: Path, records: Path, base_model: str) -> str:
    """Make a folder of weights and ``run.json`` an adapter; one line that says what it is.

    Args:
        folder: of the weights.
        records: folder with the manifest of the records, and the records or ``seen.json``, keys by group.
        base_model: name of the base model.
    """
    run = json.loads((folder / RUN).read_text(encoding="utf-8"))
    manifest = json.loads((records / MANIFEST).read_text(encoding="utf-8"))
    config = FinetuneConfig(
        base_model=base_model,
        lora=LoraSettings(rank=run["rank"], alpha=round(run["alpha"]), targets=run["targets"]),
        learning_rate=run["learning_rate"],
        batch_size=run["batch_size"],
        epochs=max(float(run.get("epochs", 1.0)), 1e-6),
        seed=run.get("seed", 42),
        dtype="bfloat16",
        max_length=run.get("max_length", 1024),
    )
    used = ("rank", "alpha", "targets", "learning_rate", "batch_size", "epochs", "seed", "max_length")
    elsewhere = (*used, "losses", "initial", "initial_training")
    training = {
        "defectgen": __version__,
        "command": "",
        "config": config.model_dump(exclude={"initial_adapter"}),
        "validation_losses": [],
        **{key: value for key, value in run.items() if key not in elsewhere},
        "losses": run.get("losses", [])[-1:],
    }
    if earlier := run.get("initial_training"):
        training["initial_adapter"] = earlier_run(earlier)
    values = json.loads((folder / LORA_CONFIG).read_text(encoding="utf-8"))
    values["base_model_name_or_path"] = base_model
    (folder / LORA_CONFIG).write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    seen = {group: sorted(keys) for group, keys in sorted(_seen(folder, records).items())}
    (folder / TRAINING_CONFIGURATIONS).write_text(json.dumps(seen, separators=(",", ":")), encoding="utf-8")
    make_card(base_model, manifest, training).write(folder)
    card = read_adapter(folder)
    size = (folder / WEIGHTS).stat().st_size / 2**20
    validation = card.training["validation_losses"]
    best = f"{min(loss for _, loss in validation):.4f} nats a token" if validation else "not measured"
    return (
        f"{folder}: {card.encoding}, rank {run['rank']}, {run['steps']} steps, {run['records_seen']} records, "
        f"validation {best}, {size:.1f} MiB ({METADATA} written)"
    )


def _records_folder(folder: Path, step: Path, kit: Path) -> Path:
    """Where the manifest of the records is: with the adapter, with the step, or in the kit."""
    for place in (folder, step, kit / step.name):
        if (place / MANIFEST).is_file():
            return place
    raise SystemExit(f"{folder}: no {MANIFEST} there, in {step} or in {kit / step.name}")


def _seen(folder: Path, records: Path) -> dict[str, set[str]]:
    """By group the keys of what was trained on."""
    for place in (folder, records):
        if (place / SEEN).is_file():
            return {group: set(keys) for group, keys in json.loads((place / SEEN).read_text(encoding="utf-8")).items()}
    found: dict[str, set[str]] = {}
    with gzip.open(records / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            group, key = record_identity(json.loads(line))
            found.setdefault(group, set()).add(key)
    return found


def _short(values: Any) -> str:
    """Figures on one line, lists by their last entry."""
    if not isinstance(values, dict):
        return json.dumps(values)[:300]
    rows = {k: v[-1:] if isinstance(v, list) and len(v) > 3 else v for k, v in values.items() if k != "shape"}
    return json.dumps(rows)[:1500]


if __name__ == "__main__":
    typer.run(main)
