"""YAML that may come from anywhere, read with the bounds of JSON, and with aliases counted as written out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml

from defectgen.io.documents import DEPTH, TOO_DEEP, WHOLE_DIGITS, DocumentError, RefusedError, read_text, walk
from defectgen.one_line import printable, shown

YAML_BYTES = 1_000_000
"""Largest YAML document that is read: a configuration or a card."""

YAML_ITEMS = 100_000
"""Most values of a YAML document, with aliases written out."""


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
    except RefusedError as error:
        raise DocumentError(where, str(error)) from error
    except RecursionError as error:
        raise DocumentError(where, TOO_DEEP) from error
    except (yaml.YAMLError, ValueError, LookupError, OverflowError, TypeError, AttributeError) as error:
        reason = " ".join(printable(str(error)).split())
        raise DocumentError(where, f"cannot be read as YAML ({reason:.200})") from error
    for number, item in enumerate(walk(value, where)):
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
            raise RefusedError(TOO_DEEP)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:str":
                if key.value in keys:
                    raise RefusedError(f"the key {shown(key.value)} occurs twice (line {key.start_mark.line + 1})")
                keys.add(key.value)
        return super().construct_mapping(node, deep)


def _whole(loader: _Loader, node: yaml.ScalarNode) -> Any:
    return node.value if ":" in node.value else loader.construct_yaml_int(node)


def _real(loader: _Loader, node: yaml.ScalarNode) -> Any:
    return node.value if ":" in node.value else loader.construct_yaml_float(node)


# YAML 1.1 reads 0:1.5 as a number of base 60, where a range is meant
_Loader.add_constructor("tag:yaml.org,2002:int", _whole)
_Loader.add_constructor("tag:yaml.org,2002:float", _real)
