"""Sampling bulk crystals: what is asked, what is drawn, what the checks refuse, and the folder that holds it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from defectgen.core.crystal import Crystal
from defectgen.core.elements import swap_candidates
from defectgen.core.interval import counted_share
from defectgen.core.space_group import crystal_space_group
from defectgen.errors import UsageError
from defectgen.generate.sample_folder import SampleRow, write_sample_folder
from defectgen.metrics.atom_distances import radii_apart
from defectgen.tasks.bulk.bulk_task import BulkTask, Kind
from defectgen.tasks.bulk.crystal_grammar import MP_ELEMENTS, CrystalGrammar, ElementGrammar
from defectgen.tasks.bulk.crystal_text import parse_crystal, parse_formula, write_generation_prompt, write_infill_prompt
from defectgen.tasks.bulk.orbit_counts import check_spacegroup
from defectgen.tasks.bulk.orbit_grammar import OrbitGrammar
from defectgen.tasks.bulk.prompts import OURS, PromptStyle
from defectgen.tasks.parsing import ParseError

if TYPE_CHECKING:
    from defectgen.llm.decode.generator import Generator, Sampling

MIN_DISTANCE_ANGSTROM = 0.5
"""Atoms nearer than this are refused: the rule of CDVAE (Xie et al. 2021, arXiv:2110.06197)."""

RADII_SHARE = 0.75
"""Atoms nearer than this share of the sum of their atomic radii are refused; 99.5 % of 2,061 crystals of MP-20 pass."""

DRAWS_PER_SAMPLE = 10
"""Unless told otherwise, so many draws are made for each crystal asked for before giving up."""

MAX_ATOMS = 20
"""Of a cell, as in MP-20."""

Check = Callable[[Crystal], str]
"""Says why a crystal is refused, as ``kind: detail``; empty if it is not."""

Draw = Callable[[int, int], Iterator[tuple[str, str]]]
"""Given how many and a seed: texts, each with what is wrong with it already (empty: nothing)."""


@dataclass(frozen=True)
class CrystalJob:
    """What is asked of a model.

    Attributes:
        task: ``generation`` or ``infill``.
        prompt: as the model reads it.
        grammar: what it may write.
        conditions: what the prompt states; of infill the masked element and the formula of the crystal.
        elements: symbols that may occur in what is written.
        max_atoms: most atoms in a cell.
        composition: counts by element in lowest terms that a crystal must have; None if open.
        crystal: whose element is masked.
        masked: that element.
        style: how the texts are worded.
    """

    task: Kind
    prompt: str
    grammar: CrystalGrammar | ElementGrammar
    conditions: Mapping[str, object]
    elements: tuple[str, ...]
    max_atoms: int = MAX_ATOMS
    composition: Mapping[str, int] | None = None
    crystal: Crystal | None = None
    masked: str = ""
    style: PromptStyle = OURS

    def read(self, text: str) -> tuple[Crystal | None, str]:
        """The crystal that a text states, and why it is not what was asked; empty if it is.

        Orbits come with the exact coordinates that the text rounds, see `OrbitGrammar.crystal`.
        """
        try:
            if self.task == "infill":
                crystal = BulkTask().parse(self.task, text, self.crystal, self.masked)
            elif self.style.absolute:
                crystal = parse_crystal(text, self.style)
            else:
                crystal = cast(CrystalGrammar, self.grammar).crystal(text)
        except ParseError as error:
            return None, f"text: {error}"
        written = crystal.species
        if self.task == "infill":
            written = (text.strip(),)
        elif len(written) > self.max_atoms:
            return crystal, f"atoms: {len(written)}, at most {self.max_atoms}"
        if outside := sorted(set(written) - set(self.elements)):
            return crystal, f"elements: {', '.join(outside)}"
        if self.composition is not None and parse_formula(crystal.formula) != dict(self.composition):
            return crystal, f"formula: {crystal.formula}"
        return crystal, ""


def generation_job(
    conditions: Mapping[str, object],
    *,
    max_atoms: int = MAX_ATOMS,
    elements: Sequence[str] = MP_ELEMENTS,
    exact_formula: bool = True,
    min_distance: float = 0.0,
    radii: float = 0.0,
    balance: float = 0.0,
    orbits: bool = False,
    style: PromptStyle = OURS,
) -> CrystalJob:
    """The job of writing a crystal.

    Args:
        conditions: see `defectgen.tasks.bulk.crystal_text.write_generation_prompt`; none is unconditional.
        max_atoms: most atoms in a cell.
        elements: symbols that may occur.
        exact_formula: admit only the composition of the condition ``formula``, any number of formula units.
        min_distance: atoms are placed no nearer to each other than this, in angstrom.
        radii: nor nearer than this share of the sum of their atomic radii.
        balance: how much crystals lean towards an end where charges balance, in nats.
        orbits: write atoms as orbits of the condition ``spacegroup``, see `OrbitGrammar`.
        style: of the prompt.

    Raises:
        UsageError: an impossible condition, a formula that does not fit in `max_atoms` or `elements`, or that no cell
            of this size can have together with the space group.
    """
    stated = {key: value for key, value in conditions.items() if value is not None}
    prompt = write_generation_prompt(stated, style)
    formula = str(stated["formula"]) if exact_formula and "formula" in stated else None
    grammar = BulkTask().grammar(max_atoms, elements, formula, min_distance, radii, balance)
    composition = parse_formula(formula) if formula is not None else None
    number = cast(int | None, stated.get("spacegroup"))
    counts = None if composition is None else tuple(composition.items())
    if orbits:
        if number is None:
            raise UsageError("atoms are written as orbits of a space group, got none.", "Name it with --spacegroup.")
        grammar = OrbitGrammar(max_atoms, tuple(elements), counts, min_distance, radii, balance, number)
    elif number is not None and counts is not None:
        check_spacegroup(number, counts, max_atoms)
    return CrystalJob("generation", prompt, grammar, stated, tuple(elements), max_atoms, composition, style=style)


def infill_job(
    crystal: Crystal,
    masked: str,
    *,
    elements: Sequence[str] = MP_ELEMENTS,
    any_element: bool = False,
    style: PromptStyle = OURS,
) -> CrystalJob:
    """The job of naming an element that could replace another in a crystal.

    Args:
        crystal: the known crystal.
        masked: the element to replace.
        elements: symbols that may be named.
        any_element: all of them, not only those of similar radius at equal oxidation state.
        style: of the prompt.

    Raises:
        UsageError: the element is not in the crystal, or nothing may stand in for it.
    """
    prompt = write_infill_prompt(crystal, masked, style)
    similar = elements if any_element else swap_candidates(masked)
    named = tuple(element for element in elements if element in similar and element != masked)
    if not named:
        raise UsageError(
            f"no allowed element has an ion of similar radius and equal charge as {masked} has.",
            "Mask another element, or lift the restriction with --any-element.",
        )
    stated = {"masked": masked, "crystal": crystal.formula}
    grammar = BulkTask(style).infill_grammar(named)
    return CrystalJob("infill", prompt, grammar, stated, named, len(crystal.species), None, crystal, masked)


def constrained(generator: Generator, job: CrystalJob, sampling: Sampling) -> Draw:
    """Draws under the job's grammar; guidance compares with the prompt without conditions."""
    from defectgen.llm.decode.generator import Request

    plain = write_generation_prompt({}, job.style) if job.task == "generation" and sampling.guidance != 1 else None

    def draw(n: int, seed: int) -> Iterator[tuple[str, str]]:
        for completion in generator.generate([Request(job.prompt, job.grammar, n, seed, plain)], sampling):
            yield completion.text, ""

    return draw


