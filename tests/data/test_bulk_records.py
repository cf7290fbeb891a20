"""Records of bulk crystals: shares, draws from the seed, translations, masks by species, and folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crystal_files import made_up_crystals, published_rows, write_csv

from defectgen.core.crystal import Crystal
from defectgen.data.bulk_records import CONDITIONS, BulkRecordSettings, build_bulk_data, make_bulk_records
from defectgen.data.mp20 import CrystalData, crystal_of, read_crystals, split_by_formula
from defectgen.errors import DefectgenError, UsageError
from defectgen.tasks.bulk.crystal_text import BULK_PROMPT_VERSION, parse_crystal, parse_element
from defectgen.tasks.parsing import MASK

S_AND_SI = Crystal(
    (5.0, 5.0, 5.0),
    (90.0, 90.0, 90.0),
    ("Si", "S", "Se", "S"),
    ((0.1, 0.1, 0.1), (0.4, 0.4, 0.4), (0.6, 0.6, 0.6), (0.8, 0.8, 0.8)),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CrystalData:
    file = tmp_path_factory.mktemp("mp") / "some.csv"
    return read_crystals(write_csv(file, published_rows(made_up_crystals(60, seed=8))), cache=False)


def records(data: CrystalData, split: str = "train", **settings: Any) -> list[dict[str, Any]]:
    chosen = BulkRecordSettings(**settings)
    return list(make_bulk_records(split_by_formula(data.frame, seed=42), split, chosen))


def test_two_thirds_generate_and_every_subset_of_conditions_occurs(data: CrystalData) -> None:
    made = records(data, copies=40)
    assert len(made) == 40 * 48
    share = sum(record["task"] == "generation" for record in made) / len(made)
    assert abs(share - 2 / 3) < 4 * np.sqrt(2 / 9 / len(made))
    generated = [frozenset(record["conditions"]) for record in made if record["task"] == "generation"]
    assert len(set(generated)) == 2 ** len(CONDITIONS)
    sizes = np.bincount([len(subset) for subset in generated], minlength=6) / len(generated)
    np.testing.assert_allclose(sizes, 1 / 6, atol=0.04)
    assert all(not record["conditions"] for record in made if record["task"] == "infill")


def test_a_generation_is_its_crystal_shifted_as_a_whole(data: CrystalData) -> None:
    rows = {row["id"]: row for row in data.frame.iter_rows(named=True)}
    shifts = []
    for record in records(data, copies=3):
        if record["task"] == "infill":
            continue
        true, shown = crystal_of(rows[record["id"]]), parse_crystal(record["completion"])
        assert shown.species == true.species, "the order of the atoms stays"
        assert record["formula"] == true.formula
        np.testing.assert_allclose(shown.lengths, true.lengths, atol=0.0501)
        np.testing.assert_allclose(shown.angles, true.angles, atol=0.501)
        apart = np.array(shown.fractional) - np.array(true.fractional)
        around = apart - apart[0]
        assert np.abs(around - np.round(around)).max() < 0.0101
        shifts.append(apart[0] % 1)
        for name, value in record["conditions"].items():
            assert value == rows[record["id"]][CONDITIONS[name]]
            stated = f"{value:.3f}" if isinstance(value, float) else str(value)
            assert f" is {stated.replace('-0.000', '0.000')}" in record["prompt"]
    np.testing.assert_allclose(np.mean(shifts, axis=0), 0.5, atol=0.12)


def test_an_infill_masks_every_atom_of_one_species_and_no_other(data: CrystalData) -> None:
    rows = {row["id"]: row for row in data.frame.iter_rows(named=True)}
    masked = set()
    for record in records(data, copies=3):
        if record["task"] == "generation":
            continue
        species = rows[record["id"]]["species"]
        element = parse_element(record["completion"])
        lines = record["prompt"].splitlines()
        shown = lines[3 : 3 + 2 * len(species) : 2]
        assert shown == [MASK if symbol == element else symbol for symbol in species]
        masked.add(element)
    assert len(masked) > 10


def test_s_is_neither_si_nor_se(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "s.csv", published_rows([S_AND_SI]))
    frame = split_by_formula(read_crystals(file, cache=False).frame)
    made = [r for r in make_bulk_records(frame, "train", BulkRecordSettings(copies=60)) if r["task"] == "infill"]
    sulfur = [record for record in made if record["completion"].strip() == "S"]
    assert sulfur
    assert all(record["prompt"].splitlines()[3:11:2] == ["Si", MASK, "Se", MASK] for record in sulfur)
    counts = {element: sum(r["completion"].strip() == element for r in made) for element in ("Si", "S", "Se")}
    assert sum(counts.values()) == len(made)
    assert min(counts.values()) > 0, "elements are drawn, not atoms"


def test_records_come_from_the_seed(data: CrystalData) -> None:
    assert records(data, copies=2) == records(data, copies=2)
    assert records(data, copies=2)[:48] == records(data)
    other = records(data, seed=43)
    assert (
        sum(
            a["prompt"] != b["prompt"] or a["completion"] != b["completion"]
            for a, b in zip(
                sorted(other, key=lambda r: r["id"]), sorted(records(data), key=lambda r: r["id"]), strict=True
            )
        )
        > 40
    )
    assert len(records(data, "test", copies=5)) == len(records(data, "test"))


def test_a_crystal_without_labels_is_asked_for_by_its_formula_at_most(tmp_path: Path) -> None:
    rows = [{"cif": row["cif"]} for row in published_rows(made_up_crystals(20, seed=9))]
    frame = split_by_formula(read_crystals(write_csv(tmp_path / "a.csv", rows), cache=False).frame)
    made = list(make_bulk_records(frame, "train", BulkRecordSettings(copies=5)))
    assert {tuple(record["conditions"]) for record in made} == {(), ("formula",)}


def test_a_folder_keeps_what_it_was_made_for(tmp_path: Path, data: CrystalData) -> None:
    folder = tmp_path / "records"
    made = build_bulk_data(data, folder, BulkRecordSettings())
    assert json.loads((folder / "manifest.json").read_text()) == made
    assert (made["stage"], made["prompt_version"], made["settings"]["encoding"]) == (
        "build-data",
        BULK_PROMPT_VERSION,
        "bulk",
    )
    assert made["structures"] == {"train": 48, "validation": 6, "test": 6}
    assert made["formulas_of_train"] == {"validation": 0, "test": 0}
    assert sum(made["records"].values()) == 60
    assert made["max_atoms"] == max(record["n_atoms"] for record in records(data))
    assert made["covered"]["band_gap_ev"] == [0.0, 1.0]
    assert build_bulk_data(data, folder, BulkRecordSettings())["skipped"]
    with pytest.raises(UsageError, match="other settings or data"):
        build_bulk_data(data, folder, BulkRecordSettings(copies=2))
    (folder / "train.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match=r"holds train\.jsonl, changed since"):
        build_bulk_data(data, folder, BulkRecordSettings())
    assert build_bulk_data(data, folder, BulkRecordSettings(), overwrite=True) == made
    (folder / "manifest.json").unlink()
    with pytest.raises(UsageError, match="holds other files"):
        build_bulk_data(data, folder, BulkRecordSettings())
    assert build_bulk_data(data, tmp_path / "s", BulkRecordSettings()) == made


def test_large_crystals_are_left_out_and_counted(tmp_path: Path, data: CrystalData) -> None:
    made = build_bulk_data(data, tmp_path / "r", BulkRecordSettings(max_atoms=3))
    assert made["max_atoms"] <= 3
    assert made["too_large"] == data.frame.filter(data.frame["n_atoms"] > 3).height > 0
    assert sum(made["structures"].values()) + made["too_large"] == 60
    large = CrystalData(data.frame.filter(data.frame["n_atoms"] > 1), (), False)
    with pytest.raises(DefectgenError, match="all crystals have more than 1 atoms, the smallest has 2"):
        build_bulk_data(large, tmp_path / "s", BulkRecordSettings(max_atoms=1))


def test_settings_that_fit_no_record_are_refused(tmp_path: Path, data: CrystalData) -> None:
    with pytest.raises(UsageError, match="expected at least 1"):
        BulkRecordSettings(copies=0)
    with pytest.raises(UsageError, match="expected at least 1"):
        BulkRecordSettings(max_atoms=0)
    with pytest.raises(UsageError, match=r"states no parts. Expected train\.csv, val\.csv and test\.csv"):
        build_bulk_data(data, tmp_path / "r", BulkRecordSettings(split="published"))
