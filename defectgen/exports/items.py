"""What is exported: structures with their configuration, values that go with them, and energies where there are any."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defectgen.campaign.folder import CALCULATIONS, CONFIG, Campaign
from defectgen.campaign.kept_references import reference_paths
from defectgen.campaign.store import DONE
from defectgen.core import Configuration, Host
from defectgen.core.matching import known_configuration
from defectgen.design.candidates import DesignRun
from defectgen.dft.inputs import MANIFEST as INPUTS
from defectgen.dft.inputs import read_decorations, read_manifest
from defectgen.dft.results import dft_results
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.host_files import stored_hosts
from defectgen.io.structures import RUN_TABLE, read_structure
from defectgen.one_line import OneLine

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from defectgen.dft.results import DftTable

NOT_VALUES = {"rank", "n_defects", "similar", "novel", "multiplicity"}
"""Columns of candidates.csv that are numbers of the list and not of the structure."""


@dataclass(frozen=True, repr=False)
class ExportItem(OneLine):
    """One structure to hand over.

    Attributes:
        name: unique among the items.
        configuration: what it decorates and where.
        structure: atoms; unrelaxed, or as a potential or a DFT code left them.
        values: numbers by column, levels and energies in eV, and texts.
        energy_ev: total energy of the cell by DFT; None where there is none.
        host_energy_ev: of the pristine supercell by the same settings; None where there is none.
        charge: of the cell.
    """

    name: str
    configuration: Configuration
    structure: Structure
    values: Mapping[str, float | str] = field(default_factory=dict)
    energy_ev: float | None = None
    host_energy_ev: float | None = None
    charge: int = 0


What = Configuration | DesignRun | Path | str
"""What can be exported."""


def export_items(
    what: What | Iterable[What], host: Host | None = None, left_out: list[str] | None = None
) -> list[ExportItem]:
    """The structures of design runs, of folders of DFT results, of files, or configurations.

    Args:
        what: a design run or its folder, a campaign's folder, one that ``defectgen inputs`` wrote and a code computed,
            structure files, or configurations; or several of these.
        host: what structure files decorate; None for any built-in host.
        left_out: see `defectgen.dft.inputs.dft_inputs`.

    Raises:
        UsageError: nothing to export.
        DefectgenError: a file that cannot be read, or that decorates no known host.
    """
    places = [what] if isinstance(what, Configuration | DesignRun | Path | str) else list(what)
    found = [item for place in places for item in _items(place, host, left_out)]
    if not found and left_out:
        raise DefectgenError(left_out[0])
    if not found:
        raise UsageError("got nothing to export.", "Expected a design run, DFT results or structures.")
    seen: dict[str, int] = {}
    unique = []
    for item in found:
        seen[item.name] = seen.get(item.name, 0) + 1
        again = seen[item.name]
        unique.append(item if again == 1 else replace(item, name=f"{item.name}-{again}"))
    return unique


def holds_files(path: Path) -> bool:
    """Whether a path is taken for structure files, or a folder of them: it is no run, no campaign, no DFT results."""
    of_campaign = path.name == CALCULATIONS and (path.parent / CONFIG).is_file()
    return not (of_campaign or any((path / name).is_file() for name in (RUN_TABLE, CONFIG, INPUTS)))


def _items(what: What, host: Host | None, left_out: list[str] | None) -> list[ExportItem]:
    if isinstance(what, Configuration):
        return [ExportItem(_name(what), what, what.to_structure(), {"label": what.label})]
    if isinstance(what, DesignRun):
        return [
            ExportItem(
                f"{candidate.target.id}-{candidate.rank:03d}-{_name(candidate.configuration)}",
                candidate.configuration,
                candidate.relaxation.structure
                if candidate.relaxation is not None and candidate.relaxation.usable
                else candidate.configuration.to_structure(),
                {"label": candidate.configuration.label, **_numbers(candidate.predicted)},
            )
            for candidate in what.candidates
        ]
    path = Path(what)
    if (path / RUN_TABLE).is_file():
        return _of_run(path)
    if (path / CONFIG).is_file():
        return _of_campaign(path)
    if path.name == CALCULATIONS and (path.parent / CONFIG).is_file():
        return _of_campaign(path.parent)
    if (path / INPUTS).is_file():
        return _of_results(path, host)
    return _of_files(path, host, left_out)


def _name(configuration: Configuration) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "-", configuration.label).strip("-") or "pristine"


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def _of_run(folder: Path) -> list[ExportItem]:
    """The candidates of a design run by its table, relaxed where there is a relaxed file."""
    import polars as pl

    from defectgen.io.tables import read_csv

    (host,) = stored_hosts(folder).values()
    try:
        rows = read_csv(folder / RUN_TABLE, infer_schema_length=None).rows(named=True)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DefectgenError(f"{folder / RUN_TABLE} cannot be read ({error!s:.100}).") from error
    items = []
    for row in rows:
        configuration = Configuration.from_key(host, row["configuration"] or "")
        relaxed = row.get("relaxed_cif") if row.get("geometry") != "diverged" else None
        structure = configuration.to_structure() if relaxed is None else read_structure(folder / relaxed)
        values = {k: v for k, v in _numbers(row).items() if k not in NOT_VALUES}
        name = f"{row['target_id']}-{row['rank']:03d}-{_name(configuration)}"
        items.append(ExportItem(name, configuration, structure, {"label": row["label"], **values}))
    return items


def _of_campaign(folder: Path) -> list[ExportItem]:
    """What a campaign has computed, with the energies of its own calculations."""
    campaign = Campaign.open(folder)
    rows = [row for row in campaign.store.rows() if row.state == DONE]
    if not rows:
        raise DefectgenError(f"{folder} has computed nothing yet.", f"Run: defectgen campaign run {folder}")
    places = [campaign.folder / CALCULATIONS / row.place for row in rows if row.place]
    found = [place for place in places if any(place.glob("*/*"))]
    computed = {}
    if found:
        table = dft_results([*reference_paths(campaign), *found], host=campaign.host)
        computed = {item.configuration.canonical().key: item for item in _of_table(table, campaign.host)}
    return [
        ExportItem(
            f"{row.id:05d}-{_name(row.configuration)}",
            row.configuration if row.key not in computed else computed[row.key].configuration,
            computed[row.key].structure if row.key in computed else campaign.store.structure(row.id),
            {"label": row.configuration.label, **_numbers(row.computed)},
            computed[row.key].energy_ev if row.key in computed else None,
            computed[row.key].host_energy_ev if row.key in computed else None,
        )
        for row in rows
    ]


def _of_results(folder: Path, host: Host | None) -> list[ExportItem]:
    """The defects among DFT results."""
    items = _of_table(dft_results(folder, host=host), host or read_manifest(folder)[0])
    if not items:
        raise DefectgenError(f"{folder} has no finished calculation of a defect.", "Run: defectgen compute, or results")
    return items


def _of_table(table: DftTable, pristine: Host) -> list[ExportItem]:
    """The converged defects of a table of results, with their energies and that of the host by the same settings."""
    rows = table.frame.rows(named=True)
    hosts = {
        row["settings_id"]: row["energy_ev"] * pristine.n_sites / len(result.structure)
        for row, result in sorted(
            zip(rows, table.results, strict=True), key=lambda pair: pair[0]["supercell"] == pristine.size
        )
        if row["role"] == "host" and row["converged"] and result is not None and row["energy_ev"] is not None
    }  # the host in the supercell itself comes last, and counts before that in another one
    items = []
    for row, result in zip(rows, table.results, strict=True):
        if result is None or row["role"] != "defect" or not row["converged"] or not row["configuration"]:
            continue
        configuration = known_configuration(result.structure, pristine)
        values = {k: v for k, v in _numbers(row).items() if k != "charge"}
        items.append(
            ExportItem(
                _name(configuration) if str(row["name"]).isdecimal() else row["name"],
                configuration,
                result.structure,
                {"label": row["label"], **values},
                row["energy_ev"],
                hosts.get(row["settings_id"]),
                int(row["charge"] or 0),
            )
        )
    return items


def _of_files(path: Path, host: Host | None, left_out: list[str] | None) -> list[ExportItem]:
    return [
        ExportItem(Path(name).stem, configuration, structure, {"label": configuration.label})
        for name, configuration, structure in read_decorations(path, host, left_out)
    ]
