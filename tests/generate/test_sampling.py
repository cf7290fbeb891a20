"""Sampling crystals from an untrained model: everything parses, refusals are counted, folders are whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pymatgen.core import Structure
from tiny_model import tiny_generator, tiny_model_dir

from defectgen.core.charge import balanced
from defectgen.core.crystal import Crystal
from defectgen.core.elements import swap_candidates
from defectgen.errors import UsageError
from defectgen.generate.sample_folder import claimed_samples
from defectgen.generate.sampling import (
    CrystalJob,
    charge_check,
    constrained,
    distance_check,
    free,
    generation_job,
    infill_job,
    radii_check,
    sample_crystals,
    write_samples,
)
from defectgen.llm.decode.generator import Sampling
from defectgen.llm.decode.transformers_engine import TransformersGenerator
from defectgen.tasks.bulk.crystal_text import parse_crystal, parse_formula, write_crystal

__all__ = ["tiny_generator", "tiny_model_dir"]  # fixtures

PEROVSKITE = Crystal(
    (3.9, 3.9, 3.9),
    (90.0, 90.0, 90.0),
    ("Sr", "Ti", "O", "O", "O"),
    ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, 0.5, 0.0), (0.5, 0.0, 0.5), (0.0, 0.5, 0.5)),
)
CLOSE = "4.0 4.0 4.0\n90 90 90\nNa\n0.00 0.00 0.00\nCl\n0.05 0.00 0.00"


def scripted(*texts: str) -> Any:
    """A source that writes these texts, over and over."""
    written = iter(texts * 50)

    def draw(n: int, seed: int) -> Iterator[tuple[str, str]]:  # noqa: ARG001 - the script is fixed
        for _ in range(n):
            yield next(written), ""

    return draw


def test_completions_of_an_untrained_model_parse(tiny_generator: TransformersGenerator) -> None:
    job = generation_job({}, max_atoms=4)
    run = sample_crystals(job, constrained(tiny_generator, job, Sampling(1.5, batch_size=150)), 300)
    assert run.counts() | {"formulas": 0} == {
        "asked": 300,
        "draws": 300,
        "parsed": 300,
        "valid": 300,
        "rejected": {},
        "redraws": 0,
        "formulas": 0,
    }
    crystals = [sample.crystal for sample in run.samples if sample.crystal is not None]
    assert {len(crystal.species) for crystal in crystals} == {1, 2, 3, 4}
    assert all(write_crystal(crystal) == sample.text for crystal, sample in zip(crystals, run.samples, strict=True))
    assert len({sample.text for sample in run.samples}) > 270


def test_a_wanted_formula_is_kept(tiny_generator: TransformersGenerator) -> None:
    job = generation_job({"formula": "Fe2O3", "spacegroup": 167, "e_above_hull": 0.0}, max_atoms=10)
    run = sample_crystals(job, constrained(tiny_generator, job, Sampling(1.0)), 20)
    assert run.counts()["valid"] == 20
    for sample in run.samples:
        assert sample.crystal is not None
        assert parse_formula(sample.crystal.formula) == {"Fe": 2, "O": 3}
        assert len(sample.crystal.species) in (5, 10)


def test_a_leaning_towards_balanced_charges_refuses_nothing(tiny_generator: TransformersGenerator) -> None:
    """With a large weight a crystal ends where charges balance, and elsewhere where it is full or must."""

    def ends(weight: float) -> list[tuple[bool | None, int]]:
        job = generation_job({}, max_atoms=5, elements=("Na", "Cl"), balance=weight)
        source = constrained(tiny_generator, job, Sampling(1.0, batch_size=100))
        run = sample_crystals(job, source, 100)
        assert run.counts()["valid"] == 100
        found = []
        for sample in run.samples:
            assert sample.crystal is not None
            symbols = sample.crystal.species
            found.append((balanced(tuple((e, symbols.count(e)) for e in sample.crystal.elements)), len(symbols)))
        return found

    leaning, plain = ends(60.0), ends(0.0)
    assert all(verdict is not False or n == 5 for verdict, n in leaning)
    assert any(verdict is False and n < 5 for verdict, n in plain)
    assert sum(verdict is True for verdict, _ in leaning) > sum(verdict is True for verdict, _ in plain)


def test_the_same_seed_gives_the_same_crystals_and_redraws_differ(tiny_generator: TransformersGenerator) -> None:
    job = generation_job({}, max_atoms=3)

    def texts(seed: int, refused: int) -> list[str]:
        left = [refused]

        def check(crystal: Crystal) -> str:  # noqa: ARG001 - refuses the first ones, whatever they are
            left[0] -= 1
            return "test: refused" if left[0] >= 0 else ""

        source = constrained(tiny_generator, job, Sampling(1.0, batch_size=8))
        return [sample.text for sample in sample_crystals(job, source, 6, seed=seed, checks=[check]).samples]

    assert texts(3, 0) == texts(3, 0) == texts(3, 4)[:6]
    assert texts(4, 0) != texts(3, 0)
    assert len(texts(3, 4)) == 10
    assert len(set(texts(3, 4))) == 10


def test_refused_draws_are_counted_by_reason_and_drawn_again() -> None:
    good = "4.0 4.0 4.0\n90 90 90\nNa\n0.00 0.00 0.00\nCl\n0.50 0.50 0.50"
    job = generation_job({}, max_atoms=2, elements=("Na", "Cl"))
    texts = (good, "nonsense", CLOSE, good.replace("Cl", "K"), good + "\nCl\n0.25 0.25 0.25", good.replace("Na", "Ln"))
    told: list[int] = []
    run = sample_crystals(job, scripted(*texts), 3, checks=[distance_check()], progress=told.append)
    assert (sum(told), len(told)) == (3, 13)
    assert run.counts() == {
        "asked": 3,
        "draws": 13,
        "parsed": 9,
        "valid": 3,
        "rejected": {"atoms": 2, "distance": 2, "elements": 2, "text": 4},
        "redraws": 10,
        "formulas": 1,
    }
    assert next(s.reason for s in run.samples if s.reason.startswith("text: 'Ln'")) == "text: 'Ln' is no element."
    given_up = sample_crystals(job, scripted("nonsense"), 3, max_draws=7)
    assert (len(given_up.samples), given_up.n_valid) == (7, 0)
    asked = generation_job({"formula": "NaCl"}, elements=("Na", "Cl", "K"))
    wrong = sample_crystals(asked, scripted(good.replace("Na", "K")), 1, max_draws=1)
    assert wrong.counts()["rejected"] == {"formula": 1}


def test_distances_count_images_too() -> None:
    check = distance_check(0.5)
    assert check(parse_crystal(CLOSE)) == "distance: 0.20 angstrom"
    assert check(PEROVSKITE) == ""
    across = CLOSE.replace("0.05 0.00 0.00", "0.95 0.00 0.00")
    assert check(parse_crystal(across)) == "distance: 0.20 angstrom"
    lonely = parse_crystal("9.0 9.0 9.0\n90 90 5\nNa\n0.00 0.00 0.00")
    assert check(lonely) == ""
    assert distance_check(0.8)(lonely).startswith("distance: 0.79")


def test_radii_count_images_too() -> None:
    assert radii_check()(PEROVSKITE) == ""
    assert radii_check()(parse_crystal(CLOSE)).startswith("radii: two atoms nearer than 0.75 ")
    lonely = "2.5 9.0 9.0\n90 90 90\n{}\n0.00 0.00 0.00"
    assert radii_check(0.5)(parse_crystal(lonely.format("Na"))) == ""
    assert radii_check(0.75)(parse_crystal(lonely.format("Na"))).startswith("radii: ")
    assert radii_check(0.5)(parse_crystal(lonely.format("Cs"))).startswith("radii: ")


def test_charges() -> None:
    assert charge_check(PEROVSKITE) == ""
    assert charge_check(PEROVSKITE.substituted("Ti", "Na")).startswith("charge: no neutral oxidation states")
    metals = PEROVSKITE.substituted("O", "Al")
    assert charge_check(metals) == ""


def test_infill_keeps_the_crystal_and_takes_similar_ions_only(tiny_generator: TransformersGenerator) -> None:
    job = infill_job(PEROVSKITE, "Ti")
    similar = set(swap_candidates("Ti"))
    run = sample_crystals(job, constrained(tiny_generator, job, Sampling(2.0)), 80, seed=1)
    assert run.n_valid == 80
    found = set()
    for sample in run.samples:
        crystal = sample.crystal
        assert crystal is not None
        assert crystal.fractional == PEROVSKITE.fractional
        assert (crystal.species[0], crystal.species[2:]) == ("Sr", ("O", "O", "O"))
        found.add(crystal.species[1])
    assert found <= similar
    assert len(found) > 5
    assert "Ti" not in found
    everything = infill_job(PEROVSKITE, "Ti", any_element=True)
    assert len(everything.elements) == 88
    assert infill_job(PEROVSKITE, "Ti", elements=("V", "Cs")).elements == ("V",)


def test_infill_of_what_cannot_be_replaced() -> None:
    with pytest.raises(UsageError, match="got element 'Fe' to mask, expected one of the crystal: O, Ti, Sr"):
        infill_job(PEROVSKITE, "Fe")
    with pytest.raises(UsageError, match="similar radius and equal charge as O has"):
        infill_job(PEROVSKITE, "O")
    assert "O" not in infill_job(PEROVSKITE, "O", any_element=True).elements


@pytest.mark.parametrize("job", [generation_job({}, max_atoms=2), infill_job(PEROVSKITE, "Ti")])
def test_free_decoding_of_an_untrained_model_is_refused_with_reasons(
    tiny_generator: TransformersGenerator, job: CrystalJob
) -> None:
    source = free(tiny_generator.model, tiny_generator.tokenizer, job, Sampling(1.0, batch_size=4))
    run = sample_crystals(job, source, 6, max_draws=6, seed=2)
    counts = run.counts()
    assert (counts["draws"], counts["valid"]) == (6, 0)
    assert sum(counts["rejected"].values()) == 6
    assert set(counts["rejected"]) <= {"length", "text", "elements"}
    again = free(tiny_generator.model, tiny_generator.tokenizer, job, Sampling(1.0, batch_size=4))
    assert [s.text for s in sample_crystals(job, again, 6, max_draws=6, seed=2).samples] == [
        s.text for s in run.samples
    ]


def test_guidance_compares_with_the_prompt_without_conditions(tiny_generator: TransformersGenerator) -> None:
    """Guidance of 0 forgets the conditions, much of it draws something else."""
    asked, open_job = generation_job({"spacegroup": 225, "band_gap": 4.0}, max_atoms=2), generation_job({}, max_atoms=2)

    def drawn(job: CrystalJob, guidance: float) -> list[str]:
        return [text for text, _ in constrained(tiny_generator, job, Sampling(1.0, guidance=guidance))(2, 3)]

    assert drawn(asked, 0.0) == drawn(open_job, 1.0)
    assert drawn(asked, 30.0) != drawn(open_job, 1.0)


def test_the_folder_holds_every_draw_and_the_valid_crystals(tmp_path: Path) -> None:
    text = write_crystal(PEROVSKITE)
    job = generation_job({"formula": "SrTiO3", "band_gap": 1.5})
    run = sample_crystals(
        job, scripted("nonsense", text, CLOSE.replace("Na", "Sr")), 2, seed=9, facts={"model": "tiny"}
    )
    folder = tmp_path / "deep" / "samples"
    manifest = write_samples(run, folder)
    assert manifest == json.loads((folder / "manifest.json").read_text())
    assert manifest["counts"]["rejected"] == {"formula": 1, "text": 2}
    assert manifest["settings"]["model"] == "tiny"
    assert sorted(path.name for path in (folder / "structures").iterdir()) == ["00001.cif", "00004.cif"]
    table = pl.read_parquet(folder / "samples.parquet")
    expected = ["index", "raw_text", "valid", "reason", "formula", "cif", "task", "conditions", "seed"]
    assert table.columns == expected
    assert table["valid"].to_list() == [False, True, False, False, True]
    assert table["formula"].to_list() == [None, "SrTiO3", "SrCl", None, "SrTiO3"]
    assert json.loads(table["conditions"][0]) == {"formula": "SrTiO3", "band_gap": 1.5}
    assert set(table["seed"]) == {9}
    for structure in (
        Structure.from_file(folder / "structures" / "00001.cif"),
        Structure.from_str(table["cif"][1], fmt="cif"),
    ):
        assert structure.composition.reduced_formula == "SrTiO3"
        assert np.sort(structure.distance_matrix.ravel()) == pytest.approx(
            np.sort(PEROVSKITE.to_structure().distance_matrix.ravel()), abs=1e-3
        )
    with pytest.raises(UsageError, match="is not empty"):
        write_samples(run, folder)
    assert [path.name for path in folder.parent.iterdir()] == ["samples"]


def test_the_extended_xyz_file_is_one_for_ase(tmp_path: Path) -> None:
    from ase import io

    text = write_crystal(PEROVSKITE)
    write_samples(sample_crystals(generation_job({}), scripted(text, text), 2), tmp_path / "samples")
    frames = io.read(tmp_path / "samples" / "samples.extxyz", index=":")
    assert [frame.get_chemical_formula() for frame in frames] == ["O3SrTi", "O3SrTi"]
    assert frames[0].get_volume() == pytest.approx(3.9**3)


def test_an_error_late_in_a_run_keeps_what_was_drawn_before_it(tmp_path: Path) -> None:
    text = write_crystal(PEROVSKITE)

    def draw(n: int, seed: int) -> Iterator[tuple[str, str]]:  # noqa: ARG001 - fails after two
        yield text, ""
        yield text, ""
        raise RuntimeError("out of memory")

    run = sample_crystals(generation_job({}), draw, 10)
    assert str(run.error) == "out of memory"
    manifest = write_samples(run, tmp_path / "samples")
    assert (manifest["complete"], manifest["counts"]["valid"]) == (False, 2)

    def nothing(n: int, seed: int) -> Iterator[tuple[str, str]]:  # noqa: ARG001 - fails at once
        raise RuntimeError("no model")
        yield "", ""

    with pytest.raises(RuntimeError, match="no model"):
        sample_crystals(generation_job({}), nothing, 10)


def test_the_empty_current_folder_is_filled_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = write_crystal(PEROVSKITE)
    monkeypatch.chdir(tmp_path)
    before = tmp_path.stat().st_ino
    write_samples(sample_crystals(generation_job({}), scripted(text), 1), Path())
    assert tmp_path.stat().st_ino == before
    assert {path.name for path in Path().iterdir()} == {
        "structures",
        "samples.parquet",
        "samples.extxyz",
        "manifest.json",
    }
    assert [path.name for path in Path("structures").iterdir()] == ["00000.cif"]


def test_a_folder_that_cannot_be_written_is_found_before_the_work(tmp_path: Path) -> None:
    with claimed_samples(tmp_path / "new" / "deep"):
        pass
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"), claimed_samples(tmp_path / "file" / "out"):
        pass
    if Path("/proc/self").is_dir():
        with pytest.raises(UsageError, match="cannot be written"), claimed_samples(Path("/proc/self/out")):
            pass


def test_an_interrupted_run_keeps_what_it_has(tmp_path: Path) -> None:
    text = write_crystal(PEROVSKITE)

    def draw(n: int, seed: int) -> Iterator[tuple[str, str]]:  # noqa: ARG001 - stops after two
        yield text, ""
        yield text, ""
        raise KeyboardInterrupt

    run = sample_crystals(generation_job({}), draw, 10)
    assert not run.complete
    manifest = write_samples(run, tmp_path / "samples")
    assert manifest["complete"] is False
    assert manifest["counts"]["valid"] == 2
