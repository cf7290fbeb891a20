"""Threads of our own in place of those of the linear algebra, whose products here are too small to be shared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

Part = TypeVar("Part")


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@cache
def n_workers() -> int:
    """Threads that linear algebra would use, e.g. as ``OMP_NUM_THREADS`` says; 1 if that is not known."""
    return max((library["num_threads"] for library in _controller().info() if library["user_api"] == "blas"), default=1)


@contextmanager
def single_blas() -> Iterator[None]:
    """While this lasts, linear algebra stays in the thread that calls it."""
    n_workers()
    with _controller().limit(limits=1, user_api="blas"):
        yield


def in_parts(work: Callable[[Part], None], parts: Sequence[Part]) -> None:
    """Do some work part by part, in `n_workers` threads; the first part alone, as it finds what all others need."""
    with single_blas():
        for part in parts[:1] if n_workers() > 1 else parts:
            work(part)
        if n_workers() > 1 and len(parts) > 1:
            with ThreadPoolExecutor(n_workers()) as pool:
                list(pool.map(work, parts[1:]))
