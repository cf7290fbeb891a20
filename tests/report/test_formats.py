"""More files of a run's structures than CIF and POSCAR."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sample_runs import make_run

from defectgen.errors import UsageError
from defectgen.io.structures import read_structure, read_structures


def test_a_run_is_written_in_more_formats(tmp_path: Path) -> None:
    run = make_run()
    run.write(tmp_path / "run", ["extxyz", "zip"])
    for name in ("structures.extxyz", "structures.zip"):
        assert len(list(read_structures(tmp_path / "run" / name))) == len(run.candidates)
    files = json.loads((tmp_path / "run" / "manifest.json").read_text())["files"]
    assert "structures.extxyz" in json.dumps(files)
    assert not (tmp_path / "run" / "structures").exists()
    run.write(tmp_path / "run", ["vasp"], vacuum_angstrom=18.0, overwrite=True)
    written = list((tmp_path / "run" / "structures").iterdir())
    assert {path.suffix for path in written} == {".vasp"}
    assert len(written) == len(run.candidates)
    z = read_structure(written[0]).cart_coords[:, 2]
    assert read_structure(written[0]).lattice.c - (z.max() - z.min()) == pytest.approx(18.0)
    assert z.max() + z.min() == pytest.approx(read_structure(written[0]).lattice.c)
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["vacuum_angstrom"] == 18.0
    run.write(tmp_path / "run", overwrite=True)
    assert not (tmp_path / "run" / "structures.extxyz").exists()


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown format pdf"):
        make_run().write(tmp_path / "run", ["pdf"])
    assert not (tmp_path / "run").exists()
