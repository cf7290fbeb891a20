"""A study of stability in a folder: crystals are relaxed, judged against a hull, and written with inputs for DFT."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from defectgen import __version__
from defectgen.data.assets import cache_dir
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.crystal_files import NamedCrystal, read_crystals
from defectgen.io.documents import DocumentError, read_object
from defectgen.io.files import file_hash, write_text
from defectgen.io.folders import claimed
from defectgen.score.potentials.potential import Potential
from defectgen.score.potentials.relaxation import CONVERGED, NOT_CONVERGED
from defectgen.score.scorers import ScorerOptions, load_potential
from defectgen.stability import assessment
from defectgen.stability.assessment import ELEMENTS, REFERENCES, RelaxationSettings
from defectgen.stability.hull import (
    FORMATION,
    SAVED_HULL,
    TOTAL,
    Hull,
    hull_files,
    project_hull,
    read_hull,
    save_hull,
)
from defectgen.stability.references import References, elemental_references, references_from_table
from defectgen.stability.study_folder import write_results
from defectgen.watch import Watch, unwatched
from defectgen.web import MaterialsProject

PROJECT = ("mp-api", "mp")
"""In place of a file: the hull of the Materials Project."""

UNJUDGED = {
    "refused": "refused by the generator",
    "not_read": "not read",
    "unknown_element": "with an unknown element",
    "failed": "failed in the library (tried again next time)",
    "diverged": "diverged",
    "without_reference": "without a reference on the hull",
}
"""Counts of `assessment.summarize` of crystals that have no energy above the hull, and why."""


def open_hull(given: str) -> Hull:
    """The hull of a file or folder, or of the Materials Project for `PROJECT`.

    Raises:
        UsageError: no key of the Materials Project.
        DefectgenError: see `defectgen.stability.hull.read_hull`.
    """
    if given in PROJECT:
        return project_hull(MaterialsProject.from_environment())
    return read_hull(Path(given))


def open_potential(name: str, m3gnet: str | None = None) -> Potential:
    """The potential of this name.

    Args:
        name: one of `defectgen.score.scorers.potential_names`.
        m3gnet: where M3GNet is, see `ScorerOptions`.

    Raises:
        UsageError: no such potential.
        DefectgenError: its extra is not installed, or its files are missing or damaged.
    """
    return load_potential(name, ScorerOptions(cache=cache_dir() / "matgl", m3gnet=m3gnet)).potential


def read_all(files: Sequence[Path], watch: Watch = unwatched) -> list[NamedCrystal]:
    """All crystals of files and folders, see `read_crystals`.

    Raises:
        UsageError: no such path, or one without crystals.
        DefectgenError: none of the crystals can be read.
    """
    crystals: list[NamedCrystal] = []
    with watch("reading", None, "crystals") as advance:
        for path in files:
            for named in read_crystals(path):
                crystals.append(named)
                advance(1)
    if all(named.structure is None for named in crystals):
        first = crystals[0]
        more = f" ({len(crystals)} crystals, none can be read)" if len(crystals) > 1 else ""
        raise DefectgenError(f"{first.name}: {first.note.rstrip('.')}{more}.")
    return crystals


def without_reference(crystals: Sequence[NamedCrystal], hull: Hull) -> tuple[int, tuple[str, ...]]:
    """Of how many crystals the hull lacks an element, and which elements: known before anything is relaxed.

    Args:
        crystals: those that cannot be read do not count.
        hull: one that asks the Materials Project has all elements.

    Raises:
        DefectgenError: it lacks an element of every crystal, so that none could be judged.
    """
    if hull.project is not None:
        return 0, ()
    known = hull.elements
    lacking = [
        {element.symbol for element in named.structure.elements} - known for named in crystals if named.structure
    ]
    n, symbols = sum(map(bool, lacking)), tuple(sorted(set().union(*lacking)))
    if n and n == len(lacking):
        what = "the crystal" if n == 1 else f"each of {n} crystals"
        raise DefectgenError(
            f"{what} has an element of which the hull ({hull.source}) has no reference: {', '.join(symbols)}.",
            "Add the elements to the hull, or use --hull mp-api.",
        )
    return n, symbols


@dataclass(frozen=True)
class Study:
    """What became of the crystals.

    Attributes:
        manifest: as it is written.
        table: a row a crystal, see `assessment.SCHEMA`.
        hull: with which they were compared.
        references: energies of the elements for a hull of formation energies.
        corrections: what was added to the energies of the potential, for people.
        warnings: inputs that could not be written, and folders that were left as they are.
    """

    manifest: Mapping[str, Any]
    table: pl.DataFrame
    hull: Hull
    references: References | None
    corrections: str
    warnings: tuple[str, ...]

    @property
    def counts(self) -> Mapping[str, Any]:
        """See `assessment.summarize`, with the number of inputs for VASP."""
        counts: Mapping[str, Any] = self.manifest["counts"]
        return counts

    def require_judged(self) -> None:
        """Raise a `DefectgenError` if no crystal has an energy above the hull."""
        if self.counts["judged"]:
            return
        can_add = self.counts["without_reference"] and self.hull.project is None
        first = next((f"; the first: {note.rstrip('.')}" for note in self.table["note"] if note), "")
        raise DefectgenError(
            f"none of {self.counts['crystals']} crystals can be judged: {unjudged(self.counts)}{first}.",
            "Add the element to the hull, or use --hull mp-api." if can_add else "",
        )


def unjudged(counts: Mapping[str, Any]) -> str:
    """Why crystals have no energy above the hull, with their numbers; empty if all have one."""
    return ", ".join(f"{counts[key]} {text}" for key, text in UNJUDGED.items() if counts[key])


def run_study(
    crystals: Sequence[NamedCrystal],
    hull: Hull,
    potential: Potential,
    settings: RelaxationSettings,
    folder: Path,
    *,
    hull_file: Path,
    elements: Path | None = None,
    watch: Watch = unwatched,
) -> Study:
    """Relax crystals, judge them, and write all of it into a folder, in which an earlier study goes on.

    Args:
        crystals: what to relax, also those that could not be read.
        hull: to compare with; what the Materials Project answers is kept in the folder whatever happens.
        potential: what computes the energies.
        settings: of the relaxations.
        folder: see `assessment.check_folder`.
        hull_file: where a hull of formation energies comes from; a folder holds one file then.
        elements: elemental phases as its references.
        watch: told how far it is.

    Raises:
        UsageError: the folder holds relaxations with other settings; elements that do not go with the hull.
        DefectgenError: see `defectgen.stability.references.references_from_table`.
    """
    with claimed(folder):
        references = element_references(hull, hull_file, elements, potential, settings, folder, watch)
        with watch("relaxing", len(crystals), "crystals") as advance:
            rows = assessment.relax_all(crystals, potential, settings, folder, advance=advance)
        try:
            table = assessment.judge(rows, hull, references)
        finally:  # interrupted or not: what the Materials Project answered is kept
            if hull.scale == TOTAL and hull.points:
                save_hull(hull, folder / SAVED_HULL)
        corrections = assessment.settings_text(potential)
        about: dict[str, Any] = {
            "stage": "stability",
            "version": __version__,
            "counts": assessment.summarize(table),
            "settings": {
                "potential": potential.name,
                "max_steps": settings.max_steps,
                "fmax_ev_angstrom": settings.fmax_ev_angstrom,
            },
            "corrections": corrections,
            "hull": {"source": hull.source, "scale": hull.scale, "partial": hull.partial or None},
            "references": references
            and {"source": references.source, "mean_error_ev_per_atom": references.mean_error_ev_per_atom},
        }
        manifest, warnings = write_results(rows, table, folder, about)
        return Study(manifest, table, hull, references, corrections, tuple(warnings))


def element_references(
    hull: Hull,
    hull_file: Path,
    elements: Path | None,
    potential: Potential,
    settings: RelaxationSettings,
    folder: Path,
    watch: Watch = unwatched,
) -> References | None:
    """Energies of the elements for a hull of formation energies, computed once for a folder; None for another hull.

    Args:
        hull: to compare with.
        hull_file: where it comes from; without `elements` its crystals give the references.
        elements: files of elemental phases.
        potential: whose references they are.
        settings: of the relaxations of elemental phases.
        folder: of the study.
        watch: told how far it is.

    Raises:
        UsageError: elemental phases for a hull of total energies, or none that can be relaxed.
    """
    if hull.scale != FORMATION:
        if elements is not None:
            raise UsageError("got --elements, but the hull has total energies.", "They need no elemental phases.")
        return None
    if elements is not None:
        return _relaxed_elements(elements, potential, settings, folder / ELEMENTS, watch)
    [hull_file] = hull_files(hull_file)
    key = {"potential": potential.name, "table": file_hash(hull_file)}
    folder.mkdir(parents=True, exist_ok=True)
    saved = folder / REFERENCES
    if saved.is_file():
        try:
            before = read_object(saved)
            if before.get("key") == key:
                return References(**before["references"])
        except (DocumentError, TypeError, KeyError) as error:
            raise DefectgenError(f"{saved} is damaged ({error}).", "Remove it: it is computed again.") from error
    with watch("computing reference energies", None, "crystals") as advance:
        references = references_from_table(hull_file, potential, advance)
    _write_json(saved, {"key": key, "references": asdict(references)})
    return references


def _relaxed_elements(
    path: Path, potential: Potential, settings: RelaxationSettings, folder: Path, watch: Watch
) -> References:
    read = list(read_crystals(path))
    crystals = [named for named in read if named.structure and len(named.structure.composition) == 1]
    with watch("relaxing elemental phases", len(crystals), "crystals") as advance:
        rows = assessment.relax_all(crystals, potential, settings, folder, advance=advance)
    energies: dict[str, list[float]] = {}
    for named, row in zip(crystals, rows, strict=True):
        if named.structure and row["status"] in (CONVERGED, NOT_CONVERGED):
            energies.setdefault(named.structure[0].specie.symbol, []).append(row["energy_ev_per_atom"])
    if not energies:
        raise UsageError(f"{path} holds no elemental phase that can be relaxed.")
    return elemental_references(energies, f"{len(crystals)} elemental phases of {path.name}")


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")
