"""Parts from outside the package: each kind of one is added and used from end to end, and bad ones are refused."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fake_extensions import (
    GRAPHENE,
    STIFFNESS,
    EditLists,
    InOrder,
    NumbersEncoding,
    SpringTables,
    load_springs,
    make_in_order,
    stiffness_gpa,
)

import defectgen as dg
from defectgen.core import get_host, host_names, register_host
from defectgen.core import registry as registry_module
from defectgen.core.hosts import HOSTS
from defectgen.core.properties import BY_COLUMN, find_property, register_property
from defectgen.core.registry import Registry
from defectgen.data.locations import labelled_sets
from defectgen.data.records import RecordSettings, build_data
from defectgen.data.sources import SOURCES, read_dataset, register_source
from defectgen.data.splits import split_rows
from defectgen.design.host_records import known_hosts
from defectgen.design.proposers import PROPOSERS, register_proposer
from defectgen.design.targets import coverage_warnings
from defectgen.io.writers import WRITERS, format_names, register_format
from defectgen.score.scorers import SCORERS, ScorerOptions, load_scorer, register_potential
from defectgen.tasks.defect.encodings import ENCODINGS, check_encoding, get_encoding, register_encoding

CIRCLE: tuple[tuple[Registry[Any], str], ...] = (
    (HOSTS, "graphene"),
    (BY_COLUMN, "stiffness_gpa"),
    (SCORERS, "springs"),
    (PROPOSERS, "in-order"),
    (ENCODINGS, "numbers"),
    (SOURCES, "spring-tables"),
)


@pytest.fixture
def parts() -> Iterator[None]:
    """All fakes, there for one test."""
    before = [tuple(registry) for registry, _ in CIRCLE]
    try:
        register_host(GRAPHENE, aliases=("Gr",))
        register_property(STIFFNESS)
        register_potential("springs", "stiffness by counting", load_springs)
        register_proposer("in-order", "what the enumeration gives", make_in_order)
        register_encoding("numbers", NumbersEncoding())
        register_source("spring-tables", SpringTables())
        register_format("edit-lists", EditLists())
        yield
    finally:
        WRITERS.unregister("edit-lists")
        for registry, name in CIRCLE:
            registry.unregister(name)
    assert [tuple(registry) for registry, _ in CIRCLE] == before


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A folder that the fake source claims, with all vacancies and substitutions up to pairs."""
    rows = [item.canonical() for item in dg.enumerate(GRAPHENE, max_defects=2)]
    lines = [f"s{k},{' '.join(f'{site}:{new}' for site, new in item.edits)}" for k, item in enumerate(rows)]
    folder = tmp_path / "springs"
    folder.mkdir()
    (folder / "springs.csv").write_text("\n".join(["id,edits", *lines]))
    return folder


@pytest.mark.usefixtures("parts")
def test_a_host_is_known_by_its_names() -> None:
    assert dg.host("Gr") == dg.host("GRAPHENE") == get_host("graphene") == GRAPHENE
    assert dg.host("graphene", "6x6").n_sites == 72
    assert host_names()[-1] == "graphene"
    assert dg.hosts()[-1] == GRAPHENE
    assert [(record.name, record.aliases) for record in known_hosts()][-1] == ("graphene", ("Gr",))
    singles = list(dg.enumerate("graphene", max_defects=1))
    assert [item.label for item in singles] == ["B_C", "N_C", "v_C"]
    assert dg.Configuration.from_structure(singles[0].to_structure()) == singles[0]
    with pytest.raises(dg.UsageError, match="Did you mean graphene"):
        dg.host("graphen")


@pytest.mark.usefixtures("parts")
def test_hosts_are_shown_by_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    from defectgen_cli.app import main

    assert main(["hosts", "Gr"]) == 0
    assert "graphene" in capsys.readouterr().out


@pytest.mark.usefixtures("parts")
def test_a_scorer_is_loaded_by_name() -> None:
    items = list(dg.enumerate("graphene", max_defects=2))
    scored = dg.score(items, "springs")
    assert scored["stiffness_gpa"].to_list() == [stiffness_gpa(item) for item in items]
    assert len(set(scored["stiffness_gpa"])) > 3
    assert set(scored["host"]) == {"graphene"}


