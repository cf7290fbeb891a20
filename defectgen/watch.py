"""How a slow step tells how far it is, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Watch(Protocol):
    """Takes the title of a step, how much there is to do (None: not known), and of what.

    It gives a context for the step, in which a function takes how much more is done.
    """

    def __call__(self, title: str, total: int | None, unit: str) -> AbstractContextManager[Callable[[int], None]]: ...


@contextmanager
def unwatched(title: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:  # noqa: ARG001
    """A `Watch` that nobody looks at."""
    yield lambda _: None
