"""`defectgen evaluate ipt`: how much a model's perplexity depends on the image of a structure."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from defectgen_cli.options import AllowDownloadOption, JsonOption, SeedOption
from defectgen_cli.output import emit, progress, say, tell_repeated


def ipt(
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="DIR|NAME", help="Adapter, for defects or bulk [defect-smollm2]."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="PATH", help="2DMD, or for a bulk adapter crystals [fetched ones].")
    ] = None,
    structures: Annotated[int, typer.Option(min=1, help="Held-out structures: test part; bulk: not trained on.")] = 50,
    images: Annotated[int, typer.Option(min=2, help="Images of each: of the host's symmetry, or translations.")] = 20,
    seed: SeedOption = 0,
    allow_download: AllowDownloadOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure how a model's perplexity depends on the image shown.

    The increase of perplexity over the images of held-out structures (IPT of Gruver et al.) is 0 for a model to
    which all images are alike. A defect structure is shown in random images under all symmetries of its
    supercell, asked for by its HOMO and LUMO; a bulk crystal under random translations. The mean normalized
    by each structure's own mean perplexity compares models of one tokenizer at equal numbers of images.
    """
    import numpy as np

    from defectgen.data.locations import crystals_path, dataset_path
    from defectgen.data.mp20 import read_crystals
    from defectgen.data.sources import read_dataset
    from defectgen.data.twodmd import SET_NAMES
    from defectgen.design.engine import task_of
    from defectgen.errors import UsageError
    from defectgen.llm.adapter import read_adapter, training_configurations
    from defectgen.llm.base import hub_note
    from defectgen.llm.foreign_adapter import style_of
    from defectgen.llm.image_texts import crystal_images, defect_images, image_dependence, trained_sets
    from defectgen.models import SHIPPED_ADAPTER, adapter_folder

    folder = adapter_folder(model or SHIPPED_ADAPTER)
    card = read_adapter(folder)
    if note := hub_note(card.base_model):
        say(f"warning: {note}.")
    rng = np.random.default_rng(seed)
    if card.is_bulk:
        trained = training_configurations(folder).get("bulk", frozenset())
        found = read_crystals(crystals_path(data))
        tell_repeated([str(item) for item in found.repeated])
        style = style_of(card.data.get("settings", {}))
        shown = crystal_images(found.frame, trained, structures, images, rng, style)
    else:
        named = os.environ.get("DEFECTGEN_2DMD")
        path = dataset_path(data or (Path(named) if named else None))
        if unknown := [name for name in trained_sets(card) if name not in SET_NAMES]:
            raise UsageError(
                f"{folder} was trained on {', '.join(unknown)}, which is no set of 2DMD.",
                "Held-out structures come from 2DMD: give an adapter of its sets.",
            )
        shown = defect_images(read_dataset(path, trained_sets(card)), card, task_of(card), structures, images, rng)
    say("loading the model ...")
    with progress("images", len(shown) * images, "images") as advance:
        result = image_dependence(folder, shown, advance, allow_download=allow_download)
    emit(
        {"model": folder, "seed": seed, **asdict(result)},
        as_json,
        f"IPT {result.mean:.3f}, normalized {result.mean_normalized:.3f}; mean perplexity {result.perplexity:.3f} "
        f"({result.n_structures} structures, {result.n_images} images each)",
    )
