"""Colours of the elements, for pictures."""

from __future__ import annotations

_COLOURS = {
    "H": "e8e8e8", "B": "f29b9b", "C": "4d4d4d", "N": "3050f8", "O": "ff0d0d", "F": "68b82f", "Al": "a88f8f",
    "Si": "c49a6c", "P": "f58220", "S": "e8c800", "Cl": "1fb81f", "Ti": "8f9399", "V": "8b8ea0", "Cr": "6f86c0",
    "Mn": "8f6bb8", "Fe": "d95f2e", "Co": "d8718a", "Ni": "46b846", "Cu": "c0752f", "Zn": "6f72a8", "Ga": "b5817d",
    "Ge": "5d8a8a", "As": "a66bd4", "Se": "f08a00", "Br": "a12f2f", "Zr": "77bcbc", "Nb": "5aa9b3", "Mo": "3fa3a3",
    "Pd": "256f85", "Ag": "9aa0a6", "Cd": "c9a24a", "In": "7a5cb8", "Sn": "5f7f80", "Sb": "8f5aa8", "Te": "c46a00",
    "I": "8a0a8a", "Hf": "4da9e0", "Ta": "4d94e0", "W": "1f7fc4", "Re": "2870a0", "Pt": "9a9aa8", "Au": "d8a800",
    "Pb": "575961", "Bi": "9e4fb5",
}  # fmt: skip
"""The colours of Jmol, darkened where they vanish on white, and with In set apart from Ga."""

_OTHER_COLOUR = "8a8f98"


def colour(element: str) -> str:
    """Colour of an element as ``#rrggbb``."""
    return f"#{_COLOURS.get(element, _OTHER_COLOUR)}"


def muted_colour(element: str, share: float = 0.45) -> str:
    """The colour mixed with a light grey, of which `share` is the element's."""
    grey = (0xD9, 0xDC, 0xE1)
    own = _channels(colour(element))
    return "#" + "".join(f"{round(share * a + (1 - share) * b):02x}" for a, b in zip(own, grey, strict=True))


def text_colour(element: str) -> str:
    """Black or white, whichever reads better on the element's colour."""
    red, green, blue = _channels(colour(element))
    return "#fff" if 0.299 * red + 0.587 * green + 0.114 * blue < 140 else "#111"


def _channels(hex_colour: str) -> tuple[int, int, int]:
    return int(hex_colour[1:3], 16), int(hex_colour[3:5], 16), int(hex_colour[5:7], 16)
