"""What the texts of all tasks have in common: the mask of a prompt, and the error of an unreadable completion."""

from __future__ import annotations

from defectgen.errors import DefectgenError

MASK = "[MASK]"
"""Stands in a prompt for a symbol that the completion gives."""


class ParseError(DefectgenError):
    """A completion that does not state what its task asks for."""
