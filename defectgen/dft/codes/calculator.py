"""Any calculator of ASE, CHGNet and M3GNet among them: energies and relaxed structures, no levels."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from defectgen.dft.calculation import Calculation
from defectgen.dft.codes.calculator_driver import RESULTS, TASK
from defectgen.dft.codes.dft_code import EngineOptions, Remedy
from defectgen.dft.result import DftResult, Fingerprint
from defectgen.dft.settings import DftSettings
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.documents import read_object


def arguments_text(arguments: Mapping[str, Any]) -> str:
    """The arguments of a calculator as they stand among the settings of its results; empty without any."""
    return json.dumps(arguments, sort_keys=True) if arguments else ""


class Calculator:
    """See `defectgen.dft.codes.dft_code.DftCode`."""

    title = "a calculator of ASE"
    remedies: Sequence[Remedy] = ()

    def write(self, calculation: Calculation, settings: DftSettings, folder: Path) -> Sequence[str]:
        """Write the task for the driver."""
        if calculation.charge:
            raise UsageError("a potential knows no charges.", "Leave --charge out.")
        structure = calculation.structure
        task = {
            "name": calculation.name,
            "about": calculation.about,
            "calculator": settings.ase.calculator,
            "arguments": settings.ase.arguments,
            "symbols": [site.specie.symbol for site in structure],
            "positions": structure.cart_coords.tolist(),
            "cell": structure.lattice.matrix.tolist(),
            "relax": settings.relax and calculation.role != "element",
            "force_ev_angstrom": settings.force_ev_angstrom,
            "max_steps": settings.max_steps,
        }
        (folder / TASK).write_text(json.dumps(task, indent=1) + "\n", encoding="utf-8")
        return (f"{settings.ase.calculator} gives energies and relaxed structures (relaxed.cif), no levels",)

    def command(self, options: EngineOptions) -> Sequence[str]:
        """The driver under this Python."""
        if options.command is not None:
            return shlex.split(options.command)
        return [options.python or sys.executable, "-m", "defectgen.dft.codes.calculator_driver"]

    def missing(self, folder: Path) -> str:  # noqa: ARG002
        """Nothing: the driver brings all."""
        return ""

    def resume(self, folder: Path) -> None:
        """The driver goes on by itself where its trajectory ends."""

    def finish(self, folder: Path, command: Sequence[str]) -> None:
        """The driver writes all."""

    def claims(self, path: Path) -> int:
        """The driver's results."""
        return 1 if path.name == RESULTS else 0

    def outdated(self, path: Path) -> bool:  # noqa: ARG002
        """All of a run lies in one folder."""
        return False

    def read(self, path: Path) -> DftResult:
        """See `DftCode.read`."""
        from pymatgen.core import Structure

        values = read_object(path, {"task": dict, "symbols": list, "positions": list, "cell": list})
        try:
            name = str(values["task"]["calculator"])
            energy = values["energy_ev"]
            return DftResult(
                path=path,
                code="ase",
                version="",
                structure=Structure(values["cell"], values["symbols"], values["positions"], coords_are_cartesian=True),
                fingerprint=Fingerprint("ase", name, basis=arguments_text(values["task"]["arguments"])),
                energy_ev=energy,
                electronic_converged=energy is not None,
                ionic_converged=bool(values["ionic_converged"]),
                charge=0.0,
                notes=("a potential: no levels",),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DefectgenError(f"{path}: is damaged ({error}).", "Run the calculation again.") from error
