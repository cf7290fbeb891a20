"""Every notebook runs from its first cell to its last, and is kept without outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "docs" / "notebooks"
SHOWN = {
    "first-design": ("Host(MoS2 8x8", "all 131 were looked at", "001_2v_S", "host_MoS2_8x8"),
    "enumerate-and-screen": ("743", "distinct structures with eight defects", "element_Se", "102"),
    "campaign-with-a-potential": ("space-filling", "'formation_energy_ev':", "formation_energy_ev=1.0"),
}
"""What has to stand in the outputs of each notebook."""

COMPUTE = ("campaign-with-a-potential",)
"""Those in which a potential computes: a process of its own for each structure, which takes minutes."""


def texts(notebook: Any) -> str:
    """All outputs as plain text, line breaks and padding taken out."""
    found = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            found += [output.get("text", ""), output.get("data", {}).get("text/plain", "")]
    return " ".join(" ".join(found).split())


def test_each_notebook_has_something_to_show() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_a_notebook_is_kept_without_outputs(name: str) -> None:
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in COMPUTE)) for name in SHOWN])
def test_a_notebook_runs(name: str, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="the extra docs is not installed")
    nbclient = pytest.importorskip("nbclient", reason="the extra docs is not installed")
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = texts(notebook)
    for text in SHOWN[name]:
        assert text in shown, shown
