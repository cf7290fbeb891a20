"""Results into a campaign: which structure each is of, by the campaign's settings or not, its values."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defectgen.campaign.asked_settings import note_on_asked
from defectgen.campaign.folder import APART, REFERENCES, Campaign
from defectgen.campaign.kept_references import Rows, chemical_potentials, keep_references, reference_paths
from defectgen.campaign.store import DONE, StructureRow
from defectgen.core import Configuration
from defectgen.core.hosts import common_title
from defectgen.core.properties import BY_COLUMN, COLUMNS
from defectgen.dft.codes.calculator import arguments_text
from defectgen.dft.finding import OTHER, find_results
from defectgen.dft.layer_settings import LayerSettings
from defectgen.dft.result import UNKNOWN_CODE, DftResult
from defectgen.dft.results import MOST_EV, DftTable, dft_results, spin_warning
from defectgen.errors import DefectgenError
from defectgen.io.files import write_text
from defectgen.one_line import OneLine

if TYPE_CHECKING:
    from pymatgen.core import Structure

AGREED_EV = 0.002
"""Values of one structure that differ by less are those of one result."""

CALCULATOR = "ase"
"""Engine of which the settings name a calculator."""

LEFT_OUT = ("energy_per_atom_ev",)
"""Its zero is that of the code."""


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
    potentials = chemical_potentials(campaign)
    table = dft_results([*reference_paths(campaign), *paths], host=campaign.host, chemical_potentials=potentials)
    references = campaign.folder / REFERENCES
    if all(_is_below(Path(row["path"]), references) for row in table.frame.to_dicts()):
        find_results([Path(path) for path in paths], campaign.host)  # says that there are none
    readings, refused = _readings(campaign, table, lambda row: not _is_below(Path(row["path"]), references))
    strange, others = _references(campaign, table)
    kept, contradicted = keep_references(campaign, others)
    new, known, apart = record(campaign, readings, say)
    if refused:
        _store_apart(campaign, [row | {"reason": reason} for row, reason in refused])
    names = tuple((str(row["name"]), reason) for row, reason in refused)
    if not new and not known and names:
        raise DefectgenError(
            f"none of {len(names)} results can be used; {names[0][0]}: {names[0][1]}.",
            f"They are listed in {campaign.folder / APART}.",
        )
    without = [row.configuration.label for row in new if "formation_energy_ev" not in row.computed]
    notes = [*contradicted, *apart]
    if without:
        notes.append(
            f"no formation energy of {', '.join(without[:3])}: hand over the pristine host and the elements by its "
            "settings, then the same results again"
        )
    if strange:
        first = ", ".join(str(row["name"]) for row in strange[:3])
        notes.append(f"{len(strange)} references not kept ({first}): of another code or other settings")
    if asked := note_on_asked(campaign, _taken(new, others if kept else ())):
        notes.append(asked)
    if new:
        notes += spin_warning(_spins(campaign))
    return Added(tuple(new), known, tuple(kept), names, tuple(notes))


def _taken(new: Sequence[StructureRow], references: Rows) -> list[LayerSettings]:
    """The settings of what was taken: structures, and cells of the host."""
    texts = [LayerSettings.from_text(row.settings) for row in new]
    hosts = [LayerSettings.of(result) for row, result in references if row["role"] == "host"]
    return [*hosts, *(settings for settings in texts if settings)]


def kept_settings(campaign: Campaign) -> list[LayerSettings]:
    """The settings against which results count: those of the campaign's structures and of its host."""
    paths = reference_paths(campaign)
    return _settings_of(campaign, dft_results(paths, host=campaign.host) if paths else None)


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
) -> tuple[list[StructureRow], int, list[str]]:
    """Put values into the database; structures that were not proposed come in as added.

    A structure that has values keeps them, and gets those that it has not, e.g. the formation energy once the elements
    are there.

    Returns:
        The rows that are new, how many had values before, and a line for each result that contradicts what is kept.
    """
    new: dict[str, StructureRow] = {}
    known, apart = 0, []
    with campaign.store.changed(say):
        rows = {row.key: row for row in campaign.store.rows()}
        latest = max((row.round for row in rows.values()), default=0)
        unique = {item.configuration.key: item.configuration for item in readings}
        others = [configuration for key, configuration in unique.items() if key not in rows]
        added = campaign.store.add([StructureRow(0, item, round=latest, origin="added") for item in others])
        rows |= {row.key: row for row in added}
        for item in readings:
            row = rows[item.configuration.key]
            values = dict(item.values)
            if row.state == DONE:
                differs = _contradiction(row, item)
                if differs:
                    apart.append(differs)
                if differs or not set(values) - set(row.computed):
                    known += 1
                    continue
                values |= row.computed
            done = replace(row, state=DONE, computed=values, settings=row.settings or item.settings, reason="")
            campaign.store.update(done, item.structure)
            rows[row.key] = new[row.key] = done
    return list(new.values()), known, apart


