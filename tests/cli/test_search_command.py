"""`defectgen search`: a tiny model draws salts, a potential without weights relaxes them, the lowest comes first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from fake_crystal_potential import CrystalPotential, bonding_ev, element_cell, rocksalt
from pymatgen.core import Structure
from tiny_model import tiny_model_dir

from defectgen.generate import search_study
from defectgen_cli.app import main

__all__ = ["tiny_model_dir"]  # a fixture


@dataclass(frozen=True)
class Rigid(CrystalPotential):
    """Cells stay as they are: an untrained model writes them of any size. The larger, the higher their energy."""

    def energy_and_stress(self, symbols: Sequence[str], volume: float) -> tuple[float, Any]:
        energy = sum(self.atom_ev[s] for s in symbols) + bonding_ev(symbols) + 1e-4 * volume
        return energy, np.zeros((3, 3))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tiny_model_dir: Path, tmp_path: Path) -> list[str]:
    """A search of NaCl, energies by volume alone, against a hull of NaCl and its elements."""
    monkeypatch.setattr(search_study, "open_potential", lambda *_: Rigid())
    cells = [("NaCl", rocksalt("Na", "Cl"), -2.0), ("Na", element_cell("Na"), 0.0), ("Mg", element_cell("Mg"), 0.0)]
    rows = [
        {"pretty_formula": f, "formation_energy_per_atom": e, "e_above_hull": 0.0, "cif": c.to(fmt="cif")}
        for f, c, e in cells
    ]
    pl.DataFrame(rows).write_csv(tmp_path / "labels.csv")
    words = ["--formula", "NaCl", "--max-atoms", "4", "--radii", "0", "--hull", str(tmp_path / "labels.csv")]
    return ["search", "--model", str(tiny_model_dir), *words]


@pytest.mark.parametrize("method", ["best", "tree"])
def test_the_lowest_comes_first(
    call: list[str], method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    call += ["-n", "8", "--method", method, "-o", str(output), "--json"]
    assert main(call) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["relaxed"], result["method"]) == (8, method)
    assert result["draws"] == 8 + result["refused"] + result["repeated"]
    assert result["partial_hull"] == "only the crystals of the file"
    known = result["judged"] - result["judged_without_competitor"]
    assert result["share_with_competitors_of_judged"] == known / result["judged"] == 1.0
    table = pl.read_csv(output / "stability.csv")
    energies = table["e_above_hull_ev_per_atom"].drop_nulls().to_list()
    assert len(energies) > 3
    assert energies == sorted(energies)
    assert table["e_above_hull_ev_per_atom"].to_list()[: len(energies)] == energies  # those without one are last
    assert set(table["formula"].drop_nulls()) == {"NaCl"}
    first = Structure.from_file(next(output.glob("relaxed/00000-*.cif")))
    assert first.composition.reduced_formula == "NaCl"
    assert len((output / "draws.jsonl").read_text().splitlines()) == result["draws"]
    before = (output / "stability.csv").read_bytes()
    assert main(call) == 0
    captured = capsys.readouterr()
    assert "loading" not in captured.err
    assert json.loads(captured.out)["crystals"] == result["crystals"]
    assert (output / "stability.csv").read_bytes() == before
    assert main(call[:-1]) == 0
    shown = capsys.readouterr().out
    assert "(a partial hull: energies above it are too low)" in shown
    assert f"competitors known: for {known} of {known} judged (100.0 %, 95 % interval " in shown
    assert main([*call[:-1], "--temperature", "0.5"]) == 2
    assert "holds a search with coordinate_temperature 0.7, temperature 1.0" in capsys.readouterr().err


def test_an_interrupted_search_goes_on(
    call: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call += ["-n", "8", "--method", "tree", "--json", "-o"]
    assert main([*call, str(tmp_path / "whole")]) == 0
    whole = json.loads(capsys.readouterr().out)
    real, calls = search_study.relax_all, []

    def stopped(*arguments: object, **words: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **words)  # type: ignore[arg-type]

    monkeypatch.setattr(search_study, "relax_all", stopped)
    assert main([*call, str(tmp_path / "part")]) == 130
    capsys.readouterr()
    assert not (tmp_path / "part" / "stability.csv").exists()
    assert main([*call, str(tmp_path / "part")]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["crystals"] == whole["crystals"]


def replaced(call: list[str], words: list[str]) -> list[str]:
    """A call with other values of options that it may have."""
    given = dict(zip(words[::2], words[1::2], strict=True))
    kept = [word for pair in zip(call[1::2], call[2::2], strict=True) if pair[0] not in given for word in pair]
    return [call[0], *kept, *words]


def test_wrong_calls_are_one_line(call: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    call += ["-o", str(tmp_path / "out")]
    for words, code, message in (
        (["-n", "1"], 2, "got -n 1, expected 2 or more: the best of one crystal is no search."),
        (["--method", "greedy"], 2, "unknown method 'greedy'. Expected one of: best, tree."),
        (["--formula", "MgO"], 1, "hull without an elemental reference: O (in labels.csv"),
        (["--formula", "KCl"], 2, "fake never saw K. Ask for another formula."),
        (["--formula", "Na4Cl4", "--spacegroup", "500"], 2, "500"),
        (["-o", str(tmp_path / "other")], 2, "is not empty and holds no search"),
        (["--hull", str(tmp_path / "none.csv")], 1, "is not a file"),
    ):
        assert main(replaced(call, words)) == code, words
        captured = capsys.readouterr()
        lines = [line for line in captured.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, captured.err
        assert message in lines[0]
        assert captured.out == ""
    assert not (tmp_path / "out" / "draws.jsonl").exists()


def test_a_search_without_weights(
    call: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.delenv("DEFECTGEN_M3GNET", raising=False)
    monkeypatch.setenv("DEFECTGEN_CACHE", str(tmp_path / "cache"))
    assert main([*call, "-o", str(tmp_path / "out"), "--m3gnet", str(tmp_path / "nowhere")]) in (1, 2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert "nowhere" in lines[-1]
    assert not (tmp_path / "out").exists()
