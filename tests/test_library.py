"""The library as a notebook uses it: what each verb gives, what it refuses, and how objects show themselves."""

from __future__ import annotations

import csv
import html.parser
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sample_runs import make_run
from synthetic import cif_text

import defectgen as dg
from defectgen.design.limits import Limits
from defectgen.design.proposers import RandomProposer
from defectgen.design.request import Ranking

MOS2 = dg.host("MoS2")
WS2_CIF = """data_WS2
_cell_length_a 3.18
_cell_length_b 3.18
_cell_length_c 20
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 120
loop_
_atom_site_type_symbol
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
W W1 0.3333333333 0.6666666667 0.5
S S1 0.6666666667 0.3333333333 0.5785
S S2 0.6666666667 0.3333333333 0.4215
"""


class SmallFirst:
    """Says that each defect moves the levels by 0.1 eV."""

    def score(self, configurations: Sequence[dg.Configuration]) -> pl.DataFrame:
        sizes = [float(item.n_defects) for item in configurations]
        return pl.DataFrame({"homo_ev": [0.1 * n for n in sizes], "lumo_ev": [1.5 - 0.1 * n for n in sizes]})


@pytest.fixture
def ws2(tmp_path: Path) -> dg.Host:
    (tmp_path / "WS2.cif").write_text(WS2_CIF)
    return dg.read_host(tmp_path / "WS2.cif", supercell=(4, 4), allow={"W": ["Mo", "VAC"], "S": "VAC"})


def test_all_public_names_are_there_and_lazy() -> None:
    for name in dg.__all__:
        assert getattr(dg, name) is not None
        assert name in dir(dg)
    assert set(dg._HOME) | {"__version__"} == set(dg.__all__)
    with pytest.raises(AttributeError, match="no attribute 'designs'"):
        _ = dg.designs  # type: ignore[attr-defined]


def test_the_import_takes_no_time_and_brings_nothing_heavy() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import defectgen as dg\n"
        "seconds = time.perf_counter() - start; dir(dg)\n"
        "heavy = {'torch', 'transformers', 'polars', 'pymatgen', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy; print(seconds)"
    )
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]
    assert sorted(times)[2] < 0.3