def free(model: Any, tokenizer: Any, job: CrystalJob, sampling: Sampling) -> Draw:
    """Draws without a grammar, for comparison."""
    from defectgen.llm.decode.unconstrained import write_freely

    most = (27 if job.style.absolute else 24) * job.max_atoms + 40 if job.task == "generation" else 8

    def draw(n: int, seed: int) -> Iterator[tuple[str, str]]:
        for text, ended in write_freely(model, tokenizer, job.prompt, n, seed, sampling, most):
            yield text, "" if ended else f"length: no end within {most} tokens"

    return draw


def distance_check(least_angstrom: float = MIN_DISTANCE_ANGSTROM) -> Check:
    """Refuses crystals with two atoms, or an atom and its own image, nearer than `least_angstrom`."""

    def check(crystal: Crystal) -> str:
        structure = crystal.to_structure()
        distances = structure.distance_matrix + np.diag(np.full(len(structure), np.inf))
        nearest = min(float(distances.min()), min(structure.lattice.get_lll_reduced_lattice().abc))
        return f"distance: {nearest:.2f} angstrom" if nearest < least_angstrom else ""

    return check


def radii_check(share: float = RADII_SHARE) -> Check:
    """Refuses crystals with two atoms, images included, nearer than `share` of the sum of their radii."""

    def check(crystal: Crystal) -> str:
        apart = radii_apart(crystal, share)
        return "" if apart else f"radii: two atoms nearer than {share:g} of the sum of their radii"

    return check


def spacegroup_check(number: int) -> Check:
    """Refuses crystals of another space group, see `crystal_space_group`."""

    def check(crystal: Crystal) -> str:
        found = crystal_space_group(crystal)
        return "" if found == number else f"spacegroup: {found or 'none'}, asked {number}"

    return check


def charge_check(crystal: Crystal) -> str:
    """Refuses crystals whose elements' oxidation states cannot add up to zero; metals among themselves pass.

    The states are those of pymatgen's ``oxi_state_guesses``: all that occur in the ICSD, and the common ones only for
    elements without such a list.
    """
    from pymatgen.core import Composition, Element

    if all(Element(symbol).is_metal for symbol in crystal.elements) or len(crystal.elements) == 1:
        return ""
    neutral = Composition(crystal.formula).oxi_state_guesses(max_sites=-1)
    return "" if neutral else f"charge: no neutral oxidation states for {crystal.formula}"


