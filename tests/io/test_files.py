"""Files that appear whole or not at all, and what is left of processes that were killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from interrupted_writes import held_elsewhere, run_child, tree

from defectgen.errors import DefectgenError, UsageError
from defectgen.io.files import claimed_files, write_resumed, write_text, write_whole
from defectgen.io.folders import claimed


@pytest.mark.parametrize(
    "error",
    [OSError("No space left on device (os error 28)"), OSError(28, "No space left on device")],  # of polars, of Python
)
def test_a_full_disk_is_told_alike_by_all_libraries(tmp_path: Path, error: OSError) -> None:
    def failing(_: Path) -> None:
        raise error

    with pytest.raises(DefectgenError, match=r"cannot be written: No space left on device\. Free some space"):
        write_whole(tmp_path / "a.csv", failing)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "one\n")

    def failing(part: Path) -> None:
        part.write_text("ha")
        raise OSError(28, "No space left on device")

    with pytest.raises(DefectgenError, match=r"a\.txt cannot be written: No space left.*Free some space"):
        write_whole(path, failing)
    assert tree(tmp_path) == {"deep/a.txt": "one\n"}
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]


def test_parts_of_a_killed_process_go_with_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def work() -> None:
        def half(part: Path) -> None:
            part.write_text("ha")
            os.kill(os.getpid(), signal.SIGKILL)

        write_whole(path, half)

    assert run_child(work) == -signal.SIGKILL
    assert path.read_text() == "old"
    (tmp_path / ".other.part").write_text("mine")
    write_text(path, "new")
    assert tree(tmp_path) == {"a.txt": "new", ".other.part": "mine"}


def test_a_file_in_a_claimed_folder_is_made_in_its_workplace(tmp_path: Path) -> None:
    with claimed(tmp_path / "out") as claim:
        seen = []
        write_whole(tmp_path / "out" / "sub" / "a", lambda part: (seen.append(part), part.write_text("x")))
        assert seen[0].parent == claim.workplace.path
    assert tree(tmp_path) == {"out/sub/a": "x"}


def test_a_file_that_another_run_is_going_to_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.csv"
    with held_elsewhere(lambda: claimed_files(path)):
        with pytest.raises(DefectgenError, match=r"another run is writing .*a\.csv"), claimed_files(path):
            pass
        with claimed_files(tmp_path / "new" / "b.csv", None):
            write_text(tmp_path / "new" / "b.csv", "b")
    with claimed_files(path):
        write_text(path, "a")
        assert path.read_text() == "a"
    assert tree(tmp_path) == {"new/a.csv": "a", "new/b.csv": "b"}
    with pytest.raises(UsageError, match=r"a\.csv exists already"), claimed_files(path):
        pass
    with claimed_files(path, overwrite=True):
        pass


def test_a_file_that_is_written_in_pieces_keeps_them(tmp_path: Path) -> None:
    def add(part: Path) -> None:
        with part.open("a") as file:
            file.write("piece;")
        if part.read_text() == "piece;":
            raise OSError("the connection broke")

    path = tmp_path / "sub" / "file"
    with pytest.raises(OSError, match="broke"):
        write_resumed(path, add)
    assert tree(tmp_path) == {"sub/file.part": "piece;"}
    write_resumed(path, add)
    assert tree(tmp_path) == {"sub/file": "piece;piece;"}


def test_a_new_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def make(part: Path, fails: bool) -> None:
        part.mkdir()
        (part / "a").write_text("1")
        if fails:
            raise OSError(28, "No space left on device")

    with pytest.raises(DefectgenError, match="No space left"):
        write_whole(tmp_path / "new", lambda part: make(part, True))
    assert list(tmp_path.iterdir()) == []
    write_whole(tmp_path / "new", lambda part: make(part, False))
    assert tree(tmp_path) == {"new/a": "1"}
