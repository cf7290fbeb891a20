"""Results into a campaign: which structure each is of, by the campaign's settings or not, its values."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defectgen.campaign.folder import APART, CALCULATIONS, REFERENCES, Campaign
from defectgen.campaign.store import DONE, StructureRow
from defectgen.core import Configuration
from defectgen.core.hosts import common_title
from defectgen.core.properties import COLUMNS
from defectgen.dft.ase_files import is_ase_file
from defectgen.dft.codes import CODES
from defectgen.dft.codes.espresso_potential import PLANES
from defectgen.dft.finding import find_results
from defectgen.dft.layer_settings import LayerSettings
from defectgen.dft.result import UNKNOWN_CODE, DftResult
from defectgen.dft.results import DftTable, dft_results, spin_warning
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.files import write_text, write_whole
from defectgen.one_line import OneLine

if TYPE_CHECKING:
    from pymatgen.core import Structure

LEFT_OUT = ("energy_per_atom_ev",)
"""Its zero is that of the code."""

BESIDE = ("OUTCAR", "LOCPOT", PLANES)
"""What results of VASP and pw.x are read with."""


@dataclass(frozen=True, repr=False)
class Added(OneLine):
    """What became of results.

    Attributes:
        new: structures that have values now.
        known: results of structures that had them before.
        references: results of the pristine host and elements that were kept.
        refused: (name, reason) of those that were stored apart.
        notes: what the user has to know, a line each.
    """

    new: tuple[StructureRow, ...]
    known: int
    references: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """A usable result of a structure."""

    configuration: Configuration
    values: dict[str, float]
    settings: str
    structure: Structure | None


def add_results(campaign: Campaign, paths: Sequence[Path], say: Callable[[str], None] = lambda _: None) -> Added:
    """Take in results that were computed elsewhere.

    Results of the pristine host and of elemental phases are copied into the campaign: levels and formation energies
    count against them, also those that come later.

    Args:
        campaign: whose database takes them.
        paths: files, or folders, which are searched with the folders in them.
        say: is told where another run is waited for.

    Raises:
        UsageError: no results there.
        DefectgenError: none of them can be read, or none is of this campaign.
    """
    table = dft_results([*reference_paths(campaign), *paths], host=campaign.host)
    references = campaign.folder / REFERENCES
    if all(_is_below(Path(row["path"]), references) for row in table.frame.to_dicts()):
        find_results([Path(path) for path in paths], campaign.host)  # says that there are none
    readings, refused = _readings(campaign, table, lambda row: not _is_below(Path(row["path"]), references))
    strange, others = _references(campaign, table)
    kept = _keep_references(campaign, others)
    new, known = record(campaign, readings, say)
    if refused:
        _store_apart(campaign, [row | {"reason": reason} for row, reason in refused])
    names = tuple((str(row["name"]), reason) for row, reason in refused)
    if not new and not known and names:
        raise DefectgenError(
            f"none of {len(names)} results can be used; {names[0][0]}: {names[0][1]}.",
            f"They are listed in {campaign.folder / APART}.",
        )
    without = [row.configuration.label for row in new if "formation_energy_ev" not in row.computed]
    names_of = ", ".join(without[:3])
    notes = (
        [f"no formation energy of {names_of}: are host and elements by its settings among the results?"]
        if without
        else []
    )
    if strange:
        first = ", ".join(str(row["name"]) for row in strange[:3])
        notes.append(f"{len(strange)} references not kept ({first}): of another code or other settings")
    if new:
        notes += spin_warning(_spins(campaign))
    return Added(tuple(new), known, tuple(kept), names, tuple(notes))


def _spins(campaign: Campaign) -> list[tuple[str, Configuration, bool]]:
    """Label, defects and spin of what has levels."""
    rows = [
        (row, LayerSettings.from_text(row.settings)) for row in campaign.store.rows() if "band_gap_ev" in row.computed
    ]
    return [
        (row.configuration.label, row.configuration, settings.fingerprint.spin) for row, settings in rows if settings
    ]


def record(
    campaign: Campaign, readings: Sequence[Reading], say: Callable[[str], None]
) -> tuple[list[StructureRow], int]:
    """Put values into the database; structures that were not proposed come in as added.

    Returns:
        The rows that are new, and how many had values before.
    """
    new, known = [], 0
    with campaign.store.changed(say):
        rows = {row.key: row for row in campaign.store.rows()}
        latest = max((row.round for row in rows.values()), default=0)
        others = [item.configuration for item in readings if item.configuration.key not in rows]
        added = campaign.store.add([StructureRow(0, item, round=latest, origin="added") for item in others])
        rows |= {row.key: row for row in added}
        for item in readings:
            row = rows[item.configuration.key]
            if row.state == DONE:
                known += 1
                continue
            done = replace(row, state=DONE, computed=item.values, settings=item.settings, reason="")
            campaign.store.update(done, item.structure)
            rows[row.key] = done
            new.append(done)
    return new, known


def read_calculation(campaign: Campaign, folder: Path) -> tuple[Reading | None, str]:
    """The result of one of the campaign's own calculations, or why there is none."""
    table = dft_results([*reference_paths(campaign), folder], host=campaign.host)
    readings, refused = _readings(campaign, table)
    if refused:
        return None, refused[0][1]
    return (readings[0], "") if readings else (None, "it left no results")


