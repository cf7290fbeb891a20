"""How the defect task is written: prompt and completion of each encoding, and the way back.

All encodings pose one task: a host whose symbols are masked, its defect rules, wanted properties
and kinds of defects go in; the symbols come out. They differ in how much of it is spelled out.

- ``edits``: host and site list are implied by the host's name, the completion lists what changes.
- ``composition``: the same prompt, the completion counts each kind of defect and then lists their sites.
- ``symbols``: the prompt lists every site as ``[MASK]`` with coordinates, the completion is the symbols only.
- ``crystal``: the same prompt, the completion is every line with symbol and coordinates.
"""

from defectgen.tasks.defect.encodings.encoding import (
    KINDS,
    Encoding,
    check_encoding,
    kinds_of,
    wanted_properties,
)
from defectgen.tasks.defect.encodings.encoding_registry import ENCODINGS, get_encoding, register_encoding

__all__ = [
    "ENCODINGS",
    "KINDS",
    "Encoding",
    "check_encoding",
    "get_encoding",
    "kinds_of",
    "register_encoding",
    "wanted_properties",
]
