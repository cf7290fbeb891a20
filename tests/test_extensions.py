"""A package that adds a part of each kind (tests/plugin) is used from end to end; bad ones are refused."""

from __future__ import annotations

import ast
import csv
import dataclasses
import json
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tiny_model import tiny_model_dir

import defectgen as dg
from defectgen.core import host_names, register_host
from defectgen.core.hosts import HOSTS
from defectgen.core.properties import BY_COLUMN, find_property, register_property
from defectgen.core.registry import Registry
from defectgen.data.locations import labelled_sets
from defectgen.data.records import RecordSettings
from defectgen.data.sources import SOURCES, read_dataset, register_source
from defectgen.design.host_records import known_hosts
from defectgen.design.proposers import PROPOSERS, register_proposer
from defectgen.design.targets import coverage_warnings
from defectgen.io.writers import WRITERS, format_names, register_format
from defectgen.score.scorers import SCORERS, potential_names, register_potential, register_scorer
from defectgen.tasks.defect.encodings import ENCODINGS, check_encoding, get_encoding, register_encoding
from defectgen_cli.app import main

__all__ = ["tiny_model_dir"]

PLUGIN = Path(__file__).parent / "plugin"
EXTENDING = Path(__file__).parents[1] / "docs" / "extending.md"
REGISTRIES: tuple[Registry[Any], ...] = (HOSTS, BY_COLUMN, SCORERS, PROPOSERS, ENCODINGS, SOURCES, WRITERS)
BUILT_IN = {registry.plural: tuple(registry) for registry in REGISTRIES}


def declared() -> dict[str, dict[str, str]]:
    """The plugin's entry points by group."""
    found: dict[str, dict[str, str]] = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]["entry-points"]
    return found


@pytest.fixture
def installed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugin, as an installer leaves it, for one test."""
    place = tmp_path_factory.mktemp("site-packages")
    about = place / "graphene_springs-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: graphene-springs\nVersion: 1.0\n")
    lines = [
        line
        for group, points in declared().items()
        for line in (f"[{group}]", *(f"{k} = {v}" for k, v in points.items()))
    ]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(PLUGIN)
    monkeypatch.syspath_prepend(place)
    for registry in REGISTRIES:
        monkeypatch.setattr(registry, "_unread", True)
    try:
        yield
    finally:
        for registry in REGISTRIES:
            for name in set(registry) - set(BUILT_IN[registry.plural]):
                registry.unregister(name)
    assert {registry.plural: tuple(registry) for registry in REGISTRIES} == BUILT_IN


def plugin_part(module: str, name: str) -> Any:
    """An object of the plugin."""
    return EntryPoint("part", f"graphene_springs.{module}:{name}", "").load()


def stiffness_gpa(configuration: dg.Configuration) -> float:
    """By hand: 1000 GPa, 50 less for each vacancy and 10 less for each other defect."""
    return 1000.0 - sum(50.0 if new == "VAC" else 10.0 for _, new in configuration.edits)


@pytest.fixture
def table(installed: None, tmp_path: Path) -> Path:  # noqa: ARG001
    """A folder that the plugin's source claims, with all vacancies and substitutions up to pairs."""
    rows = [item.canonical() for item in dg.enumerate("graphene", max_defects=2)]
    lines = [
        f"s{k},graphene,{' '.join(f'{site}:{new}' for site, new in item.edits)},{stiffness_gpa(item)}"
        for k, item in enumerate(rows)
    ]
    folder = tmp_path / "springs"
    folder.mkdir()
    (folder / "springs.csv").write_text("\n".join(["id,host,edits,stiffness_gpa", *lines]))
    return folder


