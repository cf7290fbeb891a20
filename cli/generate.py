"""`defectgen generate`: bulk crystals written by a language model, and mutations of known ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from defectgen_cli.option_groups import expand_groups
from defectgen_cli.options import (
    AllowDownloadOption,
    BulkModelOption,
    CoordinateTemperatureOption,
    JsonOption,
    SeedOption,
)
from defectgen_cli.output import EXIT_INTERRUPTED, emit, end_partial, progress, say

if TYPE_CHECKING:
    from defectgen.generate.sampling import CrystalRun


@dataclass(frozen=True)
class ConditionOptions:
    """What a crystal should be."""

    formula: Annotated[str | None, typer.Option("--formula", metavar="TEXT", help="Wanted formula.")] = None
    spacegroup: Annotated[int | None, typer.Option("--spacegroup", metavar="N", help="Wanted space group.")] = None
    e_above_hull: Annotated[
        float | None, typer.Option("--e-above-hull", metavar="EV", help="Wanted energy above the hull, eV/atom.")
    ] = None
    band_gap: Annotated[float | None, typer.Option("--band-gap", metavar="EV", help="Wanted band gap, eV.")] = None
    formation_energy: Annotated[
        float | None, typer.Option("--formation-energy", metavar="EV", help="Wanted formation energy, eV/atom.")
    ] = None


@dataclass(frozen=True)
class CrystalOptions:
    """What a crystal may be."""

    exact_formula: Annotated[
        bool, typer.Option("--exact-formula/--any-formula", help="Admit no other composition than the wanted.")
    ] = True
    elements: Annotated[
        str | None, typer.Option("--elements", metavar="EL[,EL]", help="Elements that may occur [those trained on].")
    ] = None
    max_atoms: Annotated[
        int | None, typer.Option("--max-atoms", min=1, help="Most atoms in a cell [as in training, else 20].")
    ] = None
    min_distance: Annotated[
        float, typer.Option("--min-distance", metavar="A", min=0.0, help="Least distance of atoms, angstrom; 0: any.")
    ] = 0.5
    radii: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Least distance as a share of the sum of the radii; 0: any [0.75; --infill: 0]."
        ),
    ] = None
    orbits: Annotated[
        bool, typer.Option("--orbits", help="Write atoms as orbits of --spacegroup, and refuse crystals of another.")
    ] = False
    neutral: Annotated[
        bool, typer.Option("--neutral", help="Refuse compositions that cannot be neutral in charge.")
    ] = False
    balance: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="NATS", help="Lean towards an end where charges balance [5; --formula: 0]."),
    ] = None

    @property
    def symbols(self) -> tuple[str, ...]:
        """The elements, each once; none where none are named."""
        if self.elements is None:
            return ()
        return tuple(dict.fromkeys(word.strip() for word in self.elements.split(",")))


@dataclass(frozen=True)
class InfillOptions:
    """What is mutated instead."""

    infill: Annotated[
        Path | None, typer.Option("--infill", metavar="FILE", help="Mutate this crystal (CIF or POSCAR) instead.")
    ] = None
    mask: Annotated[str | None, typer.Option("--mask", metavar="ELEMENT", help="Element to replace in it.")] = None
    any_element: Annotated[
        bool, typer.Option("--any-element", help="Replace by any element, not only by ions of similar radius.")
    ] = False


@dataclass(frozen=True)
class DecodingOptions:
    """How crystals are drawn."""

    temperature: Annotated[float, typer.Option(min=0.0, help="Of lattice and elements when sampling.")] = 1.0
    coordinate_temperature: CoordinateTemperatureOption = None
    top_p: Annotated[float, typer.Option("--top-p", min=0.0, max=1.0, help="Probability of the tokens kept.")] = 1.0
    guidance: Annotated[
        float, typer.Option(min=0.0, help="Weight of the conditions in the model: 1 as trained, more is stricter.")
    ] = 1.0
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Crystals decoded at once.")] = 64
    free: Annotated[bool, typer.Option("--free", help="Decode without the grammar, for comparison.")] = False
    prompts: Annotated[
        str | None, typer.Option(metavar="NAME", help="defectgen or gruver2024 [those of the adapter's training].")
    ] = None
    engine: Annotated[str, typer.Option("--engine", metavar="NAME", help="transformers or vllm.")] = "transformers"
    quantization: Annotated[
        str, typer.Option(metavar="NAME", help="none, or 4bit: the base model in four bits (extra gpu).")
    ] = "none"
    spread: Annotated[bool, typer.Option("--spread", help="Share the layers out among all GPUs.")] = False
    gpus: Annotated[int, typer.Option(min=1, help="With vllm: split every matrix among so many GPUs.")] = 1
    allow_download: AllowDownloadOption = False
    max_draws: Annotated[
        int | None, typer.Option("--max-draws", min=1, help="Give up after so many draws [10 for each crystal].")
    ] = None

    @property
    def is_placed(self) -> bool:
        """Whether the weights lie elsewhere than as a whole in one place."""
        return (self.quantization, self.spread, self.gpus) != ("none", False, 1)


UNCONDITIONAL, USUAL_CRYSTALS, USUAL_DECODING = ConditionOptions(), CrystalOptions(), DecodingOptions()
NO_INFILL = InfillOptions()


@expand_groups
def generate(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="New folder for the crystals.")],
    model: BulkModelOption = None,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="Valid crystals to make.")] = 100,
    conditions: ConditionOptions = UNCONDITIONAL,
    mutation: InfillOptions = NO_INFILL,
    crystals: CrystalOptions = USUAL_CRYSTALS,
    decoding: DecodingOptions = USUAL_DECODING,
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
    from defectgen.generate.crystal_request import (
        CrystalRequest,
        bulk_card,
        bulk_model,
        crystal_sampling,
        open_draw,
        trained_elements,
    )
    from defectgen.generate.sample_folder import claimed_samples
    from defectgen.generate.sampling import sample_crystals, write_samples
    from defectgen.llm.base import hub_note

    model = bulk_model(model)
    placement = None
    if decoding.is_placed:  # torch is not loaded for a call that is refused
        from defectgen.llm.loading import Placement

        placement = Placement(decoding.quantization, decoding.spread, decoding.gpus)
    request = CrystalRequest(
        asdict(conditions),
        exact_formula=crystals.exact_formula,
        infill=mutation.infill,
        mask=mutation.mask,
        any_element=mutation.any_element,
        elements=crystals.symbols,
        max_atoms=crystals.max_atoms,
        min_distance_angstrom=crystals.min_distance,
        radii=crystals.radii,
        neutral=crystals.neutral,
        balance=crystals.balance,
        orbits=crystals.orbits,
        free=decoding.free,
        guidance=decoding.guidance,
        prompts=decoding.prompts,
        engine=decoding.engine,
        allow_download=decoding.allow_download,
        placement=placement,
    )
    sampling = crystal_sampling(
        decoding.temperature,
        decoding.coordinate_temperature,
        top_p=decoding.top_p,
        guidance=decoding.guidance,
        batch_size=decoding.batch_size,
        places=not decoding.free and mutation.infill is None,
    )
    with claimed_samples(output):
        card = bulk_card(model, decoding.prompts)
        if card is not None and (note := hub_note(card.base_model)):
            say(f"warning: {note}.")
        job = request.job(card)
        say(f"loading {model} ...")
        draw = open_draw(model, card, request, job, sampling)
        if card is None:
            say(f"warning: {model} is a base model that was never trained on crystals.")
        elif unseen := sorted(set(job.elements) - set(trained_elements(card))):
            say(f"warning: not in the training data of {model}: {', '.join(unseen)}.")
        facts = request.facts(model, card, sampling) | {"max_draws": decoding.max_draws}
        with progress("drawing", n, "valid crystals") as advance:
            run = sample_crystals(
                job,
                draw,
                n,
                seed=seed,
                checks=request.checks(),
                max_draws=decoding.max_draws,
                facts=facts,
                progress=advance,
            )
        if not run.samples:
            say("interrupted before the first crystals; nothing was written.")
            raise typer.Exit(EXIT_INTERRUPTED)
        manifest = write_samples(run, output)
        if run.error is not None:
            say(f"what was drawn before this error is in {output}")
            raise run.error
        _report(run, manifest, output, "" if card else f" of the untrained {model}", as_json)
        if not run.complete:
            say(f"interrupted: what was drawn so far is in {output}")
            raise typer.Exit(EXIT_INTERRUPTED)
        if run.n_valid < n:
            missing = f"only {run.n_valid} of {n} crystals are valid after {len(run.samples)} draws."
            end_partial(missing, some=run.n_valid > 0)


def _report(run: CrystalRun, manifest: dict[str, Any], output: Path, untrained: str, as_json: bool) -> None:
    from defectgen.core.interval import percent_text

    counts, rate = manifest["counts"], manifest["crystals_per_second"]
    refused = ", ".join(f"{number} {kind}" for kind, number in counts["rejected"].items()) or "none"
    result = {"output": output, "trained": not untrained, **counts, "seconds": manifest["seconds"]}
    result["shares_of_draws"] = manifest["shares_of_draws"]
    text = (
        f"{counts['valid']} valid crystals{untrained} from {counts['draws']} draws "
        f"({percent_text(counts['valid'], counts['draws'])}; {counts['parsed']} parsed: "
        f"{percent_text(counts['parsed'], counts['draws'])}; "
        f"refused: {refused}), {rate:.2f} crystals/s: {output}"
    )
    emit(result | {"complete": run.complete, "crystals_per_second": rate}, as_json, text)
