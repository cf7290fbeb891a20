"""What to do where a scorer has no values of what is wanted."""

from __future__ import annotations

from collections.abc import Collection

GAP, LEVELS = "band_gap_ev", ("homo_ev", "lumo_ev")

GAP_COLUMN = f"add the column {GAP}, LUMO minus HOMO in cells with one spin channel, else the smaller gap of both"


def has_levels(columns: Collection[str]) -> bool:
    """Whether HOMO and LUMO are among some columns."""
    return all(column in columns for column in LEVELS)


def instead_of(column: str, predicted: Collection[str], leave_out: str = "Leave that target out.") -> str:
    """What to do without a property, in a sentence.

    Args:
        column: of the property.
        predicted: columns that have values.
        leave_out: what to do if nothing else can be said.
    """
    if column != GAP or not has_levels(predicted):
        return leave_out
    return f"Ask for the levels in its place (--homo, --lumo), or train anew: {GAP_COLUMN}."
