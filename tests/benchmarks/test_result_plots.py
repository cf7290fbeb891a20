"""The plots of the site show the table, and the table what the results say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

ROOT = Path(__file__).parent.parent.parent
TABLE = ROOT / "docs" / "benchmarks.csv"


@pytest.fixture(scope="module")
def plots() -> ModuleType:
    specification = importlib.util.spec_from_file_location("plots", ROOT / "benchmarks" / "plots.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    import sys

    sys.modules["plots"] = module
    specification.loader.exec_module(module)
    return module


def marks(svg: str) -> list[list[str]]:
    """Places of the marks of each series, as numbers in the file."""
    groups = re.findall(r'<g id="PathCollection_\d+">(.*?)\n  </g>', svg, re.DOTALL)
    return [re.findall(r'<use xlink:href="[^"]+" x="([\d.]+)" y="([\d.]+)"', group) for group in groups]


def test_the_plots_are_those_of_the_table(plots: ModuleType, tmp_path: Path) -> None:
    for path in plots.write(tmp_path / "plots", pl.read_csv(TABLE)):
        kept = (ROOT / "docs" / "plots" / path.name).read_text()
        made = path.read_text()
        assert [len(group) for group in marks(made)] == [len(group) for group in marks(kept)]
        flat = [float(number) for group in marks(made) for pair in group for number in pair]
        shown = [float(number) for group in marks(kept) for pair in group for number in pair]
        assert flat == pytest.approx(shown, abs=2.0), "run python benchmarks/plots.py"


def test_another_value_moves_its_mark(plots: ModuleType, tmp_path: Path) -> None:
    table = pl.read_csv(TABLE)
    other = table.with_columns(pl.when(pl.col("row") == "MoS2_500").then(60.0).otherwise("value").alias("value"))
    before = [path.read_text() for path in plots.write(tmp_path / "a", table)]
    after = [path.read_text() for path in plots.write(tmp_path / "b", other)]
    moved = [marks(a) != marks(b) for a, b in zip(before, after, strict=True)]
    assert moved == [figure.name in ("formation", "gap") for figure in plots.FIGURES]


def test_every_figure_of_the_table_stands_in_the_results() -> None:
    text = "\n".join(
        page.read_text() for page in [*(ROOT / "docs" / "results").glob("*.md"), ROOT / "docs" / "results.md"]
    )
    numbers = set(re.findall(r"\d+(?:\.\d+)?", text))
    shown = {line.rsplit(",", 1)[1] for line in TABLE.read_text().splitlines()[1:]}
    assert shown <= numbers, shown - numbers
