"""vasprun.xml as VASP 6 lays it out, with levels and energies of our choice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pymatgen.core import Structure

Levels = Sequence[tuple[float, float]]
"""Energy and occupation of each band of one spin channel."""

TITLES = {"Mo": "PAW_PBE Mo_sv 02Feb2006", "S": "PAW_PBE S 06Sep2000", "Se": "PAW_PBE Se 06Sep2000"}
ELECTRONS = {"Mo": 14, "S": 6, "Se": 6}


def write_vasprun(
    folder: Path,
    structure: Structure,
    energy_ev: float,
    channels: Sequence[Levels],
    *,
    encut: float = 500.0,
    charge: int = 0,
    electronic: bool = True,
    ionic: bool = True,
    mesh: tuple[int, int, int] = (8, 8, 1),
    smearing: tuple[int, float] = (0, 0.05),
) -> Path:
    """Write a file with one k point of weight 1 and two ionic steps at most."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = Counter(site.specie.symbol for site in structure)
    electrons = sum(ELECTRONS[element] * number for element, number in counts.items()) - charge
    nelm, steps = 5, 3 if electronic else 5
    nsw = 20 if ionic else 2
    scsteps = "".join(
        f'<scstep><energy><i name="e_fr_energy">{energy_ev - 1e-9 * k}</i><i name="e_wo_entrp">{energy_ev}</i>'
        f'<i name="e_0_energy">{energy_ev}</i></energy></scstep>'
        for k in range(steps)
    )
    channel_texts = "".join(
        f'<set comment="spin {s}"><set comment="kpoint 1">{"".join(f"<r>{e} {f}</r>" for e, f in levels)}</set></set>'
        for s, levels in enumerate(channels, 1)
    )
    forces = '<varray name="forces">' + "<v>0 0 0</v>" * len(structure) + "</varray>"
    stress = '<varray name="stress"><v>0 0 0</v><v>0 0 0</v><v>0 0 0</v></varray>'
    atoms = "".join(
        f"<rc><c>{site.specie.symbol}</c><c>{list(counts).index(site.specie.symbol) + 1}</c></rc>" for site in structure
    )
    types = "".join(
        f"<rc><c>{number}</c><c>{element}</c><c>1.0</c><c>{ELECTRONS[element]}</c><c>{TITLES[element]}</c></rc>"
        for element, number in counts.items()
    )
    calculation = f"""<calculation>{scsteps}<structure>{_structure(structure)}</structure>{forces}{stress}
  <energy><i name="e_fr_energy">{energy_ev}</i><i name="e_wo_entrp">{energy_ev}</i>
   <i name="e_0_energy">{energy_ev}</i></energy>
  <eigenvalues><array><dimension dim="1">band</dimension><field>eigene</field><field>occ</field>
   <set>{channel_texts}</set></array></eigenvalues>
  <dos><i name="efermi">0.25</i></dos></calculation>"""
    text = f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <generator><i name="program" type="string">vasp </i><i name="version" type="string">6.3.0  </i>
  <i name="subversion" type="string">(build Apr 01 2026 12:00:00) complex parallel </i>
  <i name="platform" type="string">LinuxIFC </i><i name="date" type="string">2026 04 02 </i>
  <i name="time" type="string">08:00:00 </i></generator>
 <incar><i name="ENCUT">{encut}</i><i type="string" name="GGA">PE</i>
  {f'<i name="NELECT">{electrons}</i>' if charge else ""}</incar>
 <kpoints><generation param="Gamma"><v type="int" name="divisions">{mesh[0]} {mesh[1]} {mesh[2]}</v>
  <v name="usershift">0 0 0</v></generation>
  <varray name="kpointlist"><v>0 0 0</v></varray><varray name="weights"><v>1.0</v></varray></kpoints>
 <parameters><separator name="general">
  <i type="int" name="ISPIN">{len(channels)}</i><i type="int" name="NELM">{nelm}</i><i type="int" name="NELMIN">2</i>
  <i type="int" name="NSW">{nsw}</i><i type="int" name="IBRION">2</i><i name="ENMAX">{encut}</i>
  <i type="int" name="ISMEAR">{smearing[0]}</i><i name="SIGMA">{smearing[1]}</i>
  <i name="NELECT">{electrons}</i><i type="string" name="GGA">PE</i><i name="EDIFF">0.000001</i>
  <i type="logical" name="LHFCALC">F</i><i type="string" name="METAGGA">--</i></separator></parameters>
 <atominfo><atoms>{len(structure)}</atoms><types>{len(counts)}</types>
  <array name="atoms"><dimension dim="1">ion</dimension><field type="string">element</field>
   <field type="int">atomtype</field><set>{atoms}</set></array>
  <array name="atomtypes"><dimension dim="1">type</dimension><field type="int">atomspertype</field>
   <field type="string">element</field><field>mass</field><field>valence</field><field type="string">pp</field>
   <set>{types}</set></array></atominfo>
 <structure name="initialpos">{_structure(structure)}</structure>
 {"" if ionic else calculation}
 {calculation}
 <structure name="finalpos">{_structure(structure)}</structure>
</modeling>
"""
    path = folder / "vasprun.xml"
    path.write_text(text, encoding="latin-1")
    return path


def _structure(structure: Structure) -> str:
    rows = "".join(f"<v>{a} {b} {c}</v>" for a, b, c in structure.lattice.matrix)
    places = "".join(f"<v>{a} {b} {c}</v>" for a, b, c in structure.frac_coords)
    return (
        f'<crystal><varray name="basis">{rows}</varray><i name="volume">1</i></crystal>'
        f'<varray name="positions">{places}</varray>'
    )
