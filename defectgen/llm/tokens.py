"""Prompts and completions as tokens, split the same way in training and in decoding."""

from __future__ import annotations

from typing import Any

ANCHORS = (":", "0")
"""Put before a piece while it is tokenized: some tokenizers treat the start of a text apart.

The second one where the first merges with the piece: Llama-3 has tokens for a colon with a line break or a
letter after it, but always cuts around digits.
"""


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Tokens of a prompt, with whatever the tokenizer puts at the start of a text."""
    return list(tokenizer(prompt).input_ids)


def piece_ids(tokenizer: Any, piece: str) -> list[int]:
    """Tokens of text that continues a prompt.

    Raises:
        ValueError: the tokenizer merges the start of the piece with what stands before it, so
            that the piece has no tokens of its own.
    """
    for text in ANCHORS:
        anchor = list(tokenizer(text, add_special_tokens=False).input_ids)
        whole = list(tokenizer(text + piece, add_special_tokens=False).input_ids)
        if whole[: len(anchor)] == anchor and len(whole) > len(anchor):
            return whole[len(anchor) :]
    raise ValueError(f"the tokenizer has no separate tokens for {piece!r}")
