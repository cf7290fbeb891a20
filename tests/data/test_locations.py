"""Where data is taken from."""

from __future__ import annotations

from pathlib import Path

import pytest

from defectgen.data.checks import all_checks
from defectgen.data.locations import chosen_sets, crystals_path, dataset_path, labelled_sets
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


@pytest.mark.usefixtures("own_cache")
def test_labelled_sets_bring_their_card(tiny_2dmd: Path, pilot_dir: Path) -> None:
    some = labelled_sets(tiny_2dmd, "WSe2")
    assert (some.card.name, some.names, some.path) == ("2dmd", ["WSe2"], tiny_2dmd)
    assert labelled_sets(tiny_2dmd, "all").names == ["MoS2", "WSe2"]
    assert set(all_checks(tiny_2dmd, some.names)[0]) <= {"WSe2"}
    sample = labelled_sets(pilot_dir, "MoS2")
    assert (sample.card.name, len(sample.frame)) == ("2dmd-pilot", 200)
    assert all_checks(pilot_dir, sample.names) == ({}, {})
    with pytest.raises(UsageError, match=r"holds no set WSe2\. The pilot sample holds MoS2 only"):
        labelled_sets(pilot_dir, "WSe2")
