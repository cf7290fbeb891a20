"""Formation energies at chemical potentials other than those of the elements."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import defectgen as dg
from defectgen.core import Configuration, get_host
from defectgen.design.growth_conditions import Conditions, formation_enthalpy_ev, growth_conditions
from defectgen.score.surrogate import Surrogate

MOS2 = get_host("MoS2")


def enthalpy() -> float:
    return formation_enthalpy_ev(MOS2, Surrogate.load())


def test_the_formation_enthalpy_is_that_of_the_data(twodmd_dir: Path, twodmd: pl.DataFrame) -> None:
    folder = twodmd_dir / "csv_cif/low_density_defects/MoS2"
    elements = dict(pl.read_csv(folder / "elements.csv").select("element", "chemical_potential").iter_rows())
    row = twodmd.filter((pl.col("set") == "MoS2") & (pl.col("label") == "v_S")).row(0, named=True)
    pristine = row["energy_ev"] - row["formation_energy_ev"] + elements["S"]
    expected = (pristine - 64 * elements["Mo"] - 128 * elements["S"]) / 64
    assert enthalpy() == pytest.approx(expected, abs=1e-3)
    assert -3.0 < expected < -2.4  # PBE


def test_rich_and_poor_are_the_two_ends() -> None:
    rich, poor = growth_conditions(MOS2, -2.6, "S-rich"), growth_conditions(MOS2, -2.6, "Mo-rich")
    assert growth_conditions(MOS2, -2.6, "mo-Rich") == poor
    assert rich.potentials_ev == pytest.approx({"Mo": -2.6, "S": 0.0, "Se": 0.0, "W": 0.0})
    assert poor.potentials_ev == pytest.approx({"Mo": 0.0, "S": -1.3, "Se": 0.0, "W": 0.0})
    assert growth_conditions(MOS2, -2.6, "S-poor").potentials_ev == poor.potentials_ev
    between = growth_conditions(MOS2, -2.6, mu=("S=-0.6", "Se=-0.2"))
    assert between.potentials_ev == pytest.approx({"Mo": -1.4, "S": -0.6, "Se": -0.2, "W": 0.0})


def test_the_energy_moves_with_what_is_taken_out_and_put_in() -> None:
    conditions = Conditions({"Mo": -1.4, "S": -0.6, "Se": -0.2, "W": 0.0}, "mine")
    for label, shift in (("v_S", -0.6), ("Se_S", -0.4), ("W_Mo", -1.4), ("2v_S+W_Mo", -2.6)):
        item = next(dg.enumerate(MOS2, label))
        assert conditions.shift_ev(item) == pytest.approx(shift)


@pytest.mark.parametrize(
    ("name", "mu", "message"),
    [
        ("", ("S=-9",), r"outside the limits .* Limits relative to the elements, in eV: Mo -2.60 to 0, S -1.30 to 0"),
        ("", ("S=0.2",), "outside the limits"),
        ("", ("Te=-0.2",), "expected one of Mo, S, Se, W"),
        ("", ("S",), "expected one of Mo, S, Se, W"),
        ("", ("S=-0.1", "S=-0.2"), "two potentials of S"),
        ("", ("S=-0.6", "Mo=-0.1"), "add up to -1.30 eV a formula, MoS2 needs -2.60"),
        ("W-rich", (), "expected one of Mo-rich, S-rich"),
        ("S-rich", ("S=0",), "Give one or the other"),
        ("", ("Se=-0.1",), "expected all but one of Mo, S"),
    ],
)
def test_conditions_that_are_none_are_one_line(name: str, mu: tuple[str, ...], message: str) -> None:
    with pytest.raises(dg.UsageError, match=message) as caught:
        growth_conditions(MOS2, -2.6, name, mu)
    assert "\n" not in str(caught.value)


def test_a_design_under_conditions_shows_labels_and_predictions_under_them() -> None:
    plain = dg.design(MOS2, formation_energy="min", n=2, max_defects=1, kinds="vacancy")
    poor = dg.design(MOS2, formation_energy="min", n=2, max_defects=1, kinds="vacancy", conditions="Mo-rich")
    shift = enthalpy() / 2
    before = {c.configuration: c for c in plain.candidates}
    item = Configuration.from_key(MOS2, "VAC@B00")
    after = next(c for c in poor.candidates if c.configuration == item)
    for values in ("predicted", "dft"):
        moved = getattr(after, values)["formation_energy_ev"] - getattr(before[item], values)["formation_energy_ev"]
        assert moved == pytest.approx(shift, abs=1e-6)
    assert after.predicted["homo_ev"] == before[item].predicted["homo_ev"]
    assert "Mo-rich: dmu Mo 0.00, S -1.3" in str(poor.settings["formation_energy_at"])
    with pytest.raises(dg.UsageError, match="a scorer of your own"):
        dg.design(MOS2, homo=0.1, mu={"S": -0.5}, scorer=NeverAsked())


class NeverAsked:
    """A scorer whose call fails the test: it is refused before."""

    def score(self, configurations: object) -> None:
        raise AssertionError(configurations)
