"""Runs one calculation of a calculator of ASE: ase.json -> ase-results.json and relaxed.cif.

python -m defectgen.dft.codes.calculator_driver        # in the folder of the calculation
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

TASK, RESULTS, RELAXED, TRAJECTORY = "ase.json", "ase-results.json", "relaxed.cif", "relax.traj"


def load_calculator(name: str, arguments: dict[str, Any]) -> Any:
    """A calculator: that of a potential by its short name, or what ``package.module:factory`` makes.

    Raises:
        DefectgenError: no such potential or factory.
    """
    from defectgen.errors import UsageError

    module, colon, factory = name.partition(":")
    if colon:
        try:
            make = getattr(importlib.import_module(module), factory)
        except (ImportError, AttributeError) as error:
            raise UsageError(f"the calculator {name} cannot be imported ({error}).") from error
        return make(**arguments)
    from defectgen.data.assets import cache_dir
    from defectgen.score.scorers import ScorerOptions, load_potential

    options = ScorerOptions(cache=cache_dir() / "matgl", m3gnet=arguments.get("m3gnet"))
    return load_potential(name, options).potential.calculator()


def start(task: dict[str, Any], trajectory: Path) -> Any:
    """The last atoms of a run that was stopped, or those of the task; a trajectory that breaks off is removed."""
    from ase import Atoms

    atoms: Any = Atoms(task["symbols"], positions=task["positions"], cell=task["cell"], pbc=True)
    if trajectory.is_file():
        from ase.io import read

        try:
            atoms = read(str(trajectory))
            atoms.calc = None
        except Exception:  # the reader raises nearly anything on a file that breaks off
            trajectory.unlink()
    return atoms


def run(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Relax if asked to, and evaluate; energies in eV, lengths in angstrom."""
    import numpy as np

    moved = folder / TRAJECTORY
    atoms = start(task, moved)
    atoms.calc = load_calculator(task["calculator"], task["arguments"])
    relaxed = True
    if task["relax"]:
        from ase.io import Trajectory

        from defectgen.score.potentials.relaxation import careful_fire

        optimizer = careful_fire(atoms)
        trajectory: Any = Trajectory
        with trajectory(str(moved), "a", atoms) as file:
            optimizer.attach(file.write, interval=5)
            relaxed = bool(optimizer.run(fmax=task["force_ev_angstrom"], steps=task["max_steps"]))
            file.write()
    energy = float(atoms.get_potential_energy())
    return {
        "task": task,
        "energy_ev": energy if np.isfinite(energy) else None,
        "ionic_converged": relaxed,
        "max_force_ev_angstrom": float(np.linalg.norm(atoms.get_forces(), axis=1).max()),
        "symbols": atoms.get_chemical_symbols(),
        "positions": atoms.get_positions().tolist(),
        "cell": atoms.cell.array.tolist(),
    }


def main() -> int:
    """Run the calculation in the present folder."""
    from pymatgen.core import Structure

    from defectgen.errors import DefectgenError
    from defectgen.io.files import write_text

    folder = Path()
    task = json.loads((folder / TASK).read_text(encoding="utf-8"))
    try:
        result = run(task, folder)
        structure = Structure(result["cell"], result["symbols"], result["positions"], coords_are_cartesian=True)
        (folder / RELAXED).write_text(str(structure.to(fmt="cif")), encoding="utf-8")
        write_text(folder / RESULTS, json.dumps(result, indent=1) + "\n")
    except DefectgenError as error:
        print(error)
        return error.exit_code
    except OSError as error:
        print(f"{folder.resolve()} cannot be written: {error.strerror or error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
