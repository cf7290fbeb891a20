"""The Materials Project's interface, answered by a server here in the form of recorded documents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from crystal_files import made_up_crystals
from local_server import served

from defectgen import web
from defectgen.core.crystal import Crystal
from defectgen.data import materials_project
from defectgen.data.assets import asset_dir, asset_state, read_manifest
from defectgen.data.mp20 import crystal_of, read_crystals
from defectgen_cli.app import main

KEY = "abcdef0123456789abcdef0123456789"
CRYSTALS = made_up_crystals(12, seed=6)


def document(number: int, crystal: Crystal) -> dict[str, Any]:
    """A document of the route with the fields asked for."""
    return {
        "material_id": f"mp-{number}",
        "formula_pretty": crystal.formula,
        "formation_energy_per_atom": -1.5,
        "band_gap": 0.25 * number,
        "energy_above_hull": 0.0,
        "symmetry": {
            "crystal_system": "Triclinic", "symbol": "P1", "number": 1, "point_group": "1", "symprec": 0.1,
            "version": "1.16.2",
        },
        "structure": crystal.to_structure().as_dict(),
    }  # fmt: skip


class Interface:
    """The interface on this machine, which can misbehave."""

    def __init__(self) -> None:
        self.documents = [document(number, crystal) for number, crystal in enumerate(CRYSTALS, 1)]
        self.status: list[int] = []
        self.queries: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.version = "2025.11.1"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        url = urlsplit(handler.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.queries.append(query)
        status = self.status.pop(0) if self.status else 200
        if url.path != "/materials/summary/":
            status = 404
        elif handler.headers.get("X-API-KEY") != KEY:
            status = 403
        start = int(query.get("_skip", 0))
        data = self.documents[start : start + int(query["_limit"])]
        meta = {"api_version": "0.84", "db_version": self.version, "total_doc": len(self.documents)}
        body = json.dumps({"data": data, "meta": meta} if status == 200 else {"detail": "no"}).encode()
        body = self.bodies.pop(0) if self.bodies else body
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def interface(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> Iterator[Interface]:  # noqa: ARG001
    answering = Interface()
    with served(answering.answer) as url:
        monkeypatch.setenv("MP_API_ENDPOINT", url + "/")
        monkeypatch.setenv("MP_API_KEY", KEY)
        monkeypatch.setattr(materials_project, "PAGE", 5)
        monkeypatch.setattr(web, "BACKOFF_S", 0.0)
        yield answering


def refused(capsys: pytest.CaptureFixture[str], code: int) -> str:
    assert main(["fetch", "materials-project"]) == code
    [*_, line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert KEY not in line
    return line


def test_all_pages_become_one_table_of_the_reader(interface: Interface, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "materials-project", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["origin"].endswith(", database 2025.11.1")
    assert [query["_skip"] for query in interface.queries] == ["0", "5", "10"]
    assert interface.queries[0]["nsites_max"] == "30"
    assert interface.queries[0]["deprecated"] == "false"
    data = read_crystals(asset_dir("materials-project"))
    assert data.skipped == ()
    assert data.frame["id"].to_list() == [f"mp-{k}" for k in range(1, 13)]
    assert data.frame["band_gap_ev"].to_list() == [0.25 * k for k in range(1, 13)]
    assert data.frame["spacegroup"].to_list() == [1] * 12
    for row, crystal in zip(data.frame.iter_rows(named=True), CRYSTALS, strict=True):
        read = crystal_of(row)
        assert read.species == crystal.species
        np.testing.assert_allclose(read.fractional, crystal.fractional, atol=1e-6)
    kept = b"".join(path.read_bytes() for path in asset_dir("materials-project").rglob("*") if path.is_file())
    assert KEY.encode() not in kept


def test_a_document_without_structure_is_a_row_that_the_reader_names(interface: Interface) -> None:
    interface.documents[3]["structure"] = None
    interface.documents[4]["symmetry"] = interface.documents[4]["energy_above_hull"] = None
    assert main(["fetch", "materials-project"]) == 0
    data = read_crystals(asset_dir("materials-project"))
    assert [item.id for item in data.skipped] == ["mp-4"]
    assert data.frame.filter(id="mp-5").select("spacegroup", "e_above_hull_ev").row(0) == (None, None)


def test_no_key_is_one_line_with_where_to_get_one(
    interface: Interface, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MP_API_KEY")
    line = refused(capsys, 2)
    assert "the Materials Project needs your key, and MP_API_KEY is not set. Get one at https://" in line
    assert interface.queries == []
    monkeypatch.setenv("MP_API_KEY", "wrong")
    assert "does not accept the key in MP_API_KEY" in refused(capsys, 1)
    assert len(interface.queries) == 1


def test_a_busy_interface_gets_another_attempt(interface: Interface) -> None:
    interface.status = [429, 200, 503, 502]
    assert main(["fetch", "materials-project"]) == 0
    assert len(read_crystals(asset_dir("materials-project")).frame) == 12


def test_an_interrupted_download_goes_on_where_it_stopped(
    interface: Interface, capsys: pytest.CaptureFixture[str]
) -> None:
    interface.status = [200, 200, 500, 500, 500, 500]
    assert "gave nothing at http://127.0.0.1" in refused(capsys, 1)
    assert asset_state("materials-project") == "incomplete"
    interface.queries.clear()
    assert main(["fetch", "materials-project"]) == 0
    assert [query["_skip"] for query in interface.queries] == ["0", "10"]
    manifest = read_manifest("materials-project")
    assert manifest is not None
    assert [file.path for file in manifest.files] == ["materials_project.csv"]


def test_pages_of_another_version_are_not_mixed(interface: Interface, capsys: pytest.CaptureFixture[str]) -> None:
    interface.status = [200, 200, 500, 500, 500, 500]
    refused(capsys, 1)
    interface.version = "2026.1.1"
    interface.queries.clear()
    assert main(["fetch", "materials-project"]) == 0
    assert [query["_skip"] for query in interface.queries] == ["0", "5", "10"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>", "is not the Materials Project's. Check MP_API_ENDPOINT"),
        (b'{"data": [1], "meta": {"total_doc": 1}}', "is not the Materials Project's"),
        (b'{"data": []}', "is not the Materials Project's"),
        (b'{"data": [], "meta": {"total_doc": 7}}', "has 0 documents, expected 5"),
        (b'{"data": [], "meta": {"total_doc": 0}}', "has no document for"),
    ],
)
def test_an_answer_of_another_form_is_one_line(
    interface: Interface, capsys: pytest.CaptureFixture[str], body: bytes, said: str
) -> None:
    interface.bodies = [body]
    assert said in refused(capsys, 1)
    assert not asset_dir("materials-project").exists()


def test_no_interface_and_no_address_are_one_line(
    interface: Interface, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert interface.queries == []
    monkeypatch.setenv("MP_API_ENDPOINT", "http://127.0.0.1:9")
    assert "gave nothing at http://127.0.0.1:9 in 4 attempts" in refused(capsys, 1)
    monkeypatch.setenv("MP_API_ENDPOINT", "example")
    assert "got MP_API_ENDPOINT='example', expected an address" in refused(capsys, 2)
