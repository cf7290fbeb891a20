"""Images of bulk crystals under translation, for IPT."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from defectgen.core.crystal import Crystal
from defectgen.score.ipt import Ipt, LogLikelihoods, increase_over_images
from defectgen.text.crystals import write_crystal, write_generation_prompt

TRANSLATIONS = 20
"""Translations a crystal, as in appendix B.5 of Gruver et al. (which takes 500 crystals)."""


def increase_in_perplexity(
    crystals: Sequence[Crystal],
    log_likelihoods: LogLikelihoods,
    rng: np.random.Generator,
    n_translations: int = TRANSLATIONS,
) -> Ipt:
    """IPT under uniform random translations, see `defectgen.score.ipt`; each crystal is wrapped and written anew.

    Args:
        crystals: to translate; the prompt asks for any crystal.
        log_likelihoods: the model, called once a crystal with all its translations.
        rng: of the translations.
        n_translations: at least 2.

    Raises:
        UsageError: no crystals, or fewer than two translations.
    """
    prompt = write_generation_prompt({})
    images = [
        [(prompt, write_crystal(crystal.translated(shift))) for shift in rng.random((n_translations, 3))]
        for crystal in crystals
    ]
    return increase_over_images(images, log_likelihoods)
