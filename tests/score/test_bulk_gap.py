"""A predictor of band gaps learns from compositions, states its error on formulas left out, refuses bad labels."""

import numpy as np
import pytest

from defectgen.core.crystal import Crystal
from defectgen.errors import UsageError
from defectgen.score.bulk_gap import FEWEST_FORMULAS, fit_gaps, gap_columns

CATIONS = ("Li", "Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr", "Ba", "Cu", "Ag", "Au", "Ni", "Pd", "Pt")
ANIONS = {"F": 8.0, "Cl": 6.0, "Br": 4.0, "I": 2.0, "As": 0.0, "Ge": 0.0}


def salt(cation, anion, length=5.6):
    edge = length / 2**0.5
    return Crystal((edge,) * 3, (60.0,) * 3, (cation, anion), ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5)))


@pytest.fixture(scope="module")
def labelled():
    """Gaps that the anion decides."""
    return [(salt(cation, anion), gap) for cation in CATIONS for anion, gap in ANIONS.items()]


@pytest.fixture(scope="module")
def model(labelled):
    crystals, gaps = zip(*labelled, strict=True)
    return fit_gaps([*crystals, salt("Na", "At")], [*gaps, None], "some.csv")


def test_gaps_of_formulas_left_out_are_foretold(model):
    assert model.left_out.n == len(CATIONS) * len(ANIONS), "a crystal without a label is left out"
    assert model.left_out.mean_absolute_ev < 0.8
    assert model.left_out.median_of_all_ev == pytest.approx(np.mean([5, 3, 1, 1, 3, 3]))
    assert model.left_out.mean_of_all_ev == pytest.approx(np.mean([14, 8, 2, 4, 10, 10]) / 3)
    assert model.left_out.metals_right > 0.9
    assert model.left_out.metals == pytest.approx(1 / 3)
    new = [salt("Tl", "F"), salt("Tl", "I"), salt("Tl", "As")]
    assert model.predict(new) == pytest.approx([8.0, 2.0, 0.0], abs=1.0)
    assert (model.predict(new) >= 0).all()
    assert len(model.predict([])) == 0
    assert model.error(new, [8.0, 2.0, 0.0]).mean_absolute_ev < 1.0


def test_labels_of_a_formula_are_all_in_one_fold(labelled):
    """Ten rows of each formula with a gap drawn for it: what is left out cannot be known from a twin."""
    rng = np.random.default_rng(0)
    gaps = {crystal.formula: float(gap) for (crystal, _), gap in zip(labelled, rng.uniform(0, 9, 90), strict=True)}
    twins = [crystal for crystal, _ in labelled for _ in range(10)]
    found = fit_gaps(twins, [gaps[crystal.formula] for crystal in twins], "twins.csv")
    assert found.left_out.mean_absolute_ev > 1.5
    assert found.error(twins, [gaps[crystal.formula] for crystal in twins]).mean_absolute_ev < 1.0


def test_its_description_states_error_baseline_and_what_it_knows(model):
    text = model.describe([salt("Na", "Cl"), salt("Tl", "F")])
    assert "90 labelled crystals of some.csv" in text
    assert f"mean absolute error is {model.left_out.mean_absolute_ev:.2f} eV" in text
    assert "(the median of all labels as the prediction: 2.67)" in text
    assert "formulas of 1 of 2 crystals" in text


def test_neither_the_cell_nor_the_order_of_atoms_matters():
    cubic = Crystal.from_structure(salt("Na", "Cl").to_structure().to_conventional())
    turned = salt("Na", "Cl").reordered([1, 0])
    one, other, third = gap_columns([salt("Na", "Cl"), cubic, turned])
    assert other == pytest.approx(one, nan_ok=True)
    assert third == pytest.approx(one, nan_ok=True)
    assert gap_columns([salt("Na", "Cl", 6.0)])[0][-2] == pytest.approx(6.0**3 / 8), "cubic angstrom an atom"


@pytest.mark.parametrize(
    ("gaps", "message"),
    [
        ([1.0] * (FEWEST_FORMULAS - 1), rf"49 crystals of 49 formulas with a band gap, expected {FEWEST_FORMULAS}"),
        ([None] * 90, r"some.csv has 0 crystals of 0 formulas with a band gap"),
        ([1.0] * 89 + [-0.1], r"some.csv: GePt has a band gap of -0.1 eV, expected 0 or more"),
        ([float("nan")] + [1.0] * 89, r"LiF has a band gap of nan eV"),
    ],
)
def test_labels_that_teach_nothing_are_refused(labelled, gaps, message):
    with pytest.raises(UsageError, match=message):
        fit_gaps([crystal for crystal, _ in labelled[: len(gaps)]], gaps, "some.csv")
