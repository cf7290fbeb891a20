"""Folders and files that one run at a time writes to, and what is left of runs that were killed."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from interrupted_writes import filler, held_elsewhere, killed, run_child, tree

from defectgen.errors import DefectgenError, UsageError
from defectgen.io import folders
from defectgen.io.files import claimed_files
from defectgen.io.folders import claimed, contents, own_files, write_folder
from defectgen.io.locks import WORKPLACE


def test_a_folder_is_written_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_folder(tmp_path / "deep" / "out", filler({"a.txt": "1", "sub/b.txt": "2"}))
    assert set(tree(tmp_path)) == {"deep/out/a.txt", "deep/out/sub/b.txt", "deep/out/manifest.json"}


def test_the_manifest_is_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []
    for name in ("rename", "replace"):
        before = getattr(Path, name)
        monkeypatch.setattr(
            Path, name, lambda self, to, before=before: (moved.append(Path(to).name), before(self, to))[1]
        )
    write_folder(tmp_path / "out", filler({"z.txt": "1", "a/b.txt": "2"}))
    assert moved[-3:] == ["b.txt", "z.txt", "manifest.json"]


@pytest.mark.parametrize("calls", range(1, 20))
def test_a_killed_replacement_is_finished_or_never_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """Files that are the same, that change, that go, that are new, and two of the user's."""
    folder = tmp_path / "out"
    write_folder(folder, filler({"same": "s", "sub/changes": "old", "goes/away": "x", "edited": "e"}))
    (folder / "edited").write_text("mine")
    (folder / "goes" / "notes").write_text("mine")
    (folder / "new").write_text("mine too")
    before = tree(folder)
    fresh = filler({"same": "s", "sub/changes": "fresh", "new": "n", "edited": "again"})
    came_so_far = killed(lambda: write_folder(folder, fresh), calls, monkeypatch)
    moving = (folder / WORKPLACE / "plan.json").is_file()
    with claimed(folder) as claim:
        assert claim.continued == moving
    after = tree(folder)
    if came_so_far and not moving:
        assert after == before
        return
    assert json.loads(after.pop("manifest.json"))["files"].keys() == {"same", "sub/changes", "new", "edited"}
    assert after == {
        "same": "s", "sub/changes": "fresh", "new": "n", "edited": "again",
        "edited.kept-1": "mine", "new.kept-1": "mine too", "goes/notes": "mine",
    }  # fmt: skip
    assert not (folder / WORKPLACE).exists()


