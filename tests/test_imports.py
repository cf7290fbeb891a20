"""What an import brings in, and how quickly the help answers."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import defectgen

HEAVY = ["torch", "transformers", "vllm", "tensorflow", "catboost", "polars", "pymatgen"]


def modules_after(code: str) -> set[str]:
    check = f"{code}\nimport sys, json; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import defectgen",
        "import defectgen.core",
        "import defectgen.tasks.defect.encodings, defectgen.tasks.defect.defect_task",
        "import contextlib, io, defectgen_cli.app\n"
        "with contextlib.redirect_stdout(io.StringIO()): defectgen_cli.app.main(['--help'])",
    ],
)
def test_light_parts_import_nothing_heavy(code: str) -> None:
    assert modules_after(code) == set()


def test_the_training_side_needs_no_polars_pymatgen_or_catboost() -> None:
    assert modules_after("import defectgen.llm.train.finetune, defectgen.llm.decode.transformers_engine") == {
        "torch",
        "transformers",
    }


def test_help_takes_less_than_half_a_second_of_cpu() -> None:
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'defectgen_cli.app', '--help'], check=True, capture_output=True)\n"
        "usage = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(usage.ru_utime + usage.ru_stime)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.5


FILES = sorted(Path(defectgen.__file__).parent.rglob("*.py"))


def test_no_two_files_have_one_name() -> None:
    names = [file.name for file in FILES if file.name != "__init__.py"]
    assert len(names) > 200
    assert [name for name, number in Counter(names).items() if number > 1] == []


def test_no_two_public_classes_have_one_name() -> None:
    names = [
        node.name
        for file in FILES
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert len(names) > 200
    assert [name for name, number in Counter(names).items() if number > 1] == []


def moves_of(text: str) -> list[str]:
    """Calls that give a file or folder its final name: ``shutil.move``, `Path.rename`, ..."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner, name = ast.unparse(node.func.value), node.func.attr
        of_a_path = (
            owner != "os"
            and len(node.args) == 1
            and not node.keywords
            and not isinstance(node.args[0], ast.Dict | ast.DictComp)
        )
        if (owner, name) in MOVES or (of_a_path and name in ("rename", "replace")):
            found.append(ast.unparse(node))
    return found


MOVES = {("os", "rename"), ("os", "renames"), ("os", "replace"), ("os", "link"), ("shutil", "move")}
ALONE = "gpaw_driver.py"
"""Runs in a Python that need not have defectgen."""


def test_files_get_their_names_in_io_alone() -> None:
    files = [file for file in FILES if file.name != ALONE and file.parent.name != "io"]
    assert len(files) > 200
    assert {file.name: moves for file in files if (moves := moves_of(file.read_text(encoding="utf-8")))} == {}


def test_a_move_would_be_found() -> None:
    text = "part.replace(target)\nos.replace(a, b)\nname.replace('a', 'b')\nold.rename(new)\nframe.rename({'a': 'b'})"
    assert moves_of(text) == ["part.replace(target)", "os.replace(a, b)", "old.rename(new)"]
