"""Free decoding with transformers' own `generate`: what a model writes when no grammar holds it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from defectgen.llm.decode.generator import Sampling
from defectgen.llm.tokens import prompt_ids


@torch.inference_mode()
def write_freely(
    model: Any, tokenizer: Any, prompt: str, n: int, seed: int, sampling: Sampling, max_tokens: int
) -> Iterator[tuple[str, bool]]:
    """Complete one prompt without a grammar.

    Args:
        model: causal language model of transformers.
        tokenizer: of that model.
        prompt: text of the prompt.
        n: number of completions.
        seed: of these completions, with the batch size; the global state of torch is left as it was.
        sampling: temperature, top_p and batch size.
        max_tokens: a completion is cut after so many tokens.

    Yields:
        Text of a completion, and whether the model ended it itself.
    """
    device, end = model.device, tokenizer.eos_token_id
    ids = torch.tensor([prompt_ids(tokenizer, prompt)], device=device)
    drawn = sampling.temperature > 0
    options = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0} if drawn else {}
    for first in range(0, n, sampling.batch_size):
        rows = ids.expand(min(sampling.batch_size, n - first), -1)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(int(np.random.SeedSequence([seed, first]).generate_state(1)[0]))
            written = model.generate(
                rows,
                attention_mask=torch.ones_like(rows),
                do_sample=drawn,
                max_new_tokens=max_tokens,
                eos_token_id=end,
                pad_token_id=end,
                **options,
            )
        for tokens in written[:, ids.shape[1] :].tolist():
            ended = end in tokens
            kept = tokens[: tokens.index(end)] if ended else tokens
            yield tokenizer.decode(kept, clean_up_tokenization_spaces=False), ended
