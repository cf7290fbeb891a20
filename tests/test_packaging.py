"""What is installed has all packages that the checkout has."""

from __future__ import annotations

import tomllib

from doc_pages import ROOT


def test_every_package_is_installed() -> None:
    """An editable installation finds packages that the list leaves out; a wheel does not."""
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {path.parent.relative_to(ROOT) for path in (ROOT / "defectgen").rglob("*.py")}
    assert len(found) > 20
    names = {".".join(folder.parts) for folder in found if not {"assets", "__pycache__"} & set(folder.parts)}
    assert sorted(names ^ {name for name in listed if not name.startswith("defectgen_")}) == []
