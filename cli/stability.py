"""`defectgen stability` and `defectgen template`: how stable bulk crystals are, and the baseline to compare with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from defectgen_cli.options import JsonOption, M3GNetOption, SeedOption
from defectgen_cli.output import emit, progress, say

if TYPE_CHECKING:
    from defectgen.errors import DefectgenError
    from defectgen.io.crystal_files import NamedCrystal
    from defectgen.score.potentials.potential import Potential
    from defectgen.stability.assessment import RelaxationSettings
    from defectgen.stability.hull import Hull
    from defectgen.stability.references import References

PROJECT = "mp"
"""What --hull is given to ask the Materials Project."""

TABLE, HULL = "stability.csv", "hull.csv"

FILES_HELP = "CIF, POSCAR, extended XYZ, CSV or parquet files with a column cif, or folders of them."


def stability(
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help=FILES_HELP)],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder; a stopped run in it goes on.")],
    hull: Annotated[
        str,
        typer.Option(
            "--hull", metavar="FILE|mp", help="Entries (JSON), formulas with energies (CSV), or mp: Materials Project."
        ),
    ],
    potential: Annotated[str, typer.Option("--potential", metavar="NAME", help="m3gnet or chgnet.")] = "m3gnet",
    m3gnet: M3GNetOption = None,
    elements: Annotated[
        Path | None,
        typer.Option("--elements", metavar="FILES", help="Elemental phases, for a hull of formation energies."),
    ] = None,
    max_steps: Annotated[int, typer.Option("--max-steps", min=1, help="Most steps of a relaxation.")] = 500,
    fmax: Annotated[float, typer.Option("--fmax", min=1e-4, help="Force at which it stops, eV/angstrom.")] = 0.1,
    as_json: JsonOption = False,
) -> None:
    """Relax bulk crystals and tell how far they lie above the hull.

    Atoms and cell are relaxed with a potential, the corrections of the Materials Project (MP2020) are
    added where the potential's energies lack them, and the energy above the convex hull is computed.
    Below 0.1 eV/atom a crystal counts as metastable, whatever its composition; draws that the generator
    refused are counted apart. The hull comes from --hull: pymatgen's computed
    entries as JSON; a CSV with formula and formation_energy_per_atom (as MP-20), energy_per_atom or
    energy; or mp, with the key of MP_API_KEY. The folder gets stability.csv, relaxed/*.cif, VASP inputs
    of the metastable crystals in vasp/ (without POTCAR contents) and manifest.json; it is new, empty, or
    one of an earlier run, which goes on.
    """
    from defectgen import __version__
    from defectgen.stability.assessment import (
        MANIFEST,
        RelaxationSettings,
        check_folder,
        judge,
        relax_all,
        settings_text,
        summarize,
        write_structures,
    )
    from defectgen.stability.hull import TOTAL, save_hull

    check_folder(output)
    found = _hull(hull)
    crystals = _read(files)
    loaded = _potential(potential, m3gnet)
    settings = RelaxationSettings(loaded.name, max_steps, fmax)
    references = _references(found, Path(hull), elements, loaded, settings, output)
    with progress("relaxing", len(crystals), "crystals") as advance:
        rows = relax_all(crystals, loaded, settings, output, advance=advance)
    try:
        with_hull = judge(rows, found, references)
    finally:  # interrupted or not: what the Materials Project answered is kept
        if found.scale == TOTAL and found.points:
            save_hull(found, output / HULL)
    n_inputs, without_input = write_structures(rows, with_hull, output)
    with_hull.write_csv(output / TABLE, float_precision=5)
    counts = summarize(with_hull)
    result: dict[str, Any] = {
        "stage": "stability",
        "version": __version__,
        "counts": counts | {"vasp_inputs": n_inputs},
        "settings": {"potential": loaded.name, "max_steps": max_steps, "fmax_ev_angstrom": fmax},
        "corrections": settings_text(loaded),
        "hull": {"source": found.source, "scale": found.scale, "partial": found.partial or None},
        "references": references
        and {"source": references.source, "mean_error_ev_per_atom": references.mean_error_ev_per_atom},
    }
    part = output / f"{MANIFEST}.part"
    part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    part.replace(output / MANIFEST)
    for line in without_input:
        say(f"warning: {line}")
    if not counts["judged"]:
        raise _nothing_judged(counts, with_hull["note"].to_list(), can_add=found.project is None)
    emit(result | {"output": output}, as_json, _text(counts, found, references, settings_text(loaded), output))


def template(
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help=f"Known crystals: {FILES_HELP}")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the samples.")],
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="Crystals to make.")] = 100,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Swap one element of known crystals at random: the baseline.

    An element is replaced by one whose ion of the same charge has a radius within 0.1 angstrom (Gruver
    et al., appendix C). The crystals are not relaxed: `defectgen stability` does that. The folder has
    the layout of generated samples: structures/*.cif, samples.parquet, samples.extxyz, manifest.json.
    """
    import numpy as np

    from defectgen.generate.sample_folder import refuse_folder
    from defectgen.generate.template import template_swaps, write_swaps

    refuse_folder(output)
    crystals = [(named.name, named.structure) for named in _read(files) if named.structure is not None]
    swaps, useless = template_swaps(crystals, n, np.random.default_rng(seed))
    counts = {"templates": len(crystals), "draws_without_swap": useless}
    write_swaps(swaps, output, seed, counts)
    text = f"{len(swaps)} crystals in {output}; {useless} draws met a crystal in which nothing can be swapped"
    emit({"output": output, "samples": len(swaps), **counts}, as_json, text)


def _hull(given: str) -> Hull:
    from defectgen.stability.hull import project_hull, read_hull
    from defectgen.web import MaterialsProject

    if given == PROJECT:
        return project_hull(MaterialsProject.from_environment())
    return read_hull(Path(given))


def _read(files: list[Path]) -> list[NamedCrystal]:
    """All crystals of files and folders; those that cannot be read are named on stderr."""
    from defectgen.errors import DefectgenError
    from defectgen.io.crystal_files import read_crystals

    crystals: list[NamedCrystal] = []
    with progress("reading", None, "crystals") as advance:
        for path in files:
            for named in read_crystals(path):
                crystals.append(named)
                advance(1)
    broken = [named for named in crystals if named.structure is None and not named.refused]
    refused = sum(named.refused for named in crystals)
    if len(broken) + refused == len(crystals):
        first = next(named for named in crystals if named.structure is None)
        raise DefectgenError(f"{first.name}: {first.note.rstrip('.')} ({len(crystals)} crystals, none can be read).")
    if refused:
        say(f"{refused} of {len(crystals)} are draws that the generator refused; they are counted and not relaxed.")
    for named in broken[:3]:
        say(f"warning: {named.name}: {named.note.rstrip('.')}; skipped.")
    if len(broken) > 3:
        say(f"warning: {len(broken)} of {len(crystals)} crystals cannot be read; see the table.")
    return crystals


def _potential(name: str, m3gnet: str | None) -> Potential:
    from defectgen.data.assets import cache_dir
    from defectgen.errors import UsageError
    from defectgen.score.potentials.potential import PotentialScorer
    from defectgen.score.registry import ScorerOptions, load_scorer

    if name not in ("m3gnet", "chgnet"):
        raise UsageError(f"got --potential {name!r}, expected m3gnet or chgnet.")
    say(f"loading {name} ...")
    scorer = load_scorer(name, ScorerOptions(cache=cache_dir() / "matgl", m3gnet=m3gnet))
    if not isinstance(scorer, PotentialScorer):
        raise UsageError(f"{name} is no potential.")
    return scorer.potential


def _references(
    hull: Hull, path: Path, elements: Path | None, potential: Potential, settings: RelaxationSettings, folder: Path
) -> References | None:
    """Energies of the elements for a hull of formation energies, computed once for a folder."""
    from dataclasses import asdict

    from defectgen.errors import UsageError
    from defectgen.io.crystal_files import read_crystals
    from defectgen.io.files import file_hash
    from defectgen.stability.assessment import ELEMENTS, REFERENCES, relax_all
    from defectgen.stability.hull import FORMATION
    from defectgen.stability.references import References, elemental_references, references_from_table

    if hull.scale != FORMATION:
        if elements is not None:
            raise UsageError("got --elements, but the hull has total energies.", "They need no elemental phases.")
        return None
    if elements is not None:
        read = list(read_crystals(elements))
        crystals = [named for named in read if named.structure and len(named.structure.composition) == 1]
        with progress("relaxing elemental phases", len(crystals), "crystals") as advance:
            rows = relax_all(crystals, potential, settings, folder / ELEMENTS, advance=advance)
        energies: dict[str, list[float]] = {}
        for named, row in zip(crystals, rows, strict=True):
            if named.structure and row["status"] in ("converged", "not converged"):
                energies.setdefault(named.structure[0].specie.symbol, []).append(row["energy_ev_per_atom"])
        if not energies:
            raise UsageError(f"{elements} holds no elemental phase that can be relaxed.")
        return elemental_references(energies, f"{len(crystals)} elemental phases of {elements.name}")
    key = {"potential": potential.name, "table": file_hash(path)}
    folder.mkdir(parents=True, exist_ok=True)
    saved = folder / REFERENCES
    if saved.is_file():
        before = json.loads(saved.read_text(encoding="utf-8"))
        if before.get("key") == key:
            return References(**before["references"])
    with progress("computing reference energies", None, "crystals") as advance:
        references = references_from_table(path, potential, advance)
    part = saved.with_name(f"{REFERENCES}.part")
    part.write_text(json.dumps({"key": key, "references": asdict(references)}, indent=1) + "\n", encoding="utf-8")
    part.replace(saved)
    return references


def _reasons(counts: dict[str, Any]) -> str:
    """Why crystals have no energy above the hull, with their numbers; empty if all have one."""
    named = {
        "refused": "refused by the generator",
        "not_read": "not read",
        "unknown_element": "with an unknown element",
        "failed": "failed in the library (tried again next time)",
        "diverged": "diverged",
        "without_reference": "without a reference on the hull",
    }
    return ", ".join(f"{counts[key]} {text}" for key, text in named.items() if counts[key])


def _nothing_judged(counts: dict[str, Any], notes: list[str | None], *, can_add: bool) -> DefectgenError:
    from defectgen.errors import DefectgenError

    hint = "Add the element to the hull, or use --hull mp." if counts["without_reference"] and can_add else ""
    example = next((f"; the first: {note.rstrip('.')}" for note in notes if note), "")
    return DefectgenError(f"none of {counts['crystals']} crystals can be judged: {_reasons(counts)}{example}.", hint)


def _text(counts: dict[str, Any], hull: Hull, references: References | None, corrections: str, output: Path) -> str:
    """The result for people."""
    share = 100 * counts["share_metastable_of_all"]
    rest, of = 100 * counts["share_metastable_of_not_refused"], counts["crystals"] - counts["refused"]
    lines = [
        f"{counts['metastable']} of {counts['crystals']} crystals ({share:.1f} %) are metastable: less than "
        f"{counts['threshold_ev_per_atom']} eV/atom above the hull"
        + (f"; {rest:.1f} % of the {of} that the generator did not refuse." if counts["refused"] else "."),
        f"judged {counts['judged']}; {_reasons(counts) or 'no other'}; not converged but judged as they were "
        f"{counts['not_converged']}.",
        f"{counts['judged_without_competitor']} of those judged compete with their elements only: the hull knows no "
        "compound of them.",
        f"hull: {hull.source}" + (f"; partial: {hull.partial}" if hull.partial else ""),
        f"energies: {corrections}",
    ]
    if references is not None:
        error = references.mean_error_ev_per_atom
        shown = f", mean residual {error:.3f} eV/atom" if error is not None else ""
        lines.append(f"elements: {references.source}{shown}")
    return "\n".join([*lines, f"results in {output}"])
