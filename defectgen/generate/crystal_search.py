"""The crystal of lowest energy above the hull among some that a model draws: plain draws, or a tree search.

Every crystal that is drawn for the first time and passes the checks is relaxed, so that both ways cost as many
relaxations. What was drawn and relaxed is kept line by line, so that a search that was stopped goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from defectgen.errors import DefectgenError, UsageError
from defectgen.generate.crystal_tree import CrystalTree
from defectgen.generate.sampling import DRAWS_PER_SAMPLE, Check, CrystalJob, CrystalSample, judged
from defectgen.io.crystal_files import NamedCrystal
from defectgen.io.documents import JSON_BYTES, parse_json, read_text
from defectgen.io.files import write_text
from defectgen.tasks.begun_grammar import BegunGrammar

if TYPE_CHECKING:
    from defectgen.llm.decode.generator import Generator, Sampling

DRAWS = "draws.jsonl"
"""One line a draw, written as it is made."""

BEST, TREE = "best", "tree"
METHODS = (BEST, TREE)

LEAVES = 4
"""Draws of a tree search that are made together, before any of them is relaxed; at first half of all, plain ones."""

Begun = tuple[str, int]
"""How a draw begins, and its seed."""

Complete = Callable[[Sequence[Begun]], Iterator[str]]
"""From beginnings to the texts of whole crystals, in their order."""

Energies = Callable[[Sequence[NamedCrystal]], Sequence[float | None]]
"""From crystals to energies above the hull, eV/atom, of the relaxed ones; None where there is none."""


@dataclass(frozen=True)
class RelaxedDraw:
    """A crystal of a search.

    Attributes:
        number: of its draw.
        crystal: as it was drawn, named by that number.
        energy_ev: above the hull after relaxation, eV/atom; None if it has none.
    """

    number: int
    crystal: NamedCrystal
    energy_ev: float | None


@dataclass(frozen=True)
class CrystalSearch:
    """What a search found.

    Attributes:
        found: all crystals that were relaxed, in the order of the draws.
        draws: all draws.
        refused: of these, by the checks.
        repeated: of these, with the text of an earlier one.
    """

    found: tuple[RelaxedDraw, ...]
    draws: int
    refused: int
    repeated: int

    @property
    def ranked(self) -> list[RelaxedDraw]:
        """The lowest energy first, those without one last."""
        return sorted(self.found, key=lambda f: (f.energy_ev is None, f.energy_ev or 0.0, f.number))


def check_search(n: int, method: str) -> None:
    """Refuse what is no search.

    Raises:
        UsageError: no such method, or fewer than two crystals.
    """
    if n < 2:
        raise UsageError(f"got -n {n}, expected 2 or more: the best of one crystal is no search.")
    if method not in METHODS:
        raise UsageError(f"unknown method {method!r}.", f"Expected one of: {', '.join(METHODS)}.")


def search_crystals(
    job: CrystalJob,
    complete: Complete,
    energies: Energies,
    n: int,
    folder: Path,
    *,
    method: str = BEST,
    seed: int = 0,
    checks: Sequence[Check] = (),
    max_draws: int | None = None,
) -> CrystalSearch:
    """Draw until `n` different crystals that pass the checks are relaxed, or `max_draws` are drawn.

    Draws that are noted in the folder are not made again.

    Args:
        job: what is asked.
        complete: where texts come from, see `completing`.
        energies: of crystals, see `Energies`.
        n: crystals to relax, 2 or more.
        folder: keeps `DRAWS`.
        method: one of `METHODS`.
        seed: the same one gives the same search.
        checks: refuse crystals before they are relaxed.
        max_draws: `DRAWS_PER_SAMPLE` times `n` by default.

    Raises:
        UsageError: no such method, fewer than two crystals, or an infill, which has a single decision.
        DefectgenError: `DRAWS` is damaged.
    """
    check_search(n, method)
    if job.task != "generation":
        raise UsageError("an infill is a single decision.", "Search new crystals; mutants go to `defectgen stability`.")
    limit = DRAWS_PER_SAMPLE * n if max_draws is None else max_draws
    tree, known, found = CrystalTree(), dict[str, float | None](), list[RelaxedDraw]()
    noted = _noted(folder / DRAWS)
    draws = refused = repeated = 0
    while len(found) < n and draws < limit:
        size = min(n - len(found), limit - draws)
        if method == TREE:
            size = min(size, LEAVES if draws else n // 2)
        begins = [tree.choose() if method == TREE else "" for _ in range(size)]
        numbers = range(draws, draws + size)
        texts = _texts(begins, numbers, seed, complete, noted, folder / DRAWS)
        samples = [judged(job, text, "", checks) for text in texts]
        draws += size
        new = _new(samples, numbers, known)
        energy_of = dict(zip(new, energies([item.crystal for item in new.values()]), strict=True))
        for begin, sample in zip(begins, samples, strict=True):
            is_new = sample.text not in known
            repeated += not is_new
            refused += is_new and not sample.valid
            if is_new:
                known[sample.text] = energy_of.get(sample.text)
                if sample.text in new:
                    found.append(replace(new[sample.text], energy_ev=known[sample.text]))
            if method == TREE:
                tree.add(begin, sample.text, known[sample.text], new=is_new)
    return CrystalSearch(tuple(found), draws, refused, repeated)


def completing(generator: Callable[[], Generator], job: CrystalJob, sampling: Sampling) -> Complete:
    """Texts by a model under the grammar of a job.

    Args:
        generator: gives the model; called when the first text is needed.
        job: what is asked.
        sampling: how tokens are drawn.
    """
    from defectgen.llm.decode.generator import Request

    def complete(begun: Sequence[Begun]) -> Iterator[str]:
        requests = [
            Request(job.prompt, BegunGrammar(job.grammar, begin) if begin else job.grammar, 1, seed)
            for begin, seed in begun
        ]
        for completion in generator().generate(requests, sampling):
            yield completion.text

    return complete


def _new(
    samples: Sequence[CrystalSample], numbers: Sequence[int], known: dict[str, float | None]
) -> dict[str, RelaxedDraw]:
    """Those valid crystals, by their texts, that were not drawn before."""
    new: dict[str, RelaxedDraw] = {}
    for number, sample in zip(numbers, samples, strict=True):
        if sample.valid and sample.crystal is not None and sample.text not in known and sample.text not in new:
            named = NamedCrystal(f"draw-{number}", sample.crystal.to_structure())
            new[sample.text] = RelaxedDraw(number, named, None)
    return new


def _texts(
    begins: Sequence[str], numbers: Sequence[int], seed: int, complete: Complete, noted: list[str], path: Path
) -> list[str]:
    """The texts of some draws: those that are noted, and the others drawn and noted."""
    texts = [noted[number] for number in numbers if number < len(noted)]
    missing = [
        (begin, int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))
        for begin, number in list(zip(begins, numbers, strict=True))[len(texts) :]
    ]
    if missing:
        with path.open("a", encoding="utf-8") as file:
            for begin, text in zip([begin for begin, _ in missing], complete(missing), strict=True):
                file.write(json.dumps({"number": len(noted), "begin": begin, "text": text}) + "\n")
                file.flush()
                noted.append(text)
                texts.append(text)
    return texts


def _noted(path: Path) -> list[str]:
    """The texts that a search noted; a last line that was cut off is taken out of the file.

    Raises:
        DefectgenError: other lines than a search writes.
    """
    if not path.is_file():
        return []
    content = read_text(path, JSON_BYTES)
    whole = content[: content.rfind("\n") + 1]
    texts: list[str] = []
    try:
        for number, line in enumerate(whole.splitlines()):
            row = parse_json(line, str(path))
            if row["number"] != number:
                raise ValueError(f"line {number + 1} is of draw {row['number']}")
            texts.append(str(row["text"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DefectgenError(f"{path} is damaged ({error}).", "Name another folder.") from error
    if whole != content:
        write_text(path, whole)
    return texts