def test_kills_come_before_and_between_the_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of `test_a_killed_replacement_is_finished_or_never_was` reach from the first rename to none."""
    found = []
    for calls in (1, 2, 30):
        folder = tmp_path / str(calls)
        write_folder(folder, filler({"a": "1"}))
        came = killed(lambda folder=folder: write_folder(folder, filler({"a": "2", "b": "3"})), calls, monkeypatch)
        found.append((came, (folder / WORKPLACE / "plan.json").is_file()))
    assert found == [(True, False), (True, True), (False, False)]


def test_what_fails_while_files_are_moved_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    write_folder(folder, filler({"a": "1", "sub/b": "2"}))
    before = tree(folder)
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target == folder / "sub" / "c":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(DefectgenError, match=r"No space left on device\. Nothing was changed there"):
        write_folder(folder, filler({"a": "3", "sub/c": "4"}))
    assert tree(folder) == before
    monkeypatch.undo()
    with pytest.raises(ZeroDivisionError):
        write_folder(folder, lambda _: 1 / 0)
    assert tree(folder) == before


def test_files_that_can_be_moved_neither_in_nor_back_stay_for_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    write_folder(folder, filler({"a": "1", "b": "2"}))
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if "b" in (self.name, Path(target).name) or (Path(target) == folder / "a" and self.parent.name == "old"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(DefectgenError, match="Input/output error"):
        write_folder(folder, filler({"a": "3", "b": "4"}))
    with pytest.raises(DefectgenError, match="Input/output error"), claimed(folder):
        pass
    monkeypatch.undo()
    with claimed(folder) as claim:
        assert claim.continued
    files = tree(folder)
    assert (files["a"], files["b"]) == ("3", "4")


def test_what_a_manifest_does_not_list_belongs_to_the_run_where_it_says_so(tmp_path: Path) -> None:
    def fill(text: str) -> Callable[[Path], None]:
        def write(new: Path) -> None:
            (new / "README.md").write_text(text)
            (new / "card.json").write_text("{}")

        return write

    write_folder(tmp_path / "out", fill("1"), "card.json", unlisted=["README.md"])
    write_folder(tmp_path / "out", fill("2"), "card.json", unlisted=["README.md"])
    assert tree(tmp_path / "out") == {"README.md": "2", "card.json": "{}"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "README.md").write_text("mine")
    write_folder(tmp_path / "other", fill("3"), "card.json", unlisted=["README.md"])
    assert tree(tmp_path / "other") == {"README.md": "3", "README.md.kept-1": "mine", "card.json": "{}"}


def test_files_that_stay(tmp_path: Path) -> None:
    write_folder(tmp_path, filler({"a": "1", "b": "2"}))
    write_folder(tmp_path, filler({"c": "3"}), keep=["a"])
    assert set(tree(tmp_path)) == {"a", "c", "manifest.json"}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"files": 3}', '{"files": {"a": {}}}', '{"files": ["a"]}', "[" * 100_000]
)
def test_a_manifest_of_another_form_lists_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    assert own_files(tmp_path) == {}


def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    names = ["../x", "/etc/passwd", f"{WORKPLACE}/lock", "", "good/one"]
    (tmp_path / "manifest.json").write_text(json.dumps({"files": dict.fromkeys(names, "0" * 64)}))
    assert own_files(tmp_path) == {"good/one": "0" * 64}


def test_the_second_run_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with held_elsewhere(lambda: claimed(folder)):
        for name in (folder, folder / ".." / "out"):
            with pytest.raises(DefectgenError, match=r"another run is writing to .*out") as caught, claimed(name):
                pass
            assert "\n" not in str(caught.value)
    with claimed(folder):
        pass
    assert list(tmp_path.iterdir()) == []


def test_another_thread_is_refused_and_the_same_is_not(tmp_path: Path) -> None:
    said: list[str] = []

    def other() -> None:
        try:
            with claimed(tmp_path):
                said.append("let in")
        except DefectgenError as error:
            said.append(str(error))

    with claimed(tmp_path) as outer:
        with claimed(tmp_path) as inner:
            assert inner is outer
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(said) == 1
    assert said[0].startswith("another run is writing")


def test_a_lock_of_a_killed_process_is_no_lock(tmp_path: Path) -> None:
    folder = tmp_path / "out"

    def work() -> None:
        with claimed(folder) as claim:
            (claim.workplace.path / "new").mkdir()
            (claim.workplace.path / "new" / "half").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

    assert run_child(work) == -signal.SIGKILL
    assert (folder / WORKPLACE / "lock").exists()
    assert contents(folder) == []
    with claimed(folder) as claim:
        assert not claim.continued
        assert [path.name for path in claim.workplace.path.iterdir()] == ["lock"]
    assert contents(folder) == []
    assert not (folder / WORKPLACE).exists()


def test_places_that_cannot_be_written_are_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file, expected a folder"), claimed(tmp_path / "file"):
        pass
    with pytest.raises(UsageError, match="cannot be written"), claimed(tmp_path / "file" / "out"):
        pass
    long = tmp_path / "new" / ("x" * 300)
    with pytest.raises(UsageError, match="File name too long"), claimed(long):
        pass
    for path in (long, tmp_path / "file" / "a.csv"):
        with pytest.raises(UsageError, match=r"File name too long|File exists"), claimed_files(path):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_without_room_for_the_paths_of_its_files_is_refused(tmp_path: Path) -> None:
    most = os.pathconf(tmp_path, "PC_PATH_MAX")
    folder = tmp_path
    while len(os.fsencode(folder)) < most - 50:
        folder /= "x" * min(200, most - 37 - len(os.fsencode(folder)))
    with pytest.raises(UsageError, match="cannot be written: File name too long"), claimed(folder):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(UsageError, match="Permission denied"), claimed(tmp_path / "out"):
        pass


def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lockless(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", lockless)
    with pytest.raises(DefectgenError, match=r"cannot lock .*Operation not supported.*local disk"), claimed(tmp_path):
        pass


def test_every_own_name_is_left_out_of_the_contents(tmp_path: Path) -> None:
    with claimed(tmp_path):
        assert contents(tmp_path) == []
        (tmp_path / ".hidden").touch()
        assert [path.name for path in contents(tmp_path)] == [".hidden"]
    assert contents(tmp_path / "none") == []
    assert folders.MANIFEST == "manifest.json"
