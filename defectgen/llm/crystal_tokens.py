"""A vocabulary with tokens of its own for crystals: the special crystal tokens of Gruver et al. 2024, appendix A.1."""

from __future__ import annotations

from typing import Any

import torch

from defectgen.tasks.bulk.clearance import GRID
from defectgen.tasks.bulk.crystal_grammar import MP_ELEMENTS

TOKENS = (*MP_ELEMENTS, *(f"{k / GRID:.2f}" for k in range(GRID)))
"""Elements and fractional coordinates; the rest of a crystal is written with the model's own tokens.

What is a token of the model already, such as H, stays that token, and its row is trained with the others.
"""


def add_crystal_tokens(tokenizer: Any) -> None:
    """Give a tokenizer the tokens, each for a word of its own and not within another (``In`` not in ``Inside``)."""
    from transformers import AddedToken

    tokenizer.add_tokens([AddedToken(text, single_word=True, normalized=False) for text in TOKENS])


def trained_rows(model: Any, tokenizer: Any) -> dict[str, list[int]]:
    """By the name of each layer that has rows of its own for tokens those of the crystal tokens, ascending."""
    known = tokenizer.get_added_vocab()
    ids = sorted(known[text] for text in TOKENS)
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    if model.config.get_text_config().tie_word_embeddings:  # peft follows
        layers.pop()
    return {name.rpartition(".")[2]: ids for name, module in model.named_modules() if any(module is x for x in layers)}


@torch.no_grad()
def add_rows(model: Any, plain: Any, tokenizer: Any) -> None:
    """Give the input and the output layer a row for each of the tokens.

    It is the mean of the rows of the tokens that wrote the word before, where later ones count more, so that 0.37
    and 0.73 differ.

    Args:
        model: causal model of transformers, changed in place.
        plain: tokenizer without the tokens.
        tokenizer: with them.
    """
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.tie_weights()
    known = tokenizer.get_added_vocab()
    layers = {id(layer.weight): layer for layer in (model.get_input_embeddings(), model.get_output_embeddings())}
    for layer in layers.values():
        for text in TOKENS:
            pieces = plain(text, add_special_tokens=False).input_ids
            shares = torch.arange(1.0, len(pieces) + 1)
            rows = layer.weight[pieces].float()
            layer.weight[known[text]] = (shares @ rows / shares.sum()).to(layer.weight.dtype)
