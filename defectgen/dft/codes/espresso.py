"""Quantum ESPRESSO: inputs through ASE, results from the XML file that pw.x leaves."""

from __future__ import annotations

import re
import shlex
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from defectgen.dft.calculation import Calculation
from defectgen.dft.codes import espresso_potential
from defectgen.dft.codes.dft_code import EngineOptions, Remedy
from defectgen.dft.codes.pseudopotentials import (
    content_mark,
    density_factor,
    header_notes,
    headers,
    missing_files,
    pseudo_files,
    pseudo_folder,
)
from defectgen.dft.result import MARK, PLUS_U, U_MARK, DftResult, Fingerprint, spin_levels
from defectgen.dft.settings import DftSettings
from defectgen.errors import DefectgenError

INPUT, PREFIX, OUT = "pw.in", "pwscf", "out"

EV = 27.211386245988
"""Hartree in eV, CODATA 2018 (doi 10.1103/RevModPhys.93.025010)."""

ANGSTROM = 0.529177210903
"""Bohr radius in angstrom, CODATA 2018."""

NAMES = {"PBE": "PBE", "PBESOL": "PBEsol", "PBE0": "PBE0"}


def input_data(calculation: Calculation, settings: DftSettings) -> dict[str, dict[str, Any]]:
    """The namelists of pw.x."""
    cutoff = settings.cutoff_ev / (EV / 2)
    layer = calculation.role != "element"
    relax = settings.relax and layer
    control = {
        "calculation": "relax" if relax else "scf",
        "prefix": PREFIX,
        "outdir": f"./{OUT}",
        "pseudo_dir": pseudo_folder(settings.qe),
        "forc_conv_thr": settings.force_ev_angstrom / (EV / 2 / ANGSTROM),
        "nstep": settings.max_steps,
        "tprnfor": True,
    }
    system: dict[str, Any] = {
        "ecutwfc": round(cutoff, 8),
        "ecutrho": round(cutoff * density_factor(settings.qe), 8),
        "input_dft": settings.functional.lower(),
        "occupations": "smearing",
        "smearing": "gaussian",
        "degauss": round(settings.smearing_ev / (EV / 2), 6),
    }
    if calculation.spin:
        system["nspin"] = 2
        if not any(calculation.moments):  # pw.x asks for a moment to start with, be it zero
            system["starting_magnetization(1)"] = 0.0
    if calculation.charge:
        system["tot_charge"] = float(calculation.charge)  # a uniform background, as corrections of charged cells expect
    elif layer and settings.dipole == "auto" and not calculation.turned_over:
        control |= {"tefield": True, "dipfield": True}
        start, share = espresso_potential.JUMP_START, espresso_potential.JUMP_SHARE
        system |= {"edir": 3, "emaxpos": start, "eopreg": share, "eamp": 0.0}
    electrons = {"conv_thr": 1e-8, "electron_maxstep": 200, "mixing_beta": 0.4}
    return {"control": control, "system": system, "electrons": electrons}


def _changed(**electrons: Any) -> Callable[[Path], None]:
    """A remedy: other values in the namelist of the electrons."""

    def apply(folder: Path) -> None:
        text = (folder / INPUT).read_text(encoding="utf-8")
        for key, value in electrons.items():
            text = re.sub(rf"(?m)^(\s*{key}\s*=\s*)\S+", rf"\g<1>{value}", text)
        (folder / INPUT).write_text(text, encoding="utf-8")

    return apply


