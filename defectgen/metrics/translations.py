"""Images of bulk crystals under translation, for IPT."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from defectgen.core.crystal import Crystal
from defectgen.tasks.bulk.crystal_text import write_crystal, write_generation_prompt
from defectgen.tasks.bulk.prompts import OURS, PromptStyle

TRANSLATIONS = 20
"""Translations a crystal, as in appendix B.5 of Gruver et al. (which takes 500 crystals)."""


def translations(
    crystals: Sequence[Crystal], rng: np.random.Generator, n: int = TRANSLATIONS, style: PromptStyle = OURS
) -> list[list[tuple[str, str]]]:
    """Crystals in random images, for `defectgen.metrics.perplexity.increase_over_images`.

    Args:
        crystals: to translate; each image is wrapped into the cell and written anew.
        rng: of the translations, uniform in the cell.
        n: images of each crystal.
        style: of prompts and texts.

    Returns:
        For each crystal `n` pairs of the prompt that asks for any crystal and the text of an image.
    """
    prompt = write_generation_prompt({}, style)
    return [
        [(prompt, write_crystal(crystal.translated(shift), style)) for shift in rng.random((n, 3))]
        for crystal in crystals
    ]
