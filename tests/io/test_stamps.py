"""Sizes and checksums beside files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from defectgen.errors import DefectgenError
from defectgen.io.stamps import check_stamps, stamps


def test_a_file_is_the_one_that_was_written_or_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "b").write_bytes(b"")
    found = stamps(tmp_path, ["b", "a", "none"])
    assert list(found) == ["a", "b"]
    check_stamps(tmp_path, found, ["a", "b"], "card.json", "")
    (tmp_path / "a").write_bytes(b"124")
    with pytest.raises(DefectgenError, match=r"a is not the file that was written \(card\.json has another sha256\)"):
        check_stamps(tmp_path, found, ["a", "b"], "card.json", "")
    (tmp_path / "a").write_bytes(b"1234")
    with pytest.raises(DefectgenError, match=r"a has 4 bytes, card\.json says 3"):
        check_stamps(tmp_path, found, ["a", "b"], "card.json", "")
    (tmp_path / "a").unlink()
    with pytest.raises(DefectgenError, match="a is missing"):
        check_stamps(tmp_path, found, ["a"], "card.json", "")


@pytest.mark.parametrize("wrong", [None, [], "a", {}, {"b": {}}, {"a": None}, {"a": {"size_bytes": "3", "sha256": ""}}])
def test_stamps_of_another_form_are_refused(wrong: Any, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    with pytest.raises(DefectgenError, match=r"card\.json (has no checksum of a|is damaged)"):
        check_stamps(tmp_path, wrong, ["a"], "card.json", "")
