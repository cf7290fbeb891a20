"""Runs one calculation of GPAW, by a Python that has GPAW and need not have defectgen: gpaw.json -> gpaw-results.json.

    python gpaw_driver.py        # in the folder of the calculation

Steps: relax (if asked for) -> self-consistent levels -> potentials. A relaxation goes on where relax.traj ends. The
exit code is 3 if the self-consistent cycle does not converge.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

NOT_CONVERGED = 3

EMPTY_TOO = {"bands": "CBM+0.2"}
"""Plane waves: levels up to 0.2 eV above the lowest empty one converge too; GPAW by itself looks at the filled ones."""


def calculator(task: dict[str, Any]) -> Any:
    """GPAW as the task asks for it."""
    from gpaw import GPAW, PW, FermiDirac, Mixer, MixerDif

    mode = PW(task["cutoff_ev"]) if task["mode"] == "pw" else "lcao"
    grid = {} if task["mode"] == "pw" else {"basis": task["basis"], "h": task["grid_spacing_angstrom"]}
    return GPAW(
        mode=mode,
        xc=task["functional"],
        kpts={"size": task["mesh"], "gamma": True},
        setups=task["setups"],
        occupations=FermiDirac(task["smearing_ev"]),
        mixer=(MixerDif if task["moments"] else Mixer)(*task["mixer"]),
        spinpol=bool(task["moments"]),
        charge=task["charge"],
        maxiter=task["max_iterations"],
        convergence=EMPTY_TOO if task["mode"] == "pw" else {},  # localized orbitals give all levels at once
        symmetry={"point_group": False} if task["role"] == "defect" else {},
        txt="gpaw.txt",
        **grid,
    )


def start(task: dict[str, Any]) -> Any:
    """The atoms, from where an earlier relaxation ended; a trajectory that breaks off is removed."""
    from ase import Atoms
    from ase.io import read

    atoms: Any = Atoms(task["symbols"], positions=task["positions"], cell=task["cell"], pbc=task["periodic"])
    last = Path("relax.traj")
    if last.is_file():
        try:
            atoms = read("relax.traj")
            atoms.calc = None
        except Exception:  # the reader raises nearly anything on a file that breaks off
            last.unlink()
    atoms.set_initial_magnetic_moments(task["moments"] or [0.0] * len(atoms))
    return atoms


def properties(atoms: Any, calc: Any) -> dict[str, Any]:
    """Energies, levels and potentials of converged atoms, eV and angstrom."""
    import numpy as np

    spins = calc.get_number_of_spins()
    weights = calc.get_k_point_weights()
    degeneracy = 2 // spins
    levels, occupations = [], []
    for spin in range(spins):
        levels.append([calc.get_eigenvalues(k, spin).tolist() for k in range(len(weights))])
        occupations.append(
            [
                (calc.get_occupation_numbers(k, spin) / (weight * degeneracy)).tolist()
                for k, weight in enumerate(weights)
            ]
        )
    potential = np.asarray(calc.get_electrostatic_potential())
    planes = potential.mean(axis=(0, 1))
    heights = (np.arange(len(planes)) + (0 if atoms.pbc[2] else 1)) / (len(planes) + (0 if atoms.pbc[2] else 1))
    scaled = atoms.get_scaled_positions()[:, 2]
    away = np.abs((heights[:, None] - scaled[None, :] + 0.5) % 1.0 - 0.5).min(axis=1)
    nuclei: list[float] = []
    if hasattr(calc, "get_atomic_electrostatic_potentials"):
        nuclei = np.asarray(calc.get_atomic_electrostatic_potentials()).tolist()
    return {
        "energy_ev": float(atoms.get_potential_energy()),
        "fermi_level_ev": float(calc.get_fermi_level()),
        "magnetization_mu_b": float(atoms.get_magnetic_moment()) if spins == 2 else None,
        "levels_ev": levels,
        "occupations": occupations,
        "vacuum_level_ev": float(planes[away >= away.max() - 1e-6].mean()),
        "vacuum_distance_angstrom": float(away.max() * atoms.cell.lengths()[2]),
        "site_potentials_ev": nuclei,
    }


def write(result: dict[str, Any]) -> None:
    """Write the result whole or not at all, by the first of several processes."""
    from ase.parallel import world

    if world.rank == 0:
        part = Path("gpaw-results.part")
        part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        part.replace("gpaw-results.json")


def main() -> int:
    """Run the calculation in the present folder."""
    import ase
    import gpaw
    from ase.optimize import BFGS

    task = json.loads(Path("gpaw.json").read_text(encoding="utf-8"))
    atoms = start(task)
    atoms.calc = calculator(task)
    result: dict[str, Any] = {
        "task": task,
        "gpaw": gpaw.__version__,
        "ase": ase.__version__,
        "electronic_converged": False,
        "ionic_converged": None,
    }
    try:
        if task["relax"]:
            optimizer: Any = BFGS(
                atoms, logfile="relax.log", trajectory="relax.traj", append_trajectory=True, maxstep=0.1
            )
            result["ionic_converged"] = bool(optimizer.run(fmax=task["force_ev_angstrom"], steps=task["max_steps"]))
        else:
            atoms.get_potential_energy()
            result["ionic_converged"] = True
        result.update(properties(atoms, atoms.calc))
        result["electronic_converged"] = True
    except gpaw.KohnShamConvergenceError as error:
        result["reason"] = " ".join(str(error).split())[:200]
    result["symbols"] = atoms.get_chemical_symbols()
    result["positions"] = atoms.get_positions().tolist()
    result["cell"] = atoms.cell.array.tolist()
    write(result)
    return 0 if result["electronic_converged"] else NOT_CONVERGED


if __name__ == "__main__":
    sys.exit(main())
