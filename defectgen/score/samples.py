"""Structure files as samples to score: each matched to the host that it decorates, if any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from defectgen.core import Host, NotADecorationError
from defectgen.core.matching import recognize
from defectgen.io.structures import read_structures
from defectgen.one_line import OneLine
from defectgen.score.protocol import Sample


@dataclass(frozen=True, repr=False)
class NamedSample(OneLine):
    """What one structure of a file is.

    Attributes:
        name: path of the file, with ``#2`` for the second structure of several in it.
        sample: None if the file holds nothing that can be scored.
        note: why it is no sample, or no decoration; empty if it is one.
        warnings: what the reader took for granted.
        transformation: how the structure differs from the host as the host is written, see
            `defectgen.core.matching.Match`; empty if it does not.
    """

    name: str
    sample: Sample | None
    note: str = ""
    warnings: tuple[str, ...] = ()
    transformation: str = ""


def read_samples(path: Path, hosts: Sequence[Host]) -> list[NamedSample]:
    """The structures of a file, each with the decoration that it shows of one of the hosts, in any supercell of it.

    What cannot be read gives an entry that says why.
    """
    found = []
    for item in read_structures(path):
        if item.structure is None:
            found.append(NamedSample(item.name, None, f"{item.name}: {item.note}.", item.warnings))
            continue
        try:
            match = recognize(item.structure, hosts)
        except NotADecorationError as error:
            found.append(NamedSample(item.name, Sample(item.structure), str(error), item.warnings))
            continue
        sample = Sample(item.structure, match.configuration)
        found.append(NamedSample(item.name, sample, "", item.warnings, match.transformation))
    return found
