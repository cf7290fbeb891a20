"""Convex hulls of energy: from the user's entries, from the Materials Project, or from a table of labelled crystals."""

from __future__ import annotations

import csv
import functools
import gzip
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from defectgen.errors import DefectgenError, UsageError
from defectgen.io.documents import JSON_BYTES, parse_json
from defectgen.io.files import write_whole
from defectgen.io.tables import read_csv, safe_cell
from defectgen.one_line import OneLine
from defectgen.stability.thermo import competing_energies
from defectgen.web import KeyRefusedError, MaterialsProject

if TYPE_CHECKING:
    from pymatgen.core import Composition

FORMULA_COLUMNS = ("formula", "pretty_formula", "formula_pretty", "composition")
FORMATION_COLUMNS = ("formation_energy_per_atom", "formation_energy_ev_per_atom")
PER_ATOM_COLUMNS = ("energy_per_atom", "energy_per_atom_ev", "energy_ev_per_atom")
TOTAL_COLUMNS = ("energy", "energy_ev")
ABOVE_COLUMN = "e_above_hull"

TOTAL, FORMATION = "total", "formation"
"""What the energies of a hull are: total energies, or formation energies from the elements."""

HULL_SUFFIXES = (".csv", ".json", ".json.gz")

SAVED_HULL = "hull.csv"
"""Where a study of stability keeps what the Materials Project answered."""

SAVED = ("formula", "energy_per_atom_ev")
"""Columns of a saved hull of total energies, which can be read again."""


class NoReferenceError(DefectgenError):
    """A hull does not hold an element of a crystal, or could not be asked for its elements."""


@dataclass(frozen=True)
class AboveHull:
    """Where a crystal lies.

    Attributes:
        energy_ev: above the hull, eV/atom; negative if the crystal lies below it.
        decomposition: what the hull has at this composition, e.g. ``0.5 Na + 0.5 Cl``, by share of atoms.
        n_competing: compounds that the hull knows of these elements or some of them, elements left out; where
            there are none, the crystal only competes with its elements.
    """

    energy_ev: float
    decomposition: str
    n_competing: int


