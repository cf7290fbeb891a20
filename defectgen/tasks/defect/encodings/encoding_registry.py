"""The encodings by short name."""

from __future__ import annotations

from dataclasses import replace

from defectgen.core.hosts import BUILT_IN
from defectgen.core.registry import Registry
from defectgen.tasks.defect.encodings.composition import CompositionEncoding
from defectgen.tasks.defect.encodings.edits import EditsEncoding
from defectgen.tasks.defect.encodings.encoding import Encoding, check_encoding
from defectgen.tasks.defect.encodings.site_lists import CrystalEncoding, SymbolsEncoding


def _check(name: str, encoding: Encoding) -> None:
    check_encoding(name, encoding, replace(BUILT_IN["BN"], supercell=(2, 2)))


ENCODINGS: Registry[Encoding] = Registry("encoding", "encodings", _check)
ENCODINGS.built_in(
    {
        "edits": EditsEncoding(),
        "composition": CompositionEncoding(),
        "symbols": SymbolsEncoding(),
        "crystal": CrystalEncoding(),
    }
)


def get_encoding(name: str) -> Encoding:
    """The encoding of this name.

    Raises:
        UsageError: there is none.
    """
    return ENCODINGS.find(name)


def register_encoding(name: str, encoding: Encoding) -> Encoding:
    """Add an encoding, which then serves in records, training and design.

    Raises:
        UsageError: the name is taken, or the encoding breaks its protocol; see `check_encoding`.
    """
    return ENCODINGS.register(name, encoding)
