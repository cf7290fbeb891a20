"""The energy corrections of the Materials Project, put on what a potential computes.

M3GNet-MP-2021.2.8 was trained on the plain GGA and GGA+U energies of the Materials Project (Chen & Ong, Nat Comput Sci
2, 718 (2022), doi 10.1038/s43588-022-00349-3), so that the corrections for anions and for mixing GGA with GGA+U
have to be added before its energies can stand beside those of the Materials Project. CHGNet was trained on corrected
energies (Deng et al., Nat Mach Intell 5, 1031 (2023), doi 10.1038/s42256-023-00716-3) and gets none.

Sources: MP2020 is Wang et al., Sci Rep 11, 15496 (2021), doi 10.1038/s41598-021-94550-5; the mixing of GGA and GGA+U is
Jain et al., Phys Rev B 84, 045115 (2011), doi 10.1103/PhysRevB.84.045115.
"""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any

from defectgen.errors import DefectgenError
from defectgen.score.potentials.potential import Potential

if TYPE_CHECKING:
    from pymatgen.core import Composition, Structure

SCHEME = "MP2020"


def corrections_of(potential: Potential) -> str:
    """What is added to the energies of a potential: `SCHEME`, or an empty text if they hold it already."""
    return "" if potential.atom_shifts_ev else SCHEME


def correction_ev(structure: Structure, potential: Potential) -> float:
    """What to add to the energy of a cell by this potential to put it on the scale of the Materials Project, eV."""
    return mp2020_correction_ev(structure) if corrections_of(potential) else 0.0


def mp2020_correction_ev(structure: Structure) -> float:
    """The MP2020 correction of a cell computed with the settings of the Materials Project, eV.

    Which anions count (oxide, peroxide, superoxide, sulfide) is told from distances, and whether an
    element is an anion from guessed oxidation states, as pymatgen does.

    Args:
        structure: one element a site.

    Raises:
        DefectgenError: an element without a correction scheme.
    """
    from pymatgen.entries.compatibility import CompatibilityError
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    entry = ComputedStructureEntry(structure, 0.0, parameters=_parameters(structure.composition))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of oxidation states that cannot be guessed
            return float(sum(item.value for item in _scheme().get_adjustments(entry)))
    except CompatibilityError as error:
        reason = " ".join(str(error).split())
        raise DefectgenError(f"no {SCHEME} corrections for {structure.composition.formula} ({reason:.100}).") from error


def hubbard_u_ev(composition: Composition) -> dict[str, float]:
    """The U that the Materials Project uses for each element of a compound, eV; empty where it uses plain GGA.

    U is for transition metals in oxides and fluorides (`MPRelaxSet`): where O or F is the most
    electronegative element.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of noble gases, which have no electronegativity
        anion = sorted(composition.elements, key=lambda element: float(element.X))[-1].symbol
    return {
        symbol: float(u)
        for symbol, u in sorted(_settings().get(anion, {}).items())
        if u and symbol in {element.symbol for element in composition.elements}
    }


def _parameters(composition: Composition) -> dict[str, Any]:
    hubbards = hubbard_u_ev(composition)
    # no software "vasp": there are no pseudopotentials to check
    return {"run_type": "GGA+U" if hubbards else "GGA", "hubbards": hubbards, "software": "potential"}


@functools.cache
def _settings() -> dict[str, dict[str, float]]:
    from pymatgen.io.vasp.sets import MPRelaxSet

    settings: dict[str, dict[str, float]] = MPRelaxSet.CONFIG["INCAR"]["LDAUU"]
    return settings


@functools.cache
def _scheme() -> Any:
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility

    return MaterialsProject2020Compatibility(check_potcar=False)