@dataclass(repr=False, eq=False)
class Hull(OneLine):
    """Energies of known crystals, from which the hull of any composition is made; with a project to ask it grows.

    Attributes:
        source: where they come from, for people.
        scale: `TOTAL` or `FORMATION`.
        partial: why this may not be the whole hull; empty if it is all that the Materials Project knows.
        points: reduced formula -> lowest energy in eV/atom.
        project: where to ask for what is not in `points` yet; None if nowhere.
    """

    source: str
    scale: str
    partial: str
    points: dict[str, float]
    project: MaterialsProject | None = None
    _asked: dict[frozenset[str], str] = field(default_factory=dict, init=False, repr=False)
    _diagrams: dict[frozenset[str], Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def elements(self) -> frozenset[str]:
        """Elements with a reference: on the scale of formation energies, all that occur, each at zero."""
        found = [_symbols(formula) for formula in self.points]
        if self.scale == FORMATION:
            return frozenset().union(*found)
        return frozenset().union(*(symbols for symbols in found if len(symbols) == 1))

    def above(self, composition: Composition, energy_ev_per_atom: float) -> AboveHull:
        """How far a crystal lies above the hull.

        Args:
            composition: of the crystal.
            energy_ev_per_atom: on the scale of this hull, eV/atom.

        Raises:
            NoReferenceError: an element of the crystal has no reference; names it. Or the Materials Project gave no
                answer for these elements.
            KeyRefusedError: the Materials Project does not accept the key.
        """
        from pymatgen.analysis.phase_diagram import PDEntry

        symbols = frozenset(element.symbol for element in composition.elements)
        diagram = self._diagram(symbols)
        n_atoms = composition.num_atoms
        parts, above = diagram.get_decomp_and_e_above_hull(
            PDEntry(composition, energy_ev_per_atom * n_atoms), allow_negative=True
        )
        shares = sorted(((entry.composition.reduced_formula, share) for entry, share in (parts or {}).items()))
        text = " + ".join(f"{share:.3g} {formula}" for formula, share in shares)
        n_competing = sum(1 for formula in self.points if len(_symbols(formula)) > 1 and _symbols(formula) <= symbols)
        return AboveHull(float(above), text, n_competing)

    def _diagram(self, symbols: frozenset[str]) -> Any:
        if symbols not in self._diagrams:
            from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
            from pymatgen.core import Composition

            self._ask(symbols)
            missing = sorted(symbols - self.elements)
            if missing:
                raise NoReferenceError(f"hull without an elemental reference: {', '.join(missing)} (in {self.source}).")
            inside = [
                (Composition(formula), e) for formula, e in sorted(self.points.items()) if _symbols(formula) <= symbols
            ]
            entries = [PDEntry(composition, energy * composition.num_atoms) for composition, energy in inside]
            if self.scale == FORMATION:  # each element is its own zero
                entries += [PDEntry(Composition(symbol), 0.0) for symbol in sorted(symbols)]
            self._diagrams[symbols] = PhaseDiagram(entries)
        return self._diagrams[symbols]

    def _ask(self, symbols: frozenset[str]) -> None:
        """Ask the Materials Project for what it knows of some elements, once; what went wrong is said each time."""
        if self.project is None:
            return
        if symbols not in self._asked:
            problem = ""
            try:
                add_lowest(self.points, competing_energies(self.project, sorted(symbols)))
            except KeyRefusedError:  # no other system would be answered
                raise
            except DefectgenError as error:
                problem = str(error)
            self._asked[symbols] = problem
        if self._asked[symbols]:
            raise NoReferenceError(self._asked[symbols])


@functools.cache
def _symbols(formula: str) -> frozenset[str]:
    from pymatgen.core import Composition

    return frozenset(element.symbol for element in Composition(formula).elements)


def add_lowest(points: dict[str, float], rows: Iterable[tuple[str, float]]) -> None:
    """Put formulas and energies (eV/atom) into `points`, the lowest of each reduced formula."""
    from pymatgen.core import Composition

    for formula, energy in rows:
        reduced = Composition(formula).reduced_formula
        if energy < points.get(reduced, math.inf):
            points[reduced] = energy


def system_hull(project: MaterialsProject, system: str) -> Hull:
    """What the Materials Project knows of a chemical system and its parts, asked now.

    Args:
        project: with the user's key.
        system: symbols with hyphens between, e.g. ``Li-Fe-O``.

    Raises:
        UsageError: that is no list of different elements.
        DefectgenError: no connection, a key that is not accepted, or no entry for an element.
    """
    from pymatgen.core import Element

    symbols = system.split("-")
    if len(set(symbols)) < len(symbols) or not all(Element.is_valid_symbol(symbol) for symbol in symbols):
        raise UsageError(f"got --system {system!r}, expected different elements with hyphens between, e.g. Li-Fe-O.")
    hull = Hull(f"Materials Project at {project.url}", TOTAL, f"only the system {system}", {})
    add_lowest(hull.points, competing_energies(project, symbols))
    if missing := sorted(set(symbols) - hull.elements):
        raise DefectgenError(
            f"the Materials Project has no entry of {', '.join(missing)} in {system}.", "Check the elements."
        )
    return hull


def project_hull(project: MaterialsProject) -> Hull:
    """The hull of the Materials Project, asked system by system as crystals come."""
    return Hull(f"Materials Project at {project.url}", TOTAL, "", {}, project)


def read_hull(path: Path) -> Hull:
    """A hull from a file, or from all files of a folder together.

    Args:
        path: a folder of such files, all with total energies (of a folder of `defectgen stability` its `SAVED_HULL`
            alone); or a JSON file with a list of pymatgen's ComputedEntry or ComputedStructureEntry (``.json`` or
            ``.json.gz``), or a CSV table with a column of formulas (`FORMULA_COLUMNS`) and one of energies: of
            formation by atom (`FORMATION_COLUMNS`, as in MP-20), total by atom (`PER_ATOM_COLUMNS`), or total
            of the formula as written (`TOTAL_COLUMNS`). Total energies are those of the Materials Project with
            its corrections. With formation energies and a column ``e_above_hull``, formation energy
            minus energy above hull is a point of the hull that this number was computed with, and is used.

    Raises:
        DefectgenError: no such file, or it holds something else.
        UsageError: a file of another kind, or a folder of several files of which one has formation energies.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise DefectgenError(f"{path} is not a file.", "Expected entries as JSON, or a CSV with formula and energy.")
    if path.name.lower().endswith((".json", ".json.gz")):
        return _read_entries(path)
    if path.suffix.lower() != ".csv":
        raise UsageError(
            f"{path} is no hull.", "Expected entries as .json, a .csv with formula and energy, a folder, or mp-api."
        )
    return _read_table(path)


def hull_files(path: Path) -> list[Path]:
    """The files that make up the hull of a file or folder, sorted by name."""
    if not path.is_dir():
        return [path]
    if (path / SAVED_HULL).is_file():
        return [path / SAVED_HULL]
    return sorted(file for file in path.iterdir() if file.is_file() and file.name.lower().endswith(HULL_SUFFIXES))


def _read_folder(folder: Path) -> Hull:
    files = hull_files(folder)
    if not files:
        raise UsageError(f"{folder} holds no hull.", f"Expected files that end in {', '.join(HULL_SUFFIXES)}.")
    hulls = [read_hull(file) for file in files]
    if len(hulls) == 1:
        return hulls[0]
    for file, hull in zip(files, hulls, strict=True):
        if hull.scale != TOTAL:
            raise UsageError(
                f"{file} has formation energies, which do not go with other files.",
                "Give that file alone, or total energies in all files of the folder.",
            )
    points: dict[str, float] = {}
    for hull in hulls:
        add_lowest(points, hull.points.items())
    source = f"{folder.name}: {'; '.join(hull.source for hull in hulls)}"
    return Hull(source, TOTAL, f"only the entries of {len(files)} files", points)


def _read_entries(path: Path) -> Hull:
    try:
        opened = gzip.open if path.suffix.lower() == ".gz" else open
        with opened(path, "rt", encoding="utf-8") as file:
            content = parse_json(file.read(JSON_BYTES + 1), str(path), finite=False)  # other people's data may be NaN
        entries = [_entry(item) for item in content]
        if not entries:
            raise ValueError("the list is empty")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DefectgenError(
            f"{path}: no list of computed entries ({reason:.100}).", "Expected what pymatgen's dumpfn writes."
        ) from error
    processed = _with_corrections([entry for entry in entries if _is_raw(entry)])
    points: dict[str, float] = {}
    add_lowest(
        points,
        ((entry.composition.reduced_formula, processed.get(id(entry), entry.energy_per_atom)) for entry in entries),
    )
    if any(not math.isfinite(energy) for energy in points.values()):
        raise DefectgenError(f"{path}: an energy is no finite number.")
    corrected = f", {len(processed)} of them corrected here" if processed else ""
    return Hull(f"{path.name}, {len(entries)} entries{corrected}", TOTAL, "only the entries of the file", points)


def _entry(item: Any) -> Any:
    """A serialized entry of any class; its structure, which tells peroxides, is kept if it is to be corrected."""
    from pymatgen.core import Structure
    from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry

    if not isinstance(item, Mapping) or not {"composition", "structure"} & set(item):
        raise ValueError("an item is no entry")
    kept = {key: value for key, value in item.items() if key not in ("structure", "@class", "@module")}
    if "composition" not in kept:
        kept["composition"] = Structure.from_dict(item["structure"]).composition.as_dict()
    entry = ComputedEntry.from_dict(kept)
    if not item.get("structure") or not _is_raw(entry):
        return entry
    structure = Structure.from_dict(item["structure"])
    return ComputedStructureEntry(
        structure, entry.uncorrected_energy, parameters=entry.parameters, data=entry.data, entry_id=entry.entry_id
    )


def _is_raw(entry: Any) -> bool:
    """Whether an entry says how it was run and has no corrections."""
    return not entry.energy_adjustments and bool(entry.parameters.get("run_type"))


def _with_corrections(entries: Sequence[Any]) -> dict[int, float]:
    """By `id`, the energy per atom with MP2020 corrections of entries that state how they were run but have none."""
    import warnings

    from pymatgen.entries.compatibility import CompatibilityError, MaterialsProject2020Compatibility

    scheme = MaterialsProject2020Compatibility(check_potcar=False)
    energies = {}
    for entry in entries:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                adjustments = scheme.get_adjustments(entry)
        except CompatibilityError as error:
            raise DefectgenError(
                f"entry {entry.entry_id or entry.reduced_formula} has no corrections and cannot be corrected "
                f"({' '.join(str(error).split()):.100}).",
                "Leave it out, or correct it before.",
            ) from error
        n_atoms = entry.composition.num_atoms
        if adjustments:
            energies[id(entry)] = entry.uncorrected_energy_per_atom + sum(a.value for a in adjustments) / n_atoms
    return energies


def _read_table(path: Path) -> Hull:
    from pymatgen.core import Composition

    try:
        table = read_csv(path, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DefectgenError(f"{path}: cannot be read as CSV ({' '.join(str(error).split()):.100}).") from error
    formula = next((name for name in FORMULA_COLUMNS if name in table.columns), None)
    kinds = (FORMATION_COLUMNS, PER_ATOM_COLUMNS, TOTAL_COLUMNS)
    energy = next((name for names in kinds for name in names if name in table.columns), None)
    if formula is None or energy is None:
        raise DefectgenError(
            f"{path}: no column of formulas or of energies, got {', '.join(table.columns):.100}.",
            f"Expected {FORMULA_COLUMNS[0]} and one of {FORMATION_COLUMNS[0]}, {PER_ATOM_COLUMNS[0]}, "
            f"{TOTAL_COLUMNS[0]}.",
        )
    is_formation = energy in FORMATION_COLUMNS
    by_hull = is_formation and ABOVE_COLUMN in table.columns
    rows, without = [], 0
    for number, row in enumerate(table.iter_rows(named=True), 1):
        if row[energy] is None:
            without += 1
            continue
        try:
            composition = Composition(str(row[formula]), strict=True)
            value = float(row[energy])
            if by_hull and row[ABOVE_COLUMN] is not None:
                value -= float(row[ABOVE_COLUMN])
            if not math.isfinite(value) or composition.num_atoms == 0:
                raise ValueError("no finite number")
        except (ValueError, TypeError) as error:
            raise DefectgenError(
                f"{path}, row {number}: expected a formula and an energy, got {row[formula]!r} and {row[energy]!r}."
            ) from error
        rows.append((composition.reduced_formula, value / (composition.num_atoms if energy in TOTAL_COLUMNS else 1)))
    if not rows:
        raise DefectgenError(f"{path}: holds no rows with an energy.", "Expected a formula and an energy in each.")
    points: dict[str, float] = {}
    add_lowest(points, rows)
    what = "formation energies" if is_formation else "total energies"
    through = f", minus {ABOVE_COLUMN}" if by_hull else ""
    left_out = f" ({without} rows without one left out)" if without else ""
    return Hull(
        f"{path.name}, {len(rows)} {what}{through}{left_out}",
        FORMATION if is_formation else TOTAL,
        "only the crystals of the file",
        points,
    )


def save_hull(hull: Hull, path: Path) -> None:
    """Write the points of a hull of total energies as a table that `read_hull` reads."""

    def write(part: Path) -> None:
        with part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(SAVED)
            writer.writerows((safe_cell(formula), repr(energy)) for formula, energy in sorted(hull.points.items()))

    write_whole(path, write)
