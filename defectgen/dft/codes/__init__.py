"""The DFT codes by short name."""

from __future__ import annotations

from defectgen.core.registry import Registry, breaks, require_members
from defectgen.dft.codes.calculator import Calculator
from defectgen.dft.codes.dft_code import DftCode, EngineOptions, Remedy
from defectgen.dft.codes.espresso import Espresso
from defectgen.dft.codes.gpaw import Gpaw
from defectgen.dft.codes.vasp import Vasp

__all__ = ["CODES", "DftCode", "EngineOptions", "Remedy", "register_dft_code"]


def _check(name: str, code: DftCode) -> None:
    require_members("DFT code", name, code, DftCode)
    if not code.title:
        raise breaks("DFT code", name, "its title is empty")


CODES: Registry[DftCode] = Registry("DFT code", "dft_codes", _check)
"""All DFT codes by name."""

CODES.built_in({"vasp": Vasp(), "gpaw": Gpaw(), "qe": Espresso(), "ase": Calculator()})


def register_dft_code(name: str, code: DftCode) -> DftCode:
    """Add a DFT code.

    Args:
        name: short name, for ``--code``.
        code: see `DftCode`.

    Raises:
        UsageError: the name is taken, or the code breaks the protocol.
    """
    return CODES.register(name, code)