def test_each_part_touches_the_files_that_the_documentation_says() -> None:
    """One file in the plugin for each part, that needs no other one of it, none in defectgen, and one entry point."""
    text = EXTENDING.read_text().partition("<!-- files of each part -->\n")[2]
    rows = re.findall(r"^\| ([a-z ]+) \| `([a-z_]+\.py)` \| 0 \| `(defectgen\.[a-z]+)` \|$", text, re.M)
    assert [what for what, _, _ in rows] == [
        "host", "property", "potential", "proposer", "encoding", "data source", "output format",
    ]  # fmt: skip
    files = {path.name for path in (PLUGIN / "graphene_springs").glob("*.py")} - {"__init__.py"}
    assert files == {file for _, file, _ in rows}
    assert {group for _, _, group in rows} == set(declared())
    for what, file, group in rows:
        points = [value for value in declared()[group].values() if value.startswith(f"graphene_springs.{file[:-3]}:")]
        assert len(points) == 1, what
        tree = ast.parse((PLUGIN / "graphene_springs" / file).read_text())
        imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
        origins = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        imported |= {node.module or "" for node in origins}
        assert not any(name.startswith("graphene_springs") for name in imported), what
        assert not any(node.level or any(name.name.startswith("_") for name in node.names) for node in origins), what


@pytest.mark.usefixtures("installed")
def test_a_host_has_other_names_where_it_is_added_with_them() -> None:
    layer = dataclasses.replace(plugin_part("host", "GRAPHENE"), name="layer")
    register_host(layer, aliases=("Gr",))
    assert dg.host("gr") == dg.host("LAYER") == layer
    assert [(record.name, record.aliases) for record in known_hosts()][-1] == ("layer", ("Gr",))


@pytest.mark.usefixtures("installed")
def test_a_host_a_property_and_scorers_of_another_package() -> None:
    graphene = plugin_part("host", "GRAPHENE")
    assert dg.host("GRAPHENE") == graphene
    assert dg.host("graphene", "6x6").n_sites == 72
    assert dg.hosts()[-1] == graphene
    assert [record.name for record in known_hosts()][-1] == "graphene"
    singles = list(dg.enumerate("graphene", max_defects=1))
    assert [item.label for item in singles] == ["B_C", "N_C", "v_C"]
    assert dg.Configuration.from_structure(singles[0].to_structure()) == singles[0]
    with pytest.raises(dg.UsageError, match="Did you mean graphene"):
        dg.host("graphen")
    items = list(dg.enumerate("graphene", max_defects=2))
    scored = dg.score(items, "counting")
    assert scored["stiffness_gpa"].to_list() == [stiffness_gpa(item) for item in items]
    assert len(set(scored["stiffness_gpa"])) > 3
    assert set(scored["host"]) == {"graphene"}
    energies = dg.score(singles, "springs")["formation_energy_ev"].to_list()
    mu = {"B": -6.704, "C": -9.226, "N": -8.324}
    assert energies == pytest.approx([mu["C"] - mu["B"], mu["C"] - mu["N"], 3 * 5.0 + mu["C"]])  # three bonds of 5 eV


@pytest.mark.usefixtures("installed")
def test_a_design_with_parts_of_another_package_alone(tmp_path: Path) -> None:
    run = dg.design("graphene", stiffness=940.0, n=4, max_defects=2, proposer="in-order", scorer="counting")
    found = [candidate.configuration for candidate in run.candidates]
    assert {item.host for item in found} == {dg.host("graphene")}
    assert {stiffness_gpa(item) for item in found} == {940.0}  # a vacancy and a substitution
    run.write(tmp_path / "run", formats=["cif", "edit-lists"])
    lists = [line.split() for line in (tmp_path / "run" / "structures.edits").read_text().splitlines()]
    assert [key for _, key in lists] == [item.canonical().key for item in found]
    for row, item in zip(csv.DictReader((tmp_path / "run" / "candidates.csv").open()), found, strict=True):
        back = dg.read_structure(tmp_path / "run" / row["cif"])
        assert isinstance(back, dg.Configuration)
        assert back.canonical() == item.canonical()
    assert "in-order" in (tmp_path / "run" / "manifest.json").read_text()
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<h2>stiffness 940.0 GPa</h2>" in page
    assert "stiffness, GPa</td>" in page
    assert "940.0 eV" not in page


def counting() -> Any:
    return plugin_part("property", "Counting")()


