"""Structure files as samples to score: each matched to the host that it decorates, if any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from defectgen.core import Configuration, Host, NotADecorationError, configuration_from_structure
from defectgen.io.structures import read_structures, structure_files
from defectgen.one_line import OneLine
from defectgen.score.protocol import Sample

if TYPE_CHECKING:
    from pymatgen.core import Structure

__all__ = ["NamedSample", "match_host", "read_samples", "structure_files"]


@dataclass(frozen=True, repr=False)
class NamedSample(OneLine):
    """What one structure of a file is.

    Attributes:
        name: path of the file, with ``#2`` for the second structure of several in it.
        sample: None if the file holds nothing that can be scored.
        note: why it is no sample, or no decoration; empty if it is one.
        warnings: what the reader took for granted.
    """

    name: str
    sample: Sample | None
    note: str = ""
    warnings: tuple[str, ...] = ()


def read_samples(path: Path, hosts: Sequence[Host]) -> list[NamedSample]:
    """The structures of a file, each with the decoration that it shows of one of the hosts.

    What cannot be read gives an entry that says why.
    """
    found = []
    for item in read_structures(path):
        if item.structure is None:
            found.append(NamedSample(item.name, None, f"{item.name}: {item.note}.", item.warnings))
            continue
        configuration, note = match_host(item.structure, hosts)
        found.append(NamedSample(item.name, Sample(item.structure, configuration), note, item.warnings))
    return found


def match_host(structure: Structure, hosts: Sequence[Host]) -> tuple[Configuration | None, str]:
    """The decoration that a structure shows of the first host that fits, or why none does."""
    reasons: dict[Host, str] = {}
    for host in hosts:
        try:
            return configuration_from_structure(host, structure), ""
        except NotADecorationError as error:
            reasons[host] = str(error)
    symbols = [site.specie.symbol for site in structure]
    nearest = max(hosts, key=lambda host: sum(symbol in host.elements for symbol in symbols))
    if len(hosts) > 1 and not set(symbols) & set(nearest.elements):
        return None, f"is no decoration of a known host ({', '.join(host.name for host in hosts)})."
    return None, f"is no decoration of {nearest.name} {nearest.size}: {reasons[nearest]}"
