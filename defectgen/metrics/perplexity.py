"""IPT: how much a language model's perplexity depends on which image of a structure it is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp

import numpy as np

from defectgen.errors import UsageError

LogLikelihoods = Callable[[Sequence[tuple[str, str]]], Sequence[tuple[float, int]]]
"""Takes (prompt, completion) pairs; gives the completion's log-likelihood in nats and its number of tokens."""


@dataclass(frozen=True)
class Ipt:
    """The metric over some structures.

    Attributes:
        mean: of IPT(s) over the structures, in units of perplexity.
        mean_normalized: of IPT(s) divided by the mean perplexity of s over its images; no unit.
        perplexity: mean over structures and images.
        n_structures: how many.
        n_images: of each.
    """

    mean: float
    mean_normalized: float
    perplexity: float
    n_structures: int
    n_images: int


def increase_over_images(images: Sequence[Sequence[tuple[str, str]]], log_likelihoods: LogLikelihoods) -> Ipt:
    """IPT(s) = E_g[PPL(g s)] - min_g PPL(g s), both over the same sampled images g s of a structure s.

    PPL = exp(-log-likelihood / number of tokens), which is 2 to the cross entropy in bits a token. 0 is perfect
    invariance. With the minimum over a sample IPT grows with the number of images: values compare only at the
    same number.

    Source: Gruver et al., ICLR 2024, doi 10.48550/arXiv.2402.04379, section 5 and appendix B.5 (which
    normalizes by the mean perplexity of each crystal before averaging: `Ipt.mean_normalized`).

    Args:
        images: for each structure the same number of (prompt, completion) pairs.
        log_likelihoods: the model, called once a structure.

    Raises:
        UsageError: no structures, or fewer than two images.
    """
    count = min((len(pairs) for pairs in images), default=0)
    if count < 2:
        raise UsageError(f"got {len(images)} structures with {count} images, expected 1 and 2 or more.")
    increases, normalized, means = [], [], []
    for pairs in images:
        perplexities = np.array([exp(-nats / tokens) for nats, tokens in log_likelihoods(pairs)])
        increase, mean = float(perplexities.mean() - perplexities.min()), float(perplexities.mean())
        increases.append(increase)
        normalized.append(increase / mean)
        means.append(mean)
    return Ipt(
        mean=float(np.mean(increases)),
        mean_normalized=float(np.mean(normalized)),
        perplexity=float(np.mean(means)),
        n_structures=len(images),
        n_images=count,
    )
