"""`defectgen stability` and `defectgen template`: how stable bulk crystals are, and the baseline to compare with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from defectgen_cli.options import POTENTIALS, JsonOption, M3GNetOption, SeedOption
from defectgen_cli.output import emit, end_partial, progress, say, tell_left_out, tell_unreadable

if TYPE_CHECKING:
    from defectgen.io.crystal_files import NamedCrystal
    from defectgen.stability.study import Study

FILES_HELP = "CIF, POSCAR, extended XYZ, CSV or parquet files with a column cif, or folders of them."


def stability(
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help=FILES_HELP)],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder; a stopped run in it goes on.")],
    hull: Annotated[
        str,
        typer.Option(
            "--hull",
            metavar="FILE|DIR|mp-api",
            help="Entries (JSON), formulas with energies (CSV), a folder of them, or mp-api: Materials Project.",
        ),
    ],
    potential: Annotated[
        str, typer.Option("--potential", metavar="NAME", help=f"{' or '.join(POTENTIALS)}.")
    ] = "m3gnet",
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
    energy; a folder of such files with total energies; or mp-api, with the key of MP_API_KEY. A hull from
    files is partial: shares of metastable crystals are upper bounds then. The folder gets
    stability.csv, relaxed/*.cif, VASP inputs
    of the metastable crystals in vasp/ (without POTCAR contents) and manifest.json; it is new, empty, or
    one of an earlier run, which goes on. The exit code is 3 if crystals that the generator did not refuse
    have no energy above the hull.
    """
    from defectgen.io.crystal_files import left_out_files
    from defectgen.io.folders import claimed
    from defectgen.stability.assessment import RelaxationSettings, check_folder
    from defectgen.stability.study import open_hull, open_potential, read_all, run_study, without_reference

    with claimed(output):
        check_folder(output)
        found = open_hull(hull)
        crystals = read_all(files, progress)
        skipped = left_out_files([*files, *([elements] if elements else [])])
        _tell_not_used(crystals, skipped)
        lacking, symbols = without_reference(crystals, found)
        if lacking:
            say(
                f"warning: {lacking} of {len(crystals)} crystals cannot be judged, only relaxed: "
                f"the hull has no reference of {', '.join(symbols)}."
            )
        say(f"loading {potential} ...")
        loaded = open_potential(potential, m3gnet)
        settings = RelaxationSettings(loaded.name, max_steps, fmax)
        study = run_study(
            crystals, found, loaded, settings, output, hull_file=Path(hull), elements=elements, watch=progress
        )
    for line in study.warnings:
        say(f"warning: {line}")
    study.require_judged()
    emit(
        {**study.manifest, "skipped": [str(path) for path in skipped], "output": output}, as_json, _text(study, output)
    )
    counts = study.counts
    if missing := counts["crystals"] - counts["refused"] - counts["judged"]:
        end_partial(f"{missing} of {counts['crystals']} crystals have no energy above the hull; see the table.")


def template(
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help=f"Known crystals: {FILES_HELP}")],
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

    from defectgen.generate.sample_folder import claimed_samples
    from defectgen.generate.template import template_swaps, write_swaps
    from defectgen.io.crystal_files import left_out_files
    from defectgen.stability.study import read_all

    with claimed_samples(output):
        read = read_all(files, progress)
        skipped = left_out_files(files)
        _tell_not_used(read, skipped)
        crystals = [(named.name, named.structure) for named in read if named.structure is not None]
        swaps, useless = template_swaps(crystals, n, np.random.default_rng(seed))
        counts = {"templates": len(crystals), "draws_without_swap": useless}
        write_swaps(swaps, output, seed, counts)
    text = f"{len(swaps)} crystals in {output}; {useless} draws met a crystal in which nothing can be swapped"
    shown = {"output": output, "samples": len(swaps), **counts, "skipped": [str(path) for path in skipped]}
    emit(shown, as_json, text)


def _tell_not_used(crystals: list[NamedCrystal], skipped: list[Path]) -> None:
    """Name on stderr what cannot be read, and what is in the folders besides."""
    broken = [(named.name, named.note) for named in crystals if named.structure is None and not named.refused]
    if refused := sum(named.refused for named in crystals):
        say(f"{refused} of {len(crystals)} are draws that the generator refused; they are counted and not relaxed.")
    tell_unreadable(broken, len(broken), len(crystals))
    tell_left_out(skipped)


def _text(study: Study, output: Path) -> str:
    """The result for people."""
    from defectgen.core.interval import percent_text
    from defectgen.stability.study import unjudged

    counts, hull, references = study.counts, study.hull, study.references
    metastable, of, judged = counts["metastable"], counts["crystals"] - counts["refused"], counts["judged"]
    alone = counts["judged_without_competitor"]
    lines = [
        f"{metastable} of {counts['crystals']} crystals ({percent_text(metastable, counts['crystals'])}) "
        f"are metastable: less than {counts['threshold_ev_per_atom']} eV/atom above the "
        f"{'partial ' * bool(hull.partial)}hull"
        + (
            f"; of the {of} that the generator did not refuse {percent_text(metastable, of)}."
            if counts["refused"]
            else "."
        ),
        f"judged {counts['judged']}; {unjudged(counts) or 'no other'}; not converged but judged as they were "
        f"{counts['not_converged']}.",
        *(
            []
            if not judged
            else [
                f"competitors known: for {judged - alone} of {judged} judged ({percent_text(judged - alone, judged)}); "
                f"{alone} compete with their elements only: the hull knows no compound of them."
            ]
        ),
        f"hull: {hull.source}" + (f"; partial: {hull.partial}" if hull.partial else ""),
        f"energies: {study.corrections}",
    ]
    if references is not None:
        error = references.mean_error_ev_per_atom
        shown = f", mean residual {error:.3f} eV/atom" if error is not None else ""
        lines.append(f"elements: {references.source}{shown}")
    return "\n".join([*lines, f"results in {output}"])
