"""A joint network on a GPU: of all rows, for judging, and for each fold, in the order of worth.

python benchmarks/gpu/networks.py --kit runs/gpu --base FOLDER -o runs/networks --seconds 90
"""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Annotated

import numpy as np
import torch
import typer
from kit import BaseOption, KitOption, OutputOption, SecondsOption, ToyOption, run_step
from rows import read

from defectgen.score.network.ensemble import Network
from defectgen.score.network.network_cells import Rows
from defectgen.score.network.network_model import Shape
from defectgen.score.network.network_training import TrainSettings, train_ensemble

RESERVED_S = 8.0
"""For the files and the errors."""

SHAPE = Shape(width=64)
"""Of networks that know all sets; those of one host are smaller."""


def errors(network: Network, rows: Rows, truth: np.ndarray, sets: list[str]) -> dict[str, dict[str, float]]:
    """Mean absolute errors in meV by set: per site, gap, HOMO, LUMO."""
    values = network.values(rows, 1024)
    per_site = np.abs(values["formation_energy_ev"] - rows.targets[:, 4]) / rows.sizes
    off = {"per_site": per_site}
    for k, name in enumerate(("homo_ev", "lumo_ev", "band_gap_ev")):
        off[name.removesuffix("_ev")] = np.abs(values[name] - truth[:, k])
    return {
        name: {key: round(1000 * float(np.nanmean(error[rows.groups == g])), 2) for key, error in off.items()}
        for g, name in enumerate(sets)
        if (rows.groups == g).any()
    }


def main(
    kit: KitOption,
    base: BaseOption,
    output: OutputOption,
    seconds: SecondsOption = 90.0,
    toy: ToyOption = False,
    members: Annotated[int, typer.Option(help="Networks of each kind.")] = 6,
) -> None:
    """Train what fits into the time."""
    del base
    start = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = True
    rows, geometries, arrays, sets = read(kit / "networks", device)
    split, small, folds, halves = (arrays[name] for name in ("split", "split602020", "folds", "halves"))
    learning = split < 2
    few = 1 if toy else members
    jobs = {  # rows that the networks see, how many networks, rows that they are tested on
        "judge-a": (learning & (halves == 0), few, split == 2),
        "judge-b": (learning & (halves == 1), few, split == 2),
        "all": (learning, few, split == 2),
        "split602020": (small < 2, few, small == 2),
        **{f"fold{k}": (folds != k, few, folds == k) for k in range(5)},
        "without-WSe2": (learning & (rows.hosts != 1), few, (split == 2) & (rows.hosts == 1)),
    }
    use = np.concatenate([[seen] * count for seen, count, _ in jobs.values()])
    output.mkdir(parents=True, exist_ok=True)
    settings = TrainSettings(passes=0.02, crowded=4, sparse=4) if toy else TrainSettings(dropout=0.1)

    def report(step: int, steps: int, loss: float) -> None:
        if step % 500 == 0 or step == steps:
            print(f"{time.monotonic() - start:6.1f} s  step {step} of {steps}, loss {loss:.4f}", flush=True)

    model, linear = train_ensemble(
        rows, geometries, use, settings, SHAPE, deadline=start + seconds - RESERVED_S, report=report
    )
    took = time.monotonic() - start
    summary: dict[str, object] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "settings": dataclasses.asdict(settings),
        "networks": len(use),
        "seconds": round(took, 1),
    }
    found: dict[str, Network] = {}
    begin = 0
    for name, (seen, count, _) in jobs.items():
        index = list(range(begin, begin + count))
        begin += count
        part = type(model)(count, len(geometries.hosts), model.shape).to(device)
        part.load_state_dict({key: value[index] for key, value in model.state_dict().items()})
        found[name] = Network(part.eval(), geometries, linear[index])
        found[name].save(output / f"{name}.safetensors", {"name": name, "rows": int(seen.sum()), **summary})
    for name, (_, count, tested) in jobs.items():
        if toy:
            tested = tested & (np.arange(len(tested)) % 50 == 0)
        off = errors(found[name], rows.some(tested), arrays["extra"][tested], sets)
        summary[name] = {"members": count, "errors_mev": off}
        means = {key: float(np.mean([e[key] for e in off.values()])) for key in ("per_site", "band_gap")}
        print(f"{name}: {means['per_site']:.1f} per site, {means['band_gap']:.1f} gap (mean of sets, meV)", flush=True)
    print(json.dumps(summary["all"]), flush=True)
    (output / "networks.json").write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    run_step(main)
