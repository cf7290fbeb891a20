"""JSON and YAML that may come from anywhere, read with bounds: size, depth, encoding, keys, finite numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from defectgen.errors import DefectgenError
from defectgen.one_line import printable, shown

JSON_BYTES = 500_000_000
"""Largest JSON document that is read: the list of training configurations of a large run."""

YAML_BYTES = 1_000_000
"""Largest YAML document that is read: a configuration or a card."""

DEPTH = 40
"""Most levels of lists and mappings in one another."""

YAML_ITEMS = 100_000
"""Most values of a YAML document, with aliases written out."""

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


class _RefusedError(ValueError):
    """Why a parser was stopped."""


_TOO_DEEP = f"nested deeper than {DEPTH} levels"


def read_text(path: Path, limit: int) -> str:
    """The text of a file.

    Args:
        path: of the file; a byte-order mark is left out.
        limit: in bytes.

    Raises:
        DocumentError: larger than `limit`, or not UTF-8.
        OSError: no such file, or it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(limit + 1)
    return _decoded(content, str(path), limit)


def _decoded(content: bytes, where: str, limit: int) -> str:
    if len(content) > limit:
        raise DocumentError(where, f"larger than {limit} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"byte {error.start + 1} is {content[error.start]:#04x}, which is not UTF-8"
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
    except _RefusedError as error:
        raise DocumentError(where, str(error)) from error
    except RecursionError as error:
        raise DocumentError(where, _TOO_DEEP) from error
    except ValueError as error:
        raise DocumentError(where, f"cannot be read as JSON ({printable(str(error))})") from error
    for _ in _walk(value, where):
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


def read_yaml(path: Path) -> Any:
    """The value in a YAML file, with the checks of `parse_yaml`.

    Raises:
        DocumentError: see `read_text` and `parse_yaml`.
        OSError: no such file, or it cannot be read.
    """
    return parse_yaml(read_text(path, YAML_BYTES), str(path))


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text, of plain types only.

    Args:
        text: no key twice in a mapping, keys are texts, and numbers are finite.
        where: it comes from, for messages.

    Raises:
        DocumentError: it breaks one of these rules, is nested deeper than `DEPTH`, or has more than `YAML_ITEMS`
            values.
    """
    try:
        value = yaml.load(text, Loader=_Loader)  # a SafeLoader
    except _RefusedError as error:
        raise DocumentError(where, str(error)) from error
    except RecursionError as error:
        raise DocumentError(where, _TOO_DEEP) from error
    except (yaml.YAMLError, ValueError, LookupError, OverflowError, TypeError, AttributeError) as error:
        reason = " ".join(printable(str(error)).split())
        raise DocumentError(where, f"cannot be read as YAML ({reason:.200})") from error
    for number, item in enumerate(_walk(value, where)):
        if number > YAML_ITEMS:
            raise DocumentError(where, f"more than {YAML_ITEMS} values (aliases written out)")
        if isinstance(item, int) and abs(item) >= 10**WHOLE_DIGITS:
            raise DocumentError(where, f"got a whole number of more than {WHOLE_DIGITS} digits")
        if isinstance(item, float) and not math.isfinite(item):
            raise DocumentError(where, f"got {item}, expected finite numbers")
        if isinstance(item, dict) and (other := next((key for key in item if not isinstance(key, str)), None)):
            raise DocumentError(where, f"got the key {shown(other)}, expected a text")
    return value


class _Loader(yaml.SafeLoader):
    """A SafeLoader that minds how deep it is, and refuses a key that occurs twice."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEPTH:
            raise _RefusedError(_TOO_DEEP)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:str":
                if key.value in keys:
                    raise _RefusedError(f"the key {shown(key.value)} occurs twice (line {key.start_mark.line + 1})")
                keys.add(key.value)
        return super().construct_mapping(node, deep)


def _walk(value: object, where: str) -> Iterator[object]:
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
                raise DocumentError(where, _TOO_DEEP)
            waiting += [(inner, depth + 1) for inner in (item.values() if isinstance(item, dict) else item)]


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys: set[str] = set()
        twice = next(key for key, _ in pairs if key in keys or keys.add(key))  # type: ignore[func-returns-value]
        raise _RefusedError(f"the key {shown(twice)} occurs twice")
    return found


def _no_constant(name: str) -> float:
    raise _RefusedError(f"got {name}, expected finite numbers")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _RefusedError(f"got {text:.40}, expected finite numbers")
    return value


def _whole(text: str) -> int:
    if len(text) > WHOLE_DIGITS:
        raise _RefusedError(f"got a whole number of {len(text)} digits, expected {WHOLE_DIGITS} or fewer")
    return int(text)
