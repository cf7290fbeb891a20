"""A disk that is full, a real small file system: one line, no success, nothing half-written, and the rerun does it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_model import save_tiny_llama, tiny_tokenizer

from defectgen_cli.app import main

MIB = 1 << 20
DESIGN = ["--host", "MoS2", "--homo", "0.1", "--lumo", "1.1", "-n", "2", "--max-defects", "2"]
DRAWN = ["--proposer", "random", "--samples", "16"]
CALLS: dict[str, tuple[list[str], str, int]] = {
    "design": (["design", *DESIGN, *DRAWN], "run", 64 << 10),
    "score": (["score", "files"], "scores.csv", 0),
    "enumerate": (["enumerate", "2v_S"], "table.csv", 0),
    "enumerate --cif-dir": (["enumerate", "2v_S", "--cif-dir"], "cells", 64 << 10),
    "build-data": (["build-data", "--data", "2dmd", "--sets", "MoS2"], "records", 32 << 10),
    "generate": (["generate", "--model", "model", "-n", "2", "--formula", "NaCl", "--max-atoms", "2"], "crystals", 0),
}
"""The words, what is written, and the bytes that are free."""


QUICK = ("score", "enumerate")
GO_ON = ("enumerate --cif-dir",)
"""What goes on from the files that are there."""


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place = tmp_path_factory.mktemp("disk")
    call = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    try:
        done = subprocess.run(call, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"a file system cannot be mounted ({error.strerror}): tests on a full disk left out")
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted ({done.stderr.strip()}): tests on a full disk left out")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, tiny_2dmd: Path) -> dict[str, str]:
    """What the calls read, by the word that stands for it."""
    from defectgen.core import Configuration, get_host
    from defectgen.io.writers import cif_text

    folder = tmp_path_factory.mktemp("given")
    (folder / "files").mkdir()
    for site in (64, 70):
        text = cif_text(Configuration.of(get_host("MoS2"), {site: "VAC"}))
        (folder / "files" / f"s{site}.cif").write_text(text)
    model = save_tiny_llama(tiny_tokenizer(), folder / "model")
    return {"2dmd": str(tiny_2dmd), "files": str(folder / "files"), "model": str(model)}


def fill(disk: Path, left: int) -> Path:
    """Fill a file system but for so many bytes; gives the file that does."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    room = os.statvfs(disk)
    ballast.write_bytes(b"x" * (room.f_bavail * room.f_frsize - left))
    return ballast


@pytest.mark.usefixtures("own_cache")  # on another disk
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CALLS]
)
def test_a_full_disk(
    name: str, small_disk: Path, given: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, target, left = CALLS[name]
    output = small_disk / target
    call = [given.get(word, word) for word in words]
    call += [str(output)] if words[-1] == "--cif-dir" else ["-o", str(output)]
    ballast = fill(small_disk, left)
    try:
        code = main(call)
        said = capsys.readouterr()
        errors = [line for line in said.err.splitlines() if "error" in line.lower()]
        assert (code, len(errors)) == (1, 1), said.err
        assert "No space left" in errors[0]
        assert "Traceback" not in said.err
        if name not in GO_ON:
            assert sorted(small_disk.rglob("*")) == [ballast], "nothing half-written"
        ballast.unlink()
        subprocess.run(["mount", "-o", f"remount,size={16 * MIB}", str(small_disk)], check=True)
        assert main(call) == 0, capsys.readouterr().err
        if name in GO_ON:
            assert main([*call[:-1], str(tmp_path / target)]) == 0
            assert contents(output) == contents(tmp_path / target)
        assert output.exists()
    finally:
        remove(small_disk)
        subprocess.run(["mount", "-o", "remount,size=256k", str(small_disk)], check=True)


def contents(folder: Path) -> dict[str, bytes]:
    """The structures in a folder."""
    return {path.name: path.read_bytes() for path in folder.glob("*.cif")}


def remove(disk: Path) -> None:
    """Empty a file system."""
    for path in sorted(disk.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
