"""Every Python example of README and docs runs as it stands."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from defectgen.data.assets import asset_path
from defectgen.errors import DefectgenError

ROOT = Path(__file__).parent.parent
EXAMPLE = re.compile(r"(?:<!-- needs: (?P<needs>.*?) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [
    pytest.param(found["code"], (found["needs"] or "").split(), id=f"{page.stem}-{number}")
    for page in PAGES
    for number, found in enumerate(EXAMPLE.finditer(page.read_text()), 1)
]


def missing(need: str) -> str:
    """Why something that an example needs is not there; empty if it is."""
    if need == "vllm":
        return "" if importlib.util.find_spec("vllm") else "vllm is not installed"
    try:
        asset_path(need)
    except DefectgenError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("code", "needs"), EXAMPLES)
def test_an_example_runs(code: str, needs: list[str], tmp_path: Path) -> None:
    for need in needs:
        if reason := missing(need):
            pytest.skip(f"example left out: {reason}")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_all_examples_are_found() -> None:
    fences = sum(len(re.findall(r"^\s*```py", page.read_text(), re.MULTILINE)) for page in PAGES)
    assert len(EXAMPLES) == fences
    assert {"README-1", "index-1", "python-1"} <= {example.id for example in EXAMPLES}
