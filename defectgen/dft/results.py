"""Results of DFT calculations as one table: converged or not, energies, levels, gaps, and by which settings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defectgen.core import Configuration, Host
from defectgen.dft.alignment import Alignment, align
from defectgen.dft.calculation import exchanged, may_have_moment
from defectgen.dft.finding import OTHER, Found, find_results
from defectgen.dft.layer_settings import LayerSettings, alike, differences
from defectgen.dft.result import DftResult
from defectgen.errors import DefectgenError, UsageError
from defectgen.one_line import OneLine

if TYPE_CHECKING:
    import polars as pl

TEXTS = ("name", "role", "host", "supercell", "label", "configuration")
FLAGS = ("converged", "electronic_converged", "ionic_converged")
LAYERS = ("host", "defect")
NUMBERS = (
    "charge", "homo_ev", "lumo_ev", "fermi_level_ev", "band_gap_ev", "formation_energy_ev", "energy_per_atom_ev",
    "total_magnetization_mu_b", "energy_ev", "homo_raw_ev", "lumo_raw_ev", "fermi_level_raw_ev",
    "homo_majority_raw_ev", "lumo_majority_raw_ev", "band_gap_majority_ev",
    "homo_minority_raw_ev", "lumo_minority_raw_ev", "band_gap_minority_ev", "vacuum_level_raw_ev", "cutoff_ev",
)  # fmt: skip
LAST = ("level_method", "code", "version", "functional", "basis", "k_points", "setups", "settings_id", "note", "path")

MOST_EV = 40.0
"""No point defect has a formation energy beyond, whatever the reservoirs."""

USUAL_WIDTH_EV = 0.05
"""A wider smearing is noted."""


@dataclass(frozen=True, repr=False)
class DftTable(OneLine):
    """Results of DFT.

    Attributes:
        frame: a row a result; levels ``homo_ev``, ``lumo_ev``, ``fermi_level_ev`` in eV above the host's valence band
            maximum, null where no potential puts them there, ``..._raw_ev`` on the zero of the code.
        results: what was read, a line each; None where a file could not be read.
        warnings: what the reader has to know, one line each.
    """

    frame: pl.DataFrame
    results: tuple[DftResult | None, ...]
    warnings: tuple[str, ...]


def dft_results(
    paths: Path | str | Iterable[Path | str],
    *,
    host: Host | None = None,
    chemical_potentials: Mapping[str, float] | None = None,
) -> DftTable:
    """Read results of VASP, GPAW, Quantum ESPRESSO, or of any code from ASE's files.

    Levels are put on the valence band maximum of the pristine host by the electrostatic potential, formation energies
    are taken against the host and the elemental phases: both only against results of the same settings. A file that
    cannot be read, and a cell that did not converge, has a row that says so.

    Args:
        paths: files, or folders, which are searched with the folders in them.
        host: what the cells decorate; None for the one that the inputs beside the results name, or a built-in one.
        chemical_potentials: energy of an atom in its reservoir by element, eV, on the scale of the results; those of
            the elemental phases among the results for the others.

    Raises:
        UsageError: no results there.
        DefectgenError: none of the files can be read; the message is that of the first.
    """
    places = [paths] if isinstance(paths, Path | str) else list(paths)
    found = find_results([Path(place) for place in places], host)
    if all(item.result is None for item in found):
        raise DefectgenError(found[0].note)
    given = dict(chemical_potentials or {})
    layers = [item for role in LAYERS for item in found if item.role == role]
    kinds = alike([LayerSettings.of(item.result) for item in layers if item.result is not None])
    names = _settings_ids(kinds)
    rows = [_row(item, found, given) | _settings_id(item, kinds, names) for item in found]
    return DftTable(_frame(rows), tuple(item.result for item in found), tuple(_warnings(found, kinds)))


def parse_potentials(texts: Sequence[str]) -> dict[str, float]:
    """Chemical potentials from texts such as ``S=-4.127``; ``2dmd`` stands for those of 2DMD (PBE).

    Raises:
        UsageError: another form, or no element.
    """
    from pymatgen.core import Element

    from defectgen.score.potentials.potential import CHEMICAL_POTENTIALS_EV

    found: dict[str, float] = dict(CHEMICAL_POTENTIALS_EV) if "2dmd" in texts else {}
    named: set[str] = set()
    for text in texts:
        if text == "2dmd":
            continue
        symbol, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if not Element.is_valid_symbol(symbol) or not abs(value) < 1e6:
            raise UsageError(f"got chemical potential {text!r}, expected an element and eV, e.g. S=-4.127, or 2dmd.")
        if symbol in named:
            raise UsageError(f"got several chemical potentials of {symbol}.", "Give one.")
        named.add(symbol)
        found[symbol] = value
    return found


def _usable(item: Found) -> bool:
    return item.result is not None and item.result.electronic_converged is not False


def _host_of(item: Found, found: Sequence[Found]) -> tuple[Found | None, str]:
    """The host's result by which an item is judged, or why there is none."""
    assert item.result is not None
    assert item.configuration is not None
    why = "no result of the pristine host"
    best: Found | None = None
    for other in found:
        if other.role != "host" or other.result is None or other.configuration is None or not _usable(other):
            continue
        if other.configuration.host.name != item.configuration.host.name:
            continue
        reason = LayerSettings.of(item.result).differs(LayerSettings.of(other.result))
        if other.result.charge:
            why = "the pristine host is charged"
        elif reason:
            why = f"the pristine host has other settings: {reason}"
        elif best is None or (other.cells == item.cells and best.cells != item.cells):
            best = other
    return best, "" if best else why


