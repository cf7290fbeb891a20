"""What to know of a table before a surrogate of it is used: columns that nothing can be learnt of."""

from __future__ import annotations

import numpy as np
import polars as pl

from defectgen.core.properties import BY_COLUMN
from defectgen.score.absent_values import GAP, GAP_COLUMN, has_levels
from defectgen.score.surrogate.host_models import learnt_columns
from defectgen.score.surrogate.labelled_rows import CONSTANT


def table_notes(rows: pl.DataFrame) -> list[str]:
    """Columns that are left out as they are constant, and a gap that is nowhere, a line each.

    Args:
        rows: as `defectgen.data.own_table.own_rows` gives them, with ``split``.
    """
    lines: list[str] = []
    learnt = rows.filter(pl.col("split").is_in(["train", "validation"]))
    valued = []
    for column in learnt_columns():
        if column not in rows.columns:
            continue
        constant = []
        for name in learnt["set"].unique(maintain_order=True):
            values = learnt.filter(set=name)[column].drop_nulls().to_numpy()
            if len(values):
                valued.append(column)
            if len(values) > 1 and np.ptp(values) <= CONSTANT:
                constant.append((name, values[0]))
        if constant:
            where = ", ".join(str(name) for name, _ in constant)
            value, unit = constant[0][1], BY_COLUMN[column].unit if column in BY_COLUMN else "eV"
            lines.append(f"{column} is {value:g} {unit} in all rows of {where}: it is left out, and not predicted")
    if GAP not in valued and has_levels(valued):
        lines.append(f"no row has a {GAP}, so that no gap is predicted: {GAP_COLUMN}")
    return lines
