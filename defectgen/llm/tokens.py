"""Prompts and completions as tokens, split the same way in training and in decoding."""

from __future__ import annotations

from typing import Any

ANCHOR = ":"
"""Put before a piece while it is tokenized: some tokenizers treat the start of a text apart."""


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Tokens of a prompt, with whatever the tokenizer puts at the start of a text."""
    return list(tokenizer(prompt).input_ids)


def piece_ids(tokenizer: Any, piece: str) -> list[int]:
    """Tokens of text that continues a prompt.

    Raises:
        ValueError: the tokenizer merges the start of the piece with what stands before it, so
            that the piece has no tokens of its own.
    """
    anchor = list(tokenizer(ANCHOR, add_special_tokens=False).input_ids)
    whole = list(tokenizer(ANCHOR + piece, add_special_tokens=False).input_ids)
    if whole[: len(anchor)] != anchor or len(whole) == len(anchor):
        raise ValueError(f"the tokenizer has no separate tokens for {piece!r}")
    return whole[len(anchor) :]
