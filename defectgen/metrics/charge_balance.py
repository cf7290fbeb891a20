"""Whether a formula can be neutral: the SMACT rules as CDVAE applies them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from defectgen.core.crystal import Crystal
from defectgen.errors import DefectgenError


@lru_cache(maxsize=65536)
def _smact_valid(elements: tuple[str, ...], counts: tuple[int, ...]) -> bool:
    smact = _smact()
    if len(elements) == 1 or all(symbol in smact.metals for symbol in elements):
        return True
    try:
        data = [smact.Element(symbol) for symbol in elements]
    except KeyError:
        return False
    states = [element.oxidation_states_smact14 or [] for element in data]
    negativities = [element.pauling_eneg for element in data]
    return any(
        sum(state * count for state, count in zip(chosen, counts, strict=True)) == 0 and _pauling(chosen, negativities)
        for chosen in itertools.product(*states)
    )


def smact_valid(crystal: Crystal) -> bool:
    """Whether one oxidation state an element makes the formula neutral, cations below anions in electronegativity.

    Elements and alloys of metals alone pass. As in CDVAE's code:

    - the formula is divided by its greatest common divisor, and exactly these ratios are asked for;
    - all atoms of an element have one oxidation state, so that mixed valence fails (Fe3O4);
    - oxidation states are SMACT's list of 2014, the default of the SMACT 2.2 that CDVAE ran on. SMACT 3
      and 4 have another default, which gives other rates;
    - the Pauling test looks at each cation with each anion; one without an electronegativity passes, as
      the error it caused in SMACT 2.2 was taken for a pass (SMACT 4 answers no);
    - a compound of an element that SMACT does not know (from Rf on) fails: it has no oxidation states.

    Sources: Davies et al., Chem 1, 617 (2016), doi 10.1016/j.chempr.2016.09.010; Davies et al., J Open Source
    Softw 4, 1361 (2019), doi 10.21105/joss.01361; ``smact_validity`` in ``scripts/eval_utils.py`` of Xie et
    al., ICLR 2022, doi 10.48550/arXiv.2110.06197.

    Raises:
        DefectgenError: the extra ``bulk`` is not installed.
    """
    counts = [crystal.species.count(symbol) for symbol in crystal.elements]
    divisor = math.gcd(*counts)
    return _smact_valid(crystal.elements, tuple(count // divisor for count in counts))


def _pauling(states: Sequence[int], negativities: Sequence[float | None]) -> bool:
    """Whether every cation is less electronegative than every anion, in the order of SMACT's pairs."""
    for (state, value), (other, its) in itertools.combinations(zip(states, negativities, strict=True), 2):
        if state * other >= 0:
            continue
        if value is None or its is None:
            return True
        cation, anion = (value, its) if state > 0 else (its, value)
        if cation >= anion:
            return False
    return True


@lru_cache(maxsize=1)
def _smact() -> Any:
    try:
        import smact
    except ImportError as error:
        raise DefectgenError(
            "compositional validity needs the extra bulk.", 'Install it: pip install "defectgen[bulk]".'
        ) from error
    return smact
