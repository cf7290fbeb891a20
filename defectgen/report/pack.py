"""Texts packed into a page: what its scripts unpack when a reader asks for it."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup

VIEWER_FOLDER = "3dmol"
"""3Dmol.js 2.5.5 as its authors publish it, with its licence (BSD-3-Clause), in the folder ``assets``."""

VIEWER_CITATION = (
    "3D view: 3Dmol.js (BSD-3-Clause), N. Rego and D. Koes, Bioinformatics 31, 1322 (2015)",
    "10.1093/bioinformatics/btu829",
)


def packed(text: str) -> Markup:
    """A text as gzip in base64, which no markup can end; the same text gives the same."""
    from markupsafe import Markup

    return Markup(base64.b64encode(gzip.compress(text.encode("utf-8"), 9, mtime=0)).decode("ascii"))


def packed_json(value: Mapping[str, object]) -> Markup:
    """Plain values as packed JSON."""
    return packed(json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False))


@cache
def packed_viewer() -> Markup:
    """The library that draws in three dimensions, with its licence as a comment before it."""
    folder = resources.files("defectgen.report").joinpath("assets", VIEWER_FOLDER)
    licence = folder.joinpath("LICENSE").read_text(encoding="utf-8").replace("*/", "* /")
    return packed(f"/*!\n{licence}\n*/\n{folder.joinpath('3Dmol-min.js').read_text(encoding='utf-8')}")