@pytest.mark.usefixtures("parts")
def test_a_design_of_fakes_alone(tmp_path: Path) -> None:
    scorer = load_scorer("springs", ScorerOptions(tmp_path))
    run = dg.design("Gr", stiffness=940.0, n=4, max_defects=2, proposer="in-order", scorer=scorer)
    found = [candidate.configuration for candidate in run.candidates]
    assert {item.host for item in found} == {GRAPHENE}
    assert {stiffness_gpa(item) for item in found} == {940.0}  # a vacancy and a substitution
    run.write(tmp_path / "run", formats=["cif", "edit-lists"])
    lists = [line.split() for line in (tmp_path / "run" / "structures.edits").read_text().splitlines()]
    assert [key for _, key in lists] == [item.canonical().key for item in found]
    written = list(csv.DictReader((tmp_path / "run" / "candidates.csv").open()))
    assert [float(row["stiffness_gpa"]) for row in written] == [940.0] * len(found)
    for row, item in zip(written, found, strict=True):
        back = dg.read_structure(tmp_path / "run" / row["cif"])
        assert isinstance(back, dg.Configuration)
        assert back.canonical() == item.canonical()
    assert "in-order" in (tmp_path / "run" / "manifest.json").read_text()
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<h2>stiffness 940.0 GPa</h2>" in page
    assert "stiffness, GPa</td>" in page
    assert "940.0 eV" not in page


@pytest.mark.usefixtures("parts")
def test_targets_and_deviations_are_in_the_unit_of_the_property(tmp_path: Path) -> None:
    scorer = load_scorer("springs", ScorerOptions(tmp_path))
    run = dg.design("Gr", stiffness=1500.0, n=1, max_defects=1, proposer="in-order", scorer=scorer)
    assert run.candidates[0].predicted["stiffness_gpa"] == 990.0
    assert run.candidates[0].distance_ev == pytest.approx(5.1)  # 510 GPa of 0.01 eV
    run.write(tmp_path / "run")
    assert "<td>\u22125100</td>" in (tmp_path / "run" / "report.html").read_text()
    with pytest.raises(dg.UsageError, match="got stiffness='stiff', expected a number in GPa"):
        dg.design("Gr", stiffness="stiff", proposer="in-order")  # type: ignore[arg-type]
    warnings = coverage_warnings("graphene", run.targets, {"stiffness_gpa": [800.0, 1000.0]})
    assert "stiffness 1500.000 GPa is outside what the data of graphene covers (800.000 to 1000.000 GPa)" in warnings[0]


@pytest.mark.usefixtures("parts")
def test_records_from_a_fake_source_in_a_fake_encoding(table: Path, tmp_path: Path) -> None:
    frame = dg.load_2dmd(table)
    assert frame.equals(read_dataset(table))
    assert frame["homo_ev"].null_count() == frame.height
    assert frame.columns[-1] == "stiffness_gpa"
    settings = RecordSettings(encoding="numbers", properties=("stiffness_gpa",), plain_share=0.0)
    manifest = build_data(split_rows(frame), tmp_path / "records", settings)
    assert sum(manifest["structures"].values()) == frame.height
    records = [
        json.loads(line)
        for name in ("train", "validation", "test")
        for line in (tmp_path / "records" / f"{name}.jsonl").read_text().splitlines()
    ]
    assert {record["id"] for record in records} == set(frame["id"])
    for record in records:
        parsed = get_encoding("numbers").parse(GRAPHENE, record["completion"])
        assert parsed.canonical().key == record["configuration"]
        assert record["values"] == {"stiffness_gpa": stiffness_gpa(parsed)}
        assert record["prompt"].startswith(f"graphene 4x4 with stiff {stiffness_gpa(parsed):.1f}")
    with pytest.raises(dg.UsageError, match="the data source 'spring-tables' has no card with its licence"):
        labelled_sets(table, "all")


