"""Formation energies under growth conditions: chemical potentials other than those of the elements.

The formation energies of 2DMD refer to the elements, ``E_defect - E_pristine + sum(mu removed) - sum(mu added)``. At a
chemical potential ``mu + dmu`` each atom that is taken out adds its ``dmu`` and each that is put in takes it off: the
change is exact (Zhang and Northrup, Phys. Rev. Lett. 67, 2339 (1991), doi 10.1103/PhysRevLett.67.2339). The host is
stable against its elements where every ``dmu`` is at most 0, and in equilibrium with its parts where they add up, over
a formula unit, to its formation enthalpy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from defectgen.core import VACANCY, Configuration, Host
from defectgen.core.hosts import common_name, common_title
from defectgen.core.properties import FORMATION
from defectgen.errors import UsageError
from defectgen.one_line import OneLine, shown
from defectgen.score.protocol import Scorer

if TYPE_CHECKING:
    from defectgen.score.surrogate import Surrogate

ROUNDING_EV = 1e-6


@dataclass(frozen=True)
class Conditions:
    """Chemical potentials relative to the elements.

    Attributes:
        potentials_ev: by element, at most 0; one that is not named comes from its elemental phase, 0.
        name: as asked for, e.g. ``S-rich`` or ``S=-0.60``.
    """

    potentials_ev: Mapping[str, float]
    name: str

    @property
    def text(self) -> str:
        """For table, report and settings, e.g. ``S-rich: dmu Mo -2.48, S 0.00 eV``."""
        return f"{self.name}: dmu {', '.join(f'{e} {value:z.2f}' for e, value in self.potentials_ev.items())} eV"

    def shift_ev(self, configuration: Configuration) -> float:
        """What a configuration's formation energy gains against that with the elements, in eV."""
        total = 0.0
        for (element, species), number in configuration.kinds.items():
            total += number * self.potentials_ev.get(element, 0.0)
            if species != VACANCY:
                total -= number * self.potentials_ev.get(species, 0.0)
        return total


@dataclass(frozen=True, repr=False)
class ConditionedScorer(OneLine):
    """A scorer whose formation energies are those under some conditions.

    Attributes:
        scorer: predicts with the elements as reference.
        conditions: see `Conditions`.
    """

    scorer: Scorer
    conditions: Conditions

    def score(self, configurations: Sequence[Configuration]) -> pl.DataFrame:
        """See `defectgen.score.protocol.Scorer.score`."""
        frame = self.scorer.score(configurations)
        if FORMATION not in frame.columns or not len(configurations):
            return frame
        shifts = [self.conditions.shift_ev(item) for item in configurations]
        return frame.with_columns(pl.col(FORMATION) + pl.Series(shifts, dtype=pl.Float64))


def shifted_labels(
    host: Host, labels: Mapping[str, Mapping[str, float]], conditions: Conditions
) -> dict[str, dict[str, float]]:
    """Labels with the formation energies under some conditions."""
    found = {}
    for key, values in labels.items():
        shift = conditions.shift_ev(Configuration.from_key(host, key))
        found[key] = {column: value + shift if column == FORMATION else value for column, value in values.items()}
    return found


