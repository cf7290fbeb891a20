"""Held-out structures in many images as texts, and how much an adapter's perplexity depends on the image."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from defectgen.core import Configuration
from defectgen.data.splits import split_rows
from defectgen.io.crystal_cif import crystal_from_cif
from defectgen.io.host_tables import host_of_row
from defectgen.llm.adapter import AdapterCard
from defectgen.metrics.perplexity import Ipt, increase_over_images
from defectgen.metrics.translations import translations
from defectgen.tasks.bulk.prompts import OURS, PromptStyle
from defectgen.tasks.defect.defect_task import LEVEL_PAIR, DefectTask

Images = list[list[tuple[str, str]]]
"""For each structure (prompt, completion) pairs, an image each."""


def trained_sets(card: AdapterCard) -> list[str]:
    """The sets of 2DMD that an adapter for defects was trained on."""
    return sorted({key.split("/", 1)[1] for key in card.data["records"]})


def defect_images(
    frame: pl.DataFrame, card: AdapterCard, task: DefectTask, count: int, n_images: int, rng: np.random.Generator
) -> Images:
    """Structures of the test part of an adapter's data, asked for by HOMO and LUMO, under random symmetries.

    Args:
        frame: columns of the data reader, all rows of the sets that the adapter was trained on.
        card: of the adapter; names the split.
        task: of the adapter.
        count: of structures at most.
        n_images: of each.
        rng: draws structures and images.
    """
    settings = card.data["settings"]
    divided = split_rows(frame, settings.get("split", "symmetry-class"), seed=settings["seed"])
    held = divided.filter(pl.col("split") == "test").drop_nulls(LEVEL_PAIR).sort("set", "id")
    shown = []
    for place in _places(rng, held.height, count):
        row = held.row(place, named=True)
        configuration = Configuration.from_key(host_of_row(row), row["configuration"])
        prompt = task.prompt(configuration.host, {column: row[column] for column in LEVEL_PAIR})
        shown.append([(prompt, task.completion(configuration.random_image(rng))) for _ in range(n_images)])
    return shown


def crystal_images(
    frame: pl.DataFrame,
    trained: Collection[str],
    count: int,
    n_images: int,
    rng: np.random.Generator,
    style: PromptStyle = OURS,
) -> Images:
    """Bulk crystals that an adapter was not trained on, in random translations.

    Args:
        frame: of `defectgen.data.mp20.CrystalData`.
        trained: ids of the crystals that it was trained on.
        count: of crystals at most.
        n_images: of each.
        rng: draws crystals and translations.
        style: of prompts and texts; an adapter's own.
    """
    held = frame.filter(~pl.col("id").is_in(sorted(trained))).sort("id")
    places = _places(rng, held.height, count)
    return translations([crystal_from_cif(held["cif"][place]) for place in places], rng, n_images, style)


def image_dependence(
    adapter: Path, images: Images, advance: Callable[[int], None] = lambda _: None, *, allow_download: bool = False
) -> Ipt:
    """IPT of an adapter over images, see `increase_over_images`.

    Args:
        adapter: its folder.
        images: of held-out structures.
        advance: takes how many more images are judged.
        allow_download: get the base model that the adapter names from the hub, if it is not on this machine.

    Raises:
        UsageError: no structures, or fewer than two images.
        DefectgenError: the base model is missing or does not fit.
    """
    from defectgen.llm.decode.transformers_engine import TransformersGenerator
    from defectgen.llm.likelihood import Text, log_likelihoods

    generator, _ = TransformersGenerator.from_adapter(adapter, allow_download=allow_download)

    def judge(pairs: Sequence[tuple[str, str]]) -> list[tuple[float, int]]:
        texts = [Text(prompt, completion) for prompt, completion in pairs]
        found = [(one.nats, one.tokens) for one in log_likelihoods(generator.model, generator.tokenizer, texts)]
        advance(len(found))
        return found

    return increase_over_images(images, judge)


def _places(rng: np.random.Generator, n: int, count: int) -> list[int]:
    """Up to `count` of `n` places, in order."""
    places: list[int] = sorted(rng.choice(n, size=min(n, count), replace=False).tolist())
    return places
