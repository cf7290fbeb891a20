"""What every generation engine takes and gives, and how a token is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from defectgen.errors import UsageError
from defectgen.tasks.grammar import Grammar


@dataclass(frozen=True)
class Request:
    """A prompt and how its completions are drawn.

    Attributes:
        prompt: text of the prompt.
        grammar: what a completion may be.
        n: number of completions.
        seed: of these completions, whatever else is in the batch.
        plain: the prompt without what guidance is to stress; none where there is no guidance.
    """

    prompt: str
    grammar: Grammar
    n: int
    seed: int
    plain: str | None = None


@dataclass(frozen=True)
class Completion:
    """One completion of a request.

    Attributes:
        request: index of the request.
        text: the completion.
        log_likelihood: of the choices under the constrained model at temperature 1 without guidance, in nats.
        decode_steps: how often the model was asked for a choice.
    """

    request: int
    text: str
    log_likelihood: float
    decode_steps: int


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: 0 takes the likeliest token, 1 the model's own distribution.
        top_p: keep the likeliest tokens that together hold this probability.
        guidance: how much the prompt counts against the plain one: 1 leaves the model as it is, more
            stresses what is asked for (classifier-free guidance, Ho and Salimans 2022, doi
            10.48550/arXiv.2207.12598, in the logarithms of the probabilities), 0 forgets it.
        batch_size: completions in one batch; halved where memory runs out.
        coordinate_temperature: of the coordinates of a crystal; None for the same as of the rest.
    """

    temperature: float = 0.7
    top_p: float = 1.0
    guidance: float = 1.0
    batch_size: int = 128
    coordinate_temperature: float | None = None

    def __post_init__(self) -> None:
        for temperature in (self.temperature, self.coordinate_temperature):
            if temperature is not None and not 0 <= temperature < float("inf"):
                raise UsageError(f"got temperature {temperature}, expected 0 or more.")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"got top_p {self.top_p}, expected more than 0 and at most 1.")
        if not 0 <= self.guidance < float("inf"):
            raise UsageError(f"got guidance {self.guidance}, expected 0 or more.")
        if self.batch_size < 1:
            raise UsageError(f"got batch size {self.batch_size}, expected at least 1.")

    def temperature_of(self, at_coordinate: bool) -> float:
        """The temperature of a coordinate, or of anything else."""
        own = self.coordinate_temperature if at_coordinate else None
        return self.temperature if own is None else own


class Generator(Protocol):
    """An engine that completes prompts under grammars."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Complete all requests; completions come as their batches end, in the order of the requests."""
        ...


def pick(
    log_probabilities: np.ndarray[Any, Any], uniform: float, sampling: Sampling, at_coordinate: bool = False
) -> int:
    """Index of the token that one uniform number in [0, 1) selects."""
    temperature = sampling.temperature_of(at_coordinate)
    if temperature == 0:
        return int(log_probabilities.argmax())
    scaled = log_probabilities / temperature
    probabilities = np.exp(scaled - np.logaddexp.reduce(scaled))
    order = np.argsort(-probabilities, kind="stable")
    total = np.cumsum(probabilities[order])
    kept = int(np.searchsorted(total, sampling.top_p * total[-1], side="left")) + 1
    kept = min(kept, len(order))
    position = int(np.searchsorted(total[:kept], uniform * total[kept - 1], side="right"))
    return int(order[min(position, kept - 1)])
