"""Stability of bulk crystals: relaxation by a potential, corrections, energy above the hull, inputs for DFT.

Source: Gruver et al., ICLR 2024, section 5 and appendices B.1 and B.2 (arXiv 2402.04379).
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from defectgen.core.interval import interval_95
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.crystal_files import RELAXATIONS, NamedCrystal
from defectgen.io.documents import JSON_BYTES, parse_json, read_text
from defectgen.io.files import write_text
from defectgen.io.folders import contents
from defectgen.io.structures import SAMPLES
from defectgen.score.potentials.potential import Potential
from defectgen.score.potentials.relaxation import CONVERGED, CRYSTAL, NOT_CONVERGED, relax
from defectgen.stability.corrections import correction_ev, corrections_of
from defectgen.stability.hull import FORMATION, Hull, NoReferenceError
from defectgen.stability.references import References

METASTABLE_EV_PER_ATOM = 0.1
"""A crystal less than this above the hull is metastable (Gruver et al., section 5)."""

ROWS = RELAXATIONS
"""One line a crystal, written as it is done; the first line holds the settings."""

REFERENCES, ELEMENTS = "references.json", "elements"
"""Reference energies of a folder, and the subfolder with relaxations of elemental phases."""

NOT_READ, REFUSED, UNKNOWN_ELEMENT, FAILED = "not read", "refused", "unknown element", "failed"

SCHEMA = {
    "index": pl.Int64, "name": pl.String, "formula": pl.String, "n_atoms": pl.Int64, "status": pl.String,
    "steps": pl.Int64, "initial_energy_ev_per_atom": pl.Float64, "energy_ev_per_atom": pl.Float64,
    "correction_ev_per_atom": pl.Float64, "formation_energy_ev_per_atom": pl.Float64,
    "e_above_hull_ev_per_atom": pl.Float64, "metastable": pl.Boolean, "decomposition": pl.String,
    "n_competing": pl.Int64,
    "max_force_ev_angstrom": pl.Float64, "max_stress_gpa": pl.Float64, "volume_ratio": pl.Float64,
    "seconds": pl.Float64, "note": pl.String,
}  # fmt: skip
"""Columns of the table of results."""


@dataclass(frozen=True)
class RelaxationSettings:
    """What the result of a relaxation depends on.

    Attributes:
        potential: its name.
        max_steps: see `defectgen.score.potentials.relaxation.relax`.
        fmax_ev_angstrom: see `defectgen.score.potentials.relaxation.relax`.
    """

    potential: str
    max_steps: int = CRYSTAL.max_steps
    fmax_ev_angstrom: float = CRYSTAL.fmax_ev_angstrom


def check_folder(folder: Path) -> None:
    """Make sure that a folder is new, empty, or one of earlier relaxations; meant to be called before the work starts.

    Raises:
        UsageError: it is a file, holds generated samples, or holds something else.
    """
    hint = "Name another folder."
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is not a folder.", hint)
    if (folder / SAMPLES).exists():
        raise UsageError(f"{folder} holds samples ({SAMPLES}).", hint)
    ours = (ROWS, REFERENCES, f"{ELEMENTS}/{ROWS}")
    if contents(folder) and not any((folder / name).is_file() for name in ours):
        raise UsageError(f"{folder} is not empty and holds no relaxations.", hint)


def relax_all(
    crystals: Sequence[NamedCrystal],
    potential: Potential,
    settings: RelaxationSettings,
    folder: Path,
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Relax crystals, going on where an earlier call in the same folder stopped.

    Nothing that happens to one crystal ends the run: its row says what happened.

    Args:
        crystals: what to relax, also those that could not be read.
        potential: what computes the energies.
        settings: of the relaxation.
        folder: in which `ROWS` is kept.
        advance: takes how many more crystals are done.

    Returns:
        A row for each crystal in their order, see `_row`.

    Raises:
        UsageError: the folder holds relaxations with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ROWS
    done = read_rows(path, settings)
    rows = []
    with path.open("a", encoding="utf-8") as file:
        if not path.stat().st_size:
            file.write(json.dumps({"settings": asdict(settings)}) + "\n")
        for crystal in crystals:
            row = done.get(crystal.digest)
            if row is None:
                row = done[crystal.digest] = {"digest": crystal.digest, **_row(crystal, potential, settings)}
                file.write(json.dumps(row, allow_nan=False) + "\n")
                file.flush()
            rows.append(row)
            advance(1)
    return rows


def read_rows(path: Path, settings: RelaxationSettings) -> dict[str, dict[str, Any]]:
    """The rows of an interrupted or finished run by the digest of their crystal; none if there is no file.

    Rows that say that a library failed are left out, so that these crystals are tried again. A last line that was
    cut off is taken out of the file.

    Raises:
        UsageError: made with other settings.
        DefectgenError: not such a file.
    """
    if not path.is_file() or not path.stat().st_size:
        return {}
    try:
        content = read_text(path, JSON_BYTES)
        whole = content[: content.rfind("\n") + 1]
        lines = [parse_json(line, str(path)) for line in whole.splitlines()]
        before = lines[0]["settings"] if lines else asdict(settings)
        rows = {row["digest"]: row for row in lines[1:]}
    except (ValueError, KeyError, TypeError) as error:
        raise DefectgenError(
            f"{path} holds no relaxations ({type(error).__name__}).", "Choose another folder."
        ) from error
    if before != asdict(settings):
        changed = sorted(key for key, value in asdict(settings).items() if before.get(key) != value)
        got = ", ".join(f"{key} {before.get(key)}" for key in changed)
        raise UsageError(f"{path.parent} holds relaxations with {got}.", "Choose another folder, or the same settings.")
    if whole != content:
        write_text(path, whole)
    return {digest: row for digest, row in rows.items() if row.get("status") != FAILED}


def _row(crystal: NamedCrystal, potential: Potential, settings: RelaxationSettings) -> dict[str, Any]:
    """What became of one crystal."""
    row: dict[str, Any] = {
        "name": crystal.name,
        "status": REFUSED if crystal.refused else NOT_READ,
        "note": crystal.note,
    }
    structure = crystal.structure
    if structure is None:
        return row
    row |= {"formula": structure.composition.reduced_formula, "n_atoms": len(structure)}
    unknown = sorted({site.specie.symbol for site in structure} - potential.elements)
    if unknown:
        return row | {"status": UNKNOWN_ELEMENT, "note": f"{potential.name} never saw {', '.join(unknown)}"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = relax(
                structure,
                potential,
                CRYSTAL,
                max_steps=settings.max_steps,
                fmax_ev_angstrom=settings.fmax_ev_angstrom,
            )
            correction = correction_ev(found.structure, potential) / len(structure) if found.usable else math.nan
    except Exception as error:  # a library may fail in any way on atoms that make no sense
        reason = " ".join(str(error).split()) or type(error).__name__
        return row | {"status": FAILED, "note": f"{type(error).__name__}: {reason:.120}"}
    numbers = {
        "initial_energy_ev_per_atom": found.initial_energy_ev_per_atom,
        "energy_ev_per_atom": found.energy_ev_per_atom,
        "correction_ev_per_atom": correction,
        "max_force_ev_angstrom": found.max_force_ev_angstrom,
        "max_stress_gpa": found.max_stress_gpa,
        "volume_ratio": found.volume_ratio,
    }
    return row | {
        "status": found.status,
        "note": found.detail,
        "steps": found.steps,
        "seconds": round(found.seconds, 3),
        **{key: value if math.isfinite(value) else None for key, value in numbers.items()},
        "cif": found.structure.to(fmt="cif") if found.usable else None,
    }


def judge(rows: Sequence[Mapping[str, Any]], hull: Hull, references: References | None) -> pl.DataFrame:
    """Where the relaxed crystals lie above a hull.

    Args:
        rows: of `relax_all`.
        hull: on any scale.
        references: turn energies into formation energies; needed for a hull of formation energies.

    Returns:
        A row a crystal with the columns of `SCHEMA`; ``e_above_hull_ev_per_atom`` is null where there is no
        energy or no reference, and ``note`` says why.
    """
    from pymatgen.core import Composition

    judged = []
    for index, row in enumerate(rows):
        found = {key: row.get(key) for key in SCHEMA} | {"index": index}
        if row["status"] in (CONVERGED, NOT_CONVERGED):
            composition = Composition(row["formula"])
            energy = row["energy_ev_per_atom"] + row["correction_ev_per_atom"]
            try:
                if references is not None:
                    found["formation_energy_ev_per_atom"] = references.formation_ev_per_atom(composition, energy)
                if hull.scale == FORMATION:
                    energy = found["formation_energy_ev_per_atom"]
                above = hull.above(composition, energy)
            except NoReferenceError as error:
                found["note"] = "; ".join(part for part in (row["note"], str(error)) if part)
            else:
                found["e_above_hull_ev_per_atom"] = above.energy_ev
                found["decomposition"] = above.decomposition
                found["n_competing"] = above.n_competing
                found["metastable"] = above.energy_ev < METASTABLE_EV_PER_ATOM
        judged.append(found)
    return pl.DataFrame(judged, schema=SCHEMA)


def summarize(table: pl.DataFrame) -> dict[str, Any]:
    """Counts and shares of a table of `judge`; whatever could not be judged stays in the denominator.

    Returns:
        ``crystals`` is the number of all rows and ``refused`` that of draws which the generator itself refused;
        ``share_metastable_of_all`` is over all rows, ``share_metastable_of_not_refused`` over all but these;
        ``..._95`` are the ends of the 95 % interval of a share, None where there is none.
    """
    status = table["status"]
    above = table["e_above_hull_ev_per_atom"].drop_nulls()
    metastable = int(table["metastable"].fill_null(False).sum())
    relaxed = int(status.is_in([CONVERGED, NOT_CONVERGED]).sum())
    told = {name: int((status == name).sum()) for name in (REFUSED, NOT_READ, UNKNOWN_ELEMENT, FAILED)}
    not_refused = table.height - told[REFUSED]
    competing = int((table["n_competing"] > 0).sum())
    return {
        "crystals": table.height,
        **{name.replace(" ", "_"): n for name, n in told.items()},
        "diverged": table.height - relaxed - sum(told.values()),
        "relaxed": relaxed,
        "not_converged": int((status == NOT_CONVERGED).sum()),
        "without_reference": relaxed - above.len(),
        "judged": above.len(),
        "judged_without_competitor": int((table["n_competing"] == 0).sum()),
        "share_with_competitors_of_judged": competing / above.len() if above.len() else None,
        "share_with_competitors_of_judged_95": _ends(competing, above.len()),
        "metastable": metastable,
        "on_or_below_hull": int((above <= 0).sum()),
        "share_metastable_of_all": metastable / table.height if table.height else None,
        "share_metastable_of_all_95": _ends(metastable, table.height),
        "share_metastable_of_not_refused": metastable / not_refused if not_refused else None,
        "share_metastable_of_not_refused_95": _ends(metastable, not_refused),
        "threshold_ev_per_atom": METASTABLE_EV_PER_ATOM,
        "median_seconds": table["seconds"].median(),
    }


def _ends(n: int, of: int) -> list[float] | None:
    return list(interval_95(n, of)) if of else None


def settings_text(potential: Potential) -> str:
    """What is added to the energies of a potential, in a few words for people."""
    scheme = corrections_of(potential)
    return f"{scheme} corrections added" if scheme else "energies hold the corrections of the Materials Project already"
