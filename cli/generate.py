"""`defectgen generate`: bulk crystals written by a language model, and mutations of known ones."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from defectgen_cli.options import JsonOption, SeedOption
from defectgen_cli.output import emit, progress, say

if TYPE_CHECKING:
    from defectgen.generate.sampling import CrystalJob, Draw
    from defectgen.llm.adapter import AdapterCard
    from defectgen.llm.decode.generator import Sampling


def generate(
    model: Annotated[
        str, typer.Option("--model", metavar="DIR|NAME", help="Adapter trained on crystals, or a bare base model.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="New folder for the crystals.")],
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="Valid crystals to make.")] = 100,
    formula: Annotated[str | None, typer.Option("--formula", metavar="TEXT", help="Wanted formula.")] = None,
    spacegroup: Annotated[int | None, typer.Option("--spacegroup", metavar="N", help="Wanted space group.")] = None,
    e_above_hull: Annotated[
        float | None, typer.Option("--e-above-hull", metavar="EV", help="Wanted energy above the hull, eV/atom.")
    ] = None,
    band_gap: Annotated[float | None, typer.Option("--band-gap", metavar="EV", help="Wanted band gap, eV.")] = None,
    formation_energy: Annotated[
        float | None, typer.Option("--formation-energy", metavar="EV", help="Wanted formation energy, eV/atom.")
    ] = None,
    exact_formula: Annotated[
        bool, typer.Option("--exact-formula/--any-formula", help="Admit no other composition than the wanted.")
    ] = True,
    infill: Annotated[
        Path | None, typer.Option("--infill", metavar="FILE", help="Mutate this crystal (CIF or POSCAR) instead.")
    ] = None,
    mask: Annotated[str | None, typer.Option("--mask", metavar="ELEMENT", help="Element to replace in it.")] = None,
    any_element: Annotated[
        bool, typer.Option("--any-element", help="Replace by any element, not only by ions of similar radius.")
    ] = False,
    elements: Annotated[
        str | None, typer.Option("--elements", metavar="EL[,EL]", help="Elements that may occur [those trained on].")
    ] = None,
    max_atoms: Annotated[
        int | None, typer.Option("--max-atoms", min=1, help="Most atoms in a cell [as in training, else 20].")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="Sampling temperature.")] = 1.0,
    top_p: Annotated[float, typer.Option("--top-p", min=0.0, max=1.0, help="Probability of the tokens kept.")] = 1.0,
    free: Annotated[bool, typer.Option("--free", help="Decode without the grammar, for comparison.")] = False,
    min_distance: Annotated[
        float, typer.Option("--min-distance", metavar="A", min=0.0, help="Least distance of atoms, angstrom; 0: any.")
    ] = 0.5,
    radii: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Least distance as a share of the sum of the radii; 0: any [0.75; of --infill 0]."
        ),
    ] = None,
    neutral: Annotated[
        bool, typer.Option("--neutral", help="Refuse compositions that cannot be neutral in charge.")
    ] = False,
    max_draws: Annotated[
        int | None, typer.Option("--max-draws", min=1, help="Give up after so many draws [10 for each crystal].")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Crystals decoded at once.")] = 64,
    engine: Annotated[str, typer.Option("--engine", metavar="NAME", help="transformers or vllm.")] = "transformers",
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Generate bulk crystals, or mutate a known one.

    The model writes lattice and atoms under a grammar that knows only real elements, cells with a
    volume, at most --max-atoms atoms, and places at --min-distance and --radii from the atoms before;
    a full cell ends. Without conditions any crystal may come. With --infill and
    --mask it names elements that could replace one in a crystal, among those of similar ionic radius
    at equal oxidation state. Crystals whose atoms overlap all the same are refused and drawn again;
    refused draws are kept with the reason and counted. A run that Ctrl-C, SIGTERM or an error ends
    writes what it has. The folder gets structures/*.cif, samples.parquet, samples.extxyz and
    manifest.json.
    """
    from defectgen.core.crystal import Crystal
    from defectgen.errors import DefectgenError, UsageError
    from defectgen.generate.sample_folder import refuse_folder
    from defectgen.generate.sampling import (
        MAX_ATOMS,
        RADII_SHARE,
        Check,
        charge_check,
        distance_check,
        generation_job,
        infill_job,
        radii_check,
        sample_crystals,
        write_samples,
    )
    from defectgen.io.structures import read_structure
    from defectgen.tasks.bulk.crystal_grammar import MP_ELEMENTS

    wanted = {
        "formula": formula,
        "spacegroup": spacegroup,
        "e_above_hull": e_above_hull,
        "band_gap": band_gap,
        "formation_energy": formation_energy,
    }
    stated = {key: value for key, value in wanted.items() if value is not None}
    if infill is None and (mask is not None or any_element):
        raise UsageError("--mask and --any-element go with --infill FILE.")
    if infill is not None and (stated or max_atoms is not None):
        got = ", ".join([*stated, *(["max_atoms"] if max_atoms is not None else [])])
        raise UsageError(f"got --infill and {got}.", "Mutate a crystal, or generate under conditions.")
    if free and engine != "transformers":
        raise UsageError(f"got --free with --engine {engine}.", "Free decoding goes with transformers.")
    apart = radii if radii is not None else 0.0 if infill is not None else RADII_SHARE
    refuse_folder(output)
    card = _card(model)
    trained = tuple(card.data.get("elements", ())) if card else ()
    named = tuple(dict.fromkeys(word.strip() for word in elements.split(","))) if elements is not None else ()
    allowed = named or trained or MP_ELEMENTS
    if infill is not None:
        try:
            crystal = Crystal.from_structure(read_structure(infill))
        except DefectgenError as error:
            text = str(error)
            raise DefectgenError(text if str(infill) in text else f"{infill}: {text}") from error
        if mask is None:
            raise UsageError(f"--infill needs --mask, one of {', '.join(crystal.elements)}.")
        job = infill_job(crystal, mask, elements=allowed, any_element=any_element)
    else:
        most = max_atoms or (card.data.get("max_atoms") if card else None) or MAX_ATOMS
        job = generation_job(
            stated,
            max_atoms=most,
            elements=allowed,
            exact_formula=exact_formula,
            min_distance=min_distance,
            radii=apart,
        )

    say(f"loading {model} ...")
    from defectgen.llm.decode.generator import Sampling

    sampling = Sampling(temperature=temperature, top_p=top_p, batch_size=batch_size)
    draw = _source(model, card, engine, job, sampling, free)
    checks: list[Check] = [distance_check(min_distance)]
    checks += [radii_check(apart)] if apart else []
    checks += [charge_check] if neutral else []
    if card is None:
        say(f"warning: {model} is a base model that was never trained on crystals.")
    elif unseen := sorted(set(job.elements) - set(trained)):
        say(f"warning: not in the training data of {model}: {', '.join(unseen)}.")
    facts: dict[str, Any] = {
        "model": model,
        "trained": card is not None,
        "base_model": card.base_model if card else model,
        "engine": engine,
        "decoding": "free" if free else "grammar",
        "temperature": temperature,
        "top_p": top_p,
        "batch_size": batch_size,
        "exact_formula": exact_formula,
        "min_distance_angstrom": min_distance,
        "radii": apart,
        "neutral": neutral,
        "max_draws": max_draws,
    }
    with _terminable(), progress("drawing", n, "valid crystals") as advance:
        run = sample_crystals(
            job, draw, n, seed=seed, checks=checks, max_draws=max_draws, facts=facts, progress=advance
        )
    if not run.samples:
        say("interrupted before the first crystals; nothing was written.")
        raise typer.Exit(130)
    manifest = write_samples(run, output)
    if run.error is not None:
        say(f"what was drawn before this error is in {output}")
        raise run.error
    counts = manifest["counts"]
    result = {"output": output, "trained": card is not None, **counts, "seconds": manifest["seconds"]}
    refused = ", ".join(f"{number} {kind}" for kind, number in counts["rejected"].items()) or "none"
    untrained = "" if card else f" of the untrained {model}"
    text = (
        f"{counts['valid']} valid crystals{untrained} from {counts['draws']} draws ({counts['parsed']} parsed; "
        f"refused: {refused}), {manifest['crystals_per_second']:.2f} crystals/s: {output}"
    )
    emit(result | {"complete": run.complete, "crystals_per_second": manifest["crystals_per_second"]}, as_json, text)
    if not run.complete:
        say(f"interrupted: what was drawn so far is in {output}")
        raise typer.Exit(130)
    if counts["valid"] < n:
        say(f"warning: only {counts['valid']} of {n} crystals are valid after {counts['draws']} draws.")


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the drawing as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _card(model: str) -> AdapterCard | None:
    """The card of an adapter for bulk crystals; None for a base model.

    Raises:
        UsageError: an adapter for something else, or no model.
    """
    from defectgen.errors import UsageError
    from defectgen.llm.adapter import METADATA, read_adapter
    from defectgen.llm.base import base_model_path

    if not (Path(model) / METADATA).is_file():
        base_model_path(model)
        return None
    card = read_adapter(Path(model))
    if card.encoding != "bulk":
        raise UsageError(
            f"the adapter in {model} writes defects ({card.encoding}), expected one trained on bulk crystals.",
            "Train one: defectgen build-data --task bulk, then defectgen finetune.",
        )
    return card


def _source(model: str, card: AdapterCard | None, engine: str, job: CrystalJob, sampling: Sampling, free: bool) -> Draw:
    """Where the texts come from."""
    from defectgen.errors import UsageError
    from defectgen.generate import sampling as crystal_sampling
    from defectgen.llm.decode.engines import ENGINES, load_generator
    from defectgen.llm.decode.transformers_engine import TransformersGenerator
    from defectgen.llm.loading import load_base

    if engine not in ENGINES:
        raise UsageError(f"unknown engine {engine!r}.", f"Expected one of: {', '.join(ENGINES)}.")
    if card is not None:
        generator, _ = load_generator(engine, Path(model))
    elif engine == "transformers":
        base, tokenizer, _ = load_base(model)
        generator = TransformersGenerator(base, tokenizer)
    else:
        raise UsageError(f"{engine} runs trained adapters, got base model {model}.", "Use --engine transformers.")
    if free and isinstance(generator, TransformersGenerator):
        return crystal_sampling.free(generator.model, generator.tokenizer, job, sampling)
    return crystal_sampling.constrained(generator, job, sampling)