def reference_paths(campaign: Campaign) -> list[Path]:
    """Where the results of the pristine host and the elements are."""
    from defectgen.dft.finding import find_results

    found = []
    for place in (campaign.folder / CALCULATIONS / REFERENCES, campaign.folder / REFERENCES):
        if place.is_dir():
            try:
                find_results([place], campaign.host)
            except UsageError:  # not computed yet
                continue
            found.append(place)
    return found


def _readings(
    campaign: Campaign, table: DftTable, wanted_row: Callable[[dict[str, Any]], bool] = lambda _: True
) -> tuple[list[Reading], list[tuple[dict[str, Any], str]]]:
    """Usable results among some rows, and (row, reason) of the others; references are neither."""
    host = campaign.host
    rows = table.frame.to_dicts()
    settings = _settings_of(campaign, table)
    found, refused = [], []
    for row, result in zip(rows, table.results, strict=True):
        if not wanted_row(row) or (row["role"] in ("host", "element") and result is not None):
            continue
        reason = _refusal(campaign, row, result, settings)
        if reason:
            refused.append((row, reason))
            continue
        values = {c: float(row[c]) for c in COLUMNS if c not in LEFT_OUT and row.get(c) is not None}
        configuration = Configuration.from_key(host, row["configuration"])
        if not values:
            refused.append((row, f"it has no values ({row['note'] or 'neither levels nor energy'})"))
            continue
        assert result is not None
        mine = LayerSettings.of(result)
        settings = [*settings, *({mine} - set(settings))]
        found.append(Reading(configuration, values, mine.text(), result.structure))
    return found, refused


def _settings_of(campaign: Campaign, table: DftTable) -> list[LayerSettings]:
    """The settings of the campaign: those of its structures and of its host; empty before any."""
    found = [settings for text in campaign.store.settings() if (settings := LayerSettings.from_text(text))]
    hosts = (
        LayerSettings.of(result)
        for role, result in zip(table.frame["role"], table.results, strict=True)
        if role == "host" and result is not None and result.code == campaign.config.engine
    )
    host = next(hosts, None)  # the campaign's own come first
    return found if host is None or host.differs_from_any(found) else [*found, host]


def _refusal(
    campaign: Campaign, row: dict[str, Any], result: DftResult | None, settings: Sequence[LayerSettings]
) -> str:
    """Why a result is not of this campaign, in one clause; empty if it is."""
    host = campaign.host
    if result is None:
        return str(row["note"]).rstrip(".")
    if row["role"] != "defect":
        return f"of another host than {common_title(host)}: {row['note']}"
    if (row["host"], row["supercell"]) != (host.name, host.size):
        return f"of {row['host']} {row['supercell']}, this campaign is of {common_title(host)}"
    if row["code"] == UNKNOWN_CODE:
        return f"it does not name its code (in files of ASE: code={campaign.config.engine})"
    if row["code"] != campaign.config.engine:
        return f"computed by {row['code']}, this campaign is of {campaign.config.engine}"
    if other := LayerSettings.of(result).differs_from_any(settings):
        return f"other settings than the campaign's: {other}"
    if row["charge"]:
        return f"charge {row['charge']:+g}, this campaign is of neutral cells"
    if row["electronic_converged"] is False or row["ionic_converged"] is False:
        return f"not converged: {row['note']}"
    if not Configuration.from_key(host, row["configuration"]).follows_rules():
        return f"{row['label']} is not allowed in this campaign"
    return ""


def _references(campaign: Campaign, table: DftTable) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """References from outside by another code or other settings, from which nothing counts, and the others."""
    settings = _settings_of(campaign, table)
    strange: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for row, result in zip(table.frame.to_dicts(), table.results, strict=True):
        if row["role"] not in ("host", "element") or result is None or _is_below(Path(row["path"]), campaign.folder):
            continue
        mine = LayerSettings.of(result)
        if row["role"] == "host":
            differs = mine.differs_from_any(settings)
        else:  # k points and smearing of an element are its own
            differs = next((why for item in settings if (why := mine.fingerprint.differs(item.fingerprint))), "")
        (strange if differs or row["code"] != campaign.config.engine else others).append(row)
    return strange, others


def _keep_references(campaign: Campaign, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Copy results of the pristine host and the elements into the campaign."""
    kept = []
    for row in rows:
        source = Path(row["path"])
        target = campaign.folder / REFERENCES / str(row["name"])
        if target.exists():
            continue
        write_whole(target, partial(_copy_files, _belonging(source)))
        kept.append(str(row["name"]))
    return kept


def _copy_files(files: Iterable[Path], folder: Path) -> None:
    folder.mkdir()
    for file in files:
        shutil.copy2(file, folder / file.name)


def _belonging(result: Path) -> list[Path]:
    """A result and what its reader looks for beside it; not wave functions."""
    if is_ase_file(result):
        return [result]
    return [
        file
        for file in sorted(result.parent.iterdir())
        if file.is_file()
        and (file == result or file.name.startswith(BESIDE) or any(code.claims(file) for code in CODES.values()))
    ]


def _store_apart(campaign: Campaign, rows: Sequence[dict[str, Any]]) -> None:
    path = campaign.folder / APART
    known = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    lines = [json.dumps({key: value for key, value in row.items() if value is not None}) for row in rows]
    write_text(path, "".join(f"{line}\n" for line in dict.fromkeys([*known, *lines])))


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
