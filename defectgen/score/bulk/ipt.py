"""IPT: how much a language model's perplexity of a crystal depends on where the origin lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp

import numpy as np

from defectgen.core.crystal import Crystal
from defectgen.errors import UsageError
from defectgen.text.crystals import write_crystal, write_generation_prompt

LogLikelihoods = Callable[[Sequence[tuple[str, str]]], Sequence[tuple[float, int]]]
"""Takes (prompt, completion) pairs; gives the completion's log-likelihood in nats and its number of tokens."""

TRANSLATIONS = 20
"""Translations a crystal, as in the paper's appendix B.5 (which takes 500 crystals)."""


@dataclass(frozen=True)
class Ipt:
    """The metric over some crystals.

    Attributes:
        mean: of IPT(s) over the crystals, in units of perplexity.
        mean_normalized: of IPT(s) divided by the mean perplexity of s over its translations; no unit.
        perplexity: mean over crystals and translations.
        n_crystals: how many.
        n_translations: of each.
    """

    mean: float
    mean_normalized: float
    perplexity: float
    n_crystals: int
    n_translations: int


def increase_in_perplexity(
    crystals: Sequence[Crystal],
    log_likelihoods: LogLikelihoods,
    rng: np.random.Generator,
    n_translations: int = TRANSLATIONS,
) -> Ipt:
    """Measure IPT under uniform random translations.

    IPT(s) = E_g[PPL(t_g(s))] - min_g PPL(t_g(s)), both over the same sampled translations g; t_g moves all
    atoms by g, wraps them and writes the crystal anew. PPL = exp(-log-likelihood / number of tokens), which
    is 2 to the cross entropy in bits a token. 0 is perfect invariance. With the minimum over a sample IPT grows
    with `n_translations`, so that values compare only at the same number.

    Source: Gruver et al., ICLR 2024, doi 10.48550/arXiv.2402.04379, section 5 and appendix B.5 (which
    normalizes by the mean perplexity of each crystal before averaging: `Ipt.mean_normalized`).

    Args:
        crystals: to translate; the prompt asks for any crystal.
        log_likelihoods: the model, called once a crystal with all its translations.
        rng: of the translations.
        n_translations: at least 2.

    Raises:
        UsageError: no crystals, or fewer than two translations.
    """
    if not crystals or n_translations < 2:
        raise UsageError(f"got {len(crystals)} crystals and {n_translations} translations, expected 1 and 2 or more.")
    prompt = write_generation_prompt({})
    increases, normalized, means = [], [], []
    for crystal in crystals:
        texts = [write_crystal(crystal.translated(shift)) for shift in rng.random((n_translations, 3))]
        judged = log_likelihoods([(prompt, text) for text in texts])
        perplexities = np.array([exp(-nats / tokens) for nats, tokens in judged])
        increase, mean = float(perplexities.mean() - perplexities.min()), float(perplexities.mean())
        increases.append(increase)
        normalized.append(increase / mean)
        means.append(mean)
    return Ipt(
        mean=float(np.mean(increases)),
        mean_normalized=float(np.mean(normalized)),
        perplexity=float(np.mean(means)),
        n_crystals=len(crystals),
        n_translations=n_translations,
    )