def _row(item: Found, found: Sequence[Found], given: Mapping[str, float]) -> dict[str, Any]:
    row: dict[str, Any] = {"name": item.name, "role": item.role, "path": str(item.path)}
    result, configuration = item.result, item.configuration
    if result is None:
        return row | {"note": item.note, "converged": False}
    notes = [item.note, *result.notes]
    row |= _raw(result)
    if item.role in LAYERS and (result.fingerprint.width_ev or 0.0) > USUAL_WIDTH_EV:
        notes.append(f"smearing {result.fingerprint.smearing_text}")
    if configuration is not None:
        row |= {
            "host": configuration.host.name,
            "supercell": configuration.host.size,
            "label": configuration.label,
            "configuration": configuration.canonical().key,
        }
        reference, why = (item, "") if item.role == "host" else _host_of(item, found)
        notes.append(why)
        if reference is not None and reference.result is not None and reference.configuration is not None:
            zero = align(result, configuration, reference.result, reference.configuration)
            row |= _levels(result, zero)
            if zero is None and result.levels:
                notes.append("levels are raw: no potential is known in both cells")
            if item.role == "defect":
                energy, reason = _formation(item, configuration, reference, found, given)
                row["formation_energy_ev"] = energy
                notes.append(reason)
    if not result.converged:
        parts = {"electronic": result.electronic_converged, "ionic": result.ionic_converged}
        notes += [f"{name} cycle not converged" for name, flag in parts.items() if flag is False]
        notes += ["convergence is not known"] if False not in parts.values() else []
    return row | {"note": "; ".join(note.rstrip(".") for note in notes if note)}


def _raw(result: DftResult) -> dict[str, Any]:
    prints = result.fingerprint
    channels = dict(zip(("majority", "minority"), result.levels, strict=False)) if len(result.levels) == 2 else {}
    values: dict[str, Any] = {
        "converged": result.converged,
        "electronic_converged": result.electronic_converged,
        "ionic_converged": result.ionic_converged,
        "charge": result.charge,
        "energy_ev": result.energy_ev,
        "energy_per_atom_ev": None if result.energy_ev is None else result.energy_ev / len(result.structure),
        "homo_raw_ev": result.homo_ev,
        "lumo_raw_ev": result.lumo_ev,
        "band_gap_ev": result.gap_ev,
        "fermi_level_raw_ev": result.fermi_level_ev,
        "total_magnetization_mu_b": result.magnetization_mu_b,
        "vacuum_level_raw_ev": result.vacuum_level_ev,
        "code": result.code,
        "version": result.version,
        "functional": prints.functional,
        "cutoff_ev": prints.cutoff_ev,
        "basis": prints.basis,
        "k_points": "x".join(map(str, prints.mesh)),
        "setups": " ".join(f"{element}:{setup}" for element, setup in prints.setups),
    }
    for name, level in channels.items():
        values |= {
            f"homo_{name}_raw_ev": _known(level.homo_ev),
            f"lumo_{name}_raw_ev": _known(level.lumo_ev),
            f"band_gap_{name}_ev": _known(level.gap_ev),
        }
    return values


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _levels(result: DftResult, zero: Alignment | None) -> dict[str, Any]:
    if zero is None:
        return {}
    raw = {"homo_ev": result.homo_ev, "lumo_ev": result.lumo_ev, "fermi_level_ev": result.fermi_level_ev}
    levels = {name: None if value is None else value - zero.zero_ev for name, value in raw.items()}
    return {**levels, "level_method": zero.method}


