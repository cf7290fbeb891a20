"""Rows of a targets file with limits and conditions of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from defectgen.core import get_host
from defectgen.design.limits import Limits
from defectgen.design.own_limits import divided
from defectgen.design.request import DesignRequest, Ranking
from defectgen.design.run import prepare_design
from defectgen.design.targets import read_targets
from defectgen.errors import UsageError
from defectgen.report.potential_plot import potential_svg

MOS2 = get_host("MoS2")
TABLE = """id,homo,lumo,tolerance,only,max_defects,conditions,note
a,0.1,1.0:1.1,0.02,"v_S;W_Mo",2,,first
b,0.1,1.0,,,,S-rich,
c,min,1.0+-0.1,0.5,"v_S;W_Mo",2,,
"""


def read(tmp_path: Path, text: str = TABLE) -> DesignRequest:
    (tmp_path / "targets.csv").write_text(text)
    options = Limits(without=("Se",), max_defects=1)
    return DesignRequest(MOS2, read_targets(tmp_path / "targets.csv"), Ranking(n=3), options, conditions="Mo-rich")


def test_rows_have_their_own_limits_and_the_options_where_a_cell_is_empty(tmp_path: Path) -> None:
    request = read(tmp_path)
    assert request.targets[0].text == "homo_ev=0.080:0.120 lumo_ev=1.000:1.100"
    assert request.targets[2].text == "homo_ev=min*0.01 lumo_ev=0.900:1.100"
    assert dict(request.targets[0].notes)["note"] == "first"
    assert dict(request.targets[0].notes)["only"] == "v_S;W_Mo"
    first, second = divided(request)
    assert [target.id for target in first.targets] == ["a", "c"]
    assert first.limits == Limits(without=("Se",), max_defects=2, only=("v_S", "W_Mo"))
    assert (first.conditions, second.conditions) == ("Mo-rich", "S-rich")
    assert second.limits == request.limits


def test_one_run_for_all_rows_each_within_its_limits(tmp_path: Path) -> None:
    run = prepare_design(read(tmp_path)).run()
    assert [target.id for target in run.targets] == ["a", "b", "c"]
    assert [verdict.target_id for verdict in run.verdicts] == ["a", "b", "c"]
    assert [front.target_id for front in run.fronts] == ["a", "b", "c"]
    kinds = {target.id: {k for c in run.of(target) for k in c.configuration.kinds} for target in run.targets}
    assert kinds["a"] <= {("S", "VAC"), ("Mo", "W")}
    assert all(species != "Se" for one in kinds.values() for _, species in one)
    most = {target.id: max(c.configuration.n_defects for c in run.of(target)) for target in run.targets}
    assert (most["a"], most["b"], most["c"]) == (2, 1, 2)
    told = str(run.settings["formation_energy_at"])
    assert "Mo-rich" in told.split("(targets a, c)")[0]
    assert "S-rich" in told.split("(targets a, c)")[1]
    assert run.settings["max_defects"] == "2 (targets a, c); 1 (target b)"
    potentials = str(run.settings["chemical_potentials_ev"])
    assert potentials.startswith("Mo 0, S -")
    assert "(targets a, c); Mo -" in potentials, "each target has its own, and nothing is added up"
    assert potential_svg(run, run.of(run.targets[0])) == ""
    assert run.settings["proposed"] == sum(run.settings["proposed_by"].values())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("homo,tolerance\n0.1,-1\n", "target 1: got a tolerance of '-1'"),
        ("homo,max_defects\n0.1,few\n", "target 1: max_defects: got 'few'"),
        ("homo,concentration\n0.1,lots\n", "target 1: concentration: got a concentration"),
        ("homo,sublattice\n0.1,left\n", "target 1: got sublattice 'left'"),
        ("homo,max_defect\n0.1,2\n", "unknown column 'max_defect'"),
        ("homo,max_defects,max-defects\n0.1,2,3\n", "stands for a property that another one gives too"),
        ("only\nv_S\n", "target 1 asks for nothing"),
    ],
)
def test_what_is_no_limit_is_named_with_its_row(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,homo,only\na,0.1,\nb,0.1,v_Se\n", "target b: 'v_Se' is no defect of MoS2"),
        ("id,homo,without\na,0.1,VAC;Se;W\n", "target a: these limits leave no defect of MoS2"),
        ("id,homo,min_defects\na,0.1,5\n", "target a: got at least 5 and at most 1 defects"),
        ("id,homo,mu\na,0.1,S=-9\n", "target a: mu of S is -9.00 eV, outside the limits"),
    ],
)
def test_limits_that_leave_nothing_name_their_target(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        prepare_design(read(tmp_path, text))