@pytest.mark.usefixtures("installed")
def test_targets_and_deviations_are_in_the_unit_of_the_property(tmp_path: Path) -> None:
    run = dg.design("graphene", stiffness=1500.0, n=1, max_defects=1, proposer="in-order", scorer=counting())
    assert run.candidates[0].predicted["stiffness_gpa"] == 990.0
    assert run.candidates[0].distance_ev == pytest.approx(5.1)  # 510 GPa of 0.01 eV
    run.write(tmp_path / "run")
    assert "<td>\u22125100</td>" in (tmp_path / "run" / "report.html").read_text()
    with pytest.raises(dg.UsageError, match="got stiffness='stiff', expected a number in GPa"):
        dg.design("graphene", stiffness="stiff", proposer="in-order")  # type: ignore[arg-type]
    warnings = coverage_warnings("graphene", run.targets, {"stiffness_gpa": [800.0, 1000.0]})
    assert "stiffness 1500.000 GPa is outside what the data of graphene covers (800.000 to 1000.000 GPa)" in warnings[0]


def test_commands_take_the_parts_of_another_package(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["hosts", "graphene"]) == 0
    assert "B_C N_C v_C" in capsys.readouterr().out
    targets = tmp_path / "wanted.csv"
    targets.write_text("stiffness\n980\n")
    options = ["--targets", targets, "--scorer", "counting", "--proposer", "in-order", "--potential", "springs"]
    options += ["--potential-top", 1, "--max-defects", 2, "-n", 2, "--format", "edit-lists", "-o", tmp_path / "run"]
    assert main(["design", "--host", "graphene", *map(str, options)]) == 0
    rows = list(csv.DictReader((tmp_path / "run" / "candidates.csv").open()))
    assert [float(row["stiffness_gpa"]) for row in rows] == [980.0, 980.0]  # two substitutions each
    assert [bool(row["relaxed_formation_energy_ev"]) for row in rows] == [True, False]
    assert len((tmp_path / "run" / "structures.edits").read_text().splitlines()) == 2
    assert main(["build-data", "--data", str(table), "--encoding", "numbers", "-o", str(tmp_path / "records")]) == 0
    frame = dg.load_2dmd(table)
    assert frame["homo_ev"].null_count() == frame.height
    assert frame.columns[-1] == "stiffness_gpa"
    records = [
        json.loads(line)
        for name in ("train", "validation", "test")
        for line in (tmp_path / "records" / f"{name}.jsonl").read_text().splitlines()
    ]
    assert {record["id"] for record in records} == set(frame["id"])
    stated = 0
    for record in records:
        parsed = get_encoding("numbers").parse(dg.host("graphene"), record["completion"])
        assert parsed.canonical().key == record["configuration"]
        stated += record["prompt"].startswith(f"graphene 4x4 with stiff {stiffness_gpa(parsed):.1f}")
    assert stated > len(records) / 2  # few prompts state nothing
    with pytest.raises(dg.UsageError, match="the data source 'spring-tables' has no card with its licence"):
        labelled_sets(table, "all")


