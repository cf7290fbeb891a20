"""What the package never does with what others wrote: run their code, or unpickle their files."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import defectgen
import defectgen_cli

FOLDERS = [Path(defectgen.__file__).parent, Path(defectgen_cli.__file__).parent]
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
FILES = sorted(file for folder in [*FOLDERS, BENCHMARKS] for file in folder.rglob("*.py"))

REMOTE_CODE = {"from_pretrained", "from_config", "LLM", "pipeline"}
"""Calls of transformers and vLLM that would run code of a model's repository if they were told to."""

PICKLES = {"pickle", "dill", "joblib", "cloudpickle", "shelve"}
FROM_ITS_DRIVER = {"interchange.py"}
"""Reads what Parsl's executor, the process that started it, writes into its standard input, and no file."""


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def calls(file: Path) -> list[tuple[str, ast.Call]]:
    """The calls in a file with the last word of what is called."""
    named = []
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            named.append((name, node))
    return named


def keyword(call: ast.Call, name: str) -> object:
    return next(
        (word.value.value for word in call.keywords if word.arg == name and isinstance(word.value, ast.Constant)), ...
    )


def test_every_call_that_could_run_a_models_own_code_forbids_it() -> None:
    found = [(file, call) for file in FILES for name, call in calls(file) if name in REMOTE_CODE]
    assert len(found) >= 8, "the calls are named otherwise now"
    lax = [f"{file.name}:{call.lineno}" for file, call in found if keyword(call, "trust_remote_code") is not False]
    assert not lax


def test_nothing_is_unpickled() -> None:
    for file in FILES:
        for name, call in calls(file):
            where = f"{file}:{call.lineno}"
            if (
                name == "load"
                and isinstance(call.func, ast.Attribute)
                and getattr(call.func.value, "id", "") == "torch"
            ):
                assert keyword(call, "weights_only") is True, where
            assert keyword(call, "allow_pickle") in (False, ...), where
            assert name not in ("read_pickle", "unpickle"), where
        imported = {
            word.partition(".")[0]
            for node in ast.walk(tree_of(file))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for word in (
                [node.module or ""] if isinstance(node, ast.ImportFrom) else [item.name for item in node.names]
            )
        }
        assert not imported & PICKLES or file.name in FROM_ITS_DRIVER, file


def test_json_and_yaml_of_files_go_through_the_one_reader() -> None:
    """Only texts that this process or its child wrote are parsed directly; drivers run without the package."""
    own = {
        "documents.py",
        "yaml_documents.py",
        "host.py",
        "web.py",
        "reference_package.py",
        "guide.py",
        "checkpoints.py",
        "decoration_files.py",
        "trees.py",
    }
    direct = set()
    for folder in FOLDERS:
        for file in folder.rglob("*.py"):
            for name, call in calls(file):
                of = getattr(call.func.value, "id", "") if isinstance(call.func, ast.Attribute) else ""
                if (of, name) in {("json", "loads"), ("json", "load"), ("yaml", "safe_load"), ("yaml", "load")}:
                    direct.add(file.name)
    assert {name for name in direct if not name.endswith("_driver.py")} == own
