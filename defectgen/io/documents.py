"""JSON that may come from anywhere, read with bounds: size, depth, encoding, keys, finite numbers."""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from defectgen.errors import DefectgenError
from defectgen.one_line import printable, shown

JSON_BYTES = 500_000_000
"""Largest JSON document that is read: the list of training configurations of a large run."""

DEPTH = 40
"""Most levels of lists and mappings in one another."""

WHOLE_DIGITS = 40
"""Most digits of a whole number."""


class DocumentError(DefectgenError, ValueError):
    """A document that cannot be read; a `ValueError` too, as of the parsers that it stands for.

    Attributes:
        reason: the message without the name of the document.
    """

    def __init__(self, where: str, reason: str, hint: str = "") -> None:
        super().__init__(f"{where}: {reason}.", hint)
        self.reason = reason


class RefusedError(ValueError):
    """Why a parser was stopped."""


TOO_DEEP = f"nested deeper than {DEPTH} levels"


def read_text(path: Path, limit: int) -> str:
    """The text of a file.

    Args:
        path: of the file; a byte-order mark is left out.
        limit: in bytes.

    Raises:
        DocumentError: larger than `limit`, or neither UTF-8 nor UTF-16 with a mark.
        OSError: no such file, or it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(limit + 1)
    return _decoded(content, str(path), limit)


def _decoded(content: bytes, where: str, limit: int) -> str:
    if len(content) > limit:
        raise DocumentError(where, f"larger than {limit} bytes")
    try:
        is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"byte {error.start + 1} is {content[error.start]:#04x}, which is not {error.encoding.upper()}"
        raise DocumentError(where, reason, "Save the file as UTF-8.") from error


def read_json(path: Path, limit: int = JSON_BYTES) -> Any:
    """The value in a JSON file, with the checks of `parse_json`.

    Raises:
        DocumentError: see `read_text` and `parse_json`.
        OSError: no such file, or it cannot be read.
    """
    return parse_json(read_text(path, limit), str(path))


def read_object(path: Path, required: Mapping[str, type | tuple[type, ...]] | None = None) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: of the file.
        required: keys that it must have, and what their values must be.

    Raises:
        DocumentError: see `read_json`; another value than an object, a key missing, or a value of another type.
        OSError: no such file, or it cannot be read.
    """
    value = read_json(path)
    return require_object(value, str(path), required)


def require_object(
    value: object, where: str, required: Mapping[str, type | tuple[type, ...]] | None = None
) -> dict[str, Any]:
    """A value that is an object with these keys; see `read_object`."""
    if not isinstance(value, dict):
        raise DocumentError(where, f"got {shown(value)}, expected keys with values")
    for key, kinds in (required or {}).items():
        if key not in value:
            raise DocumentError(where, f"the key {key!r} is missing")
        found = value[key]
        allowed = kinds if isinstance(kinds, tuple) else (kinds,)
        if not isinstance(found, allowed) or (isinstance(found, bool) and bool not in allowed):
            names = " or ".join(_NAMES.get(kind, kind.__name__) for kind in allowed)
            raise DocumentError(where, f"{key} is {shown(found)}, expected {names}")
    return value


_NAMES = {dict: "an object", list: "a list", str: "a text", int: "a whole number", float: "a number", bool: "a truth"}


def parse_json(text: str, where: str, *, finite: bool = True) -> Any:
    """The value of a JSON text.

    Args:
        text: strict JSON: no key twice in an object, no NaN, and no number beyond the range of a float.
        where: it comes from, for messages.
        finite: without it NaN and infinities pass; whoever reads the values checks them.

    Raises:
        DocumentError: it breaks one of these rules, or is nested deeper than `DEPTH`.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant if finite else float,
            parse_float=_finite if finite else float,
            parse_int=_whole,
        )
    except RefusedError as error:
        raise DocumentError(where, str(error)) from error
    except RecursionError as error:
        raise DocumentError(where, TOO_DEEP) from error
    except ValueError as error:
        raise DocumentError(where, f"cannot be read as JSON ({printable(str(error))})") from error
    for _ in walk(value, where):
        pass
    return value


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file with one on each line, with the number of the line.

    Raises:
        DocumentError: a line that is no object, see `parse_json`.
        OSError: no such file, or it cannot be read.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{path}, line {number}"
            yield number, require_object(parse_json(_decoded(line, where, JSON_BYTES), where), where)


def walk(value: object, where: str) -> Iterator[object]:
    """All values in one another, as often as they occur.

    Raises:
        DocumentError: deeper than `DEPTH`.
    """
    waiting = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        yield item
        if isinstance(item, dict | list | tuple | set):
            if depth > DEPTH:
                raise DocumentError(where, TOO_DEEP)
            waiting += [(inner, depth + 1) for inner in (item.values() if isinstance(item, dict) else item)]


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys: set[str] = set()
        twice = next(key for key, _ in pairs if key in keys or keys.add(key))  # type: ignore[func-returns-value]
        raise RefusedError(f"the key {shown(twice)} occurs twice")
    return found


def _no_constant(name: str) -> float:
    raise RefusedError(f"got {name}, expected finite numbers")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise RefusedError(f"got {text:.40}, expected finite numbers")
    return value


def _whole(text: str) -> int:
    if len(text) > WHOLE_DIGITS:
        raise RefusedError(f"got a whole number of {len(text)} digits, expected {WHOLE_DIGITS} or fewer")
    return int(text)
