"""Where data is taken from."""

from __future__ import annotations

from pathlib import Path

import pytest

from defectgen.data.locations import chosen_sets, crystals_path, dataset_path
from defectgen.data.twodmd import SET_NAMES
from defectgen.errors import DefectgenError, UsageError


@pytest.mark.usefixtures("own_cache")
def test_a_folder_of_the_user_goes_before_what_was_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dataset_path(tmp_path) == tmp_path
    with pytest.raises(UsageError, match="is not a folder"):
        dataset_path(tmp_path / "none")
    for pilot, name in ((False, "2dmd"), (True, "2dmd-pilot")):
        with pytest.raises(DefectgenError, match=f"defectgen fetch {name}"):
            dataset_path(None, pilot=pilot)
    monkeypatch.delenv("DEFECTGEN_MP20", raising=False)
    with pytest.raises(DefectgenError, match="mp20"):
        crystals_path(None)
    monkeypatch.setenv("DEFECTGEN_MP20", str(tmp_path / "mp20"))
    assert crystals_path(None) == tmp_path / "mp20"
    assert crystals_path(tmp_path / "mine.csv") == tmp_path / "mine.csv"


def test_sets_are_named_as_the_data_names_them() -> None:
    assert chosen_sets(" all ") is None
    assert chosen_sets(f"{SET_NAMES[1]}, {SET_NAMES[0]},") == [SET_NAMES[1], SET_NAMES[0]]
    with pytest.raises(UsageError, match=r"unknown set 'MoS3'\. Did you mean MoS2"):
        chosen_sets("MoS3")
    with pytest.raises(UsageError, match="got --sets ',', expected all or some of"):
        chosen_sets(",")
