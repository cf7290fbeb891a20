"""CHGNet: a potential whose weights come with its package, so that nothing has to be fetched.

Source: Deng et al., Nat Mach Intell 5, 1031 (2023), doi 10.1038/s42256-023-00716-3.
"""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from defectgen.errors import DefectgenError
from defectgen.extras import import_extra
from defectgen.one_line import OneLine
from defectgen.score.potentials.potential import EV_PER_ANGSTROM3_IN_GPA, Evaluation

if TYPE_CHECKING:
    from pymatgen.core import Structure


@functools.cache
def anion_shifts_ev() -> Mapping[str, float]:
    """Corrections by anion that the training energies hold, eV an atom; oxygen as in an oxide.

    Source: Wang et al., Sci Rep 11, 15496 (2021), doi 10.1038/s41598-021-94550-5, as pymatgen has them.
    """
    from pymatgen.core import Element
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility

    found = dict(MaterialsProject2020Compatibility(check_potcar=False).comp_correction)
    shifts = {symbol: float(value) for symbol, value in found.items() if Element.is_valid_symbol(symbol)}
    return MappingProxyType({**shifts, "O": float(found["oxide"])})


VERSION = "0.3.0"
"""Of the weights, trained on MPtrj."""

WEIGHTS = Path("pretrained", VERSION, "chgnet_0.3.0_e29f68s314m37.pth.tar")
"""Within the package."""

HIGHEST_NUMBER = 94
"""Atomic number of the last element that it was trained on."""

UNKNOWN = frozenset({"Po", "At", "Rn", "Fr", "Ra"})

STRUCTURES_A_BATCH = 4


@dataclass(frozen=True, repr=False)
class CHGNet(OneLine):
    """A loaded CHGNet; a `defectgen.score.potentials.potential.Potential`.

    Attributes:
        name: of the potential.
        model: the `chgnet.model.CHGNet`.
    """

    name: str
    model: Any

    @property
    def elements(self) -> frozenset[str]:
        """See `defectgen.score.potentials.potential.Potential`."""
        from pymatgen.core import Element

        symbols = {Element.from_Z(number).symbol for number in range(1, HIGHEST_NUMBER + 1)}
        return frozenset(symbols - UNKNOWN)

    @property
    def atom_shifts_ev(self) -> Mapping[str, float]:
        """It was trained on energies with the corrections of the Materials Project."""
        return anion_shifts_ev()

    def evaluate(self, structures: Sequence[Structure]) -> list[Evaluation]:
        """See `defectgen.score.potentials.potential.Potential`."""
        with warnings.catch_warnings():  # of torch, about how the library makes its tensors
            warnings.simplefilter("ignore")
            found = self.model.predict_structure(list(structures), task="efs", batch_size=STRUCTURES_A_BATCH)
        results = found if isinstance(found, list) else [found]
        return [
            Evaluation(
                float(result["e"]) * len(structure),
                np.asarray(result["f"], dtype=np.float64),
                np.asarray(result["s"], dtype=np.float64).reshape(3, 3) / EV_PER_ANGSTROM3_IN_GPA,
            )
            for structure, result in zip(structures, results, strict=True)
        ]

    def calculator(self) -> Any:
        """See `defectgen.score.potentials.potential.Potential`."""
        library = import_extra("chgnet.model", "chgnet", "CHGNet")
        with contextlib.redirect_stdout(io.StringIO()):
            return library.CHGNetCalculator(self.model, use_device="cpu", on_isolated_atoms="ignore")


def load_chgnet() -> CHGNet:
    """The CHGNet of the installed package.

    Raises:
        DefectgenError: the package is not installed, or its weights cannot be loaded.
    """
    library = import_extra("chgnet.model", "chgnet", "CHGNet")
    import torch

    weights = Path(str(library.__file__)).parents[1] / WEIGHTS
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)["model"]  # runs nothing from the file
        with contextlib.redirect_stdout(io.StringIO()):
            model = library.CHGNet.from_dict(state, version=VERSION, mlp_out_bias=False)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DefectgenError(
            f"the weights of CHGNet cannot be loaded ({reason:.160}).", "Install chgnet 0.4.2 again."
        ) from error
    model.graph_converter.set_isolated_atom_response("ignore")
    return CHGNet(f"CHGNet {VERSION}", model.eval())