def test_a_model_writes_in_an_encoding_of_another_package(
    table: Path, tmp_path: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From records to a design, with a host that no surrogate knows."""
    records, adapter, run = (tmp_path / name for name in ("records", "adapter", "run"))
    assert main(["build-data", "--data", str(table), "--encoding", "numbers", "-o", str(records)]) == 0
    changes = [f"base_model={tiny_model_dir}", "batch_size=8", "dtype=float32", "lora.rank=4"]
    options = [word for change in changes for word in ("--set", change)]
    assert (
        main(["finetune", "smollm2-cpu", "--data", str(records), "-o", str(adapter), "--max-steps", "1", *options]) == 0
    )
    targets = tmp_path / "wanted.csv"
    targets.write_text("stiffness\n980\n")
    options = ["--host", "graphene", "--targets", targets, "--scorer", "counting", "--model", adapter, "-o", run]
    assert main(["design", *map(str, options), "--proposer", "llm", "-n", "2", "--samples", "16"]) == 0
    assert "trained on" not in capsys.readouterr().err
    rows = pl.read_parquet(run / "candidates.parquet")
    assert rows.height == 2
    for key, value in zip(rows["configuration"], rows["stiffness_gpa"], strict=True):
        assert stiffness_gpa(dg.Configuration.from_key(dg.host("graphene"), key)) == value


def test_what_is_not_installed_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(dg.UsageError, match=r"unknown host 'graphene'.*Known hosts: MoS2.*--host FILE\.cif"):
        dg.host("graphene")
    with pytest.raises(dg.UsageError, match="unknown property or option 'stiffness'"):
        dg.design("MoS2", stiffness=940.0)
    assert find_property("stiffness") is None
    known = r"known, exhaustive, random, search, llm-search, llm\."
    with pytest.raises(dg.UsageError, match=r"unknown proposer 'in-order'\. .*: " + known):
        dg.design("MoS2", homo=0.1, proposer="in-order")
    with pytest.raises(dg.UsageError, match="Did you mean random"):
        dg.design("MoS2", homo=0.1, proposer="randon")
    with pytest.raises(dg.UsageError, match=r"unknown scorer 'springs'\. .*chgnet"):
        dg.score(dg.enumerate("BN", max_defects=1), "springs")
    with pytest.raises(dg.UsageError, match="got potential 'springs', expected m3gnet or chgnet"):
        dg.design("BN", homo=0.1, max_defects=1, potential="springs")
    with pytest.raises(dg.UsageError, match=r"unknown encoding 'numbers'\. .*edits, composition, symbols, crystal"):
        RecordSettings(encoding="numbers", cartesian=True)
    assert "edit-lists" not in format_names()
    (tmp_path / "springs.csv").touch()
    with pytest.raises(dg.DefectgenError, match=r"known source: 2dmd \(csv_cif/ and processed/\); 2dmd-pilot"):
        read_dataset(tmp_path)


def test_random_structures_need_a_largest_number() -> None:
    class Sizes:
        def score(self, configurations: list[dg.Configuration]) -> pl.DataFrame:
            return pl.DataFrame({"homo_ev": [0.1 * item.n_defects for item in configurations]})

    host = dg.host("BN", "4x4")
    run = dg.design(host, homo=0.2, n=3, max_defects=4, kinds="vacancy", proposer="random", scorer=Sizes())
    assert [item.configuration.n_defects for item in run.candidates] == [2, 2, 2]
    assert {new for item in run.candidates for _, new in item.configuration.edits} == {"VAC"}
    for most in (None, 33):
        with pytest.raises(dg.UsageError, match=r"random structures of hBN 4x4, expected 1 to 32\. Give --max-defects"):
            dg.design(host, homo=0.2, max_defects=most, proposer="random", scorer=Sizes())


@pytest.mark.usefixtures("installed")
def test_a_name_that_is_taken_is_refused() -> None:
    graphene, numbers, load = plugin_part("host", "GRAPHENE"), plugin_part("encoding", "NUMBERS"), counting
    for call, message in (
        (lambda: register_host(graphene), "the host 'graphene' is there already"),
        (lambda: register_host(dataclasses.replace(graphene, name="mos2")), "'mos2' is there already, as MoS2"),
        (lambda: register_host(dataclasses.replace(graphene, name="other"), aliases=("hbn",)), "there already, as BN"),
        (
            lambda: register_property(plugin_part("property", "STIFFNESS")),
            "'stiffness' is that of stiffness_gpa already",
        ),
        (lambda: register_scorer("surrogate", "", load), "the scorer 'surrogate' is there already"),
        (lambda: register_potential("counting", "", load), "the scorer 'counting' is there already"),
        (lambda: register_proposer("random", "", load), "the proposer 'random' is there already"),
        (lambda: register_encoding("edits", numbers), "the encoding 'edits' is there already"),
        (lambda: register_source("2dmd", SOURCES["spring-tables"]), "the data source '2dmd' is there already"),
        (lambda: register_format("cif", WRITERS["edit-lists"]), "the format 'cif' is there already"),
    ):
        with pytest.raises(dg.UsageError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert "other" not in host_names()


@pytest.mark.usefixtures("installed")
def test_a_part_that_breaks_its_protocol_is_refused() -> None:
    numbers, source, stiffness = (
        plugin_part("encoding", "NumbersEncoding"),
        SOURCES["spring-tables"],
        BY_COLUMN["stiffness_gpa"],
    )

    class NoWayBack(numbers):  # type: ignore[misc]
        parse = None

    class FirstSiteOnly(numbers):  # type: ignore[misc]
        def completion(self, configuration: dg.Configuration, writing: Any = None) -> str:  # noqa: ARG002
            return f"{configuration.edits[0][0]}=VAC;"

    @dataclasses.dataclass(frozen=True)
    class Endless(plugin_part("encoding", "NumbersGrammar")):  # type: ignore[misc]
        def choices(self, state: Any) -> Any:
            found = super().choices(state)
            return found | {"": state} if "" in found else found

    class NoEnd(numbers):  # type: ignore[misc]
        def grammar(self, host: dg.Host, max_defects: int, **_: Any) -> Any:
            return Endless(host, 1, max_defects, ())

    class NoClaims:
        layout = "anything"

        def read(self, path: Path, sets: Any = None) -> pl.DataFrame:
            raise NotImplementedError

    class NoSets(type(source)):  # type: ignore[misc]
        def read(self, path: Path) -> pl.DataFrame:
            raise NotImplementedError

    bad: Any = object()
    graphene = dg.host("graphene")
    wrong_unit = dataclasses.replace(stiffness, column="hardness", option="hard", title="hardness", prompt="hard")
    for call, message in (
        (lambda: register_host(bad), "got a object, expected a Host"),
        (lambda: register_host(graphene, aliases="Gr"), "got aliases 'Gr', expected several names"),
        (lambda: HOSTS.register("gr", graphene), "the host 'gr' breaks its protocol: its name is 'graphene'"),
        (lambda: register_property(bad), "got a object, expected a Property"),
        (lambda: register_property(wrong_unit), "its column must end in its unit, _gpa"),
        (lambda: register_scorer("bad", "", bad), "the scorer 'bad' breaks its protocol: its load cannot"),
        (lambda: register_proposer("bad", "", bad), "the proposer 'bad' breaks its protocol: its make cannot"),
        (lambda: register_encoding("bad", NoWayBack()), r"it has no method parse\(host, text, writing\)"),
        (lambda: register_encoding("bad", NoEnd()), "the end of a completion leads to a state, expected None"),
        (lambda: register_encoding("bad", FirstSiteOnly()), "its grammar admits .* its completion writes otherwise"),
        (lambda: register_source("bad", bad), "the data source 'bad' breaks its protocol: it has no layout"),
        (lambda: register_source("bad", NoClaims()), r"it has no method claims\(path\)"),  # type: ignore[arg-type]
        (lambda: register_source("bad", NoSets()), r"read must take \(path, sets\)"),
        (lambda: register_format("bad", bad), "the format 'bad' breaks its protocol: it has no suffix"),
        (lambda: register_format("Bad", bad), "lower-case"),
    ):
        with pytest.raises(dg.UsageError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert not any("bad" in registry for registry in REGISTRIES)
    assert "bad" not in format_names()


@pytest.mark.usefixtures("installed")
def test_what_a_part_makes_is_held_to_its_protocol(tmp_path: Path) -> None:
    class IdsOnly(type(SOURCES["spring-tables"])):  # type: ignore[misc]
        layout = "ids.csv"

        def claims(self, path: Path) -> bool:
            return (path / "ids.csv").is_file()

        def read(self, path: Path, sets: Any = None) -> pl.DataFrame:  # noqa: ARG002
            return pl.DataFrame({"id": ["a"]})

    register_scorer("bad", "", lambda _: object())  # type: ignore[arg-type,return-value]
    register_potential("no-forces", "", lambda _: counting())
    register_proposer("bad", "", lambda _: object())  # type: ignore[arg-type,return-value]
    register_source("bad", IdsOnly())
    (tmp_path / "ids.csv").touch()
    assert potential_names()[-1] == "no-forces"
    with pytest.raises(dg.UsageError, match=r"the scorer 'bad' breaks its protocol: it has no "):
        dg.score(dg.enumerate("BN", max_defects=1), "bad")
    with pytest.raises(dg.UsageError, match=r"the scorer 'no-forces' .* is_potential is True, and it made a Counting"):
        dg.score(dg.enumerate("BN", max_defects=1), "no-forces")
    with pytest.raises(dg.UsageError, match=r"the proposer 'bad' .* it has no method propose\(host, asks\)"):
        dg.design("graphene", stiffness=1.0, proposer="bad", scorer=counting())
    with pytest.raises(dg.UsageError, match=r"the data source 'bad' .* its table has no column host"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("name", ["edits", "composition", "symbols", "crystal"])
@pytest.mark.parametrize("host", ["MoS2", "P"])
def test_built_in_encodings_keep_their_contract(name: str, host: str) -> None:
    check_encoding(name, get_encoding(name), dg.host(host, (2, 3)))
