import pytest

from defectgen.core import Configuration, get_host
from defectgen.design.candidates import PRISTINE_VBM, Candidate, DesignRun, Target
from defectgen.design.wishes import parse_wish

MOS2 = get_host("MoS2")
TARGET = Target("1", (("homo_ev", 0.05), ("lumo_ev", 1.15)))


def candidate(rank: int = 1, target: Target = TARGET, **changes: object) -> Candidate:
    given: dict[str, object] = {
        "configuration": Configuration.of(MOS2, {0: "W"}),
        "predicted": {"homo_ev": 0.08, "lumo_ev": 1.1, "band_gap_ev": 1.02},
        "uncertainty": {"homo_ev": 0.05},
        "distance_ev": 0.08,
        "novel": True,
        **changes,
    }
    return Candidate(rank, target, **given)  # type: ignore[arg-type]


def test_target_text_has_the_decimals_of_each_property() -> None:
    assert TARGET.text == "homo_ev=0.050 lumo_ev=1.150"
    assert Target("1", (("energy_per_atom_ev", -7.12345),)).text == "energy_per_atom_ev=-7.1235"
    assert Target("1", (("homo_ev", -0.0001),)).text == "homo_ev=0.000"


@pytest.mark.parametrize(
    "values", [(), (("homo", 0.1),), (("homo_ev", 0.1), ("homo_ev", 0.2)), (("homo_ev", float("nan")),)]
)
def test_a_target_names_known_properties_once_with_finite_values(values: tuple[tuple[str, float], ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Target("1", values)


def test_distance_and_deviation() -> None:
    assert TARGET.distance_ev({"homo_ev": 0.08, "lumo_ev": 1.1, "band_gap_ev": 9.0}) == pytest.approx(0.08)
    assert candidate().deviation("lumo_ev") == pytest.approx(-0.05)
    assert candidate().deviation("band_gap_ev") is None
    assert candidate(dft={"lumo_ev": 1.2}).deviation("lumo_ev") == pytest.approx(0.05)
    within = Target.of("1", (parse_wish("homo_ev", "0.05:0.1"), parse_wish("lumo_ev", ":1")))
    assert candidate(target=within).deviation("homo_ev") == 0
    assert candidate(target=within).deviation("lumo_ev") == pytest.approx(0.1)


def test_a_candidate_needs_a_value_for_what_was_asked() -> None:
    with pytest.raises(ValueError, match="lumo_ev"):
        candidate(predicted={"homo_ev": 0.1})
    with pytest.raises(ValueError, match="colour"):
        candidate(uncertainty={"colour": 0.1})
    with pytest.raises(ValueError, match="rank 0"):
        candidate(rank=0)


def test_a_run_keeps_targets_without_candidates() -> None:
    empty = Target("2", (("homo_ev", 0.4),))
    run = DesignRun(MOS2, PRISTINE_VBM, (candidate(),), {}, targets=(empty, TARGET))
    assert run.targets == (empty, TARGET)
    assert run.of(empty) == ()
    assert run.of(TARGET) == run.candidates
    assert DesignRun(MOS2, PRISTINE_VBM, (candidate(),), {}).targets == (TARGET,)


def test_a_run_refuses_what_does_not_belong_together() -> None:
    other = Configuration.of(get_host("WSe2"), {0: "Mo"})
    with pytest.raises(ValueError, match="another host"):
        DesignRun(MOS2, PRISTINE_VBM, (candidate(configuration=other),), {})
    with pytest.raises(ValueError, match="increase"):
        DesignRun(MOS2, PRISTINE_VBM, (candidate(2), candidate(2)), {})
    with pytest.raises(ValueError, match="reference"):
        DesignRun(MOS2, "vacuum", (), {})
    with pytest.raises(ValueError, match="each once"):
        DesignRun(MOS2, PRISTINE_VBM, (), {}, targets=(TARGET, Target("1", (("homo_ev", 0.2),))))
    with pytest.raises(ValueError, match="not one of"):
        DesignRun(MOS2, PRISTINE_VBM, (candidate(),), {}, targets=(Target("2", (("homo_ev", 0.2),)),))