@dataclass(frozen=True)
class CrystalSample:
    """One draw.

    Attributes:
        text: as the model wrote it.
        crystal: what it states; None if it is none.
        reason: why it is refused, as ``kind: detail``; empty if it is valid.
    """

    text: str
    crystal: Crystal | None
    reason: str

    @property
    def valid(self) -> bool:
        return not self.reason


@dataclass(frozen=True)
class CrystalRun:
    """All draws of a job, refused ones included.

    Attributes:
        job: what was asked.
        asked: how many valid crystals.
        samples: in the order of the draws.
        seed: of the run.
        seconds: that drawing and checking took.
        complete: false if the run was interrupted or failed.
        error: what it failed with; to be raised once the samples are safe.
    """

    job: CrystalJob
    asked: int
    samples: tuple[CrystalSample, ...]
    seed: int
    seconds: float
    complete: bool = True
    facts: Mapping[str, object] = field(default_factory=dict)
    error: Exception | None = None

    @property
    def n_valid(self) -> int:
        return sum(sample.valid for sample in self.samples)

    def counts(self) -> dict[str, Any]:
        """How many were asked for, drawn, parsed, valid, and refused for which kind of reason."""
        kinds = Counter(sample.reason.split(":")[0] for sample in self.samples if not sample.valid)
        valid = [sample.crystal for sample in self.samples if sample.valid and sample.crystal is not None]
        return {
            "asked": self.asked,
            "draws": len(self.samples),
            "parsed": sum(sample.crystal is not None for sample in self.samples),
            "valid": len(valid),
            "rejected": dict(sorted(kinds.items())),
            "redraws": max(0, len(self.samples) - self.asked),
            "formulas": len({crystal.formula for crystal in valid}),
        }


def sample_crystals(
    job: CrystalJob,
    draw: Draw,
    n: int,
    *,
    seed: int = 0,
    checks: Sequence[Check] = (),
    max_draws: int | None = None,
    facts: Mapping[str, object] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> CrystalRun:
    """Draw until `n` crystals are valid or `max_draws` are drawn; refused draws are kept with their reason.

    Args:
        job: what is asked.
        draw: where texts come from, see `constrained` and `free`.
        n: number of valid crystals wanted.
        seed: the same one gives the same run.
        checks: the first that refuses a crystal gives the reason.
        max_draws: at most so many; `DRAWS_PER_SAMPLE` times `n` by default, `n` for no redraw.
        facts: about the model, for the manifest.
        progress: told of every draw whether it is valid, as 1 or 0.

    Returns:
        The run; what was drawn so far if it was interrupted, or if drawing failed after the first samples.
    """
    limit = DRAWS_PER_SAMPLE * n if max_draws is None else max_draws
    started, samples, valid, rounds, complete = time.monotonic(), list[CrystalSample](), 0, 0, True
    failure: Exception | None = None
    try:
        while valid < n and len(samples) < limit:
            part = int(np.random.SeedSequence([seed, rounds]).generate_state(1)[0])
            for text, problem in draw(min(n - valid, limit - len(samples)), part):
                samples.append(judged(job, text, problem, checks))
                valid += samples[-1].valid
                progress(int(samples[-1].valid))
            rounds += 1
    except KeyboardInterrupt:
        complete = False
    except Exception as error:
        if not samples:
            raise
        complete, failure = False, error
    return CrystalRun(job, n, tuple(samples), seed, time.monotonic() - started, complete, dict(facts or {}), failure)


def judged(job: CrystalJob, text: str, problem: str, checks: Sequence[Check]) -> CrystalSample:
    """A draw of a job with what it states and why it is refused.

    Args:
        job: what was asked.
        text: as the model wrote it.
        problem: what is wrong with it already; empty if nothing.
        checks: the first that refuses the crystal gives the reason.
    """
    if problem:
        return CrystalSample(text, None, problem)
    crystal, reason = job.read(text)
    if crystal is not None and not reason:
        reason = next((found for check in checks if (found := check(crystal))), "")
    return CrystalSample(text, crystal, reason)


def write_samples(run: CrystalRun, folder: Path) -> dict[str, Any]:
    """Write a run as a folder, see `defectgen.generate.sample_folder.write_sample_folder`, and return its manifest."""
    draws = [
        SampleRow(s.text, None if s.crystal is None else s.crystal.to_structure(), s.reason, run.job.conditions)
        for s in run.samples
    ]
    counts = run.counts()
    rate = len(run.samples) / run.seconds if run.seconds > 0 else 0.0
    manifest = {
        "stage": "generate",
        "complete": run.complete,
        "counts": counts,
        "shares_of_draws": {name: counted_share(counts[name], counts["draws"]) for name in ("parsed", "valid")},
        "settings": {"task": run.job.task, "conditions": dict(run.job.conditions), "seed": run.seed}
        | {"max_atoms": run.job.max_atoms, "elements": list(run.job.elements)}
        | dict(run.facts),
        "seconds": round(run.seconds, 2),
        "draws_per_second": round(rate, 4),
        "crystals_per_second": round(rate * counts["valid"] / max(1, len(run.samples)), 4),
    }
    return write_sample_folder(draws, folder, run.job.task, run.seed, manifest)
