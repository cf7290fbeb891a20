"""Fingerprints equal to matminer's, and the sets that are compared by them."""

import importlib.util

import numpy as np
import pytest

from defectgen.core.crystal import Crystal
from defectgen.errors import DefectgenError
from defectgen.metrics import fingerprint_store
from defectgen.metrics.fingerprint_distances import Fingerprints, mean_distance, nearest, wasserstein
from defectgen.metrics.fingerprints import (
    COMPOSITION_SIZE,
    STRUCTURE_SIZE,
    composition_fingerprint,
    scale_composition,
    structure_fingerprint,
)

needs_matminer = pytest.mark.skipif(importlib.util.find_spec("matminer") is None, reason="needs the extra bulk")

U = 0.3053
RUTILE = Crystal(
    (4.594, 4.594, 2.959),
    (90.0, 90.0, 90.0),
    ("Ti", "Ti", "O", "O", "O", "O"),
    ((0, 0, 0), (0.5, 0.5, 0.5), (U, U, 0), (1 - U, 1 - U, 0), (0.5 - U, 0.5 + U, 0.5), (0.5 + U, 0.5 - U, 0.5)),
)
CROOKED = Crystal(
    (3.9, 5.2, 6.1),
    (80.0, 95.0, 110.0),
    ("Na", "S", "Fe", "O"),
    ((0.02, 0.11, 0.05), (0.43, 0.6, 0.5), (0.7, 0.2, 0.31), (0.25, 0.85, 0.9)),
)
MATMINER = {  # values of matminer 0.8.0, CrystalNNFingerprint "ops", mean over the sites
    "rutile": (
        RUTILE,
        {2: 0.00414, 3: 0.003119, 4: 0.003779, 5: 0.001245, 8: 0.662527, 9: 0.392307, 10: 0.1864, 11: 0.247056,
         12: 0.00207, 15: 0.001456, 22: 0.331264, 23: 0.068091, 24: 0.318772, 25: 0.165632},
    ),
    "crooked": (
        CROOKED,
        {0: 0.264624, 1: 0.264624, 2: 0.271235, 3: 0.117955, 4: 0.144319, 5: 0.097132, 6: 0.076128, 7: 0.036004,
         8: 0.194283, 12: 0.169101, 13: 0.095413, 18: 0.100093, 20: 0.056294, 22: 0.000637, 26: 0.0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MATMINER)
def test_structural_fingerprint_is_matminers(name):
    crystal, expected = MATMINER[name]
    found = structure_fingerprint(crystal)
    assert found.shape == (STRUCTURE_SIZE,) == (61,)
    for index, value in expected.items():
        assert found[index] == pytest.approx(value, abs=2e-6), index


def test_structural_fingerprint_does_not_see_where_the_origin_lies():
    moved = RUTILE.translated((0.1, 0.27, 0.63))
    assert np.allclose(structure_fingerprint(moved), structure_fingerprint(RUTILE), atol=1e-3)


def test_a_lonely_atom_has_no_structural_fingerprint():
    apart = Crystal((30.0,) * 3, (90.0,) * 3, ("Na", "Cl"), ((0.1, 0.2, 0.3), (0.6, 0.1, 0.7)))
    with pytest.raises(DefectgenError, match="no structural fingerprint"):
        structure_fingerprint(apart)


@needs_matminer
def test_composition_fingerprint_is_matminers():
    found = composition_fingerprint(RUTILE)  # minimum, maximum, range, mean, mean deviation, mode of each
    assert found.shape == (COMPOSITION_SIZE,) == (132,)
    expected = {2: 14.0, 3: 12 + 2 / 3, 4: 6 + 2 / 9, 5: 8.0, 9: 72 + 1 / 3, 41: 66.0, 45: 2.80666667, 46: 0.84444444,
                111: 11.63333333, 112: 3.37111111, 127: 194.0}  # fmt: skip
    for index, value in expected.items():
        assert found[index] == pytest.approx(value, abs=1e-7), index


@needs_matminer
def test_scaling_is_in_standard_deviations_and_unknown_values_become_zero():
    raw = np.stack([composition_fingerprint(RUTILE), np.full(COMPOSITION_SIZE, np.nan)])
    scaled = scale_composition(raw)
    assert (scaled[1] == 0).all()
    assert scaled[0, 0] == pytest.approx((8 - 18.4582) / 15.8214, abs=1e-3)  # least atomic number


def test_the_store_computes_a_crystal_once_and_keeps_failures(tmp_path, monkeypatch):
    calls = []

    def counted(crystal):
        calls.append(crystal)
        if crystal is CROOKED:
            raise DefectgenError("no structural fingerprint (test)")
        return np.full(STRUCTURE_SIZE, 0.5)

    monkeypatch.setattr(fingerprint_store, "structure_fingerprint", counted)
    for _ in range(2):
        first, second, third = fingerprint_store.structure_fingerprints([RUTILE, CROOKED, RUTILE], tmp_path)
        assert second == "no structural fingerprint (test)"
        assert (first == third).all()
        assert (first == 0.5).all()
    assert calls == [RUTILE, CROOKED]
    for file in tmp_path.iterdir():
        file.write_bytes(b"damaged")
    fingerprint_store.structure_fingerprints([RUTILE], tmp_path)
    assert len(calls) == 3
    (tmp_path / "file").touch()
    found = fingerprint_store.structure_fingerprints([RUTILE], tmp_path / "file")
    assert (found[0] == 0.5).all(), "a store that cannot be written costs time only"


@pytest.mark.parametrize("error", [MemoryError, ImportError])
def test_failures_of_the_moment_are_not_kept(tmp_path, monkeypatch, error):
    from defectgen.metrics import fingerprints

    def broken(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(fingerprints, "_site_fingerprint", broken)
        with pytest.raises(error):
            fingerprint_store.structure_fingerprints([RUTILE], tmp_path)
    [found] = fingerprint_store.structure_fingerprints([RUTILE], tmp_path)
    assert not isinstance(found, str)


def prints(structure, composition):
    """Fingerprints on a line each: the first number of a vector, the others 0."""
    n = len(structure)
    found = Fingerprints(np.zeros((n, STRUCTURE_SIZE)), np.zeros((n, COMPOSITION_SIZE)))
    found.structure[:, 0], found.composition[:, 0] = structure, composition
    return found


def test_coverage_takes_each_cutoff_by_itself_or_both_of_one_crystal():
    own = prints([0.0], [0.0])
    split = nearest(own, prints([0.3, 5.0], [50.0, 9.0]))  # near in structure, and another near in composition
    assert split.covered.tolist() == [True]
    assert split.together.tolist() == [False]
    one = nearest(own, prints([0.4], [10.0]))  # the cutoffs themselves belong to it
    assert one.covered.tolist() == one.together.tolist() == [True]
    assert nearest(own, prints([0.41], [0.0])).covered.tolist() == [False]
    assert nearest(own, prints([0.0], [10.1])).covered.tolist() == [False]
    assert nearest(own, prints([], [])).covered.tolist() == [False]


def test_nearest_goes_through_in_parts():
    many = prints(np.arange(600.0), np.zeros(600))
    found = nearest(many, prints([299.75], [0.0]))
    assert found.structure.argmin() == 300
    assert found.structure[0] == pytest.approx(299.75)
    assert found.covered.sum() == 1


def test_mean_distance_and_wasserstein():
    assert mean_distance(np.array([[0.0], [1.0], [3.0]])) == pytest.approx(2.0)  # 1, 2 and 3
    assert mean_distance(np.array([[1.0]])) is None
    assert wasserstein(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == pytest.approx(2.0)
    assert wasserstein(np.array([]), np.array([1.0])) is None
