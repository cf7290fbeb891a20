"""The README of a folder of inputs: what is in it, what its settings mean, what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from defectgen.core.hosts import common_title
from defectgen.dft.settings import DftSettings

if TYPE_CHECKING:
    from defectgen.dft.inputs import DftInputs

_SETTINGS = {
    "vasp": """\
- `ENCUT`: plane waves up to {cutoff:g} eV. All calculations here share it: energies with another one cannot be
  subtracted from these.
- `KPOINTS`: Gamma-centred, as dense in the plane as {length:g} angstrom divided by the cell vector; one point along
  the normal.
- `ISMEAR = 0`, `SIGMA = {smearing:g}`: Gaussian smearing, for cells whose gap is not known before.
- `ISPIN = 2` with `MAGMOM` where spin is needed (see the table); `ISPIN = 1` elsewhere.
- `ISIF = 2`: atoms move, the cell does not. An elemental crystal is relaxed with its cell (`ISIF = 3`),
  a molecule in its box.
- `LVHAR`: LOCPOT holds the electrostatic potential, from which levels are aligned.
- `POTCAR.spec` names the potentials. With pymatgen's `PMG_VASP_PSP_DIR` set, POTCAR is written too; else put them
  together in this order.""",
    "gpaw": """\
- `gpaw.json` holds everything; `gpaw_driver.py` runs it, in any Python that has GPAW.
- {basis}, smearing {smearing:g} eV (Fermi-Dirac).
- `mesh`: Gamma-centred k points, as dense in the plane as {length:g} angstrom divided by the cell vector.""",
    "ase": """\
- `ase.json` holds everything; a potential moves the atoms (`relaxed.cif`). There are no levels: take the relaxed cells
  as the start of a calculation that has them (`defectgen inputs FOLDER/*/relaxed.cif`).""",
    "qe": """\
- `ecutwfc`: plane waves up to {cutoff:g} eV, in rydberg; `ecutrho` for the density.
- k points: Gamma-centred, as dense in the plane as {length:g} angstrom divided by the cell vector; one along the
  normal.
- Pseudopotentials are yours to choose (`pseudo_dir`); the same ones for all calculations here.
- `pp.in`: with it `defectgen compute` takes the vacuum level from pp.x. After pw.x by your own scripts, let it run here
  once more: what is done is not done again.""",
}


def readme_text(made: DftInputs, title: str, settings: DftSettings) -> str:
    """The README of a folder of inputs."""
    own = _SETTINGS.get(made.code, "")
    basis = (
        f"localized orbitals ({settings.gpaw.basis}), grid of {settings.gpaw.grid_spacing_angstrom:g} angstrom"
        if settings.gpaw.mode == "lcao"
        else f"plane waves up to {settings.cutoff_ev:g} eV"
    )
    meaning = own.format(
        cutoff=settings.cutoff_ev, length=settings.kpoint_length_angstrom, smearing=settings.smearing_ev, basis=basis
    )
    rows = "\n".join(
        f"| `{item.name}` | {item.about} | {len(item.structure)} | {'x'.join(map(str, item.mesh))} | "
        f"{'yes' if item.spin else 'no'} | {_dipole(item.role, item.turned_over, item.charge, settings)} |"
        for item in made.calculations
    )
    notes = "".join(f"- {note}.\n" for note in made.notes)
    charged = any(item.charge for item in made.calculations)
    return f"""# {title} inputs: {common_title(made.host)}

Written by defectgen. {_about(made.code, settings)}

| folder | what | atoms | k points | spin | dipole correction |
| --- | --- | ---: | --- | --- | --- |
{rows}

## Settings

{meaning}
- Dipole correction along the normal only where the two sides of the layer differ: a layer that a symmetry turns over
  has no dipole.
- The layer lies in the middle of the cell; species stand in the order of the host's formula, then the others.
{notes}
## Next

1. Run each folder, e.g. `defectgen compute {made.folder.name}`, or by your own scripts.
2. `defectgen results {made.folder.name} -o results.csv` reads what is there: energies, levels on the host's valence
   band maximum, formation energies. Host and elements must be computed with the settings of the defects.
{_CHARGED if charged else ""}"""


def _about(code: str, settings: DftSettings) -> str:
    if code == "ase":
        return f"Calculator of ASE: {settings.ase.calculator}."
    name = settings.description or "the user's own"
    return f"Settings: {name}; functional {settings.functional}."


_CHARGED = """\
3. Charged cells: their energies need a correction for the charge's images in a layer, which is not made here. Hand the
   folders with their OUTCAR and LOCPOT to pydefect-2d, or to doped (https://doped.readthedocs.io), whose parser reads
   single defects in them; with the host's folder as the bulk and the layer's dielectric profile. Until then formation
   energies of charged cells are left out of the table.
"""


def _dipole(role: str, turned_over: bool, charge: int, settings: DftSettings) -> str:
    if role == "element":
        return "-"
    if settings.dipole == "off":
        return "off by the settings"
    if turned_over:
        return "off: a symmetry turns the layer over"
    return "off: charged" if charge else "on"
