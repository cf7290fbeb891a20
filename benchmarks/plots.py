"""Plots of the site from the table docs/benchmarks.csv, whose figures are those of docs/results.md.

python benchmarks/plots.py                 # docs/plots/*.svg
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import polars as pl

DOCS = Path(__file__).parent.parent / "docs"
COLOURS = ("#0072B2", "#D55E00", "#009E73")
"""Of Okabe and Ito: people who are colour-blind can tell them apart; the marks differ, too."""

MARKS = ("o", "s", "^")


@dataclass(frozen=True)
class Figure:
    """One plot: a row a line of the table, a mark a series."""

    name: str
    title: str
    axis: str


FIGURES = (
    Figure("formation", "Formation energy per defect site", "mean absolute error, meV"),
    Figure("gap", "HOMO-LUMO gap", "mean absolute error, meV"),
    Figure("designs", "First-ranked candidate, 200 held-out targets a host", "distance to the target by DFT, meV"),
    Figure("decoding", "Decoding, SmolLM2, one CPU thread", "crystals a second"),
)


def draw(figure: Figure, table: pl.DataFrame) -> Any:
    """The plot, an axis of powers of ten and rows from top to bottom in the order of the table."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter

    part = table.filter(pl.col("figure") == figure.name)
    rows = part["row"].unique(maintain_order=True).to_list()
    series = part["series"].unique(maintain_order=True).to_list()
    canvas, axes = plt.subplots(figsize=(7.2, 1.3 + 0.34 * len(rows)), layout="constrained")
    for name, colour, mark in zip(series, COLOURS, MARKS, strict=False):
        own = part.filter(pl.col("series") == name)
        places = [rows.index(row) for row in own["row"]]
        axes.scatter(own["value"], places, color=colour, marker=mark, s=42, label=name, zorder=3)
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(figure.axis)
    axes.set_title(figure.title, loc="left")
    axes.grid(axis="both", color="#dddddd", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    if len(series) > 1:
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return canvas


def write(folder: Path, table: pl.DataFrame) -> list[Path]:
    """All plots as SVG, the same bytes for the same table."""
    mpl.use("svg")
    folder.mkdir(exist_ok=True)
    written = []
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "defectgen", "font.size": 11}):
        for figure in FIGURES:
            canvas = draw(figure, table)
            written.append(folder / f"{figure.name}.svg")
            canvas.savefig(written[-1], metadata={"Date": None})
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=DOCS / "plots")
    for path in write(parser.parse_args().output, pl.read_csv(DOCS / "benchmarks.csv")):
        print(path)


if __name__ == "__main__":
    main()
