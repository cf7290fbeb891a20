"""A representation of one short line for objects that hold arrays, networks or many structures."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

SHOWN_CHARACTERS = 60
"""Longest text of a field that is shown as it is."""

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What moves the cursor, changes colours or turns the direction of writing; tab and line feed are not among it."""

BREAKS = re.compile(rf"{CONTROL.pattern}|[\n\u2028\u2029]")
"""Likewise, and what ends a line."""

_LONE = re.compile(r"[\ud800-\udfff]")
"""Python's stand-ins for bytes of a file name that are no UTF-8."""


def printable(text: str) -> str:
    """A text without control characters, as it may be shown in a terminal."""
    return CONTROL.sub("", encodable(text))


def on_one_line(text: str) -> str:
    r"""A text as one line that a terminal may show: line breaks and control characters as ``\n`` or ``\x1b``."""
    return BREAKS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), encodable(text))


def encodable(text: str) -> str:
    r"""A text that UTF-8 can hold: bytes of a file name that are none become ``\xff`` (four characters)."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") if _LONE.search(text) else text


def shown(value: object, width: int = SHOWN_CHARACTERS) -> str:
    """A value of a file as one short line for a message."""
    text = " ".join(printable(repr(value)).split())
    return text if len(text) <= width else f"{text[: width - 3]}..."


def typed(value: object) -> str:
    """What was given where something else is expected, with its type, as one short line for a message."""
    name, shape = type(value).__name__, getattr(value, "shape", None)
    if isinstance(shape, tuple) and hasattr(value, "columns"):  # a table, which shows itself as one
        return f"{name} with {shape[0]} rows"
    text = shown(value, 40)
    return text if text.startswith((f"{name}(", f"<{name} ")) else f"{name} {text}"


def reason_of(error: Exception) -> str:
    """What an error of a library says, on one line of at most 100 characters."""
    return f"{' '.join(str(error).split()) or type(error).__name__:.100}"


class OneLine:
    """Base of a dataclass, made with ``repr=False``: shows short fields as they are, and of others what they are."""

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        shown = ", ".join(f"{field.name}={_short(getattr(self, field.name))}" for field in fields if field.repr)
        return f"{type(self).__name__}({shown})"


def _short(value: Any) -> str:
    """A field's value in few characters on one line."""
    name = type(value).__name__
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, str | Path):
        text = repr(str(value))
        return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 4]}...{text[-1]}"
    if isinstance(value, tuple | list | Mapping | Set):
        if len(value) <= 4 and all(isinstance(item, bool | int | float | str) for item in value):
            text = repr(value)
            if len(text) <= SHOWN_CHARACTERS:
                return text
        return f"<{name} of {len(value)}>"
    if (shape := getattr(value, "shape", None)) is not None:
        return f"<{name} {'x'.join(map(str, shape)) or 'scalar'}>"
    if getattr(type(value), "__module__", "").startswith("defectgen"):
        text = repr(value)
        if "\n" not in text and len(text) <= SHOWN_CHARACTERS:
            return text
    return f"<{name}>"
