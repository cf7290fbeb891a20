"""What a finished design says of a target: reached or not, and what that rests on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """What a finished run knows of one target.

    Attributes:
        target_id: of the target.
        text: one line for people.
        nearest_ev: least distance that was found, by DFT where there is a label, else predicted; None for none.
        is_reached: whether the nearest structure has what is wanted, as far as its intervals tell.
        looked_at: number of structures that were compared.
        is_proof: whether these are all that the wish allows.
    """

    target_id: str
    text: str
    nearest_ev: float | None
    is_reached: bool
    looked_at: int
    is_proof: bool