class Espresso:
    """See `defectgen.dft.codes.dft_code.DftCode`."""

    title = "Quantum ESPRESSO"
    remedies: Sequence[Remedy] = (
        Remedy("mixing_beta 0.1", _changed(mixing_beta="0.1")),
        Remedy("mixing_beta 0.05, 500 steps", _changed(mixing_beta="0.05", electron_maxstep="500")),
    )

    def write(self, calculation: Calculation, settings: DftSettings, folder: Path) -> Sequence[str]:
        """Write pw.in by ASE."""
        from ase import Atoms
        from ase.io.espresso import write_espresso_in

        symbols = [site.specie.symbol for site in calculation.structure]
        files = pseudo_files(dict.fromkeys(symbols), settings.qe)
        known = headers(files, settings.qe)
        valence = {symbol: known[symbol].electrons or _valence(symbol) for symbol in files}
        atoms: Any = Atoms(
            symbols,
            positions=calculation.structure.cart_coords,
            cell=calculation.structure.lattice.matrix,
            pbc=True,
            magmoms=[
                round(moment / valence[symbol], 4)
                for moment, symbol in zip(calculation.moments, symbols, strict=bool(calculation.moments))
            ]
            or None,
        )
        with (folder / INPUT).open("w", encoding="utf-8") as file:
            write_espresso_in(
                file,
                atoms,
                input_data=input_data(calculation, settings),
                pseudopotentials=files,
                kpts=None if calculation.mesh == (1, 1, 1) else calculation.mesh,  # None: wave functions are real
                koffset=(0, 0, 0),
            )
        if calculation.role != "element" and not calculation.charge:
            espresso_potential.write_input(folder, PREFIX, OUT)
        if self.missing(folder):
            return (f"pseudopotentials are expected in {pseudo_folder(settings.qe)}: put them there before the run",)
        return header_notes(files, settings)

    def command(self, options: EngineOptions) -> Sequence[str]:
        """pw.x on the input."""
        words = shlex.split(options.command or "pw.x")
        if shutil.which(words[0]) is None:
            raise DefectgenError(
                f"{words[0]} was not found.",
                "Install Quantum ESPRESSO (apt-get install quantum-espresso) with pseudopotentials "
                "(https://www.materialscloud.org/sssp), or give its command, e.g. --command 'mpirun -n 8 pw.x'.",
            )
        return [*words, "-in", INPUT]

    def missing(self, folder: Path) -> str:
        """See `DftCode.missing`."""
        return missing_files((folder / INPUT).read_text(encoding="utf-8"), folder)

    def resume(self, folder: Path) -> None:
        """Start from the atoms of the newest XML file, if it is whole; pw.x writes one after each step."""
        last = max((path for path in folder.rglob("*.xml") if self.claims(path)), key=_time, default=None)
        if last is None:
            return
        try:
            structure = self.read(last).structure
        except DefectgenError:  # it was cut off: the atoms stay where they were
            return
        rows = [
            f"{site.specie.symbol} {x:.10f} {y:.10f} {z:.10f}"
            for site, (x, y, z) in zip(structure, structure.cart_coords, strict=True)
        ]
        _move_atoms(folder / INPUT, rows)

    def finish(self, folder: Path, command: Sequence[str]) -> None:
        """The potential by pp.x; then the wave functions go, which nothing here reads."""
        espresso_potential.compute_planes(folder, command, OUT)
        for pattern in ("*.wfc*", "*.save/wfc*", "*.mix*"):
            for path in (folder / OUT).glob(pattern):
                path.unlink(missing_ok=True)

    def claims(self, path: Path) -> int:
        """An XML file of pw.x: in its save folder after each step, beside that at the end of a run in order."""
        if path.suffix == ".xml" and not path.name.startswith("vasprun") and _head(path, b"qes:espresso"):
            return 1
        return 0

    def outdated(self, path: Path) -> bool:
        """Of the file in the save folder and that beside it the older one; the inner one if they are of one time."""
        if path.parent.suffix == ".save":
            twin = path.parent.with_suffix(".xml")
            return twin.is_file() and _time(twin) >= _time(path)
        inner = path.with_suffix(".save") / "data-file-schema.xml"
        return inner.is_file() and _time(inner) > _time(path)

    def read(self, path: Path) -> DftResult:
        """See `DftCode.read`."""
        try:
            root = ET.parse(path).getroot()
            return _from_xml(path, root)
        except ET.ParseError as error:
            raise DefectgenError(
                f"{path}: ends in the middle or is no XML ({error}).", "The run was cut off: start it again."
            ) from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DefectgenError(
                f"{path}: is no complete output of pw.x ({error}).", "The run was cut off: start it again."
            ) from error


def _valence(symbol: str) -> int:
    """Electrons of an element outside closed shells, for a pseudopotential that does not say how many it treats."""
    from pymatgen.core import Element

    group = int(Element(symbol).group)
    return group if group <= 12 else group - 10


