"""What a surrogate of one's own values has seen of a host: structures, ranges of values, numbers of defects."""

from __future__ import annotations

from collections.abc import Container

from defectgen.core import Host
from defectgen.score.surrogate import Surrogate


class SeenStructures(Container[str]):
    """Canonical keys of a host that a surrogate was fitted on; it keeps their digests, so that none can be listed."""

    def __init__(self, surrogate: Surrogate, host: Host) -> None:
        """Of one host."""
        self._surrogate, self._host = surrogate, host

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._surrogate.has_seen(self._host.name, key)


def covered_ranges(surrogate: Surrogate, host: Host) -> dict[str, list[float]]:
    """Least and largest value of each property that a surrogate was trained on, in its unit."""
    found: dict[str, list[float]] = {}
    for part in surrogate.parts:
        for column, (low, high) in part.covered.items() if part.host == host.name else ():
            before = found.get(column, [low, high])
            found[column] = [min(low, before[0]), max(high, before[1])]
    return found


def most_defects(surrogate: Surrogate, host: Host) -> int:
    """Most defects in a cell that a surrogate was trained on; 0 for another host."""
    return max((part.defects_range[1] for part in surrogate.parts if part.host == host.name), default=0)
