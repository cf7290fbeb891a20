"""Energies of the elements on the scale of a potential, which turn its energies into formation energies.

Formation energies of a table can stand beside a potential's total energies only through the energy of each
element in its elemental phase. It is taken from labelled crystals: energy by the potential, with corrections, minus
labelled formation energy is a sum over the elements, and the least squares solution of that is the reference energies.
In this way a systematic error of the potential for an element is taken off as well. Or it is computed from the
elemental phases themselves.

Source of the method: fitted elemental-phase reference energies, Stevanovic et al., Phys Rev B 85, 115104 (2012), doi
10.1103/PhysRevB.85.115104.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from defectgen.errors import DefectgenError, UsageError
from defectgen.io.crystal_files import read_table
from defectgen.io.places import atoms_problem
from defectgen.io.structures import parse_cif
from defectgen.one_line import OneLine
from defectgen.score.potentials.potential import Potential
from defectgen.stability.corrections import correction_ev
from defectgen.stability.hull import FORMATION_COLUMNS, FORMULA_COLUMNS, NoReferenceError

if TYPE_CHECKING:
    from pymatgen.core import Composition, Structure

ROWS_AN_ELEMENT = 25
"""Crystals of each element, where there are as many, from which its reference is fitted."""

ATOMS_A_PASS = 400

HUBER_EV = 0.1
"""Residuals per atom beyond this count less in the fit: crystals that the potential gets wrong."""

_PASSES = 20


@dataclass(frozen=True, repr=False)
class References(OneLine):
    """Energies of the elements.

    Attributes:
        energy_ev: element -> eV/atom on the scale of the potential's corrected energies.
        source: where they come from, for people.
        mean_error_ev_per_atom: mean absolute residual of a fit; None if they were computed.
    """

    energy_ev: Mapping[str, float]
    source: str
    mean_error_ev_per_atom: float | None = None

    def formation_ev_per_atom(self, composition: Composition, energy_ev_per_atom: float) -> float:
        """Formation energy of a crystal with this corrected energy, eV/atom.

        Raises:
            NoReferenceError: an element has no reference; names it.
        """
        missing = sorted({element.symbol for element in composition.elements} - set(self.energy_ev))
        if missing:
            raise NoReferenceError(f"hull without an elemental reference: {', '.join(missing)} ({self.source}).")
        mean = sum(amount * self.energy_ev[element.symbol] for element, amount in composition.items())
        return energy_ev_per_atom - float(mean) / float(composition.num_atoms)


def pick_rows(compositions: Sequence[frozenset[str]], rng: np.random.Generator) -> list[int]:
    """Rows in which each element occurs `ROWS_AN_ELEMENT` times where it can, drawn at random, in their order."""
    counts: dict[str, int] = {}
    picked = []
    for index in rng.permutation(len(compositions)):
        symbols = compositions[int(index)]
        if any(counts.get(symbol, 0) < ROWS_AN_ELEMENT for symbol in symbols):
            picked.append(int(index))
            for symbol in symbols:
                counts[symbol] = counts.get(symbol, 0) + 1
    return sorted(picked)


def corrected_energies_ev_per_atom(
    structures: Sequence[Structure], potential: Potential, advance: Callable[[int], None] = lambda _: None
) -> list[float | None]:
    """Energy of each structure as it is, with corrections, eV/atom; None where the potential gives none."""
    found: list[float | None] = []
    start = 0
    while start < len(structures):
        stop, atoms = start, 0
        while stop < len(structures) and (stop == start or atoms + len(structures[stop]) <= ATOMS_A_PASS):
            atoms += len(structures[stop])
            stop += 1
        part = structures[start:stop]
        found += _pass(part, potential)
        advance(len(part))
        start = stop
    return found


def _pass(structures: Sequence[Structure], potential: Potential) -> list[float | None]:
    energies: list[float | None] = [None] * len(structures)
    usable = [
        index
        for index, cell in enumerate(structures)
        if not atoms_problem(cell) and {site.specie.symbol for site in cell} <= potential.elements
    ]
    try:
        results = potential.evaluate([structures[index] for index in usable])
    except (ArithmeticError, LookupError, RuntimeError, ValueError):  # what libraries raise on atoms that make no sense
        if len(structures) == 1:
            return [None]
        return [energy for cell in structures for energy in _pass([cell], potential)]
    for index, result in zip(usable, results, strict=True):
        if np.isfinite(result.energy_ev):
            cell = structures[index]
            energies[index] = (result.energy_ev + correction_ev(cell, potential)) / len(cell)
    return energies


def fit_references(
    compositions: Sequence[Composition],
    energies_ev_per_atom: Sequence[float],
    formation_ev_per_atom: Sequence[float],
    source: str,
) -> References:
    """Energies of the elements by which the potential's energies agree best with labelled formation energies.

    Least squares per atom with Huber weights. An element whose energy the crystals do not determine (it only
    occurs together with another in one ratio) is left out.

    Args:
        compositions: of the crystals.
        energies_ev_per_atom: by the potential, with corrections, of the same.
        formation_ev_per_atom: labels of the same.
        source: for people.

    Raises:
        DefectgenError: no crystals.
    """
    if not compositions:
        raise DefectgenError(f"no labelled crystals to take reference energies from ({source}).")
    symbols = sorted({element.symbol for composition in compositions for element in composition.elements})
    column = {symbol: index for index, symbol in enumerate(symbols)}
    shares = np.zeros((len(compositions), len(symbols)))
    for row, composition in enumerate(compositions):
        for element, amount in composition.items():
            shares[row, column[element.symbol]] += amount / composition.num_atoms
    target = np.asarray(energies_ev_per_atom) - np.asarray(formation_ev_per_atom)
    weights = np.ones(len(target))
    for _ in range(_PASSES):
        root = np.sqrt(weights)[:, None]
        solution = np.linalg.lstsq(shares * root, target * root[:, 0], rcond=1e-8)[0]
        residual = np.abs(target - shares @ solution)
        weights = np.minimum(1.0, HUBER_EV / np.maximum(residual, 1e-12))
    _, singular, directions = np.linalg.svd(shares, full_matrices=True)
    rank = int((singular > 1e-8 * singular.max()).sum())
    free = np.abs(directions[rank:]).max(axis=0, initial=0.0) if rank < len(symbols) else np.zeros(len(symbols))
    energies = {symbol: float(solution[column[symbol]]) for symbol in symbols if free[column[symbol]] < 1e-6}
    return References(energies, f"{len(compositions)} labelled crystals of {source}", float(residual.mean()))


def references_from_table(
    path: Path, potential: Potential, advance: Callable[[int], None] = lambda _: None, seed: int = 0
) -> References:
    """References fitted to the labelled crystals of a table of MP-20 layout, about `ROWS_AN_ELEMENT` an element.

    Rows without a label are passed over. Those with a broken CIF, and those that the potential cannot compute, are
    left out and counted in the source.

    Args:
        path: a table with a formula, a formation energy by atom and a ``cif`` a row.
        potential: whose references they are.
        advance: takes how many more crystals are computed.
        seed: with which rows are drawn.

    Raises:
        UsageError: the table has no CIFs.
        DefectgenError: none of its crystals can be computed.
    """
    from pymatgen.core import Composition

    table = read_table(path)
    formula = next((name for name in FORMULA_COLUMNS if name in table.columns), "")
    formation = next((name for name in FORMATION_COLUMNS if name in table.columns), "")
    if not formula or not formation or "cif" not in table.columns:
        raise UsageError(
            f"{path} has formation energies but no column cif to compute reference energies from.",
            "Give the elemental phases (defectgen stability --elements FILES), or a hull of total energies.",
        )
    table = table.filter(pl.col(formation).is_not_null())
    compositions = [Composition(text) for text in table[formula]]
    rows = pick_rows(
        [frozenset(element.symbol for element in composition.elements) for composition in compositions],
        np.random.default_rng(seed),
    )
    structures, labels = [], []
    for row in rows:
        try:
            structures.append(parse_cif(str(table["cif"][row])))
        except DefectgenError:
            continue
        labels.append(float(table[formation][row]))
    energies = corrected_energies_ev_per_atom(structures, potential, advance)
    usable = [index for index, energy in enumerate(energies) if energy is not None]
    left_out = len(rows) - len(usable)
    source = path.name + (f" ({left_out} that cannot be computed left out)" if left_out else "")
    return fit_references(
        [structures[index].composition for index in usable],
        [energy for energy in energies if energy is not None],
        [labels[index] for index in usable],
        source,
    )


def elemental_references(energies: Mapping[str, Sequence[float]], source: str) -> References:
    """References from computed elemental phases: the lowest energy of each element.

    Args:
        energies: element -> energies of its phases by the potential, eV/atom.
        source: for people.
    """
    return References({symbol: float(min(found)) for symbol, found in sorted(energies.items())}, source)
