"""The plots of the report: the front of several wishes, formation energies under conditions, the known structures."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from defectgen.core import VACANCY, Configuration, get_host
from defectgen.core.properties import FORMATION
from defectgen.data.known_labels import labels_of
from defectgen.design.candidates import RAW, Candidate, DesignRun, Target
from defectgen.design.fronts import Front, FrontMember
from defectgen.design.growth_conditions import growth_conditions
from defectgen.design.wishes import parse_wish
from defectgen.report.axes import Axis, span
from defectgen.report.cloud_plot import cloud_axes, cloud_of
from defectgen.report.front_plot import front_svgs
from defectgen.report.potential_plot import potential_svg

ENTHALPY_EV = -2.66


def tips(svg: str) -> list[str]:
    return re.findall(r'data-tip="([^"]*)"', svg)


def member(label_defects: int, homo_ev: float, lumo_ev: float, *, known: bool) -> FrontMember:
    host = get_host("MoS2")
    configuration = Configuration.of(host, dict.fromkeys(range(label_defects), VACANCY))
    values = {"homo_ev": 0.05 + homo_ev, "lumo_ev": 1.15 + lumo_ev}
    widths = dict.fromkeys(values, 0.0 if known else 0.1)
    return FrontMember(configuration, values, {"homo_ev": homo_ev, "lumo_ev": lumo_ev}, widths, not known)


def test_an_axis_has_round_ticks_and_places_values() -> None:
    axis = Axis(-0.13, 0.41, 0.0, 54.0, "")
    assert [text for _, text in axis.ticks] == ["\u22120.1", "0.0", "0.1", "0.2", "0.3", "0.4"]
    assert axis(-0.13) == 0.0
    assert axis(0.14) == pytest.approx(27.0)


def test_a_span_holds_its_values_and_has_a_width() -> None:
    assert span([1.0, 3.0, math.nan, math.inf], least=0.1, margin=0.1) == pytest.approx((0.8, 3.2))
    assert span([2.0], least=1.0) == (1.5, 2.5)
    assert span([], least=1.0) == (-0.5, 0.5)


def test_the_front_is_drawn_with_the_candidates(build: Callable[..., DesignRun]) -> None:
    front = Front("1", (member(1, 0.0, 0.02, known=True), member(2, 0.01, 0.0, known=False)))
    run = build(n=3, fronts=(front,))
    (svg,) = front_svgs(run, run.targets[0], run.candidates)
    found = tips(svg)
    assert len(found) == 5
    assert found[0] == "v_Mo: HOMO 0 meV off, LUMO 20 meV off, DFT, on the front"
    assert found[1].endswith("HOMO 10 meV off, LUMO 0 meV off, predicted, on the front")
    best = run.candidates[0]
    homo = abs(best.predicted["homo_ev"] - 0.05)
    assert found[2].startswith(f"#1 {best.configuration.label}: HOMO {1000 * homo:.0f} meV off")
    assert svg.count('class="front"') == 1
    assert svg.count('class="point front dft"') == 1


@pytest.mark.parametrize(("columns", "plots"), [("homo", 0), ("homo lumo", 1), ("homo lumo band_gap", 3)])
def test_there_is_a_plot_for_each_pair_of_wishes(build: Callable[..., DesignRun], columns: str, plots: int) -> None:
    target = Target("1", tuple((f"{column}_ev", 0.5) for column in columns.split()))
    run = build(targets=(target,), n=2)
    assert len(front_svgs(run, target, run.candidates)) == plots


def ends(tip: str) -> list[float]:
    return [float(value) for value in re.findall(r"(-?[\d.]+) eV", tip)]


def candidate_with(run: DesignRun, defects: dict[str, str], energy_ev: float) -> Candidate:
    host = run.host
    configuration = Configuration.of(host, {host.parse_site(site): species for site, species in defects.items()})
    best = run.candidates[0]
    return replace(best, configuration=configuration, predicted={**best.predicted, FORMATION: energy_ev})


def test_lines_follow_the_chemical_potentials(build: Callable[..., DesignRun]) -> None:
    run = build(n=1, settings={"host_formation_enthalpy_ev": ENTHALPY_EV})
    shown = [
        candidate_with(run, {"B00": VACANCY}, 2.0),
        candidate_with(run, {"A00": VACANCY}, 5.0),
        candidate_with(run, {"A00": VACANCY, "B00": VACANCY, "C00": VACANCY}, 6.0),
        candidate_with(run, {"B00": "Se"}, 1.0),
    ]
    found = [ends(tip) for tip in tips(potential_svg(run, shown))]
    low = ENTHALPY_EV / 2
    assert found == [
        pytest.approx([2.0 + low, 2.0], abs=0.006),  # a sulphur vacancy costs least where sulphur is scarce
        pytest.approx([5.0, 5.0 + ENTHALPY_EV], abs=0.006),
        pytest.approx([6.0 + ENTHALPY_EV, 6.0 + ENTHALPY_EV], abs=0.006),  # a whole formula unit: always the same
        pytest.approx([1.0 + low, 1.0], abs=0.006),
    ]


def test_a_run_under_conditions_has_its_values_on_the_line(build: Callable[..., DesignRun]) -> None:
    plain = build(n=1, settings={"host_formation_enthalpy_ev": ENTHALPY_EV})
    conditions = growth_conditions(plain.host, ENTHALPY_EV, mu=("S=-0.5", "Se=-0.2"))
    run = replace(plain, settings={**plain.settings, "chemical_potentials_ev": dict(conditions.potentials_ev)})
    candidate = candidate_with(run, {"B00": "Se"}, 1.3)  # 1.3 eV at -0.5 eV of S, so 1.8 eV S-rich
    svg = potential_svg(run, [candidate])
    assert ends(tips(svg)[0]) == pytest.approx([1.8 + ENTHALPY_EV / 2, 1.8], abs=0.006)
    assert svg.count('class="now"') == 1
    assert 'class="now"' not in potential_svg(plain, [candidate])


def test_no_lines_where_the_range_is_not_known(build: Callable[..., DesignRun]) -> None:
    settings = {"host_formation_enthalpy_ev": ENTHALPY_EV}
    assert potential_svg(build(n=1), build(n=1).candidates) == ""
    one_element = build("P", n=1, settings=settings)
    assert potential_svg(one_element, one_element.candidates) == ""
    unstable = build(n=1, settings={"host_formation_enthalpy_ev": 0.1})
    assert potential_svg(unstable, unstable.candidates) == ""


def test_the_cloud_names_the_known_structures_nearest_first(run: DesignRun) -> None:
    cloud = cloud_of(run, run.candidates)
    assert cloud is not None
    labels = labels_of(run.host, fetched=False)
    known = {key: v for key, v in labels.items() if {"homo_ev", "lumo_ev"} <= set(v)}
    assert cloud.n_known == len(known) == len(cloud.data["points"]) > 5000  # type: ignore[arg-type]
    away = {key: abs(v["homo_ev"] - 0.05) + abs(v["lumo_ev"] - 1.15) for key, v in known.items()}
    first = min(away, key=lambda key: (away[key], key))
    label = Configuration.from_key(run.host, first).label
    assert cloud.nearest == f"{label}: HOMO {known[first]['homo_ev']:.3f}, LUMO {known[first]['lumo_ev']:.3f} eV"
    data = json.loads(json.dumps(cloud.data))
    number, homo, lumo = data["points"][0]
    assert data["labels"][number] == label
    assert (homo, lumo) == (round(1e3 * known[first]["homo_ev"]), round(1e3 * known[first]["lumo_ev"]))
    x0, x1, left, right, *_ = (float(v) for v in re.search(r'data-place="([^"]*)"', cloud.svg)[1].split())  # type: ignore[index]
    place = left + (known[first]["homo_ev"] - x0) / (x1 - x0) * (right - left)
    assert f"M{place:.0f} " in cloud.svg


def test_a_wish_for_a_range_or_one_level_is_an_outline(build: Callable[..., DesignRun]) -> None:
    ranged = Target.of("a<b", (parse_wish("homo_ev", "0.1:0.3"), parse_wish("lumo_ev", "1.2")))
    cloud = cloud_of(build(targets=(ranged, Target("2", (("homo_ev", 0.2),))), n=1), ())
    assert cloud is not None
    drawn = re.findall(r'<g class="target"><title>([^<]*)</title><path d="([^"]*)"', cloud.svg)
    assert [title.split(":")[0] for title, _ in drawn] == ["target a&lt;b", "target 2"]
    assert all(path.endswith("Z") for _, path in drawn)


def test_each_value_of_the_nearest_has_its_unit(build: Callable[..., DesignRun]) -> None:
    wished = Target("1", (("band_gap_ev", 1.0), ("total_magnetization_mu_b", 1.0)))
    cloud = cloud_of(build("BN", targets=(wished,), n=1), ())
    assert cloud is not None
    assert re.search(r": gap \d\.\d{3} eV, moment \d\.\d\d μB$", cloud.nearest)


def test_no_cloud_where_nothing_is_known_or_on_another_scale(run: DesignRun) -> None:
    assert cloud_axes(replace(run, reference=RAW)) == ("band_gap_ev", FORMATION)
    assert cloud_axes(run) == ("homo_ev", "lumo_ev")
    assert cloud_of(replace(run, settings={"trained_on": "other values"}), ()) is None
    small = replace(run.host, supercell=(5, 5))
    assert cloud_of(replace(run, host=small, candidates=()), ()) is None
