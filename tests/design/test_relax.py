"""Relaxing the best candidates of a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from defectgen.core import Configuration, Host
from defectgen.design.candidates import PRISTINE_VBM, Candidate, DesignRun, Target
from defectgen.design.with_potential import PotentialUse, first_of_each, relax_top
from defectgen.errors import UsageError
from defectgen.score.potentials.defects import DefectRelaxation
from defectgen.score.potentials.relaxation import CONVERGED, EXPLODED


def made_run(host: Host) -> DesignRun:
    """Two targets that share their best candidate, three candidates each."""
    candidates = []
    for name, keys in (("1", ("VAC@A00", "VAC@B00", "Se@B00")), ("2", ("VAC@A00", "W@A00", "Se@B00"))):
        target = Target(name, (("homo_ev", 0.1),))
        for place, key in enumerate(keys, 1):
            configuration = Configuration.from_key(host, key).canonical()
            candidates.append(Candidate(place, target, configuration, {"homo_ev": 0.1}, {}, 0.0, True))
    return DesignRun(host, PRISTINE_VBM, tuple(candidates), {"seed": 0}, ("first warning",))


def outcome(configuration: Configuration, status: str = CONVERGED) -> DefectRelaxation:
    detail = "" if status == CONVERGED else "the energy changed by -2.00 eV/atom"
    return DefectRelaxation(configuration.to_structure(), status, detail, 7, -10.0, -10.5, 0.04, 0.2, "fake")


def test_the_best_of_each_target_are_relaxed_once(mos2: Host) -> None:
    run, asked, advanced = made_run(mos2), [], []

    def relax(configuration: Configuration) -> DefectRelaxation:
        asked.append(configuration.key)
        return outcome(configuration)

    relaxed = relax_top(run, relax, 2, progress=advanced.append)
    assert len(asked) == len(set(asked)) == 3, "the candidate that both targets share is relaxed once"
    assert sum(advanced) == 4
    assert [candidate.relaxation is not None for candidate in relaxed.candidates] == [True, True, False] * 2
    assert [c.rank for c in relaxed.candidates] == [c.rank for c in run.candidates]
    assert relaxed.settings["relaxed"] == 3
    assert relaxed.settings["relaxed_by"] == "fake"
    assert relaxed.warnings == run.warnings
    assert all(candidate.relaxation is None for candidate in run.candidates), "the run given stays as it was"


def test_divergence_is_a_warning(mos2: Host) -> None:
    relaxed = relax_top(made_run(mos2), lambda c: outcome(c, EXPLODED if "A00" in c.key else CONVERGED), 1)
    assert relaxed.warnings[-1].startswith("1 of 1 relaxations diverged and are not to be used, e.g. energy exploded")


def test_ctrl_c_keeps_what_was_relaxed(mos2: Host) -> None:
    def relax(configuration: Configuration) -> DefectRelaxation:
        if configuration.label != "v_Mo":
            raise KeyboardInterrupt
        return outcome(configuration)

    relaxed = relax_top(made_run(mos2), relax, 3)
    assert not relaxed.complete
    assert [c.relaxation is not None for c in relaxed.candidates] == [True, False, False, True, False, False]


def test_numbers_of_a_relaxation(mos2: Host) -> None:
    result = outcome(Configuration.of(mos2, {}))
    assert result.energy_change_ev == pytest.approx(-0.5)
    assert (result.summary, result.usable) == ("converged in 7 steps", True)


@pytest.mark.parametrize(
    ("status", "shaken", "keeps", "verdict"),
    [
        (CONVERGED, 0.01, True, "stable"),
        (CONVERGED, -0.01, True, "stable"),
        (CONVERGED, float("nan"), True, "stable"),
        (CONVERGED, -0.3, True, "reconstructs"),
        (CONVERGED, -0.3, False, "leaves its sites"),
        (EXPLODED, -0.3, False, "diverged"),
    ],
)
def test_verdicts(mos2: Host, status: str, shaken: float, keeps: bool, verdict: str) -> None:
    found = outcome(Configuration.of(mos2, {}), status)
    assert replace(found, shaken_energy_change_ev=shaken, keeps_sites=keeps).verdict == verdict


def test_a_filter_takes_the_next_in_place_of_what_it_leaves_out(mos2: Host) -> None:
    run = made_run(mos2)

    def relax(configuration: Configuration) -> DefectRelaxation:
        return replace(outcome(configuration), keeps_sites=configuration.label != "v_Mo")

    kept = relax_top(run, relax, 1, "filter", n=2)
    labels = [[c.configuration.label for c in kept.of(target)] for target in kept.targets]
    assert labels == [["v_S", "Se_S"], ["W_Mo", "Se_S"]]
    assert [c.rank for c in kept.candidates] == [1, 2, 1, 2]
    assert [c.relaxation is not None for c in kept.candidates] == [True, False] * 2
    assert kept.settings["potential_decides"] == "filter"
    assert kept.warnings[-1].startswith(
        "2 of 4 relaxed candidates left out by the potential: v_Mo, VAC@A00 (leaves its"
    )
    assert PotentialUse("chgnet", 5, "filter").spare == 5
    assert PotentialUse("chgnet", 5, "tie-break").spare == 0
    assert [c.rank for c in first_of_each(run, 2).candidates] == [1, 2, 1, 2]


def test_ties_go_to_the_lower_energy(mos2: Host) -> None:
    target = Target("1", (("homo_ev", 0.1),))
    values = (("VAC@A00", 0.10, 3.0), ("VAC@B00", 0.11, 1.0), ("Se@B00", 0.115, None), ("W@A00", 0.20, 0.0))
    candidates = tuple(
        Candidate(
            place, target, Configuration.from_key(mos2, key).canonical(), {"homo_ev": homo}, {"homo_ev": 0.02},
            abs(homo - 0.1), True,
        )
        for place, (key, homo, _) in enumerate(values, 1)
    )  # fmt: skip
    energies = {c.configuration.label: energy for c, (_, _, energy) in zip(candidates, values, strict=True)}

    def relax(configuration: Configuration) -> DefectRelaxation:
        return replace(outcome(configuration), formation_energy_ev=energies[configuration.label])

    run = DesignRun(mos2, PRISTINE_VBM, candidates, {})
    ordered = relax_top(run, relax, 4, "tie-break")
    assert [c.configuration.label for c in ordered.candidates] == ["v_S", "v_Mo", "Se_S", "W_Mo"]
    assert [c.rank for c in ordered.candidates] == [1, 2, 3, 4]
    partly = relax_top(run, relax, 1, "tie-break")
    assert [c.configuration.label for c in partly.candidates] == ["v_Mo", "v_S", "Se_S", "W_Mo"]


def test_what_a_potential_may_decide_is_checked() -> None:
    with pytest.raises(UsageError, match="expected columns, filter, tie-break"):
        PotentialUse("chgnet", 3, "order")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="top=0"):
        PotentialUse("chgnet", 0)
