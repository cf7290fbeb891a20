"""What the tests of the language model share: a tiny untrained one and records for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_model import tiny_generator, tiny_model_dir

__all__ = ["records", "tiny_generator", "tiny_model_dir"]


@pytest.fixture(scope="session")
def records(tiny_2dmd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Instruction records of the small data set: 112 for training, 14 for validation."""
    from defectgen.data.records import RecordSettings, build_data
    from defectgen.data.sources import read_dataset
    from defectgen.data.splits import split_by_class

    folder = tmp_path_factory.mktemp("records")
    build_data(split_by_class(read_dataset(tiny_2dmd), seed=1), folder, RecordSettings(seed=3))
    return folder