def _contradiction(row: StructureRow, item: Reading) -> str:
    """What a second result of a structure says otherwise, in one line; empty if it agrees."""
    for column, value in item.values.items():
        kept = row.computed.get(column)
        if kept is not None and abs(kept - value) > AGREED_EV:
            title = BY_COLUMN[column].title
            return (
                f"{row.id} {row.configuration.label} has a result already, which is kept: {title} {kept:.3f} eV; "
                f"another one says {value:.3f} eV"
            )
    return ""


def read_calculation(campaign: Campaign, folder: Path) -> tuple[Reading | None, str]:
    """The result of one of the campaign's own calculations, or why there is none."""
    table = dft_results([*reference_paths(campaign), folder], host=campaign.host)
    readings, refused = _readings(campaign, table, lambda row: _is_below(Path(row["path"]), folder))
    if refused:
        row, reason = refused[0]
        return None, f"its atoms left their sites: {row['note']}" if row["role"] == OTHER else reason
    return (readings[0], "") if readings else (None, "it left no results")


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


def _settings_of(campaign: Campaign, table: DftTable | None) -> list[LayerSettings]:
    """The settings of the campaign: those of its structures and of its host; empty before any."""
    found = [settings for text in campaign.store.settings() if (settings := LayerSettings.from_text(text))]
    if table is None:
        return found
    hosts = (
        LayerSettings.of(result)
        for role, result in zip(table.frame["role"], table.results, strict=True)
        if role == "host" and result is not None and not _other_engine(campaign, result)
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
    if other := _other_engine(campaign, result):
        return other
    if other := LayerSettings.of(result).differs_from_any(settings):
        return f"other settings than the campaign's: {other}"
    if row["charge"]:
        return f"charge {row['charge']:+g}, this campaign is of neutral cells"
    if row["electronic_converged"] is False or row["ionic_converged"] is False:
        return f"not converged: {row['note']}"
    configuration = Configuration.from_key(host, row["configuration"])
    if not configuration.follows_rules():
        return f"{row['label']} is not allowed in this campaign"
    energy = row["formation_energy_ev"]
    if energy is not None and abs(energy) > MOST_EV * configuration.n_defects:
        return str(row["note"])
    return ""


def _references(campaign: Campaign, table: DftTable) -> tuple[list[dict[str, Any]], Rows]:
    """References from outside by another code or other settings, from which nothing counts, and the others."""
    settings = _settings_of(campaign, table)
    strange: list[dict[str, Any]] = []
    others: list[tuple[dict[str, Any], DftResult]] = []
    for row, result in zip(table.frame.to_dicts(), table.results, strict=True):
        if row["role"] not in ("host", "element") or result is None or _is_below(Path(row["path"]), campaign.folder):
            continue
        mine = LayerSettings.of(result)
        if row["role"] == "host":
            differs = mine.differs_from_any(settings)
        else:  # k points and smearing of an element are its own
            differs = next((why for item in settings if (why := mine.fingerprint.differs(item.fingerprint))), "")
        if differs or _other_engine(campaign, result):
            strange.append(row)
        else:
            others.append((row, result))
    return strange, others


def _other_engine(campaign: Campaign, result: DftResult) -> str:
    """By what a result was computed, if not by the campaign's engine, in one clause; empty if it was."""
    engine, asked = campaign.config.engine, campaign.config.settings.ase
    if result.code == UNKNOWN_CODE:
        return f"it does not name its code (in files of ASE: code={engine})"
    if result.code != engine:
        return f"computed by {result.code}, this campaign is of {engine}"
    if engine != CALCULATOR:
        return ""
    name, arguments = result.fingerprint.functional, result.fingerprint.basis
    if not name:
        return f"it does not name its calculator (in files of ASE: functional={asked.calculator})"
    if name != asked.calculator:
        return f"computed by {name}, this campaign is of {asked.calculator}"
    wanted = arguments_text(asked.arguments)
    return "" if arguments == wanted else f"computed with arguments {arguments or 'none'}, expected {wanted or 'none'}"


def _store_apart(campaign: Campaign, rows: Sequence[dict[str, Any]]) -> None:
    path = campaign.folder / APART
    known = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    lines = [json.dumps({key: value for key, value in row.items() if value is not None}) for row in rows]
    write_text(path, "".join(f"{line}\n" for line in dict.fromkeys([*known, *lines])))


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