def test_verbs_stay_verbs_whatever_is_imported_first() -> None:
    code = (
        "import defectgen as dg; import defectgen.design.targets, defectgen.score.scorers\n"
        "assert callable(dg.design) and callable(dg.score)\n"
        "import inspect; assert 'targets' in inspect.signature(dg.design).parameters\n"
        "assert list(inspect.signature(dg.score).parameters)[:2] == ['configurations', 'scorer']\n"
        "from defectgen import design, score; assert callable(design) and callable(score)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_hosts() -> None:
    assert [host.name for host in dg.hosts()] == ["MoS2", "WSe2", "BN", "GaSe", "InSe", "P"]
    assert dg.host("mos2", supercell=(4, 5)).size == dg.host("MoS2", "4x5").size == "4x5"
    assert repr(MOS2) == "Host(MoS2 8x8, 192 sites, Mo: VAC, W; S: Se, VAC)"


def test_a_host_of_a_file(ws2: dg.Host) -> None:
    assert (ws2.name, ws2.size, ws2.n_sites) == ("WS2", "4x4", 48)
    assert [item.label for item in dg.enumerate(ws2, max_defects=1)] == ["Mo_W", "v_W", "v_S"]


def test_structures_are_read_back(tmp_path: Path, ws2: dg.Host) -> None:
    found = dg.Configuration.of(MOS2, {3: "W", 100: "VAC"})
    path = tmp_path / "cell.cif"
    path.write_text(cif_text(found, height_angstrom=25.0))
    assert dg.read_structure(path) == dg.read_structure(str(path), MOS2) == found
    assert dg.Configuration.from_structure(found.to_structure()) == found
    other = dg.Configuration.of(ws2, {0: "Mo"})
    (tmp_path / "ws2.cif").write_text(cif_text(other))
    assert dg.read_structure(tmp_path / "ws2.cif", ws2) == other
    assert type(dg.read_structure(tmp_path / "ws2.cif")).__name__ == "Structure"
    with pytest.raises(dg.NotADecorationError, match=r"ws2\.cif: no decoration of MoS2 8x8: the in-plane cell"):
        dg.read_structure(tmp_path / "ws2.cif", MOS2)


def test_atoms_for_ase_are_those_of_the_structure() -> None:
    pytest.importorskip("ase")
    item = dg.Configuration.of(MOS2, {3: "W", 100: "VAC"})
    atoms, structure = item.to_ase(), item.to_structure()
    assert atoms.get_chemical_symbols() == [site.specie.symbol for site in structure]
    assert abs(atoms.get_positions() - structure.cart_coords).max() < 1e-9
    assert abs(atoms.get_all_distances(mic=True) - structure.distance_matrix).max() < 1e-6


def test_enumeration_is_lazy_and_exact() -> None:
    rows = dg.enumerate("MoS2", rules="2dmd-low")
    assert next(rows).label == "v_S"
    assert sum(1 for _ in rows) == 5932
    many = dg.enumerate(MOS2, "12v_S+6v_Mo")
    assert next(many).n_defects == 18
    assert [item.key for item in dg.enumerate(MOS2, ["v_S", "v_Mo"])] == ["VAC@B00", "VAC@A00"]


def test_scores_are_a_table() -> None:
    items = [dg.Configuration.of(MOS2, {70: "VAC"}), dg.Configuration.of(MOS2, {0: "W"})]
    table = dg.score(items)
    assert table["configuration"].to_list() == ["VAC@B00", "W@A00"]
    assert table["label"].to_list() == ["v_S", "W_Mo"]
    assert 0 < table["homo_uncertainty_ev"].max() < 0.2  # type: ignore[operator]
    assert dg.score(item for item in items).equals(table)
    assert dg.score(items[0])["lumo_ev"].item() == table["lumo_ev"][0]
    own = dg.score(dg.enumerate(MOS2, max_defects=1), SmallFirst())
    assert own["homo_ev"].to_list() == [0.1] * 4
    assert dg.score([]).is_empty()


def test_a_design_with_parts_of_ones_own_needs_no_model(ws2: dg.Host, tmp_path: Path) -> None:
    run = dg.design(ws2, homo=0.3, lumo=1.2, n=5, seed=2, proposer=RandomProposer(6), scorer=SmallFirst())
    again = dg.design(ws2, homo=0.3, lumo=1.2, n=5, seed=2, proposer=RandomProposer(6), scorer=SmallFirst())
    assert run.candidates == again.candidates
    assert [candidate.configuration.n_defects for candidate in run.candidates] == [3] * 5
    run.write(tmp_path / "run")
    written = list(csv.DictReader((tmp_path / "run" / "candidates.csv").open()))
    table = run.to_polars()
    assert table["configuration"].to_list() == [row["configuration"] for row in written]
    assert table["homo_ev"].to_list() == [float(row["homo_ev"]) for row in written]


def test_many_targets() -> None:
    targets = [dg.Target("a", (("homo_ev", 0.2),)), dg.Target("b", (("lumo_ev", 1.0),))]
    run = dg.design(MOS2, targets=targets, n=2, proposer=RandomProposer(6), scorer=SmallFirst())
    sizes = [candidate.configuration.n_defects for candidate in run.candidates]
    assert sizes == [2, 2, 5, 5]


def test_targets_may_be_rows_and_numbers_those_of_numpy(tmp_path: Path) -> None:
    rows = pl.DataFrame({"id": ["a", None], "homo": [0.2, None], "lumo_ev": [None, 1.0]}).to_dicts()
    usual = {"proposer": RandomProposer(6), "scorer": SmallFirst()}
    run = dg.design(MOS2, targets=rows, n=np.int64(2), seed=np.int64(0), max_defects=np.int64(6), **usual)
    assert [target.text for target in run.targets] == ["homo_ev=0.200", "lumo_ev=1.000"]
    assert [target.id for target in run.targets] == ["a", "2"]
    assert [candidate.configuration.n_defects for candidate in run.candidates] == [2, 2, 5, 5]
    run.write(tmp_path / "run")
    assert dg.Target("a", {"homo_ev": 0.2}) == dg.Target("a", (("homo_ev", 0.2),))
    assert dg.host("MoS2", np.array([4, 4])) == dg.host("MoS2", (4, 4))
    assert dg.Configuration.of(MOS2, {np.int64(3): "W"}).edits == ((3, "W"),)


def test_growth_conditions_and_limits_as_texts() -> None:
    by_mapping = dg.design(MOS2, formation_energy="min", n=1, max_defects=1, mu={"S": -0.5})
    by_text = dg.design(MOS2, formation_energy="min", n=1, max_defects=1, mu="S=-0.5")
    assert by_text.candidates == by_mapping.candidates
    assert Limits(only="v_S, W_Mo", without="VAC", kinds="vacancy") == Limits(
        only=("v_S", "W_Mo"), without=("VAC",), kinds=("vacancy",)
    )


def test_the_command_and_the_library_give_the_same_candidates(tmp_path: Path, capsys: Any) -> None:
    from defectgen.data.assets import asset_path
    from defectgen_cli.app import main

    try:
        asset_path("smollm2-135m")
    except dg.DefectgenError as error:
        pytest.skip(f"designs with the shipped model left out: {error}")
    from defectgen.design.run import Ranking

    words = [
        "design",
        "--host",
        "WSe2",
        "--homo",
        "0.7",
        "--lumo",
        "0.9",
        "-n",
        "4",
        "--samples",
        "8",
        "--random",
        "30",
        "--seed",
        "3",
        "--max-defects",
        "2",
    ]
    assert main([*words, "-o", str(tmp_path / "command")]) == 0
    capsys.readouterr()
    ranking = Ranking(n=4, samples=8, random=30, seed=3)
    dg.design("WSe2", homo=0.7, lumo=0.9, max_defects=2, ranking=ranking).write(tmp_path / "library")
    for name in ("candidates.csv", "report.html"):
        assert (tmp_path / "library" / name).read_text() == (tmp_path / "command" / name).read_text()


class Returns:
    """A scorer that returns this, or what it is for so many configurations."""

    def __init__(self, found: Any) -> None:
        self.found = found

    def score(self, configurations: Sequence[dg.Configuration]) -> Any:
        return self.found(len(configurations)) if callable(self.found) else self.found


def test_a_scorer_may_say_what_its_rows_are_of() -> None:
    items = list(dg.enumerate(MOS2, "v_S"))
    found = dg.score(items, Returns(pl.DataFrame({"label": ["mine"], "homo_ev": [0.1]})))
    assert (found["label"][0], found["homo_ev"][0]) == ("v_S", 0.1)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: dg.host("WS2"), r"^unknown host 'WS2'\. Known hosts: MoS2, .*--host FILE.cif.*read_host in Python"),
        (lambda: dg.host(7), "got int 7 as host"),
        (lambda: dg.host("MoS2", (4, 0)), r"got supercell \(4, 0\), expected two whole numbers"),
        (lambda: dg.read_host(3, (4, 4)), "got int 3, expected the path"),
        (lambda: dg.design(MOS2), r"no target given\. Expected .*homo=0\.05"),
        (lambda: dg.design(MOS2, homo=0.1, n=0), "got n=0, expected a whole number of 1 or more"),
        (lambda: dg.design(MOS2, homo=0.1, n=2.5), "got n=2.5"),
        (lambda: dg.design(MOS2, homo=0.1, proposer=" ,"), "got proposer ' ,', expected names"),
        (lambda: dg.design(MOS2, homo=0.1, max_defects=1, limits=Limits()), "got limits and min_defects"),
        (lambda: dg.design(MOS2, homo=0.1, n=3, ranking=Ranking()), "got ranking and n or seed"),
        (lambda: Limits(least_distance_angstrom="6"), "got a least distance of '6'"),
        (lambda: Limits(concentration="lots"), "got a concentration of 'lots'"),
        (lambda: Ranking(budget=30), "got budget 30, expected a Budget, or text"),
        (lambda: dg.design(MOS2, hommo=0.1), "unknown property or option 'hommo'.*homo, lumo, band_gap"),
        (lambda: dg.design(MOS2, homo="deep"), "got homo='deep', expected a number"),
        (lambda: dg.design(MOS2, homo=float("nan")), "expected a finite number"),
        (lambda: dg.design(12, homo=0.1), "got int 12 as host, expected a Host"),
        (lambda: dg.design(MOS2, homo=0.1, scorer=3), "got int 3 as scorer, expected an object with a method score"),
        (lambda: dg.design(MOS2, targets=[1]), "expected one or more of type Target"),
        (lambda: dg.design(MOS2, homo=0.1, kinds="interstitial"), "got kinds 'interstitial'"),
        (lambda: dg.design(dg.host("MoS2", "4x4"), homo=0.1), "know MoS2 in cells of 8x8, got 4x4"),
        (lambda: dg.score([1]), "got int 1, expected a Configuration"),
        (
            lambda: dg.score([dg.Configuration.of(MOS2, {}).to_structure()]),
            "got Structure Structure Summary Lattice abc",
        ),
        (lambda: dg.score(MOS2), r"got Host\(MoS2 8x8, .*\.\.\., expected configurations"),
        (lambda: dg.score("MoS2"), "got str 'MoS2', expected configurations"),
        (
            lambda: dg.score(pl.DataFrame({"key": ["a"]})),
            "got DataFrame with 1 rows, expected",
        ),
        (lambda: dg.score([], 4), "got int 4 as scorer"),
        (lambda: dg.score(list(dg.enumerate(MOS2, "v_S")), Returns([1.0])), "the scorer returned list"),
        (
            lambda: dg.score(list(dg.enumerate(MOS2, "v_S")), Returns(pl.DataFrame({"homo_ev": [0.1, 0.2]}))),
            "the scorer returned 2 rows for 1 configurations",
        ),
        (
            lambda: dg.design(MOS2, homo=0.1, scorer=Returns(lambda n: pl.DataFrame({"homo_ev": ["deep"] * n}))),
            "the scorer returned homo_ev as String, expected numbers",
        ),
        (lambda: dg.enumerate(MOS2), "got no defect classes, expected one of label, rules, max_defects"),
        (lambda: dg.enumerate(MOS2, "v_S", max_defects=2), "got label and max_defects"),
        (lambda: dg.enumerate(5, "v_S"), "got int 5 as host"),
        (lambda: dg.Configuration.from_structure("x"), "got str 'x', expected a pymatgen Structure"),
        (lambda: dg.Configuration.of("MoS2", {0: "W"}), "got str 'MoS2' as host, expected a Host"),
        (lambda: dg.Configuration.from_key("MoS2", "VAC@A00"), "got str 'MoS2' as host, expected a Host"),
        (lambda: dg.Configuration.from_key(MOS2, None), "got configuration None, expected a key"),
        (lambda: dg.Configuration.of(MOS2, "v_S"), "got edits 'v_S', expected sites and species"),
        (lambda: dg.Configuration.of(MOS2, {0.0: "W"}), "got site 0.0, expected its number or its name"),
        (lambda: dg.Configuration.of(MOS2, {True: "W"}), "got site True"),
        (lambda: dg.enumerate(MOS2, max_defects=1.0), "got max_defects=1.0, expected a whole number"),
        (lambda: dg.enumerate(MOS2, max_defects="1"), "got max_defects='1'"),
        (lambda: dg.design(MOS2, homo=0.1, max_defects=1.5), "got max_defects=1.5, expected a whole number"),
        (
            lambda: dg.design(MOS2, homo=0.1, only="v_S"),
            r"got only, which limits .*Limits\(only=",
        ),
        (lambda: dg.design(MOS2, homo=0.1, mu={"S": "low"}), "got mu of S 'low', expected a number in eV"),
        (lambda: dg.design(MOS2, homo=0.1, mu=-0.5), "got mu=-0.5, expected potentials by element"),
        (lambda: dg.design(MOS2, targets=[{"id": "a"}]), "target 'a' asks for nothing"),
        (
            lambda: dg.design(MOS2, targets=[{"id": "a", "homo": 1}, {"id": "a", "lumo": 2}]),
            "id 'a' occurs more",
        ),
        (lambda: dg.design(MOS2, targets=pl.DataFrame({"homo": [0.1]})), r"got DataFrame .*to_dicts\(\)"),
    ],
)
def test_wrong_calls_are_refused_in_one_line(call: Any, said: str) -> None:
    with pytest.raises(dg.UsageError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_host_that_no_shipped_model_covers(ws2: dg.Host) -> None:
    with pytest.raises(dg.UsageError, match=r"was trained on .*, not on WS2\. Train one on WS2"):
        dg.design(ws2, homo=0.1)
    with pytest.raises(dg.UsageError, match="does not know WS2"):
        dg.score(dg.enumerate(ws2, "v_S"))


def test_objects_show_themselves_in_one_line() -> None:
    from defectgen.score.protocol import Sample
    from defectgen.score.surrogate import Surrogate

    surrogate = Surrogate.load()
    run = make_run()
    crowded = dg.Configuration.of(MOS2, dict.fromkeys(range(30), "VAC"))
    models = [part.models for part in surrogate.parts]
    sample = Sample(crowded.to_structure(), crowded)
    shown = [MOS2, crowded, run, run.candidates[0], run.targets[0], surrogate, *surrogate.parts, *models, sample]
    for item in shown:
        assert repr(item).startswith(type(item).__name__ + "(")
        assert "\n" not in repr(item)
        assert len(repr(item)) < 250, repr(item)


class Reader(html.parser.HTMLParser):
    """Tags that are open, what loads something, and all text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.append(tag)
        self.loads += [name for name, _ in attrs if name in ("src", "href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_notebook_shows_tables_and_pictures_that_need_nothing_else() -> None:
    evil = "<script>alert(1)</script>"
    target = dg.Target(evil, (("homo_ev", 0.05), ("lumo_ev", 1.15)))
    run = make_run(targets=(target,), n=12, warnings=(f"mind {evil}",))
    reader = Reader()
    reader.feed(run._repr_html_())
    assert reader.open == []
    assert reader.loads == []
    assert "script" not in reader.tags
    assert reader.tags.count("svg") == 3
    assert reader.text.count(evil) == 2
    assert run.candidates[9].configuration.canonical().key in reader.text
    assert run.candidates[10].configuration.canonical().key not in reader.text
    one = Reader()
    one.feed(run.candidates[10]._repr_html_())
    assert one.tags.count("svg") == 1
    assert run.candidates[10].configuration.canonical().key in one.text
