"""How likely a model finds given completions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from defectgen.errors import DefectgenError
from defectgen.llm.decode.token_grammar import TokenGrammar
from defectgen.llm.output_layer import OutputLayer
from defectgen.llm.tokens import piece_ids, prompt_ids
from defectgen.tasks.grammar import Grammar


@dataclass(frozen=True)
class Text:
    """A completion to be judged.

    Attributes:
        prompt: what stands before it.
        completion: the text, without the token that ends it.
        grammar: of the completions among which it is judged; none for all texts.
    """

    prompt: str
    completion: str
    grammar: Grammar | None = None


@dataclass(frozen=True)
class Likelihood:
    """The judgement.

    Attributes:
        nats: log-likelihood of the completion and of its end, given the prompt.
        tokens: how many tokens that is.
    """

    nats: float
    tokens: int


def log_likelihoods(model: Any, tokenizer: Any, texts: Sequence[Text], batch_size: int = 64) -> Iterator[Likelihood]:
    """Judge texts in their order.

    Under a grammar the tokens that it rules out have no probability, so that a sum over all valid completions is
    one; a forced token costs nothing. This is what `Completion.log_likelihood` reports.

    Args:
        model: a causal model of transformers, adapter included.
        tokenizer: its tokenizer.
        texts: what is judged.
        batch_size: texts in one forward pass.

    Raises:
        DefectgenError: a completion that its grammar does not allow.
    """
    compiled: dict[Grammar, TokenGrammar] = {}
    pieces: dict[str, tuple[int, ...]] = {}
    for first in range(0, len(texts), batch_size):
        batch = texts[first : first + batch_size]
        prompts = [prompt_ids(tokenizer, text.prompt) for text in batch]
        endings = [[*_pieces(tokenizer, text.completion), int(tokenizer.eos_token_id)] for text in batch]
        logits = _logits(model, prompts, endings)
        for text, ending, rows in zip(batch, endings, logits, strict=True):
            if text.grammar is None:
                chosen = rows.log_softmax(-1)[torch.arange(len(ending)), torch.tensor(ending)]
                yield Likelihood(float(chosen.double().sum()), len(ending))
                continue
            if text.grammar not in compiled:
                compiled[text.grammar] = TokenGrammar(text.grammar, tokenizer, pieces)
            nats = 0.0
            for token, allowed, row in zip(ending, compiled[text.grammar].along(ending), rows, strict=True):
                if len(allowed) > 1:
                    nats += float(row[token].double() - row[allowed].double().logsumexp(0))
            yield Likelihood(nats, len(ending))


def _pieces(tokenizer: Any, completion: str) -> list[int]:
    try:
        return piece_ids(tokenizer, completion) if completion else []
    except ValueError as error:
        raise DefectgenError(f"this model's tokenizer cannot write the completion: {error}.") from error


@torch.inference_mode()
def _logits(model: Any, prompts: Sequence[Sequence[int]], endings: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Scores before each token of each ending, each of shape (tokens, vocabulary), in 32 bits on the CPU."""
    device, rows = model.device, [[*prompt, *ending] for prompt, ending in zip(prompts, endings, strict=True)]
    width = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    head = OutputLayer(model)
    return [
        head(hidden[k, len(prompt) - 1 : len(prompt) + len(ending) - 1]).float().cpu()
        for k, (prompt, ending) in enumerate(zip(prompts, endings, strict=True))
    ]