def _move_atoms(path: Path, rows: Sequence[str]) -> None:
    """Put positions (angstrom) into an input in place of those there; the names of its species stay."""
    lines = path.read_text(encoding="utf-8").splitlines()
    start = next((n for n, line in enumerate(lines) if line.startswith("ATOMIC_POSITIONS")), None)
    if start is None:
        return
    for number, row in enumerate(rows, start + 1):
        name = lines[number].split()[0]
        lines[number] = f"{name} {row.partition(' ')[2]}"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _head(path: Path, mark: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return mark in file.read(2000)
    except OSError:
        return False


def _time(path: Path) -> int:
    return path.stat().st_mtime_ns


def _floats(node: Any) -> list[float]:
    return [float(word) for word in node.text.split()]


def _flag(node: Any) -> bool | None:
    return None if node is None else node.text.strip().lower() == "true"


def _element(species: str) -> str:
    """The element of a species such as Mo1, which starts with another moment."""
    return "".join(c for c in species if c.isalpha())


def _functional(dft: Any) -> str:
    """The functional with all that changes energies: exact exchange, Hubbard terms, dispersion."""
    name = (dft.find("functional").text or "").strip()
    name = NAMES.get(name.upper(), name)
    share = dft.find("hybrid/exx_fraction")
    if share is not None and float(share.text):
        screening = dft.find("hybrid/screening_parameter")
        name += f" hybrid {float(share.text):g} {0.0 if screening is None else float(screening.text):g}"
    dispersion = dft.find("vdW/vdw_corr")
    kind = "none" if dispersion is None else dispersion.text.strip().lower()
    version = dft.find("vdW/dftd3_version")
    if kind != "none":
        name += f"+{kind}" + ("" if version is None else f" {version.text.strip()}")
    return name + (PLUS_U if _hubbard(dft) else "")


def _hubbard(dft: Any) -> dict[str, float]:
    """U by element in eV; those that are 0 are left out."""
    found = {_element(node.get("specie")): EV / 2 * float(node.text) for node in dft.findall("dftU/Hubbard_U")}
    return {element: round(u, 4) for element, u in found.items() if u}  # pw.x 6.7 writes rydberg


def _density_cutoff(output: Any) -> str:
    """The cutoff of the density in words; empty where the file does not give it."""
    node = output.find("basis_set/ecutrho")
    return "" if node is None else f"density to {EV * float(node.text):.0f} eV"


def _marked(path: Path, species: Any, dft: Any) -> str:
    """The pseudopotential's name, a mark of its content where pw.x left its copy in the save folder, and its U."""
    name = str(species.find("pseudo_file").text).strip()
    copies = (path.with_name(name), path.with_suffix(".save") / name)
    copy = next((file for file in copies if file.is_file()), None)
    hubbard = _hubbard(dft).get(_element(species.get("name")))
    name += "" if copy is None else f"{MARK}{content_mark(copy)}"
    return name if hubbard is None else f"{name}{U_MARK}{hubbard:g}"


def _from_xml(path: Path, root: Any) -> DftResult:
    from pymatgen.core import Structure

    output, given = root.find("output"), root.find("input")
    if output is None:
        raise ValueError("no output in it")
    cell = output.find("atomic_structure/cell")
    lattice = [[ANGSTROM * x for x in _floats(cell.find(name))] for name in ("a1", "a2", "a3")]
    atoms = output.findall("atomic_structure/atomic_positions/atom")
    positions = [[ANGSTROM * x for x in _floats(atom)] for atom in atoms]
    symbols = [_element(atom.get("name")) for atom in atoms]
    bands = output.find("band_structure")
    spin = bool(_flag(bands.find("lsda")))
    energies = [EV * np.array(_floats(k.find("eigenvalues"))) for k in bands.findall("ks_energies")]
    filled = [np.array(_floats(k.find("occupations"))) for k in bands.findall("ks_energies")]
    levels, occupied = np.array(energies), np.array(filled)
    split = int(bands.find("nbnd_up").text) if spin and bands.find("nbnd_up") is not None else levels.shape[1] // 2
    parts = [slice(0, split), slice(split, None)] if spin else [slice(None)]
    found = tuple(spin_levels(levels[:, part], occupied[:, part]) for part in parts)
    magnet = output.find("magnetization/total")
    moment = float(magnet.text) if magnet is not None and spin else None
    if moment is not None and moment < 0:
        found = found[::-1]
    species = output.findall("atomic_species/species")
    mesh = bands.find("starting_k_points/monkhorst_pack")
    single = bands.find("starting_k_points/nk")
    gamma = (1, 1, 1) if single is not None and int(single.text) == 1 else ()
    fermi = bands.find("fermi_energy")
    smearing = bands.find("smearing")
    smeared = output.find("total_energy/demet")
    entropy = 0.0 if smeared is None else float(smeared.text)  # -TS: half of it goes to the energy without smearing
    charge = given.find("bands/tot_charge") if given is not None else None
    steps = given.find("control_variables/calculation") if given is not None else None
    moved = steps is not None and steps.text.strip() in ("relax", "vc-relax")
    optimized = output.find("convergence_info/opt_conv/convergence_achieved")
    creator = root.find("general_info/creator")
    structure = Structure(lattice, symbols, positions, coords_are_cartesian=True)
    return DftResult(
        path=path,
        code="qe",
        version="" if creator is None else creator.get("VERSION", ""),
        structure=structure,
        fingerprint=Fingerprint(
            code="qe",
            functional=_functional(output.find("dft")),
            cutoff_ev=round(EV * float(output.find("basis_set/ecutwfc").text), 3),
            basis=_density_cutoff(output),
            setups=tuple(sorted({(_element(s.get("name")), _marked(path, s, output.find("dft"))) for s in species})),
            mesh=gamma if mesh is None else tuple(int(mesh.get(name)) for name in ("nk1", "nk2", "nk3")),
            spin=spin,
            smearing="fixed" if smearing is None else str(smearing.text).strip(),
            width_ev=0.0 if smearing is None else round(EV * float(smearing.get("degauss")), 4),
        ),
        energy_ev=EV * (float(output.find("total_energy/etot").text) - (entropy / 2)),
        electronic_converged=_flag(output.find("convergence_info/scf_conv/convergence_achieved")),
        ionic_converged=_flag(optimized) if moved else True,
        levels=found,
        fermi_level_ev=None if fermi is None else EV * float(fermi.text),
        magnetization_mu_b=None if moment is None else abs(moment),
        charge=None if charge is None else float(charge.text),
        vacuum_level_ev=espresso_potential.vacuum_level(path, structure),
    )
