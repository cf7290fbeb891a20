"""What the options of the DFT commands mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from defectgen.errors import UsageError


def parse_charges(text: str) -> tuple[int, ...]:
    """Charges from text such as ``-1,0,1``.

    Raises:
        UsageError: another form.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"got charges {text!r}, expected whole numbers with commas, e.g. -1,0,1.") from None


def parse_elements(texts: Sequence[str]) -> dict[str, Path]:
    """Structure files of elemental phases from texts such as ``S=alpha-s.cif``.

    Raises:
        UsageError: another form, or no element.
    """
    from pymatgen.core import Element

    found: dict[str, Path] = {}
    for text in texts:
        symbol, equals, path = text.partition("=")
        if not equals or not path or not Element.is_valid_symbol(symbol):
            raise UsageError(f"got {text!r}, expected an element and a file, e.g. S=alpha-s.cif.")
        found[symbol] = Path(path)
    return found
