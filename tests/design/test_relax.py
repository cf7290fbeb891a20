"""Relaxing the best candidates of a run."""

from __future__ import annotations

import pytest

from defectgen.core import Configuration, Host
from defectgen.design.candidates import PRISTINE_VBM, Candidate, DesignRun, Target
from defectgen.design.pipeline import relax_top
from defectgen.score.potentials.relaxation import CONVERGED, EXPLODED, Relaxation


def made_run(host: Host) -> DesignRun:
    """Two targets that share their best candidate, three candidates each."""
    candidates = []
    for name, keys in (("1", ("VAC@A00", "VAC@B00", "Se@B00")), ("2", ("VAC@A00", "W@A00", "Se@B00"))):
        target = Target(name, (("homo_ev", 0.1),))
        for place, key in enumerate(keys, 1):
            configuration = Configuration.from_key(host, key).canonical()
            candidates.append(Candidate(place, target, configuration, {"homo_ev": 0.1}, {}, 0.0, True))
    return DesignRun(host, PRISTINE_VBM, tuple(candidates), {"seed": 0}, ("first warning",))


def outcome(configuration: Configuration, status: str = CONVERGED) -> Relaxation:
    detail = "" if status == CONVERGED else "the energy changed by -2.00 eV/atom"
    return Relaxation(configuration.to_structure(), status, detail, 7, -10.0, -10.5, 0.04, 0.2, "fake")


def test_the_best_of_each_target_are_relaxed_once(mos2: Host) -> None:
    run, asked, advanced = made_run(mos2), [], []

    def relax(configuration: Configuration) -> Relaxation:
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
    def relax(configuration: Configuration) -> Relaxation:
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
