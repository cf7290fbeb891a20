"""The record of a host: all of it, and back to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from defectgen.core import Host, Rule, get_host, host_names
from defectgen.errors import DefectgenError
from defectgen.io.host_files import host_from_file, parse_rules


@pytest.mark.parametrize("name", host_names())
def test_a_record_gives_the_same_host(name: str) -> None:
    host = get_host(name)
    record = json.loads(json.dumps(host.to_dict()))
    assert Host.from_dict(record) == host
    assert record["sublattices"] == list(host.sublattices)
    assert Host.from_json(host.to_json()) is Host.from_json(host.to_json())


def test_a_host_of_a_file_keeps_its_rules(tmp_path: Path) -> None:
    host = get_host("GaSe", (1, 1))
    from defectgen.core import Configuration

    Configuration.of(host, {}).to_structure().to(filename=str(tmp_path / "GaSe.cif"), fmt="cif")
    found = host_from_file(tmp_path / "GaSe.cif", (4, 3), parse_rules(["Se:Te,VAC", "Ga:Al"]))
    again = Host.from_json(found.to_json())
    assert again == found
    assert again.size == "4x3"
    assert [rule.replacement for rule in again.rules] == ["Te", "VAC", "Al"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"species": ["Mo", "S"]}, "2 species, expected 3"),
        ({"rules": [["Te", "VAC"]]}, "does not fit the elements of MoS2"),
        ({"supercell": [8]}, "not enough values"),
        ({"lattice": [[1, 0, 0], [0, 1, 0]]}, "expected three that span a volume"),
        ({"sublattices": ["A", "B", "X"]}, "sublattices"),
        ({"frac_coords": None}, "TypeError"),
        ({"strain": 1.0}, "'strain' is unknown to this version"),
    ],
)
def test_what_is_no_record_is_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(DefectgenError, match=f"not the record of a host .*{why}.*Expected what Host.to_dict gives"):
        Host.from_dict(get_host("MoS2").to_dict() | change)
    record = get_host("MoS2").to_dict()
    del record["name"]
    with pytest.raises(DefectgenError, match="KeyError: 'name'"):
        Host.from_dict(record)
    with pytest.raises(DefectgenError, match="is no JSON"):
        Host.from_json("MoS2")


def test_like_means_the_same_sites_whatever_the_rules() -> None:
    host = get_host("MoS2")
    record = host.to_dict()
    assert host.is_like(Host.from_dict(record | {"rules": [["S", "Te"]]}))
    assert host.is_like(Host.from_dict(record | {"lattice": [[x * 1.01 for x in row] for row in record["lattice"]]}))
    assert not host.is_like(
        Host.from_dict(record | {"lattice": [[x * 1.05 for x in row] for row in record["lattice"]]})
    )
    assert not host.is_like(Host.from_dict(record | {"frac_coords": record["frac_coords"][::-1]}))
    assert not host.is_like(get_host("MoS2", (4, 4)))


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("phosphorene", "P"),
        ("Black Phosphorus", "P"),
        ("black-P", "P"),
        ("hexagonal boron nitride", "BN"),
        ("MoS\u2082", "MoS2"),
    ],
)
def test_hosts_are_known_by_their_names_in_words(said: str, name: str) -> None:
    assert get_host(said) is get_host(name)


GRAPHENE: dict[str, Any] = {
    "name": "graphene",
    "lattice": ((2.46, 0.0, 0.0), (-1.23, 2.1304, 0.0), (0.0, 0.0, 15.0)),
    "species": ("C", "C"),
    "frac_coords": ((1 / 3, 2 / 3, 0.5), (2 / 3, 1 / 3, 0.5)),
    "supercell": (3, 3),
    "rules": (Rule("C", "B"),),
}


def test_lists_and_arrays_make_the_same_host() -> None:
    lists = {name: value if name == "name" else list(value) for name, value in GRAPHENE.items()}
    arrays = {name: np.array(GRAPHENE[name]) for name in ("lattice", "frac_coords", "supercell")}
    hosts = [Host(**{**GRAPHENE, **parts}) for parts in ({}, lists, arrays, {"rules": Rule("C", "B")})]
    assert len(set(hosts)) == 1
    assert len({json.dumps(host.to_dict()) for host in hosts}) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"supercell": "3x3"}, "got supercell '3x3', expected two whole numbers"),
        ({"supercell": (3,)}, r"got supercell \(3,\), expected two"),
        ({"rules": [("C", "B")]}, r"got rule \('C', 'B'\), expected e\.g\. Rule"),
        ({"lattice": ((1, 0, 0), (2, 0, 0), (0, 0, 15))}, "expected three that span a volume"),
        ({"frac_coords": ((0, 0, float("nan")), (0.3, 0, 0.5))}, "expected finite numbers"),
        ({"frac_coords": (0.1, 0.2)}, "expected rows of three numbers"),
        ({"supercell": (0, 3)}, "expected positive repetitions"),
    ],
)
def test_parts_that_are_none_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        Host(**{**GRAPHENE, **change})
    assert "\n" not in str(caught.value)
