"""Formation energies and refusals of potentials, by a potential whose energies are known by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from fake_potentials import ATOM_EV, AdditivePotential
from pymatgen.core import Lattice, Structure

from defectgen.core import VACANCY, Configuration, Host
from defectgen.core.properties import COLUMNS
from defectgen.data.twodmd import SETS
from defectgen.errors import DefectgenError, UsageError
from defectgen.extras import import_extra
from defectgen.score.potentials.potential import CHEMICAL_POTENTIALS_EV, PotentialScorer
from defectgen.score.protocol import Sample, Scorer, StructureScorer, uncertainty_column

MU = CHEMICAL_POTENTIALS_EV


def test_formation_energy_is_energy_against_pristine_and_reservoirs(mos2: Host) -> None:
    vacancy_and_exchange = Configuration.of(mos2, {0: "W", 64: VACANCY, 65: "Se", 66: "Se"})
    scores = PotentialScorer(AdditivePotential()).score([Configuration.of(mos2, {}), vacancy_and_exchange])
    assert scores["formation_energy_ev"][0] == pytest.approx(0.0, abs=1e-9)
    expected = (ATOM_EV["W"] - MU["W"]) - (ATOM_EV["Mo"] - MU["Mo"])
    expected += 2 * (ATOM_EV["Se"] - MU["Se"]) - 3 * (ATOM_EV["S"] - MU["S"])
    assert scores["formation_energy_ev"][1] == pytest.approx(expected)
    assert scores["energy_ev"][0] == pytest.approx(64 * ATOM_EV["Mo"] + 128 * ATOM_EV["S"])
    assert scores["energy_per_atom_ev"][1] == pytest.approx(scores["energy_ev"][1] / 191)


def test_shifts_of_a_potential_leave_formation_energies_as_they_are(mos2: Host) -> None:
    defect = [Configuration.of(mos2, {0: VACANCY, 64: VACANCY, 65: "Se"})]
    plain = PotentialScorer(AdditivePotential()).score(defect)
    shifted = PotentialScorer(AdditivePotential(shifts_ev={"S": -0.5, "Se": -0.4})).score(defect)
    assert shifted["formation_energy_ev"][0] == pytest.approx(plain["formation_energy_ev"][0])
    assert shifted["energy_ev"][0] < plain["energy_ev"][0] - 60


def test_it_keeps_the_protocol(mos2: Host) -> None:
    scorer = PotentialScorer(AdditivePotential())
    assert isinstance(scorer, Scorer)
    assert isinstance(scorer, StructureScorer)
    frame = scorer.score([Configuration.of(mos2, {64: VACANCY})] * 3)
    assert frame.height == 3
    for column in set(COLUMNS) & set(frame.columns):
        assert frame[column].dtype == pl.Float64
        assert frame[uncertainty_column(column)].null_count() == 3, "a potential has no interval"
    assert scorer.score([]).columns == frame.columns


def test_atoms_that_decorate_no_host_have_energy_but_no_formation_energy() -> None:
    salt = Structure(Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    row = PotentialScorer(AdditivePotential()).score_samples([Sample(salt)]).row(0, named=True)
    assert row["energy_ev"] == pytest.approx(-3.0)
    assert row["formation_energy_ev"] is None


def test_refusals_name_what_is_wrong(mos2: Host) -> None:
    scorer = PotentialScorer(AdditivePotential())
    with pytest.raises(UsageError, match=r"additive never saw Cu"):
        scorer.score([Configuration.of(mos2, {64: "Cu"})])
    cell = Lattice.cubic(4.0)
    broken = Structure(cell, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, np.nan]])
    with pytest.raises(UsageError, match="coordinates that are no finite numbers"):
        scorer.score_samples([Sample(broken)])
    with pytest.raises(UsageError, match="holds no atoms"):
        scorer.score_samples([Sample(Structure(cell, [], []))])
    mixed = Structure(cell, [{"Na": 0.5, "Cl": 0.5}], [[0, 0, 0]])
    with pytest.raises(UsageError, match="partially occupied"):
        scorer.score_samples([Sample(mixed)])


def test_a_missing_extra_is_named() -> None:
    with pytest.raises(DefectgenError, match=r"pip install 'defectgen\[m3gnet\]'"):
        import_extra("no_such_library.part", "m3gnet", "M3GNet")


def test_reservoirs_are_those_of_the_data(twodmd_dir: object) -> None:
    paths = sorted(twodmd_dir.glob("csv_cif/*/*/elements.csv"))  # type: ignore[attr-defined]
    assert len(paths) == len(SETS)
    for path in paths:
        table = dict(pl.read_csv(path).select("element", "chemical_potential").iter_rows())
        assert {element: table[element] for element in MU} == pytest.approx(dict(MU))


def test_an_element_without_chemical_potential_leaves_a_reason(mos2: Host) -> None:
    exchanged = [Configuration.of(mos2, {64: "Te"}), Configuration.of(mos2, {64: VACANCY})]
    potential = AdditivePotential(atom_ev=ATOM_EV | {"Te": -3.0})
    frame = PotentialScorer(potential).score(exchanged)
    assert frame["formation_energy_ev"].is_null().to_list() == [True, False]
    assert frame["missing"].to_list() == ["no formation energy: the chemical potential of Te is not known", None]
    known = PotentialScorer(potential, {**MU, "Te": -3.142}).score(exchanged)
    expected = (-3.0 + 3.142) - (ATOM_EV["S"] - MU["S"])
    assert known["formation_energy_ev"][0] == pytest.approx(expected)
    assert known["missing"].null_count() == 2
