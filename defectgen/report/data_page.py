"""The page that shows a table of labelled structures: what is in it, whose it is, what to mind."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from defectgen import __version__
from defectgen.core import Configuration
from defectgen.core.level_scale import MAX_UNFITTED_EV
from defectgen.data.asset_cards import Card
from defectgen.data.summary import LABELS, ClassCount, Range, SetSummary, Summary
from defectgen.io.host_tables import host_of_row
from defectgen.report.data_plots import (
    JITTER_PERCENT,
    MIN_BOX_ROWS,
    colour_class,
    gap_svg,
    host_colours,
    host_title,
    pair_svg,
    sample_rows,
    set_title,
)
from defectgen.report.lattice import lattice_svg
from defectgen.report.page_templates import template

if TYPE_CHECKING:
    from markupsafe import Markup

SAMPLE_ROWS = 450
"""Structures of each set in the pair plot of all hosts, so that large sets do not cover small ones."""

HOST_SAMPLE_ROWS = 6000
"""Structures of each set in the pair plot of one host: all of 2DMD's."""

SEED = 0

CLASS_GROUPS = {"X": "chalcogen sites only", "V": "with a metal vacancy", "S": "with a substituted metal"}

SHOWN_RANGES = tuple(column for column, (_, unit) in LABELS.items() if unit == "eV" and column != "energy_ev")
"""Total energies say nothing across cells of different composition."""

EXAMPLE_COLUMNS = ("band_gap_ev", "homo_ev", "lumo_ev", "formation_energy_ev")


@dataclass(frozen=True)
class View:
    """One of the pair plots, of all hosts or of one."""

    key: str
    title: str
    host: str
    n_rows: int
    n_drawn: int
    picture: Markup


@dataclass(frozen=True)
class GapPanel:
    """Gap against concentration of one host."""

    title: str
    n_rows: int
    picture: Markup


@dataclass(frozen=True)
class Example:
    """A structure of a set with its labels."""

    title: str
    colour: str
    name: Markup
    detail: str
    values: tuple[tuple[Markup, str], ...]
    picture: Markup


@dataclass(frozen=True)
class ClassRow:
    """One defect class in each of the low-density sets."""

    name: str
    group: str
    counts: tuple[ClassCount | None, ...]


def render_data_page(frame: pl.DataFrame, summary: Summary, card: Card) -> str:
    """The table as a page that needs nothing else: no scripts, and no fonts or pictures from anywhere.

    The same rows give the same page.

    Args:
        frame: rows with the columns of `defectgen.data.twodmd.read_2dmd`.
        summary: their numbers, from `defectgen.data.summary.summarize`.
        card: what the rows are from.
    """
    low = tuple(item for item in summary.sets if item.classes)
    return template("data_page.html").render(
        card=card,
        summary=summary,
        version=__version__,
        colours=host_colours(summary.hosts),
        views=_views(frame, summary),
        sample_rows=SAMPLE_ROWS,
        seed=SEED,
        shown=SHOWN_RANGES,
        min_box_rows=MIN_BOX_ROWS,
        n_published=sum(item.n_published or 0 for item in summary.sets),
        gaps=_gap_panels(frame, summary),
        low=low,
        classes=_class_rows(low),
        class_groups=CLASS_GROUPS,
        examples=[_example(frame, item, summary.sets) for item in summary.sets],
        labels={column: (subscripts(title), unit) for column, (title, unit) in LABELS.items()},
        max_unfitted_mev=round(1000 * MAX_UNFITTED_EV),
        formation=[item for item in summary.sets if item.formation_energy_error_ev is not None],
        colour_class=lambda item: colour_class(item, summary.sets),
        host_title=host_title,
        set_title=set_title,
        subscripts=subscripts,
        number=number,
        small=small,
        span=span,
    ) + "\n"  # fmt: skip


def number(value: float | None, decimals: int = 2) -> str:
    """A number with a true minus sign, a dash where there is none."""
    if value is None:
        return "\u2013"
    return f"{value:z,.{decimals}f}".replace("-", "\u2212")


def small(value_ev: float) -> Markup:
    """An upper bound of a small number: a power of ten for rounding errors, three digits otherwise."""
    from markupsafe import Markup

    if value_ev >= 1e-6:
        return Markup(f"{value_ev:.3g}")
    exponent = math.ceil(math.log10(max(value_ev, 1e-15)))
    return Markup(f"10<sup>\u2212{-exponent}</sup>")


