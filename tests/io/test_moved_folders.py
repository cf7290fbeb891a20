"""Folders that are put together elsewhere and moved in place of another one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from interrupted_writes import filler, killed, tree

from defectgen.errors import DefectgenError
from defectgen.io.folders import claimed, contents, is_changing, move_folder, write_folder


@pytest.mark.parametrize("calls", range(1, 10))
def test_a_killed_move_of_a_folder_loses_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """The folder is whole in its old place or, once claimed again, whole in the new one, and nothing else is there."""
    folder, content = tmp_path / "out", tmp_path / "downloads" / "content"
    write_folder(folder, filler({"same": "s", "damaged": "x", "old/goes": "x"}))
    (folder / "damaged").write_text("half")
    (folder / "unknown").write_text("y")
    before = tree(folder)
    content.mkdir(parents=True)
    filler({"same": "s", "damaged": "whole", "sub/new": "n"})(content)
    wanted = tree(content)
    came_so_far = killed(lambda: move_folder(content.parent, content.name, folder), calls, monkeypatch)
    moving = is_changing(folder)
    with claimed(folder, content.parent) as claim:
        assert claim.continued == moving
    if came_so_far and not moving:
        assert (tree(folder), tree(content)) == (before, wanted)
        move_folder(content.parent, content.name, folder)
    assert tree(folder) == wanted
    assert tree(content) == {}
    assert [path.name for path in contents(folder)] == ["damaged", "manifest.json", "same", "sub"]
    assert not is_changing(folder)


def test_kills_come_before_and_between_the_moves_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of `test_a_killed_move_of_a_folder_loses_no_file` reach from the first rename to the last but one."""
    found = []
    for calls in (1, 2, 9, 30):
        folder, content = tmp_path / f"{calls}", tmp_path / f"content-{calls}"
        write_folder(folder, filler({"same": "s", "damaged": "x", "old/goes": "x", "unknown": "y"}))
        content.mkdir()
        filler({"same": "s", "damaged": "whole", "sub/new": "n"})(content)
        came = killed(lambda a=content, b=folder: move_folder(a.parent, a.name, b), calls, monkeypatch)
        found.append((came, is_changing(folder)))
    assert found == [(True, False), (True, True), (True, True), (False, False)]


def test_a_move_of_a_folder_that_fails_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, content = tmp_path / "out", tmp_path / "content"
    write_folder(folder, filler({"a": "1", "b": "2"}))
    content.mkdir()
    filler({"a": "3", "c": "4"})(content)
    before, wanted = tree(folder), tree(content)
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name == "c":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(DefectgenError, match=r"out cannot be written: No space left on device\. Nothing was changed"):
        move_folder(content.parent, content.name, folder)
    assert (tree(folder), tree(content)) == (before, wanted)


@pytest.mark.parametrize("plan", [{"part": "../../secret"}, {"new": ["../secret"]}, {"old": {"/etc/hosts": None}}])
def test_a_plan_cannot_name_files_elsewhere(tmp_path: Path, plan: dict[str, object]) -> None:
    """A folder that comes from somebody else may hold one."""
    secret, folder = tmp_path / "secret", tmp_path / "out"
    secret.mkdir()
    (secret / "key").write_text("mine")
    (folder / ".defectgen").mkdir(parents=True)
    values = {"manifest": "manifest.json", "new": [], "old": {}, "part": ""} | plan
    (folder / ".defectgen" / "plan.json").write_text(json.dumps(values))
    with pytest.raises(DefectgenError, match="expected files of its folder"), claimed(folder, tmp_path / "parts"):
        pass
    values = {"manifest": "manifest.json", "new": ["key"], "old": {}, "part": "secret"}
    (folder / ".defectgen" / "plan.json").write_text(json.dumps(values))
    with pytest.raises(DefectgenError, match="waits for files from elsewhere"), claimed(folder):
        pass
    assert tree(secret) == {"key": "mine"}
