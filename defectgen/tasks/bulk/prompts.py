"""What prompts say: the sentences of this package, and those of the code of Gruver et al.

An adapter understands the prompts that it was trained on and no others, so it carries their name. The frames are
the same in both styles; they differ in the sentences of the conditions and in a few numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from defectgen.errors import UsageError


@dataclass(frozen=True)
class PromptStyle:
    """How prompts and completions of bulk crystals are worded.

    Attributes:
        name: as options, records and adapters call it.
        sentences: what a generation prompt says of each condition, in the order in which it says it; ``{}`` is
            the value.
        fixed_decimals: decimals of energies and band gaps, zeros written out; None for up to four, as Python
            writes the number.
        cut_angles: angles lose what follows the point, else they are rounded.
        symbol_end: what follows the element that a completion of an infill names. Without a line break the
            element is the whole completion.
        formula_first: training states no condition without the formula, and the others in any order; else every
            subset of the conditions, in their order.
        masked_by_atoms: an element is masked as often as it has atoms, else each element as often.
        infill_share: share of the records that are infill.
        absolute: positions are in angstrom along x, y and z, else in shares of the lattice vectors.
    """

    name: str
    sentences: Mapping[str, str]
    fixed_decimals: int | None
    cut_angles: bool
    symbol_end: str
    formula_first: bool
    masked_by_atoms: bool
    infill_share: float
    absolute: bool = False

    @property
    def options(self) -> str:
        """The options of ``build-data`` that make records with these prompts."""
        return f"--prompts {self.name}{' --absolute' if self.absolute else ''}"

    def number(self, value: float) -> str:
        """An energy or a band gap as prompts write it."""
        from defectgen.tasks.numbers import format_number

        return str(round(value, 4)) if self.fixed_decimals is None else format_number(value, self.fixed_decimals)


OURS = PromptStyle(
    name="defectgen",
    sentences=MappingProxyType(
        {
            "formula": "The chemical formula is {}.",
            "spacegroup": "The space group number is {}.",
            "e_above_hull": "The energy above the convex hull is {} eV per atom.",
            "band_gap": "The band gap is {} eV.",
            "formation_energy": "The formation energy is {} eV per atom.",
        }
    ),
    fixed_decimals=3,  # one token where digits are grouped
    cut_angles=False,
    symbol_end="\n",
    formula_first=False,
    masked_by_atoms=False,
    infill_share=1 / 3,
)

GRUVER = PromptStyle(
    name="gruver2024",
    sentences=MappingProxyType(
        {
            "formula": "The chemical formula is {}.",
            "formation_energy": "The formation energy per atom is {}.",
            "band_gap": "The band gap is {}.",
            "e_above_hull": "The energy above the convex hull is {}.",
            "spacegroup": "The spacegroup number is {}.",
        }
    ),
    fixed_decimals=None,
    cut_angles=True,
    symbol_end="",
    formula_first=True,
    masked_by_atoms=True,
    infill_share=0.34,
)
"""The prompts of the published code of Gruver et al. (facebookresearch/crystal-text-llm, ``llama_finetune.py``)."""

STYLES: Mapping[str, PromptStyle] = MappingProxyType({style.name: style for style in (OURS, GRUVER)})


def prompt_style(name: str, *, absolute: bool = False) -> PromptStyle:
    """A style by its name, with positions in angstrom if they are asked for.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in STYLES:
        raise UsageError(f"unknown prompts {name!r}.", f"Expected one of: {', '.join(STYLES)}.")
    return replace(STYLES[name], absolute=True) if absolute else STYLES[name]
