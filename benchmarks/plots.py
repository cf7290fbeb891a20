"""Plots of the site from the table docs/benchmarks.csv, whose figures are those of docs/results.md and docs/results/.

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
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Of Okabe and Ito: people who are colour-blind can tell them apart; the marks differ, too."""

MARKS = ("o", "s", "^", "D")


@dataclass(frozen=True)
class Figure:
    """One plot: a row a line of the table, a mark a series.

    Attributes:
        name: in the table.
        title: above it.
        axis: of the values.
        across: series whose values are the horizontal places of labelled points, those of the other one the vertical
            ones, with the ends of their intervals in the series "NAME from" and "NAME to"; empty where each row is a
            line of its own.
        is_log: whether the axis is of powers of ten.
    """

    name: str
    title: str
    axis: str
    across: str = ""
    is_log: bool = True


FIGURES = (
    Figure("formation", "Formation energy per defect site", "mean absolute error, meV"),
    Figure("gap", "HOMO-LUMO gap", "mean absolute error, meV"),
    Figure("designs", "First-ranked candidate, 200 held-out targets a host", "distance to the target by DFT, meV"),
    Figure("decoding", "Decoding, SmolLM2, one CPU thread", "crystals a second"),
    Figure("conditions", "Bulk crystals that meet a condition, by atoms in the cell", "% of the draws", is_log=False),
    Figure("infill", "Mutated crystals", "metastable by a partial hull, %", across="metastable", is_log=False),
    Figure(
        "sweep",
        "Temperature and nucleus, 80 draws each",
        "COV-R against 254 test crystals",
        across="COV-R",
        is_log=False,
    ),
)


def draw(figure: Figure, table: pl.DataFrame) -> Any:
    """The plot, rows from top to bottom in the order of the table, or labelled points."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter

    part = table.filter(pl.col("figure") == figure.name)
    if figure.across:
        return draw_points(figure, part)
    rows = part["row"].unique(maintain_order=True).to_list()
    series = part["series"].unique(maintain_order=True).to_list()
    canvas, axes = plt.subplots(figsize=(7.2, 1.3 + 0.34 * len(rows)), layout="constrained")
    for name, colour, mark in zip(series, COLOURS, MARKS, strict=False):
        own = part.filter(pl.col("series") == name)
        places = [rows.index(row) for row in own["row"]]
        axes.scatter(own["value"], places, color=colour, marker=mark, s=42, label=name, zorder=3)
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    if figure.is_log:
        axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(figure.axis)
    axes.set_title(figure.title, loc="left")
    axes.grid(axis="both", color="#dddddd", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    if len(series) > 1:
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return canvas


def draw_points(figure: Figure, part: pl.DataFrame) -> Any:
    """The plot of one series against another, each point with the name of its row; the first row is marked apart."""
    import matplotlib.pyplot as plt

    names = part["series"].unique(maintain_order=True).to_list()
    upwards = next(name for name in names if not name.startswith(figure.across))
    canvas, axes = plt.subplots(figsize=(7.2, 4.6), layout="constrained")
    values = {(row, series): value for row, series, value in part.select("row", "series", "value").iter_rows()}
    rows = part["row"].unique(maintain_order=True).to_list()
    for number, row in enumerate(rows):
        x, y = values[row, figure.across], values[row, upwards]
        style: dict[str, Any] = {"color": COLOURS[0 if number else 1]}
        ends = [[values[row, f"{name} {end}"] for end in ("from", "to")] for name in (figure.across, upwards)]
        axes.plot(ends[0], [y, y], linewidth=0.8, alpha=0.5, **style)
        axes.plot([x, x], ends[1], linewidth=0.8, alpha=0.5, **style)
        axes.scatter([x], [y], marker=MARKS[0 if number else 1], s=42, zorder=3, **style)
        side, place = ("left", (7, 5)) if number % 2 else ("right", (-7, -14))
        axes.annotate(row, (x, y), xytext=place, textcoords="offset points", ha=side)
    axes.set_xlabel(figure.axis)
    axes.set_ylabel(upwards)
    axes.set_title(figure.title, loc="left")
    axes.grid(color="#dddddd", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    return canvas


def write(folder: Path, table: pl.DataFrame) -> list[Path]:
    """All plots as SVG, the same bytes for the same table."""
    import matplotlib.pyplot as plt

    mpl.use("svg")
    folder.mkdir(exist_ok=True)
    written = []
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "defectgen", "font.size": 11}):
        for figure in FIGURES:
            canvas = draw(figure, table)
            written.append(folder / f"{figure.name}.svg")
            canvas.savefig(written[-1], metadata={"Date": None})
            plt.close(canvas)
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=DOCS / "plots")
    for path in write(parser.parse_args().output, pl.read_csv(DOCS / "benchmarks.csv")):
        print(path)


if __name__ == "__main__":
    main()
