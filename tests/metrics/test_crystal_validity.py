"""Structural and compositional validity on crystals whose answer is known."""

import importlib.util
import itertools
import math

import pytest

from defectgen.core.crystal import Crystal
from defectgen.metrics.atom_distances import far_enough, radii_apart
from defectgen.metrics.charge_balance import _pauling, smact_valid

needs_smact = pytest.mark.skipif(importlib.util.find_spec("smact") is None, reason="needs the extra bulk")


def cubic(length, *atoms):
    species, places = zip(*atoms, strict=True)
    return Crystal((length,) * 3, (90.0,) * 3, species, places)


def made_of(**counts):
    """A crystal of this composition; its positions are of no matter."""
    species = [symbol for symbol, count in counts.items() for _ in range(count)]
    return cubic(20.0, *((symbol, (index / len(species), 0.0, 0.0)) for index, symbol in enumerate(species)))


def pair(distance, first="Na", second="Cl"):
    return cubic(10.0, (first, (0.0, 0.0, 0.0)), (second, (distance / 10, 0.0, 0.0)))


def test_half_angstrom_is_the_limit_of_cdvae():
    assert not far_enough(pair(0.499))
    assert far_enough(pair(0.501))
    assert not far_enough(cubic(10.0, ("H", (0.99, 0.0, 0.0)), ("H", (0.02, 0.0, 0.0))))  # through the boundary


def test_cdvae_compares_no_atom_with_its_own_image_and_has_a_least_volume():
    assert far_enough(cubic(0.48, ("Fe", (0.0, 0.0, 0.0))))  # 0.11 cubic angstrom
    assert not far_enough(cubic(0.46, ("Fe", (0.0, 0.0, 0.0))))  # 0.097
    assert not radii_apart(cubic(0.48, ("Fe", (0.0, 0.0, 0.0))))  # the other rule sees the images


def test_half_the_sum_of_radii_is_the_limit_of_the_other_rule():
    limit = (1.80 + 1.00) / 2  # Slater's radii of Na and Cl in angstrom
    assert not radii_apart(pair(limit - 0.01))
    assert radii_apart(pair(limit + 0.01))
    assert radii_apart(pair(0.30, "H", "H"))
    assert not radii_apart(pair(0.24, "H", "H"))
    assert radii_apart(pair(3.0, "He", "Ar"))  # elements without a measured radius


@needs_smact
@pytest.mark.parametrize(
    ("counts", "valid"),
    [
        ({"Na": 1, "Cl": 1}, True),
        ({"Mg": 4, "O": 4}, True),  # reduced first
        ({"Na": 1, "Cl": 2}, False),
        ({"Cu": 2, "Zn": 1}, True),  # an alloy of metals
        ({"Fe": 3}, True),
        ({"Fe": 2, "O": 3}, True),
        ({"Fe": 3, "O": 4}, False),  # mixed valence: one state an element
        ({"Sr": 1, "Ti": 1, "O": 3}, True),
        ({"He": 1, "O": 1}, False),  # no oxidation state at all
        ({"O": 1, "F": 2}, True),
        ({"Mg": 1, "Ar": 1}, False),
        ({"Ts": 1, "O": 1}, False),  # unknown to SMACT
    ],
)
def test_smact_rules(counts, valid):
    assert smact_valid(made_of(**counts)) is valid


@needs_smact
def test_missing_electronegativity_passes_as_in_smact_2():
    import smact

    assert smact.Element("Pm").pauling_eneg is None
    assert smact_valid(made_of(Pm=2, O=3))


def test_the_pauling_test_can_decide():
    assert _pauling((1, -1), (0.79, 2.54))
    assert not _pauling((1, -1), (2.54, 0.79))
    assert not _pauling((1, -1), (2.0, 2.0))
    assert _pauling((-1, 1), (2.54, 0.79))
    assert _pauling((1, 2), (3.0, 1.0))  # two cations are not compared


@needs_smact
def test_the_same_as_smacts_own_functions_where_both_know_the_elements():
    import smact
    from smact.screening import pauling_test

    def by_smact(symbols, counts):
        data = [smact.Element(symbol) for symbol in symbols]
        return any(
            smact.neutral_ratios(states, stoichs=[(n,) for n in counts], threshold=max(counts))
            and pauling_test(states, [element.pauling_eneg for element in data])
            for states in itertools.product(*(element.oxidation_states_smact14 for element in data))
        )

    cations, anions = ("Li", "Fe", "Ti", "P"), ("O", "S", "Cl", "N")
    verdicts = set()
    for cation, anion, n, m in itertools.product(cations, anions, range(1, 5), range(1, 5)):
        if math.gcd(n, m) == 1:
            verdict = by_smact((cation, anion), (n, m))
            assert smact_valid(made_of(**{cation: n, anion: m})) is bool(verdict), (cation, n, anion, m)
            verdicts.add(bool(verdict))
    assert verdicts == {True, False}