def formation_enthalpy_ev(host: Host, surrogate: Surrogate) -> float:
    """Formation enthalpy of a host from its elements, in eV for one unit of its smallest formula.

    It follows from the total energy of the pristine cell and the chemical potentials behind the formation energies that
    the surrogate was trained on.

    Raises:
        UsageError: the surrogate does not know the host, or no vacancy of one of its elements.
    """
    part = next((part for part in surrogate.parts if part.host == host.name and part.supercell == host.size), None)
    if part is None or part.energy_weights_ev is None:
        raise UsageError(f"the formation enthalpy of {common_title(host)} is not known.", "Leave --mu out.")
    rules = [(rule.element, rule.replacement) for rule in part.core_host.rules]
    seen = zip(rules, part.energy_weights_ev[1:], part.max_counts, strict=True)
    weights = {rule: weight for rule, weight, most in seen if most}
    total = part.energy_weights_ev[0]
    for element in host.elements:
        if (element, VACANCY) not in weights:
            raise UsageError(f"the chemical potential of {element} behind {common_name(host)} is not known.")
        total += host.site_elements.count(element) * weights[element, VACANCY]
    return total / (host.n_sites // formula_unit(host)[1])


def known_enthalpy_ev(host: Host, scorer: Scorer) -> float | None:
    """`formation_enthalpy_ev`, or None where the scorer does not know it."""
    from defectgen.score.surrogate import Surrogate

    try:
        return round(formation_enthalpy_ev(host, scorer), 4) if isinstance(scorer, Surrogate) else None
    except UsageError:
        return None


def formula_unit(host: Host) -> tuple[dict[str, int], int]:
    """Atoms of each element in the smallest formula, and how many atoms it has."""
    counts = {element: host.species.count(element) for element in host.elements}
    divisor = int(np.gcd.reduce(list(counts.values())))
    smallest = {element: number // divisor for element, number in counts.items()}
    return smallest, sum(smallest.values())


def potentials(mu: object) -> tuple[str, ...]:
    """Chemical potentials as `growth_conditions` takes them, from a mapping, or from text as ``--mu`` takes it.

    Raises:
        UsageError: none of these, or a potential that is no number.
    """
    if isinstance(mu, str):
        return tuple(part for part in mu.split(",") if part)
    if mu is not None and not isinstance(mu, Mapping):
        raise UsageError(f"got mu={shown(mu)}, expected potentials by element.", 'E.g. mu={"S": -0.6}.')
    found = []
    for element, value in (mu or {}).items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise UsageError(f"got mu of {element} {shown(value)}, expected a number in eV.")
        found.append(f"{element}={float(value):f}")
    return tuple(found)


def growth_conditions(host: Host, enthalpy_ev: float, name: str = "", mu: Sequence[str] = ()) -> Conditions:
    """Conditions from a name such as ``S-rich``, or from potentials such as ``S=-0.6``.

    With all but one of the host's elements given, the last one follows from equilibrium with the host. Elements that
    are not the host's are at 0, their own elemental phase, unless they are given.

    Args:
        host: the pristine supercell.
        enthalpy_ev: see `formation_enthalpy_ev`.
        name: of an element of the host, with ``-rich`` or ``-poor``.
        mu: potentials relative to the elements, ELEMENT=EV.

    Raises:
        UsageError: no such element, no number, or outside the limits; names the limits.
    """
    unit, _ = formula_unit(host)
    others = sorted({rule.replacement for rule in host.rules if not rule.is_vacancy} - set(unit))
    limits = {element: min(enthalpy_ev / number, 0.0) for element, number in unit.items()}
    told = ", ".join(f"{element} {low:z.2f} to 0" for element, low in limits.items())
    if name and mu:
        raise UsageError(f"got --conditions {name} and --mu {','.join(mu)}.", "Give one or the other.")
    given: dict[str, float] = {}
    if name:
        asked = name
        element, how = (part.strip() for part in name.partition("-")[::2])
        element, how = element.capitalize(), how.lower()
        name = f"{element}-{how}"
        if element not in unit or how not in ("rich", "poor"):
            known = ", ".join(f"{one}-rich" for one in unit)
            raise UsageError(f"got conditions {asked!r}, expected one of {known} (or -poor).")
        if len(unit) > 2 and how == "poor":
            raise UsageError(f"got conditions {asked!r}, which does not say which other element is rich.")
        given[element] = 0.0 if how == "rich" else limits[element]
        if len(unit) > 2:
            raise UsageError(
                f"{common_name(host)} has {len(unit)} elements: name their potentials.", "E.g. --mu A=-0.5,B=0"
            )
    for text in mu:
        match = re.fullmatch(r"([A-Z][a-z]?)=([+-]?\d*\.?\d+(?:e[+-]?\d+)?)", text.replace(" ", ""))
        if match is None or match[1] not in (*unit, *others):
            raise UsageError(f"got mu {text!r}, expected one of {', '.join((*unit, *others))} = eV, e.g. S=-0.6.")
        if match[1] in given:
            raise UsageError(f"got two potentials of {match[1]}, expected one.")
        given[match[1]] = float(match[2])
    own = {element: value for element, value in given.items() if element in unit}
    missing = [element for element in unit if element not in own]
    if len(missing) > 1:
        raise UsageError(
            f"got potentials of {', '.join(own) or 'none'}, expected all but one of {', '.join(unit)}.",
            f"Limits in eV: {told}.",
        )
    rest = enthalpy_ev - sum(value * unit[element] for element, value in own.items())
    if missing:
        own[missing[0]] = rest / unit[missing[0]]
    for element, value in {**own, **given}.items():
        if value > ROUNDING_EV or (element in limits and value < limits[element] - ROUNDING_EV):
            raise UsageError(
                f"mu of {element} is {value:.2f} eV, outside the limits within which {common_name(host)} is stable.",
                f"Limits relative to the elements, in eV: {told}{''.join(f', {one} at most 0' for one in others)}.",
            )
    if not missing and abs(rest) > 0.01:
        raise UsageError(
            f"the potentials add up to {enthalpy_ev - rest:.2f} eV a formula, "
            f"{common_name(host)} needs {enthalpy_ev:.2f}.",
            f"Leave one of {', '.join(unit)} out: it follows.",
        )
    shown = {element: min(own[element], 0.0) for element in unit}
    shown |= {element: given.get(element, 0.0) for element in others}
    return Conditions(shown, name or ",".join(mu))