def _formation(
    item: Found, configuration: Configuration, host: Found, found: Sequence[Found], given: Mapping[str, float]
) -> tuple[float | None, str]:
    """E(defect) - E(host) - sum of mu of the atoms added or removed, eV; or why there is none."""
    result, reference = item.result, host.result
    assert result is not None
    assert reference is not None
    if result.energy_ev is None or reference.energy_ev is None or not _usable(item):
        return None, ""
    if result.charge:
        return None, "no formation energy: a charged cell needs a correction (doped, pydefect-2d)"
    total = result.energy_ev - reference.energy_ev * item.cells / host.cells
    for element, number in exchanged(configuration).items():
        mu, why = _chemical_potential(element, item, found, given)
        if mu is None:
            return None, f"no formation energy: {why}"
        total -= number * mu
    if abs(total) > MOST_EV * configuration.n_defects:
        return total, f"a formation energy of {total:.1f} eV cannot be: are all energies in eV and of the whole cell?"
    return total, ""


def _chemical_potential(
    element: str, item: Found, found: Sequence[Found], given: Mapping[str, float]
) -> tuple[float | None, str]:
    if element in given:
        return given[element], ""
    assert item.result is not None
    why = f"no chemical potential of {element}, computed or given"
    energies = []
    for other in found:
        phase = other.result
        if other.role != "element" or phase is None or phase.energy_ev is None or not _usable(other):
            continue
        if phase.structure[0].specie.symbol != element:
            continue
        if reason := item.result.fingerprint.differs(phase.fingerprint):
            why = f"{element} was computed by other settings: {reason}"
        else:
            energies.append(phase.energy_ev / len(phase.structure))
    return (min(energies), "") if energies else (None, why)


def _frame(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    import polars as pl

    schema: dict[str, Any] = {
        **dict.fromkeys(TEXTS, pl.String),
        **dict.fromkeys(FLAGS, pl.Boolean),
        **dict.fromkeys(NUMBERS, pl.Float64),
        **dict.fromkeys(LAST, pl.String),
    }
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)


def _settings_ids(kinds: Sequence[Sequence[LayerSettings]]) -> list[str]:
    """An id for each group of settings: eight digits, counted on where two groups have these in common."""
    names: list[str] = []
    for first, *_ in kinds:
        taken = sum(name.partition("-")[0] == first.fingerprint.id for name in names)
        names.append(f"{first.fingerprint.id}-{taken + 1}" if taken else first.fingerprint.id)
    return names


def _settings_id(item: Found, kinds: Sequence[Sequence[LayerSettings]], names: Sequence[str]) -> dict[str, str]:
    """The id of the group; elements, whose k points and smearing are their own, are of the first that they fit."""
    if item.result is None:
        return {}
    mine = LayerSettings.of(item.result)
    for kind, name in zip(kinds, names, strict=True):
        fits = mine in kind if item.role in LAYERS else not any(mine.fingerprint.differs(k.fingerprint) for k in kind)
        if fits:
            return {"settings_id": name}
    return {"settings_id": mine.fingerprint.id}


def spin_warning(cells: Iterable[tuple[str, Configuration, bool]]) -> list[str]:
    """A line where cells that may have a moment were computed without spin and others with it.

    Args:
        cells: name, defects, and whether it was computed with spin.
    """
    with_moment = [(name, spin) for name, configuration, spin in cells if may_have_moment(configuration)]
    without = [name for name, spin in with_moment if not spin]
    if not without or len(without) == len(with_moment):
        return []
    more = f" and {len(without) - 5} more" if len(without) > 5 else ""
    return [f"computed without spin, where others that may have a moment have it: {', '.join(without[:5])}{more}."]


def _warnings(found: Sequence[Found], kinds: Sequence[Sequence[LayerSettings]]) -> list[str]:
    lines = [item.note for item in found if item.result is None]
    lines += [f"{item.path}: {item.note}" for item in found if item.role == OTHER and item.result is not None]
    if len(kinds) > 1:
        lines.append(
            f"results of {len(kinds)} settings, which are not compared with one another: {differences(kinds)}."
        )
    lines += spin_warning(
        (item.name, item.configuration, item.result.fingerprint.spin)
        for item in found
        if item.role == "defect" and item.configuration is not None and item.result is not None and item.result.levels
    )
    bad = [item.name for item in found if item.result is not None and not item.result.converged]
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        lines.append(f"{len(bad)} of {len(found)} results are not known to have converged: {', '.join(bad[:5])}{more}.")
    return lines
