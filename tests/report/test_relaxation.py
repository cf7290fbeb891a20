"""Relaxed candidates in tables, files and the page; a run without them is as before."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pymatgen.core import Structure
from rich.console import Console

from defectgen.core import Configuration
from defectgen.core.matching import configuration_from_structure
from defectgen.design.candidates import DesignRun
from defectgen.io.structures import read_structure
from defectgen.report.design_page import render_report
from defectgen.report.export import write_run
from defectgen.report.rows import RELAXATION_COLUMNS
from defectgen.report.table import render_table
from defectgen.score.potentials.defects import DefectRelaxation
from defectgen.score.potentials.relaxation import CONVERGED, TOO_CLOSE


def relaxed(configuration: Configuration, status: str = CONVERGED) -> DefectRelaxation:
    structure = configuration.canonical().to_structure()
    structure.translate_sites([0], [0.0, 0.0, 0.25], frac_coords=False)
    detail = "" if status == CONVERGED else "Mo and S 0.90 angstrom apart"
    return DefectRelaxation(
        structure, status, detail, 12, -100.0, -100.61, 0.04, 0.25, "M3GNet-X",
        formation_energy_ev=2.5 if status == CONVERGED else None, shaken_energy_change_ev=-0.2,
    )  # fmt: skip


def atoms(structure: Structure) -> list[tuple[object, ...]]:
    return sorted((site.specie.symbol, *np.round(site.frac_coords % 1.0, 6).tolist()) for site in structure)


@pytest.fixture(scope="module")
def relaxed_run(run: DesignRun) -> DesignRun:
    """The first candidate relaxed well, the second badly, the others not at all."""
    first, second, *others = run.candidates
    candidates = (
        dataclasses.replace(first, relaxation=relaxed(first.configuration)),
        dataclasses.replace(second, relaxation=relaxed(second.configuration, TOO_CLOSE)),
        *others,
    )
    return dataclasses.replace(run, candidates=candidates)


def test_table_and_file_of_a_relaxed_candidate(relaxed_run: DesignRun, tmp_path: Path) -> None:
    write_run(relaxed_run, tmp_path / "out")
    table = pl.read_csv(tmp_path / "out" / "candidates.csv")
    assert tuple(table.columns[-7:]) == RELAXATION_COLUMNS
    assert pl.read_parquet(tmp_path / "out" / "candidates.parquet").columns == table.columns
    first = table.row(0, named=True)
    assert first["relaxation"] == "converged in 12 steps"
    assert first["relaxation_energy_change_ev"] == pytest.approx(-0.61)
    assert first["largest_displacement_angstrom"] == 0.25
    assert first["relaxed_formation_energy_ev"] == 2.5
    assert first["shaken_energy_change_ev"] == -0.2
    assert table["geometry"].to_list() == ["reconstructs", "diverged", *[None] * (table.height - 2)]
    assert first["relaxed_cif"] == first["cif"].replace(".cif", "-relaxed.cif")
    assert table["relaxation"].to_list()[1:] == ["atoms too close: Mo and S 0.90 angstrom apart", None, None]
    unrelaxed, found = (read_structure(tmp_path / "out" / first[name]) for name in ("cif", "relaxed_cif"))
    expected = relaxed_run.candidates[0].relaxation
    assert expected is not None
    assert atoms(found) == atoms(expected.structure)
    assert atoms(found) != atoms(unrelaxed)
    assert found.lattice.parameters == pytest.approx(unrelaxed.lattice.parameters)
    again = configuration_from_structure(relaxed_run.host, found)
    assert again.canonical() == relaxed_run.candidates[0].configuration


def test_the_page_shows_relaxations(relaxed_run: DesignRun) -> None:
    page = render_report(relaxed_run)
    assert (
        "relaxed by M3GNet-X: converged in 12 steps; energy \u22120.61 eV, largest displacement 0.25 \u00c5, " in page
    )
    assert "formation energy 2.50 eV by it; geometry: reconstructs</p>" in page
    assert "relaxed by M3GNet-X: atoms too close: Mo and S 0.90 angstrom apart</p>" in page
    assert page.count("relaxed CIF</button>") == 2 * 2 + 1, "in cards, in the table, and in the view"


def test_a_run_without_relaxations_has_no_trace_of_them(run: DesignRun, tmp_path: Path) -> None:
    write_run(run, tmp_path / "out")
    assert not set(RELAXATION_COLUMNS) & set(pl.read_csv(tmp_path / "out" / "candidates.csv").columns)
    assert "relaxed by" not in render_report(run)
    assert not list((tmp_path / "out").rglob("*relaxed*"))


def test_terminal_and_json_have_the_relaxations(relaxed_run: DesignRun, capsys: pytest.CaptureFixture[str]) -> None:
    render_table(relaxed_run, console=Console(width=80, highlight=False))
    out = capsys.readouterr().out
    assert "relaxed by M3GNet-X" in out
    assert re.search(r"2\.50 +-0\.61 +0\.25 +-0\.20 +reconstructs", out)
    assert max(map(len, out.splitlines())) <= 80
    found = relaxed_run.summary()["relaxations"]
    assert isinstance(found, list)
    assert [(row["rank"], row["geometry"]) for row in found] == [(1, "reconstructs"), (2, "diverged")]