def span(values: Range | None, decimals: int = 2) -> str:
    """Smallest and largest value, e.g. ``0.02 to 1.81``; one number if they look the same."""
    if values is None:
        return "\u2013"
    low, high = number(values.low, decimals), number(values.high, decimals)
    return low if low == high else f"{low} to {high}"


def subscripts(name: str) -> Markup:
    """A defect label or the title of a property with its index lowered: ``v_Mo+2Se_S``, ``E_form``."""
    from markupsafe import Markup, escape

    text = re.sub(r"_([A-Za-z]+)", r"<sub>\1</sub>", str(escape(name)))
    text = re.sub(r"(?<![A-Za-z])v(?=<sub>)", "<i>v</i>", text)
    text = re.sub(r"(^|\+)(\d+)(?=[A-Z<])", "\\1\\2\u2009", text)
    return Markup(text.replace("+", " + "))


def _views(frame: pl.DataFrame, summary: Summary) -> list[View]:
    from markupsafe import Markup

    groups: list[tuple[str, str, Sequence[SetSummary], int]] = []
    if len(summary.hosts) > 1:
        groups.append(("all", "all hosts", summary.sets, SAMPLE_ROWS))
    groups += [
        (host, host_title(host), [item for item in summary.sets if item.host == host], HOST_SAMPLE_ROWS)
        for host in summary.hosts
    ]
    views = []
    for key, title, sets, limit in groups:
        rows = frame.filter(pl.col("set").is_in([item.name for item in sets]))
        drawn = sample_rows(rows, limit, SEED)
        host = "" if key == "all" else key
        views.append(View(key, title, host, len(rows), len(drawn), Markup(pair_svg(rows, sets, drawn))))
    return views


def _gap_panels(frame: pl.DataFrame, summary: Summary) -> list[GapPanel]:
    from markupsafe import Markup

    gaps = [found.high for item in summary.sets if (found := item.ranges["band_gap_ev"]) is not None]
    if not gaps:
        return []
    highest_ev = 1.04 * max(gaps)
    highest_percent = max(item.concentration_percent.high for item in summary.sets) + 2 * max(JITTER_PERCENT.values())
    panels = []
    for host in summary.hosts:
        rows = frame.filter(pl.col("host") == host)
        sets = [item for item in summary.sets if item.host == host]
        n_rows = len(rows) - rows["band_gap_ev"].null_count()
        panels.append(GapPanel(host_title(host), n_rows, Markup(gap_svg(rows, sets, highest_ev, highest_percent))))
    return panels


def _class_rows(low: Sequence[SetSummary]) -> list[ClassRow]:
    by_set: list[Mapping[str, ClassCount]] = [{count.name: count for count in item.classes} for item in low]
    names = dict.fromkeys(name for counts in by_set for name in counts)
    return [ClassRow(name, name[0], tuple(counts.get(name) for counts in by_set)) for name in names]


def _example(frame: pl.DataFrame, item: SetSummary, sets: Sequence[SetSummary]) -> Example:
    """The structure with the set's middle number of defects whose gap is nearest to the middle one of these."""
    from markupsafe import Markup

    rows = frame.filter(pl.col("set") == item.name)
    sizes = (rows["n_defects"] - item.n_defects.median).abs()
    rows = rows.filter(sizes == sizes.min())
    complete = rows.drop_nulls(EXAMPLE_COLUMNS)
    rows = (rows if complete.is_empty() else complete).with_columns(
        off=(pl.col("band_gap_ev") - pl.col("band_gap_ev").median()).abs()
    )
    row = rows.sort("off", "id", nulls_last=True).row(0, named=True)
    configuration = Configuration.from_key(host_of_row(row), row["configuration"])
    n_defects = f"{row['n_defects']} defect{'' if row['n_defects'] == 1 else 's'} ({row['concentration']:.1%})"
    cell = item.supercell.replace("x", "\u00d7")
    return Example(
        title=set_title(item),
        colour=colour_class(item, sets),
        name=subscripts(row["label"]),
        detail=f"{cell} cell, {n_defects}",
        values=tuple((subscripts(LABELS[column][0]), number(row[column], 3)) for column in EXAMPLE_COLUMNS),
        picture=Markup(lattice_svg(configuration)),
    )
