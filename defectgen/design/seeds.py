"""Seeds for the parts of a run."""

from __future__ import annotations

import hashlib


def seed_for(seed: int, *parts: object) -> int:
    """A seed for one part of a run, independent of the others."""
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
