"""`defectgen evaluate ipt`: how much a model's perplexity depends on the image of a structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from defectgen_cli.options import JsonOption, SeedOption
from defectgen_cli.output import emit, progress, say

if TYPE_CHECKING:
    import numpy as np

    from defectgen.llm.adapter import AdapterCard

Images = list[list[tuple[str, str]]]


def ipt(
    model: Annotated[
        Path | None, typer.Option("--model", metavar="DIR", help="Adapter, for defects or bulk [the shipped one].")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="PATH", help="2DMD, or for a bulk adapter crystals [fetched ones].")
    ] = None,
    structures: Annotated[int, typer.Option(min=1, help="Held-out structures: test part; bulk: not trained on.")] = 50,
    images: Annotated[int, typer.Option(min=2, help="Images of each: of the host's symmetry, or translations.")] = 20,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Increase of perplexity over the images of held-out structures (IPT of Gruver et al.); 0 is invariance.

    A defect structure is shown in random images under all symmetries of its supercell, asked for by its
    HOMO and LUMO; a bulk crystal under random translations. The mean normalized by each structure's own
    mean perplexity compares models of one tokenizer at equal numbers of images.
    """
    import numpy as np

    from defectgen.llm.adapter import read_adapter
    from defectgen.metrics.perplexity import increase_over_images
    from defectgen_cli.engine import SHIPPED_ADAPTER, shipped

    folder = model or shipped(SHIPPED_ADAPTER)
    card = read_adapter(folder)
    rng = np.random.default_rng(seed)
    if card.encoding == "bulk":
        shown = _crystals(folder, data, structures, images, rng)
    else:
        shown = _defects(card, data, structures, images, rng)
    say("loading the model ...")
    from defectgen.llm.decode.transformers_engine import TransformersGenerator
    from defectgen.llm.likelihood import Text, log_likelihoods

    generator, _ = TransformersGenerator.from_adapter(folder)
    with progress("images", len(shown) * images, "images") as advance:

        def judge(pairs: Sequence[tuple[str, str]]) -> list[tuple[float, int]]:
            texts = [Text(prompt, completion) for prompt, completion in pairs]
            judged = log_likelihoods(generator.model, generator.tokenizer, texts)
            found = [(one.nats, one.tokens) for one in judged]
            advance(len(found))
            return found

        result = increase_over_images(shown, judge)
    emit(
        {"model": folder, "seed": seed, **asdict(result)},
        as_json,
        f"IPT {result.mean:.3f}, normalized {result.mean_normalized:.3f}; mean perplexity {result.perplexity:.3f} "
        f"({result.n_structures} structures, {result.n_images} images each)",
    )


def _defects(card: AdapterCard, data: Path | None, count: int, n_images: int, rng: np.random.Generator) -> Images:
    """Images of test structures of the sets that the adapter was trained on, as many of each set as there are."""
    import os

    import polars as pl

    from defectgen.core import Configuration, get_host
    from defectgen.data.locations import dataset_path
    from defectgen.data.splits import split_rows
    from defectgen.data.twodmd import read_dataset
    from defectgen.tasks.defect.defect_task import LEVEL_PAIR
    from defectgen_cli.engine import task_of

    named = os.environ.get("DEFECTGEN_2DMD")
    sets = sorted({key.split("/", 1)[1] for key in card.data["records"]})
    frame = read_dataset(dataset_path(data or (Path(named) if named else None)), sets)
    settings = card.data["settings"]
    divided = split_rows(frame, settings.get("split", "symmetry-class"), seed=settings["seed"])
    held = divided.filter(pl.col("split") == "test").drop_nulls(LEVEL_PAIR).sort("set", "id")
    task = task_of(card)
    shown = []
    for place in chosen_places(rng, held.height, count):
        row = held.row(place, named=True)
        configuration = Configuration.from_key(get_host(row["host"], row["supercell"]), row["configuration"])
        prompt = task.prompt(configuration.host, {column: row[column] for column in LEVEL_PAIR})
        shown.append([(prompt, task.completion(configuration.random_image(rng))) for _ in range(n_images)])
    return shown


def _crystals(folder: Path, data: Path | None, count: int, n_images: int, rng: np.random.Generator) -> Images:
    """Translations of crystals that the adapter was not trained on."""
    import polars as pl

    from defectgen.data.locations import crystals_path
    from defectgen.data.mp20 import read_crystals
    from defectgen.io.crystal_cif import crystal_from_cif
    from defectgen.llm.adapter import training_configurations
    from defectgen.metrics.translations import translations

    trained = training_configurations(folder).get("bulk", frozenset())
    frame = read_crystals(crystals_path(data)).frame.filter(~pl.col("id").is_in(sorted(trained))).sort("id")
    places = chosen_places(rng, frame.height, count)
    return translations([crystal_from_cif(frame["cif"][place]) for place in places], rng, n_images)


def chosen_places(rng: np.random.Generator, n: int, count: int) -> list[int]:
    """Up to `count` of `n` places, in order."""
    return sorted(rng.choice(n, size=min(n, count), replace=False).tolist())