def test_what_was_taken_out_is_unknown_again(table: Path) -> None:
    with pytest.raises(dg.UsageError, match=r"unknown host 'graphene'.*Known hosts: MoS2"):
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
    with pytest.raises(dg.UsageError, match=r"unknown encoding 'numbers'\. .*edits, symbols, crystal"):
        RecordSettings(encoding="numbers", cartesian=True)
    with pytest.raises(dg.DefectgenError, match=r"known source: 2dmd \(csv_cif/ and processed/\); 2dmd-pilot"):
        read_dataset(table)


def test_random_structures_need_a_largest_number() -> None:
    class Sizes:
        def score(self, configurations: list[dg.Configuration]) -> pl.DataFrame:
            return pl.DataFrame({"homo_ev": [0.1 * item.n_defects for item in configurations]})

    host = dg.host("BN", "4x4")
    run = dg.design(host, homo=0.2, n=3, max_defects=4, kinds="vacancy", proposer="random", scorer=Sizes())
    assert [item.configuration.n_defects for item in run.candidates] == [2, 2, 2]
    assert {new for item in run.candidates for _, new in item.configuration.edits} == {"VAC"}
    for most in (None, 33):
        with pytest.raises(dg.UsageError, match=r"random structures of BN 4x4, expected 1 to 32\. Give --max-defects"):
            dg.design(host, homo=0.2, max_defects=most, proposer="random", scorer=Sizes())


@pytest.mark.usefixtures("parts")
def test_a_taken_name_is_refused() -> None:
    renamed = dataclasses.replace(GRAPHENE, name="mos2")
    again = "is there already"
    for call in (
        lambda: register_host(GRAPHENE),
        lambda: register_host(renamed),
        lambda: register_host(dataclasses.replace(GRAPHENE, name="gr")),
        lambda: register_host(dataclasses.replace(GRAPHENE, name="other"), aliases=("hbn",)),
        lambda: register_potential("surrogate", "", load_springs),
        lambda: register_proposer("random", "", make_in_order),
        lambda: register_encoding("edits", NumbersEncoding()),
        lambda: register_source("2dmd", SpringTables()),
    ):
        with pytest.raises(dg.UsageError, match=again) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert "other" not in host_names()
    with pytest.raises(dg.UsageError, match="the format 'cif' is there already"):
        register_format("cif", EditLists())
    with pytest.raises(dg.UsageError, match="the option 'stiffness' is that of stiffness_gpa already"):
        register_property(STIFFNESS)


class NoWayBack(NumbersEncoding):
    parse = None  # type: ignore[assignment]


class FirstSiteOnly(NumbersEncoding):
    def completion(self, configuration: dg.Configuration, writing: Any = None) -> str:  # noqa: ARG002
        return f"{configuration.edits[0][0]}=VAC;"


class NoClaims:
    layout = "anything"

    def read(self, path: Path, sets: Any = None) -> pl.DataFrame:
        raise NotImplementedError


class IdsOnly(SpringTables):
    def read(self, path: Path, sets: Any = None) -> pl.DataFrame:  # noqa: ARG002
        return pl.DataFrame({"id": ["a"]})


class NoSets(SpringTables):
    def read(self, path: Path) -> pl.DataFrame:  # type: ignore[override]
        raise NotImplementedError


