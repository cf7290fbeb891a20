"""Searches for the crystal of lowest energy, with a writer of crystals whose energies are known."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from tiny_model import tiny_generator, tiny_model_dir

from defectgen.core.crystal import Crystal
from defectgen.errors import DefectgenError, UsageError
from defectgen.generate.crystal_search import DRAWS, Begun, CrystalSearch, completing, search_crystals
from defectgen.generate.crystal_tree import CrystalTree, beginnings
from defectgen.generate.sampling import generation_job, infill_job
from defectgen.io.crystal_files import NamedCrystal
from defectgen.llm.decode.generator import Sampling
from defectgen.llm.decode.transformers_engine import TransformersGenerator

__all__ = ["tiny_generator", "tiny_model_dir"]  # fixtures

JOB = generation_job({"formula": "NaCl"}, max_atoms=4)


class Writer:
    """Cells of NaCl with lengths, and places of the anion, at random; notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Begun] = []

    def __call__(self, begun: Sequence[Begun]) -> Iterator[str]:
        for begin, seed in begun:
            self.asked.append((begin, seed))
            rng = np.random.default_rng(seed)
            a = rng.integers(40, 80) / 10
            full = [f"{a} {a} {a}\n90 90 90\n", "Na\n0.00 0.00 0.00"]
            full.append(f"\nCl\n0.{rng.integers(10, 90)} 0.50 0.50")
            yield begin + "".join(full[len(beginnings(begin)) if begin else 0 :])


def energies(crystals: Sequence[NamedCrystal]) -> list[float | None]:
    """Lowest at 5.6 angstrom with the anion at 0.5: the two decisions count alike."""
    found: list[float | None] = []
    for crystal in crystals:
        assert crystal.structure is not None
        cell = crystal.structure
        found.append(0.3 * abs(cell.lattice.a - 5.6) + abs(float(cell[1].frac_coords[0]) - 0.5))
    return found


def search(folder: Path, n: int = 32, **words: object) -> CrystalSearch:
    folder.mkdir(exist_ok=True)
    return search_crystals(JOB, Writer(), energies, n, folder, **words)  # type: ignore[arg-type]


def test_a_tree_finds_lower_energies_than_as_many_plain_draws(tmp_path: Path) -> None:
    """In the mean over 24 seeds: lattice and place count alike, and each can be kept while the other is drawn anew."""
    lowest: dict[str, list[float]] = {"best": [], "tree": []}
    for seed in range(24):
        for method, found in lowest.items():
            result = search(tmp_path / f"{method}-{seed}", method=method, seed=seed)
            assert len({item.crystal.digest for item in result.found}) == 32
            energy = result.ranked[0].energy_ev
            assert energy is not None
            assert energy == min(item.energy_ev for item in result.found if item.energy_ev is not None)
            found.append(energy)
    assert np.mean(lowest["tree"]) < 0.9 * np.mean(lowest["best"])


def test_the_first_draws_of_a_tree_are_plain(tmp_path: Path) -> None:
    plain, tree = search(tmp_path / "best", n=8), search(tmp_path / "tree", n=16, method="tree")
    assert [f.energy_ev for f in plain.found] == [f.energy_ev for f in tree.found[:8]]


@pytest.mark.parametrize("method", ["best", "tree"])
def test_a_search_that_was_stopped_goes_on(tmp_path: Path, method: str) -> None:
    whole = search(tmp_path / "whole", method=method)
    writer, folder = Writer(), tmp_path / "stopped"
    folder.mkdir()

    def broken(crystals: Sequence[NamedCrystal]) -> list[float | None]:
        if len(writer.asked) > 20:
            raise KeyboardInterrupt
        return energies(crystals)

    with pytest.raises(KeyboardInterrupt):
        search_crystals(JOB, writer, broken, 32, folder, method=method)
    before = len(writer.asked)
    with (folder / DRAWS).open("a") as file:
        file.write('{"number": ')  # killed while it wrote
    again = search_crystals(JOB, writer, energies, 32, folder, method=method)
    assert [(f.number, f.energy_ev) for f in again.found] == [(f.number, f.energy_ev) for f in whole.found]
    assert (folder / DRAWS).read_text() == (tmp_path / "whole" / DRAWS).read_text()
    assert len(writer.asked) == len(set(writer.asked)) == again.draws > before or method == "best"
    assert search_crystals(JOB, writer, energies, 32, folder, method=method).draws == again.draws
    assert len(writer.asked) == again.draws


