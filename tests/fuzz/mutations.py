"""Texts spoiled at random, with a seed, and a limit on how long a reader may take over one."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from defectgen.errors import DefectgenError

SECONDS = 20
"""Longest that a reader may take over one small file, on a machine that does other work too."""

TOKENS = [
    b"nan", b".nan", b"NaN", b"inf", b"-.inf", b"Infinity", b"1e309", b"-1e309", b"1e308", b"-0.0", b"0", b"-1",
    b"1_000", b"9" * 400, b"0x" + b"f" * 300, b"true", b"null", b"~", b"[]", b"{}", b"[[[[", b"{a: {", b"&a", b"*a",
    b"<<: *a", b"!!python/object/apply:os.system [id]", b"!!binary x", b"---", b"...", b"\x00", b"\xe9", b"\xff\xfe",
    b"\xef\xbb\xbf", b"\xe2\x80\xae", b"\x1b[2J", b"\r\n", b"\n", b"\t", b'"', b"'", b",", b";", b":", b"=",
    b"=cmd|' /C calc'!A0", b"@x", b"../", b"(a+)+$", b"\xf0\x9f\x92\xa5", b"1e-400", b"\xd9\xa1\xd9\xa2", b"[" * 200,
    b'{"a":' * 200,
]  # fmt: skip
"""What readers stumble over."""

Value = TypeVar("Value")


def mutate(content: bytes, rng: np.random.Generator, most: int = 4) -> bytes:
    """A text with one to `most` changes: bytes, pieces, lines or numbers of it."""
    for _ in range(int(rng.integers(1, most + 1))):
        content = _CHANGES[int(rng.integers(len(_CHANGES)))](content, rng)
    return content


def _place(content: bytes, rng: np.random.Generator) -> int:
    return int(rng.integers(len(content) + 1))


def _flip(content: bytes, rng: np.random.Generator) -> bytes:
    k = _place(content, rng)
    return content[:k] + bytes([int(rng.integers(256))]) + content[k + 1 :]


def _insert(content: bytes, rng: np.random.Generator) -> bytes:
    k = _place(content, rng)
    return content[:k] + TOKENS[int(rng.integers(len(TOKENS)))] + content[k:]


def _remove(content: bytes, rng: np.random.Generator) -> bytes:
    k = _place(content, rng)
    return content[:k] + content[k + int(rng.integers(1, 12)) :]


def _repeat(content: bytes, rng: np.random.Generator) -> bytes:
    k = _place(content, rng)
    piece = content[k : k + int(rng.integers(1, 40))]
    return content[:k] + piece * int(rng.integers(2, 6)) + content[k:]


def _cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: _place(content, rng)]


def _swap_lines(content: bytes, rng: np.random.Generator) -> bytes:
    lines = content.splitlines(keepends=True)
    if len(lines) < 2:
        return content
    a, b = (int(k) for k in rng.choice(len(lines), 2, replace=False))
    lines[a], lines[b] = lines[b], lines[a]
    return b"".join(lines)


def _renumber(content: bytes, rng: np.random.Generator) -> bytes:
    """Another value for one number."""
    digits = [k for k, byte in enumerate(content) if chr(byte).isdigit()]
    if not digits:
        return content
    start = end = digits[int(rng.integers(len(digits)))]
    while start and chr(content[start - 1]) in "0123456789.-+e":
        start -= 1
    while end < len(content) and chr(content[end]) in "0123456789.-+e":
        end += 1
    return content[:start] + TOKENS[int(rng.integers(14))] + content[end:]


_CHANGES: list[Callable[[bytes, np.random.Generator], bytes]] = [
    _flip,
    _insert,
    _remove,
    _repeat,
    _cut,
    _swap_lines,
    _renumber,
]


@contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    """Fail if what is inside takes longer."""

    def late(*_: object) -> None:
        raise AssertionError(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(read: Callable[[], Value], what: str) -> Value | None:
    """What a reader makes of a spoiled file, None if it refuses it as it should: one line without control characters.

    Raises:
        AssertionError: any other error, an error of several lines, or no answer in time.
    """
    try:
        with no_longer_than(SECONDS):
            return read()
    except DefectgenError as error:
        text = str(error)
        assert text, what
        assert "\n" not in text, what
        assert len(text) < 1000, what
        assert not any(ord(mark) < 32 or 127 <= ord(mark) < 160 for mark in text), f"{what}: {text!r}"
        return None
    except AssertionError:
        raise
    except BaseException as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error


def is_finite(value: Any) -> bool:
    """Whether all numbers in plain containers are finite."""
    if isinstance(value, Mapping):
        return all(is_finite(item) for item in value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return all(is_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)
