"""Which sets an evaluation compares, and rows of earlier ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from defectgen.errors import UsageError
from defectgen.metrics.crystal_evaluation import CrystalSets, earlier_rows, evaluate_crystals, row_name


def salt(cation: str) -> Structure:
    return Structure(Lattice.cubic(4.0), [cation, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    made.mkdir()
    for cation in ("Cs", "Rb", "Tl"):
        salt(cation).to(made / f"{cation}.cif")
    return made


def test_one_set_serves_as_reference_and_training(folder: Path) -> None:
    reference, training = CrystalSets((folder,), reference=folder, training=folder, reference_limit=2).compared()
    assert reference is training
    assert reference is not None
    assert len(reference.entries) == 2
    assert CrystalSets((folder,)).compared() == (None, None)
    assert CrystalSets((folder,), training=folder).compared()[0] is None
    assert len(CrystalSets((folder,), limit=1).judged().entries) == 1


def test_an_evaluation_is_read_back_as_a_row(folder: Path, tmp_path: Path) -> None:
    found = evaluate_crystals(CrystalSets((folder,), seed=3), "mine")
    assert found["counts"]["crystals"] == 3
    assert found["settings"]["files"] == [str(folder)]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(found))
    rows = earlier_rows([path], "new")
    assert rows == {"mine": {key: item["value"] for key, item in found["metrics"].items()}}
    with pytest.raises(UsageError, match="two rows are named 'mine'"):
        earlier_rows([path], "mine")
    with pytest.raises(UsageError, match="two rows are named 'mine'"):
        earlier_rows([path, path], "new")
    path.write_text("{}")
    with pytest.raises(UsageError, match="holds no metrics"):
        earlier_rows([path], "new")


def test_rows_are_named_after_their_files(folder: Path) -> None:
    assert row_name(folder) == "made"
    assert row_name(folder / "samples.parquet") == "made"
    assert row_name(folder / "Cs.cif") == "Cs"
