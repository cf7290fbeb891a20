"""Numbers as models read them."""

from __future__ import annotations


def format_number(value: float, decimals: int) -> str:
    """A number with a fixed count of decimals and no negative zero.

    Tokenizers that split digit by digit (SmolLM2, Llama-2) see one token a digit; those that
    take up to three digits at once (Llama-3) see the three decimals of a level as one group.
    """
    text = f"{value:.{decimals}f}"
    return text[1:] if text.startswith("-") and not text.strip("-0.") else text