def test_repeated_and_refused_draws_cost_no_relaxation(tmp_path: Path) -> None:
    texts = [f"4.0 4.0 4.0\n90 90 90\nNa\n0.00 0.00 0.00\nCl\n0.{x} 0.50 0.50" for x in (50, 50, 45, 55, 45, 40)]
    relaxed: list[str] = []

    def refuse(crystal: Crystal) -> str:
        return "made up: no" if crystal.fractional[1][0] == 0.45 else ""

    def note(crystals: Sequence[NamedCrystal]) -> list[float | None]:
        relaxed.extend(crystal.name for crystal in crystals)
        return [None for _ in crystals]

    def script(begun: Sequence[Begun]) -> Iterator[str]:
        start = len((tmp_path / DRAWS).read_text().splitlines()) if (tmp_path / DRAWS).is_file() else 0
        yield from texts[start : start + len(begun)]

    result = search_crystals(JOB, script, note, 3, tmp_path, checks=[refuse])
    assert relaxed == ["draw-0", "draw-3", "draw-5"]
    assert (result.draws, result.refused, result.repeated) == (6, 1, 2)
    assert [item.number for item in result.ranked] == [0, 3, 5]


def test_a_beginning_that_gives_nothing_new_is_left_alone() -> None:
    tree = CrystalTree()
    good, other = (f"{a} 5.0 5.0\n90 90 90\nNa\n0.00 0.00 0.00\nCl\n0.50 0.50 0.50" for a in (5.0, 6.0))
    tree.add(tree.choose(), good, 0.0, new=True)
    tree.add("", other, 0.4, new=True)
    chosen = [tree.choose() for _ in range(12)]
    assert good not in chosen  # nothing is left to decide there
    assert set(chosen) & set(beginnings(good))
    for _ in range(2):
        for begin in beginnings(good)[:-1]:
            tree.add(begin, good, 0.0, new=False)
    assert not {tree.choose() for _ in range(12)} & set(beginnings(good))


def test_a_model_keeps_the_beginning(tiny_generator: TransformersGenerator) -> None:
    begins = beginnings("5.0 5.0 5.0\n90 90 90\nNa\n0.00 0.00 0.00\nCl\n0.50 0.50 0.50")
    complete = completing(lambda: tiny_generator, JOB, Sampling(1.0))
    texts = list(complete([("", 1), *((begin, 1) for begin in begins)]))
    for begin, text in zip(["", *begins], texts, strict=True):
        assert text.startswith(begin)
        crystal, reason = JOB.read(text)
        assert crystal is not None
        assert not reason
    assert list(complete([(begins[0], 1)])) == [texts[1]]


def test_wrong_searches(tmp_path: Path) -> None:
    for n, words, message in ((1, {}, "expected 2 or more"), (4, {"method": "greedy"}, "unknown method 'greedy'")):
        with pytest.raises(UsageError, match=message):
            search(tmp_path, n=n, **words)
    crystal, _ = JOB.read("4.0 4.0 4.0\n90 90 90\nNa\n0.00 0.00 0.00\nCl\n0.50 0.50 0.50")
    assert crystal is not None
    with pytest.raises(UsageError, match="an infill is a single decision"):
        search_crystals(infill_job(crystal, "Na", any_element=True), Writer(), energies, 4, tmp_path)
    (tmp_path / DRAWS).write_text(json.dumps({"number": 3, "text": ""}) + "\n")
    with pytest.raises(DefectgenError, match=r"draws.jsonl is damaged \(line 1 is of draw 3\)"):
        search(tmp_path)