def test_a_part_that_breaks_its_protocol_is_refused() -> None:
    bad: Any = object()
    for call, message in (
        (lambda: register_host(bad), "got a object, expected a Host"),
        (lambda: register_host(GRAPHENE, aliases="Gr"), "got aliases 'Gr', expected several names"),
        (lambda: HOSTS.register("gr", GRAPHENE), "the host 'gr' breaks its protocol: its name is 'graphene'"),
        (lambda: register_property(bad), "got a object, expected a Property"),
        (
            lambda: register_property(dataclasses.replace(STIFFNESS, column="stiffness")),
            "its column must end in its unit, _gpa",
        ),
        (lambda: register_potential("bad", "", bad), "the scorer 'bad' breaks its protocol: its load cannot"),
        (lambda: register_proposer("bad", "", bad), "the proposer 'bad' breaks its protocol: its make cannot"),
        (lambda: register_encoding("bad", NoWayBack()), r"it has no method parse\(host, text, writing\)"),
        (lambda: register_encoding("bad", FirstSiteOnly()), "its grammar admits .* its completion writes otherwise"),
        (lambda: register_source("bad", bad), "the data source 'bad' breaks its protocol: it has no layout"),
        (lambda: register_source("bad", NoClaims()), r"it has no method claims\(path\)"),  # type: ignore[arg-type]
        (lambda: register_format("bad", bad), "the format 'bad' breaks its protocol: it has no suffix"),
        (lambda: register_source("bad", NoSets()), r"read must take \(path, sets\)"),
    ):
        with pytest.raises(dg.UsageError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert not any("bad" in registry for registry, _ in CIRCLE)
    assert not {"bad", "edit-lists"} & set(format_names())


def test_what_a_part_makes_is_held_to_its_protocol(tmp_path: Path) -> None:
    register_potential("bad", "", lambda _: object())  # type: ignore[arg-type,return-value]
    register_proposer("bad", "", lambda _: object())  # type: ignore[arg-type,return-value]
    register_source("bad", IdsOnly())
    (tmp_path / "springs.csv").touch()
    try:
        with pytest.raises(dg.UsageError, match=r"the scorer 'bad' breaks its protocol: it has no "):
            dg.score(dg.enumerate("BN", max_defects=1), "bad")
        with pytest.raises(dg.UsageError, match=r"the proposer 'bad' .* it has no method propose\(host, asks\)"):
            dg.design("BN", homo=0.1, proposer="bad")
        with pytest.raises(dg.UsageError, match=r"the data source 'bad' .* its table has no column host"):
            read_dataset(tmp_path)
    finally:
        for registry in (SCORERS, PROPOSERS, SOURCES):
            registry.unregister("bad")


@pytest.mark.parametrize("name", ["edits", "symbols", "crystal"])
@pytest.mark.parametrize("host", ["MoS2", "P"])
def test_built_in_encodings_keep_their_contract(name: str, host: str) -> None:
    check_encoding(name, get_encoding(name), get_host(host, (2, 3)))


class TestEntryPoints:
    """A registry of its own, as the shared ones have read theirs."""

    def registry(self, monkeypatch: pytest.MonkeyPatch, value: str) -> Registry[Any]:
        points = {"defectgen.proposals": [EntryPoint("mine", value, "defectgen.proposals")]}
        monkeypatch.setattr(registry_module, "entry_points", lambda group: points[group])
        made: Registry[Any] = Registry("proposal", "proposals", self.check)
        made.built_in({"first": InOrder(1)})
        return made

    @staticmethod
    def check(name: str, item: Any) -> None:
        if not hasattr(item, "propose"):
            raise registry_module.breaks("proposal", name, "it has no method propose")

    def test_they_are_found_by_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = self.registry(monkeypatch, "fake_extensions:InOrder")
        assert found["mine"] is InOrder
        assert list(found) == ["first", "mine"]
        with pytest.raises(dg.UsageError, match="the proposal 'mine' is there already"):
            found.register("mine", InOrder(2))

    @pytest.mark.parametrize("value", ["no_such_package:thing", "fake_extensions:NoSuchThing"])
    def test_one_that_cannot_be_loaded_is_named(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        with pytest.raises(dg.DefectgenError, match=rf"'mine' of the plugin {value} cannot be loaded .*Mend or uninst"):
            list(self.registry(monkeypatch, value))

    def test_one_that_breaks_the_protocol_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(dg.UsageError, match="the proposal 'mine' breaks its protocol: it has no method propose"):
            list(self.registry(monkeypatch, "fake_extensions:STIFFNESS"))

    def test_a_host_comes_by_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        point = EntryPoint("graphene", "fake_extensions:GRAPHENE", "defectgen.hosts")
        monkeypatch.setattr(registry_module, "entry_points", lambda group: [point] if group == point.group else [])
        monkeypatch.setattr(HOSTS, "_unread", True)
        try:
            assert dg.host("Graphene") == GRAPHENE
        finally:
            HOSTS.unregister("graphene")
