"""IPT by its definition, with made-up likelihoods."""

import math

import numpy as np
import pytest

from defectgen.core.crystal import Crystal
from defectgen.errors import UsageError
from defectgen.metrics.perplexity import increase_over_images
from defectgen.metrics.translations import translations
from defectgen.tasks.bulk.crystal_text import parse_crystal, write_generation_prompt

SALT = Crystal((4.0, 4.0, 4.0), (60.0, 60.0, 60.0), ("Na", "Cl"), ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5)))


def test_an_invariant_model_has_none():
    found = increase_over_images(
        translations([SALT], np.random.default_rng(0)), lambda pairs: [(-30.0, 20)] * len(pairs)
    )
    assert found.mean == pytest.approx(0.0, abs=1e-12)
    assert found.perplexity == pytest.approx(math.exp(1.5))


def test_mean_less_minimum_and_normalized_before_the_mean():
    perplexities = iter([[2.0, 4.0, 6.0], [10.0, 10.0, 40.0]])

    def model(pairs):
        return [(-5 * math.log(value), 5) for _, value in zip(pairs, next(perplexities), strict=True)]

    found = increase_over_images(translations([SALT, SALT], np.random.default_rng(0), 3), model)
    assert found.mean == pytest.approx((2.0 + 10.0) / 2)
    assert found.mean_normalized == pytest.approx((2 / 4 + 10 / 20) / 2)
    assert (found.n_structures, found.n_images) == (2, 3)


def test_the_model_sees_the_same_crystal_moved():
    seen = []

    def model(pairs):
        seen.extend(pairs)
        return [(-1.0, 1)] * len(pairs)

    increase_over_images(translations([SALT], np.random.default_rng(0)), model)
    assert {prompt for prompt, _ in seen} == {write_generation_prompt({})}
    crystals = [parse_crystal(text) for _, text in seen]
    assert len({crystal.fractional[0] for crystal in crystals}) == 20
    for crystal in crystals:
        apart = np.array(crystal.fractional[1]) - np.array(crystal.fractional[0])
        assert np.abs(np.abs(apart) - 0.5).max() < 0.011  # two digits each
        assert crystal.species == SALT.species


def test_nothing_to_measure_is_said():
    with pytest.raises(UsageError, match="0 structures"):
        increase_over_images(translations([], np.random.default_rng(0)), list)
