"""Bulk crystals: generation under any subset of conditions, and infill of one masked element."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np

from defectgen.core.crystal import Crystal
from defectgen.tasks.bulk import crystal_text
from defectgen.tasks.bulk.crystal_grammar import MP_ELEMENTS, CrystalGrammar, ElementGrammar
from defectgen.tasks.bulk.prompts import OURS, PromptStyle

Kind = Literal["generation", "infill"]


@dataclass(frozen=True)
class BulkRecord:
    """One thing to learn.

    Attributes:
        task: ``generation`` or ``infill``.
        prompt: carries no loss.
        completion: the crystal's string, or the masked element and a line break.
        conditions: what a generation prompt states; empty for infill.
        crystal: as it was written, after translation.
    """

    task: Kind
    prompt: str
    completion: str
    crystal: Crystal
    conditions: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class BulkTask:
    """The task of Gruver et al. 2024 (arXiv:2402.04379, section 4 and appendix A.2).

    Attributes:
        style: of prompts and completions.
        translate: shift each crystal at random, uniformly over its cell.
        permute: show its atoms in random order, else in that of the data.
    """

    style: PromptStyle = OURS
    translate: bool = True
    permute: bool = False

    def record(self, crystal: Crystal, available: Mapping[str, object], rng: np.random.Generator) -> BulkRecord:
        """A record drawn at random: the shift, the order of the atoms, the task, and its conditions or masked element.

        Args:
            crystal: what the record shows.
            available: its properties, keys as in `defectgen.tasks.bulk.crystal_text.CONDITIONS`; None counts as absent.
            rng: source of all that is random.
        """
        if self.translate:
            crystal = crystal.translated([float(x) for x in rng.random(3)])
        if self.permute:
            crystal = crystal.reordered(rng.permutation(len(crystal.species)).tolist())
        if rng.random() < self.style.infill_share:
            among = crystal.species if self.style.masked_by_atoms else crystal.elements
            return self.infill_record(crystal, among[int(rng.integers(len(among)))])
        return self.generation_record(crystal, self.draw_conditions(available, rng))

    def draw_conditions(self, available: Mapping[str, object], rng: np.random.Generator) -> dict[str, object]:
        """A random subset of the properties: every size from none to all is equally likely.

        In the style of Gruver et al. the size is that of the others beside the formula, which is stated with any of
        them and never alone.
        """
        formula_first = self.style.formula_first
        present = [key for key in self.style.sentences if available.get(key) is not None]
        drawn = [key for key in present if key != "formula"] if formula_first else present
        size = int(rng.integers(len(drawn) + 1))
        chosen = rng.choice(len(drawn), size=size, replace=False)
        keys = [drawn[k] for k in (chosen if formula_first else sorted(chosen))]
        if formula_first and keys and "formula" in present:
            keys.insert(0, "formula")
        return {key: available[key] for key in keys}

    def generation_record(self, crystal: Crystal, conditions: Mapping[str, object]) -> BulkRecord:
        """The record that asks for `crystal` under `conditions`."""
        prompt = crystal_text.write_generation_prompt(conditions, self.style)
        text = crystal_text.write_crystal(crystal, self.style)
        return BulkRecord("generation", prompt, text, crystal, dict(conditions))

    def infill_record(self, crystal: Crystal, masked: str) -> BulkRecord:
        """The record that asks which element `masked` was."""
        prompt = crystal_text.write_infill_prompt(crystal, masked, self.style)
        return BulkRecord("infill", prompt, crystal_text.write_element(masked, self.style), crystal)

    def grammar(
        self,
        max_atoms: int = 20,
        elements: Sequence[str] = MP_ELEMENTS,
        formula: str | None = None,
        min_distance: float = 0.0,
        radii: float = 0.0,
        balance: float = 0.0,
    ) -> CrystalGrammar:
        """What a generated crystal may be; see `CrystalGrammar`. With `formula`, of exactly that composition."""
        composition = tuple(crystal_text.parse_formula(formula).items()) if formula is not None else None
        return CrystalGrammar(max_atoms, tuple(elements), composition, min_distance, radii, balance)

    def infill_grammar(self, elements: Sequence[str] = MP_ELEMENTS) -> ElementGrammar:
        """What may stand for a mask."""
        return ElementGrammar(tuple(elements), self.style.symbol_end)

    def parse(self, task: Kind, completion: str, crystal: Crystal | None = None, masked: str = "") -> Crystal:
        """The crystal that a completion states, for infill with the element put into `crystal`.

        Raises:
            ParseError: not a completion of this task.
        """
        if task == "generation":
            return crystal_text.parse_crystal(completion, self.style)
        return cast(Crystal, crystal).substituted(masked, crystal_text.parse_element(completion))
