"""The scorers by name, and scoring past what a scorer does not know."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from fake_potentials import AdditivePotential
from pymatgen.core import Lattice, Structure

from defectgen.core import VACANCY, Configuration, Host
from defectgen.errors import DefectgenError, UsageError
from defectgen.score.potentials.potential import PotentialScorer
from defectgen.score.protocol import Sample
from defectgen.score.scorers import (
    NO_CONFIGURATION,
    SCORERS,
    ScorerOptions,
    load_scorer,
    potential_names,
    score_samples,
    scorer_names,
)


class OnlyVacancies:
    """Counts its calls, and refuses anything but vacancies."""

    def __init__(self) -> None:
        self.calls = 0

    def score(self, configurations: Sequence[Configuration]) -> pl.DataFrame:
        self.calls += 1
        for item in configurations:
            if any(species != VACANCY for _, species in item.edits):
                raise UsageError(f"{item.label} is unknown.")
        return pl.DataFrame({"homo_ev": [float(item.n_defects) for item in configurations]})


def samples(host: Host, *edits: dict[int, str]) -> list[Sample]:
    made = [Configuration.of(host, item) for item in edits]
    return [Sample(item.to_structure(), item) for item in made]


SALT = Sample(Structure(Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]))


def test_one_refusal_costs_no_other_score(mos2: Host) -> None:
    given = [*samples(mos2, {64: VACANCY}, {64: VACANCY, 65: VACANCY}, {64: "Se"}, {0: VACANCY}), SALT]
    scorer = OnlyVacancies()
    frame, notes = score_samples(scorer, given)
    assert frame["homo_ev"].to_list() == [1.0, 2.0, None, 1.0, None]
    assert notes == ["", "", "Se_S is unknown.", "", NO_CONFIGURATION]
    assert scorer.calls == 5, "halves are tried, not each one by itself"


def test_a_potential_takes_any_atoms(mos2: Host) -> None:
    frame, notes = score_samples(PotentialScorer(AdditivePotential()), [SALT, *samples(mos2, {64: "Cu"}, {})])
    assert notes == ["", "additive never saw Cu.", ""]
    assert frame["energy_ev"].to_list() == [-3.0, None, pytest.approx(-1216.0)]


def test_no_number_is_no_score(mos2: Host) -> None:
    potential = AdditivePotential(atom_ev={"Mo": -10.0, "S": -4.5, "Na": float("nan"), "Cl": 0.0})
    frame, notes = score_samples(PotentialScorer(potential), [SALT, *samples(mos2, {})])
    assert notes == ["additive gives no finite energy: atoms lie on top of each other.", ""]
    assert frame["energy_ev"].to_list() == [None, pytest.approx(-1216.0)]


def test_nothing_known_gives_empty_rows(mos2: Host) -> None:
    frame, notes = score_samples(OnlyVacancies(), samples(mos2, {64: "Se"}))
    assert (frame.width, notes) == (0, ["Se_S is unknown."])


def test_names_are_checked() -> None:
    assert scorer_names("m3gnet, Surrogate") == ("m3gnet", "surrogate")
    for text, message in (
        ("m3gne", r"unknown scorer 'm3gne'\. Did you mean m3gnet\?"),
        ("dft", r"unknown scorer 'dft'\. Known scorers: surrogate, m3gnet, chgnet, slices-catboost"),
        ("", "expected one or more of surrogate"),
        ("chgnet,chgnet", "each once"),
    ):
        with pytest.raises(UsageError, match=message):
            scorer_names(text)


def test_the_help_names_every_scorer() -> None:
    import typer.testing

    from defectgen_cli.app import app
    from defectgen_cli.options import POTENTIALS

    text = " ".join(typer.testing.CliRunner().invoke(app, ["score", "--help"], env={"COLUMNS": "200"}).output.split())
    assert f"Some of {', '.join(SCORERS)}." in text
    assert potential_names() == POTENTIALS


@pytest.mark.parametrize(("name", "module"), [("chgnet", "chgnet"), ("m3gnet", "matgl")])
def test_an_extra_that_is_not_installed_is_named(
    name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loaded in [key for key in sys.modules if key.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DefectgenError, match=rf"needs {module}.*pip install 'defectgen\[{name}\]'"):
        load_scorer(name, ScorerOptions(cache=tmp_path / "cache", m3gnet="M3GNet-MP-2021.2.8-PES"))


def test_the_default_scorer_is_the_shipped_surrogate(mos2: Host, tmp_path: Path) -> None:
    frame, notes = score_samples(load_scorer("surrogate", ScorerOptions(cache=tmp_path)), samples(mos2, {64: VACANCY}))
    assert notes == [""]
    assert 2.0 < frame["formation_energy_ev"][0] < 3.5
