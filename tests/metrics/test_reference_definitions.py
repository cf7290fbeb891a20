"""Figures of real crystals against the definitions of CDVAE and Gruver et al., written out as their code has them."""

from __future__ import annotations

import importlib.util
import itertools
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist
from scipy.stats import wasserstein_distance
from test_crystal_metrics import Silent, crowded, real_crystals

from defectgen.core.crystal import Crystal
from defectgen.metrics.crystal_metrics import measure
from defectgen.metrics.fingerprint_store import structure_fingerprints
from defectgen.metrics.fingerprints import composition_fingerprint, scale_composition
from defectgen.metrics.generated_entries import Crystals, Entry

has_extra = importlib.util.find_spec("smact") is not None and importlib.util.find_spec("matminer") is not None
pytestmark = pytest.mark.skipif(not has_extra, reason="the extra bulk is not installed")

UNBALANCED = Crystal((4.0,) * 3, (90.0,) * 3, ("Na", "Ne"), ((0.0,) * 3, (0.5,) * 3))


def distance_rule(crystal: Crystal) -> bool:
    """``structure_validity``: pairs of different atoms at 0.5 angstrom or more, a volume of 0.1 or more."""
    structure = crystal.to_structure()
    distances = structure.distance_matrix + np.diag(np.ones(len(structure)) * 10.5)
    return bool(distances.min() >= 0.5 and structure.volume >= 0.1)


def charge_rule(crystal: Crystal) -> bool:
    """``smact_validity`` with the states of 2014, by SMACT's own functions."""
    import smact
    from smact.screening import pauling_test

    if len(set(crystal.species)) == 1 or all(symbol in smact.metals for symbol in set(crystal.species)):
        return True
    symbols = sorted(set(crystal.species), key=lambda s: smact.Element(s).number)
    numbers = np.array([crystal.species.count(symbol) for symbol in symbols])
    numbers //= np.gcd.reduce(numbers)
    elements = [smact.Element(symbol) for symbol in symbols]
    for states in itertools.product(*[element.oxidation_states_smact14 or [] for element in elements]):
        if smact.neutral_ratios(states, stoichs=[(int(n),) for n in numbers], threshold=int(numbers.max())):
            negativities = [element.pauling_eneg for element in elements]
            if None in negativities or pauling_test(states, negativities):
                return True
    return False


def structure_and_composition(crystal: Crystal) -> tuple[np.ndarray | None, np.ndarray]:
    """Fingerprints of CDVAE's ``Crystal``: of the structure, None where it fails, and Magpie."""
    (structure,) = structure_fingerprints([crystal], None, lambda _: None)
    (composition,) = scale_composition(np.array([composition_fingerprint(crystal)]))
    return (None if isinstance(structure, str) else np.asarray(structure)), composition


def covered(some: list[Any], others: list[Any]) -> list[bool]:
    """``compute_cov``: nearest structure within 0.4 and nearest composition within 10, which may be two crystals."""
    found = []
    for structure, composition in some:
        near = [np.linalg.norm(structure - s) for s, _ in others if s is not None] if structure is not None else []
        like = [np.linalg.norm(composition - c) for s, c in others if s is not None]
        found.append(bool(near and min(near) <= 0.4 and min(like) <= 10.0))
    return found


def test_all_figures_of_their_evaluation():
    crystals = real_crystals(30)
    own, reference, training = crystals[:14], crystals[14:22], [*crystals[22:], crystals[0].translated((0.1, 0.2, 0.3))]
    own[3], own[7] = crowded(), UNBALANCED
    reference[2] = UNBALANCED.translated((0.2, 0.1, 0.0))
    sets = [Crystals(tuple(Entry(str(k), c) for k, c in enumerate(some))) for some in (own, reference, training)]
    metrics = measure(*sets, store=None, watch=Silent).metrics

    structural, compositional = [distance_rule(c) for c in own], [charge_rule(c) for c in own]
    valid = [c for c, a, b in zip(own, structural, compositional, strict=True) if a and b]
    assert not structural[3]
    assert not compositional[7]
    assert metrics["structural"]["value"] == pytest.approx(np.mean(structural))
    assert metrics["compositional"]["value"] == pytest.approx(np.mean(compositional))
    assert metrics["valid"]["value"] == pytest.approx(len(valid) / 14)

    def prints(some):
        found = structure_fingerprints(some, None, lambda _: None)
        assert not any(isinstance(item, str) for item in found)
        return np.array(found), scale_composition(np.array([composition_fingerprint(c) for c in some]))

    (a, b), (c, d), (e, f) = prints(valid), prints(reference), prints(training)
    there = np.array([distance_rule(x) and charge_rule(x) for x in reference])
    structure, composition = cdist(a, c[there]), cdist(b, d[there])
    for name, axis in (("cov_recall_valid", 0), ("cov_precision_valid", 1)):
        hits = (structure.min(axis=axis) <= 0.4) & (composition.min(axis=axis) <= 10.0)
        assert metrics[name]["value"] == pytest.approx(hits.mean())
    assert metrics["diversity_structure"]["value"] == pytest.approx(pdist(a).mean())
    assert metrics["diversity_composition"]["value"] == pytest.approx(pdist(b).mean())
    assert metrics["diversity_structure_relative"]["value"] == pytest.approx(pdist(a).mean() / pdist(c).mean())

    everything = [structure_and_composition(x) for x in own]
    known = [structure_and_composition(x) for x in reference]
    for name, some, others in (("cov_recall", known, everything), ("cov_precision", everything, known)):
        assert metrics[name]["of"] == len(some), "of all crystals, valid or not"
        assert metrics[name]["value"] == pytest.approx(np.mean(covered(some, others)))
    assert covered(known, everything)[2], "an invalid crystal covers another one: CDVAE does not ask for validity"

    far, strange = cdist(a, e).min(axis=1) > 0.1, cdist(b, f).min(axis=1) > 2.0
    assert not far[0], "its image is in the training set"
    assert metrics["novel_structure"]["value"] == pytest.approx(far.mean())
    assert metrics["novel_composition"]["value"] == pytest.approx(strange.mean())
    assert metrics["novel"]["value"] == pytest.approx((far | strange).mean())

    usual_far, usual_strange = cdist(c, e).min(axis=1) > 0.1, cdist(d, f).min(axis=1) > 2.0
    usual = {"novel_structure": usual_far, "novel_composition": usual_strange, "novel": usual_far | usual_strange}
    for name, hits in usual.items():
        assert hits.any()
        assert metrics[f"{name}_relative"]["value"] == pytest.approx(metrics[name]["value"] / hits.mean())

    densities = [[x.to_structure().density for x in some] for some in (valid, reference)]
    numbers = [[len(set(x.species)) for x in some] for some in (valid, reference)]
    assert metrics["wasserstein_density"]["value"] == pytest.approx(wasserstein_distance(*densities))
    assert metrics["wasserstein_elements"]["value"] == pytest.approx(wasserstein_distance(*numbers))
