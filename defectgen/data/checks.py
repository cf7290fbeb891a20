"""Checks of 2DMD against physics and against itself."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from defectgen.core import VACANCY, parse_label
from defectgen.data.twodmd import SETS, read_2dmd, read_csv, set_folder, targets_file
from defectgen.errors import DefectgenError


def has_published_layout(path: Path) -> bool:
    """Whether a folder holds 2DMD as it was published, not the pilot sample."""
    return (path / "csv_cif").is_dir()


def formation_energy_errors(path: Path, sets: Sequence[str] | None = None) -> dict[str, float]:
    """Largest difference between the published formation energy and one computed from the total energies.

    E_form = E_defect - E_pristine + sum of mu (removed atoms) - sum of mu (added atoms), for neutral cells
    with the elemental chemical potentials of ``elements.csv``.

    Returns:
        Largest absolute difference in eV for each set that has both energies in a row.

    Raises:
        DefectgenError: see `read_2dmd`.
    """
    frame = read_2dmd(path, sets)
    errors: dict[str, float] = {}
    for info in SETS:
        rows = frame.filter(set=info.name)
        if rows.is_empty():
            continue
        folder = set_folder(Path(path), info)
        elements = read_csv(folder / "elements.csv", ("element", "chemical_potential"))
        potential = dict(zip(elements["element"], elements["chemical_potential"], strict=True)) | {VACANCY: 0.0}
        pristine = read_csv(folder / "initial_structures.csv", ("base", "energy")).filter(base=info.host)["energy"][0]
        exchanging = {species for label in rows["label"].unique() for kind in parse_label(label) for species in kind}
        unknown = exchanging - potential.keys()
        if unknown:
            raise DefectgenError(f"{folder / 'elements.csv'} has no chemical potential of {min(unknown)}.")
        exchanged = {
            label: sum(n * (potential[old] - potential[new]) for (old, new), n in parse_label(label).items())
            for label in rows["label"].unique()
        }
        computed = rows["energy_ev"] - pristine + rows["label"].replace_strict(exchanged, return_dtype=pl.Float64)
        difference = (computed - rows["formation_energy_ev"]).abs().max()
        if difference is not None:
            errors[info.name] = float(difference)
    return errors


def descriptor_mismatches(path: Path, sets: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Structures whose number of defects or composition is not the one that their descriptor lists.

    The defects found by matching each CIF to its host are compared with those in ``descriptors.csv``. A
    descriptor stands for a composition, and in h-BN one composition can be made in several ways (C on B with a
    vacancy of N, or C on N with a vacancy of B), so kinds are not compared.

    Returns:
        Ids by set; empty lists where all agree.

    Raises:
        DefectgenError: see `read_2dmd`.
    """
    frame = read_2dmd(path, sets)
    wrong: dict[str, list[str]] = {}
    for info in SETS:
        rows = frame.filter(set=info.name)
        if rows.is_empty():
            continue
        table = read_csv(set_folder(Path(path), info) / "descriptors.csv", ("_id", "defects"))
        listed = {name: _composition(_kinds(text)) for name, text in table.select("_id", "defects").iter_rows()}
        targets = read_csv(targets_file(Path(path), info), ("_id", "descriptor_id"))
        descriptor = dict(targets.select("_id", "descriptor_id").iter_rows())
        found = {label: _composition(parse_label(label)) for label in rows["label"].unique()}
        pairs = rows.select("id", "label").iter_rows()
        wrong[info.name] = [name for name, label in pairs if found[label] != listed[descriptor[name]]]
    return wrong


def all_checks(path: Path, sets: Sequence[str]) -> tuple[dict[str, float], dict[str, list[str]]]:
    """`formation_energy_errors` and `descriptor_mismatches` of some sets.

    Both are empty for the pilot sample, which has neither potentials nor lists of defects.
    """
    if not has_published_layout(path):
        return {}, {}
    return formation_energy_errors(path, sets), descriptor_mismatches(path, sets)


def _kinds(text: str) -> Counter[tuple[str, str]]:
    """Kinds of defects from a descriptor's list of dictionaries."""
    defects = ast.literal_eval(text)
    return Counter((d["element"], VACANCY) if d["type"] == "vacancy" else (d["from"], d["to"]) for d in defects)


def _composition(kinds: Counter[tuple[str, str]]) -> tuple[int, dict[str, int]]:
    """Number of defects, and by how many atoms of each element the cell differs from the pristine one."""
    change: Counter[str] = Counter()
    for (old, new), number in kinds.items():
        change[old] -= number
        change[new] += number
    return kinds.total(), {element: n for element, n in change.items() if n and element != VACANCY}
