"""What there is to know of a host: cell, rules, symmetry, and which models were trained on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from defectgen.core import Host, get_host
from defectgen.core.hosts import HOSTS, host_aliases
from defectgen.core.names import defect_name
from defectgen.core.space_group import HostSymmetry, host_symmetry
from defectgen.errors import UsageError
from defectgen.io.host_files import host_from_file
from defectgen.llm.adapter import METADATA as ADAPTER_METADATA
from defectgen.llm.adapter import read_adapter
from defectgen.score.surrogate.model import trained_defects

UNIT_CELL = (1, 1)


@dataclasses.dataclass(frozen=True)
class HostRecord:
    """One host, for people and programs.

    Attributes:
        name: as other commands take it; of a file the formula.
        aliases: other names.
        formula: of the unit cell, e.g. ``Ga2Se2``.
        supercell: e.g. ``8x8``; None if a file was read without one.
        n_sites: of the supercell, or of the unit cell if there is none.
        defects: the point defects that the rules allow, e.g. ``v_S``.
        symmetry: unit cell, space group and equivalent atoms.
        max_defects: for each model that was trained on the host the largest number of defects in a cell.
    """

    name: str
    aliases: tuple[str, ...]
    formula: str
    supercell: str | None
    n_sites: int
    defects: tuple[str, ...]
    symmetry: HostSymmetry
    max_defects: dict[str, int]


def known_hosts(models: Sequence[Path] = (), supercell: tuple[int, int] | None = None) -> list[HostRecord]:
    """The records of all hosts by name.

    Args:
        models: folders of adapters and surrogates; each is named after its folder.
        supercell: instead of those of 2DMD, in which alone the models know them.

    Raises:
        DefectgenError: a folder without a model.
    """
    trained = {folder.name: trained_on(folder) for folder in models}
    records = []
    for name, host in HOSTS.items():
        asked = dataclasses.replace(host, supercell=supercell or host.supercell)
        known = trained if asked.supercell == host.supercell else {}
        most = {model: hosts[name] for model, hosts in known.items() if name in hosts}
        records.append(_record(asked, host_aliases(name), most))
    return records


def host_record(host: str, models: Sequence[Path] = (), supercell: tuple[int, int] | None = None) -> HostRecord:
    """The record of a host by its name, or of the layer whose unit cell is in a CIF or POSCAR file.

    Args:
        host: name or path; no model was trained on a host from a file.
        models: see `known_hosts`.
        supercell: repetitions in the plane.

    Raises:
        UsageError: neither a known host nor a file.
        DefectgenError: see `defectgen.io.host_files.host_from_file`.
    """
    path = Path(host)
    try:
        name = get_host(host).name
    except UsageError:
        if not path.suffix and not path.is_file():
            raise
        record = _record(host_from_file(path, supercell or UNIT_CELL), (), {})
        return record if supercell else dataclasses.replace(record, supercell=None)
    return next(record for record in known_hosts(models, supercell) if record.name == name)


def trained_on(folder: Path) -> dict[str, int]:
    """For each host that an adapter or a surrogate was trained on the largest number of defects in a cell.

    Raises:
        DefectgenError: no model in the folder, or a damaged one.
    """
    if (folder / ADAPTER_METADATA).is_file():
        return dict(read_adapter(folder).max_defects)
    return trained_defects(folder)


def _record(host: Host, aliases: tuple[str, ...], max_defects: dict[str, int]) -> HostRecord:
    return HostRecord(
        name=host.name,
        aliases=aliases,
        formula="".join(f"{e}{n if n > 1 else ''}" for e in host.elements for n in [host.species.count(e)]),
        supercell=host.size,
        n_sites=host.n_sites,
        defects=tuple(defect_name(rule.element, rule.replacement) for rule in host.rules),
        symmetry=host_symmetry(host),
        max_defects=max_defects,
    )
