"""Frozen classes stay as they were made: no field of one is changed after its `__post_init__`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import defectgen
import defectgen_cli

FILES = sorted(
    file for package in (defectgen, defectgen_cli) for file in Path(str(package.__file__)).parent.rglob("*.py")
)
CHANGES = {
    "add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "setdefault", "sort", "update",
}  # fmt: skip
"""Methods of dicts, lists and sets that change them."""


def is_frozen(node: ast.ClassDef) -> bool:
    return any(
        isinstance(call, ast.Call)
        and any(word.arg == "frozen" and ast.unparse(word.value) == "True" for word in call.keywords)
        for call in node.decorator_list
    )


def changes_of(node: ast.ClassDef) -> Iterator[str]:
    """Statements of the methods that change a field, or a container that a field holds."""
    for method in node.body:
        if not isinstance(method, ast.FunctionDef) or method.name == "__post_init__":
            continue
        for part in ast.walk(method):
            if isinstance(part, ast.Call):
                name = ast.unparse(part.func)
                owner, _, called = name.rpartition(".")
                if name == "object.__setattr__" or (owner.startswith("self.") and called in CHANGES):
                    yield f"{node.name}.{method.name}: {ast.unparse(part)}"
            if isinstance(part, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Delete):
                targets = part.targets if isinstance(part, ast.Assign | ast.Delete) else [part.target]
                if any(ast.unparse(target).startswith("self.") for target in targets):
                    yield f"{node.name}.{method.name}: {ast.unparse(part)}"


def memos_of(node: ast.ClassDef) -> Iterator[str]:
    """Private fields that begin as an empty container: they can only be there to be filled."""
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and ast.unparse(part.target).startswith("_"):
            value = "" if part.value is None else ast.unparse(part.value)
            if any(f"default_factory={kind}" in value for kind in ("dict", "list", "set")):
                yield f"{node.name}: {ast.unparse(part)}"


def frozen_classes(text: str) -> list[ast.ClassDef]:
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef) and is_frozen(node)]


def test_no_frozen_class_changes() -> None:
    classes = [node for file in FILES for node in frozen_classes(file.read_text(encoding="utf-8"))]
    assert len(classes) > 150
    assert [found for node in classes for found in (*changes_of(node), *memos_of(node))] == []


@pytest.mark.parametrize(
    "line",
    [
        "self.memo[1] = 2",
        "self.memo.setdefault(1, 2)",
        "self.number += 1",
        "del self.memo[1]",
        "object.__setattr__(self, 'number', 1)",
    ],
)
def test_a_change_would_be_found(line: str) -> None:
    (node,) = frozen_classes(f"@dataclass(frozen=True)\nclass A:\n    def f(self):\n        {line}\n")
    assert list(changes_of(node)) == [f"A.f: {line}"]


def test_a_memo_would_be_found() -> None:
    text = "@dataclass(frozen=True, repr=False)\nclass A:\n    _memo: dict[int, int] = field(default_factory=dict)\n"
    assert len(list(memos_of(frozen_classes(text)[0]))) == 1
