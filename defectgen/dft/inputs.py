"""From structures to a folder of DFT inputs: each defect's cell, the pristine host, the elemental phases."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import defectgen
from defectgen.core import Configuration, Host, NotADecorationError, canonicalize
from defectgen.core.matching import known_configuration
from defectgen.core.slab import NotALayerError
from defectgen.core.whole import is_whole
from defectgen.dft.calculation import (
    Calculation,
    calculation_names,
    defect_calculation,
    element_calculation,
    exchanged,
    host_calculation,
    note_on_charges,
)
from defectgen.dft.codes import CODES, DftCode
from defectgen.dft.readme import readme_text
from defectgen.dft.settings import DEFAULT, DftSettings, load_settings
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.documents import read_object
from defectgen.io.folders import claimed, contents, listing, write_folder
from defectgen.io.structures import read_structure, read_structures
from defectgen.one_line import OneLine, encodable, typed

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from defectgen.design.candidates import DesignRun

MANIFEST = "inputs.json"

MOVED_ANGSTROM = 0.05
"""Atoms farther from their sites than this show a relaxed cell, which the calculation starts from."""

MAX_CHARGE = 10


@dataclass(frozen=True, repr=False)
class DftInputs(OneLine):
    """A folder of inputs.

    Attributes:
        folder: where they are.
        code: name of the DFT code.
        host: what the cells decorate.
        calculations: defects in the order given, charge by charge, then the host, then the elements.
        notes: what the user has to know, each once.
    """

    folder: Path
    code: str
    host: Host
    calculations: tuple[Calculation, ...]
    notes: tuple[str, ...]


def dft_inputs(
    what: Configuration | DesignRun | Path | str | Iterable[Configuration | Path | str],
    folder: Path | str,
    code: str = "vasp",
    *,
    settings: DftSettings | Path | str = DEFAULT,
    charges: int | Sequence[int] = (0,),
    host: Host | None = None,
    elements: Mapping[str, Path] | None = None,
    references: bool | Literal["only"] = True,
    relax: str | None = None,
    left_out: list[str] | None = None,
) -> DftInputs:
    """Write the inputs of a DFT code for defects, their host and the elemental phases.

    Args:
        what: configurations, a design run, or paths of its folder or of structure files. Those that a symmetry of the
            host makes equal are computed once; a relaxed structure is where its calculation starts.
        folder: where to; it must not exist, or be empty.
        code: ``vasp``, ``gpaw``, ``qe``, or one that was added.
        settings: by name (``2dmd``, ``mp``, ``lcao``), a YAML file, or as they are.
        charges: one or several, of each defect's cell, in elementary charges; -1 is one electron more.
        host: what the structures decorate; None for that of the configurations, or any built-in one.
        elements: structure files of elemental phases by element, instead of the usual ones.
        references: whether host and elemental phases are written too; ``only`` for these alone.
        relax: potential that moves the atoms of the defects' cells before: ``chgnet`` or ``m3gnet``; None for none.
        left_out: a list to which files and frames that cannot be taken are added, with the reason, while there are
            others; None: the first such is an error.

    Raises:
        UsageError: no structures, several hosts, an unknown code or settings, a charge that is none, what the code
            cannot do, or a folder that is not empty or cannot be written.
        DefectgenError: a structure that cannot be read, a full disk, or another run has the folder.
    """
    implementation = CODES.find(code)
    chosen = settings if isinstance(settings, DftSettings) else load_settings(settings)
    target = Path(folder)
    wanted = _charges(charges)
    with claimed(target) as claim:
        if contents(target) and not claim.continued:
            raise UsageError(f"{target} is not an empty folder.", "Name another one.")
        found = _distinct(_configurations(what, host, left_out))
        hosts = list(dict.fromkeys(item.host for item, _ in found))
        if len(hosts) != 1:
            names = ", ".join(f"{item.name} {item.size}" for item in hosts)
            raise UsageError(f"got decorations of {names}, expected one host and supercell.", "Make a folder for each.")
        if relax is not None:
            found = _relaxed(found, relax)
        calculations = _calculations(found, hosts[0], chosen, wanted, elements or {}, references)
        if not calculations:
            raise UsageError(
                "got no defects, and no references are wanted: nothing to compute.", "Leave out --no-references."
            )
        made = DftInputs(target, code, hosts[0], tuple(calculations), ())

        def fill(new: Path) -> None:
            nonlocal made
            made = replace(made, notes=_write(calculations, new, implementation, chosen))
            (new / "README.md").write_text(encodable(readme_text(made, implementation.title, chosen)), encoding="utf-8")
            about = _manifest(made, chosen) | {"files": listing(new)}
            (new / MANIFEST).write_text(
                encodable(json.dumps(about, indent=2, ensure_ascii=False)) + "\n", encoding="utf-8"
            )

        write_folder(target, fill, MANIFEST)
    return made


def read_manifest(folder: Path) -> tuple[Host, dict[str, dict[str, Any]]]:
    """Host and calculations (by name) of a folder that `dft_inputs` wrote.

    Raises:
        DefectgenError: no such folder, or a damaged manifest.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DefectgenError(f"{folder} holds no {MANIFEST}.", "Expected a folder that defectgen inputs wrote.")
    values = read_object(path, {"tool": str, "host": dict, "calculations": list})
    try:
        return Host.from_dict(values["host"]), {item["name"]: item for item in values["calculations"]}
    except (KeyError, TypeError, ValueError) as error:
        raise DefectgenError(f"{path}: is damaged ({error}).", "Write the inputs again.") from error


def _charges(charges: int | Sequence[int]) -> tuple[int, ...]:
    wanted = tuple(charges) if isinstance(charges, Iterable) else (charges,)
    bad = [charge for charge in wanted if not is_whole(charge) or abs(charge) > MAX_CHARGE]
    if not wanted or bad or len(set(wanted)) < len(wanted):
        raise UsageError(
            f"got charges {list(wanted)}, expected whole numbers from -{MAX_CHARGE} to {MAX_CHARGE}, each once."
        )
    return tuple(int(charge) for charge in wanted)


Found = tuple[Configuration, "Structure | None"]


def _configurations(what: Any, host: Host | None, left_out: list[str] | None) -> list[Found]:
    candidates = getattr(what, "candidates", None)
    if candidates is not None:
        return [
            (item.configuration, item.relaxation.structure if item.relaxation and item.relaxation.usable else None)
            for item in candidates
        ]
    if isinstance(what, Configuration | Path | str):
        what = [what]
    found: list[Found] = []
    for item in what:
        if isinstance(item, Configuration):
            found.append((item, None))
        elif isinstance(item, Path | str):
            found += [
                (configuration, structure if _moved(configuration, structure) else None)
                for _, configuration, structure in read_decorations(Path(item), host, left_out)
            ]
        else:
            got = typed(item)
            raise UsageError(f"got {got}, expected a Configuration, a design run or the path of structures.")
    if not found and left_out:
        raise DefectgenError(left_out[0])
    if not found:
        raise UsageError("got no structures, expected at least one.")
    return found


def read_decorations(
    path: Path, host: Host | None, left_out: list[str] | None = None
) -> Iterator[tuple[str, Configuration, Structure]]:
    """Name, configuration and atoms of each structure in a file or folder.

    Args:
        path: see `defectgen.io.structures.read_structures`.
        host: what they decorate; None for any built-in one.
        left_out: see `dft_inputs`.

    Raises:
        DefectgenError: a file that cannot be read, or a structure that decorates no such host.
    """
    phases = _elements(path)
    for item in read_structures(path):
        if any(Path(item.name).is_relative_to(phase) for phase in phases):
            continue
        try:
            configuration = _decoration(item.name, item.structure, item.note, host)
        except DefectgenError as error:
            if left_out is None:
                raise
            left_out.append(str(error))
        else:
            assert item.structure is not None
            yield item.name, configuration, item.structure


def _elements(folder: Path) -> list[Path]:
    """Calculations of elemental phases, which decorate no host, in the folders of inputs below a folder."""
    found = []
    for manifest in sorted(folder.rglob(MANIFEST)) if folder.is_dir() else ():
        with contextlib.suppress(DefectgenError):  # it is damaged: then all files below are taken as structures
            _, calculations = read_manifest(manifest.parent)
            found += [manifest.parent / name for name, item in calculations.items() if item["role"] == "element"]
    return found


def _decoration(name: str, structure: Structure | None, note: str, host: Host | None) -> Configuration:
    if structure is None:
        raise DefectgenError(f"{name}: {note}.")
    try:
        return known_configuration(structure, host)
    except NotADecorationError as error:
        unnamed = host is None and not isinstance(error, NotALayerError)
        hint = "Name the host with --host, --supercell and --allow." if unnamed else ""
        raise DefectgenError(f"{name}: {error}", hint) from error


def _moved(configuration: Configuration, structure: Structure) -> bool:
    """Whether atoms have left their sites: distances between atoms differ from the unrelaxed ones."""
    import numpy as np

    ideal = configuration.to_structure()
    first, second = (np.sort(item.distance_matrix, axis=None) for item in (ideal, structure))
    return bool(np.abs(first - second).max() > MOVED_ANGSTROM)


def _distinct(found: Sequence[Found]) -> list[Found]:
    """Each configuration once, up to symmetry, with its relaxed structure if there is one; without pristine ones."""
    keys = [(item.host, item.edits) for item in canonicalize([configuration for configuration, _ in found])]
    kept: dict[Any, Found] = {}
    for key, item in zip(keys, found, strict=True):
        if item[0].edits and (key not in kept or (kept[key][1] is None and item[1] is not None)):
            kept[key] = item
    return list(kept.values()) or list(found[:1])


def _relaxed(found: Sequence[Found], name: str) -> list[Found]:
    """The cells with their atoms where a potential moves them."""
    from defectgen.data.assets import cache_dir
    from defectgen.score.potentials.relaxation import relax
    from defectgen.score.scorers import ScorerOptions, load_potential

    scorer = load_potential(name, ScorerOptions(cache=cache_dir() / "matgl"))
    moved: list[Found] = []
    for configuration, start in found:
        outcome = relax(start or configuration.to_structure(), scorer.potential)
        if not outcome.usable:
            raise DefectgenError(
                f"{scorer.potential.name} cannot relax {configuration.label} ({outcome.summary}).",
                "Leave --relax out, or let the code relax.",
            )
        moved.append((configuration, outcome.structure))
    return moved


def _calculations(
    found: Sequence[Found],
    host: Host,
    settings: DftSettings,
    charges: Sequence[int],
    elements: Mapping[str, Path],
    references: bool | Literal["only"],
) -> list[Calculation]:
    defects = [item for item in found if item[0].edits]
    reservoirs = {symbol for configuration, _ in defects for symbol in exchanged(configuration)}
    if references == "only":
        defects = []
    names = iter(calculation_names([configuration for configuration, _ in defects], charges))
    made = [
        defect_calculation(configuration, settings, next(names), charge, relaxed)
        for configuration, relaxed in defects
        for charge in charges
    ]
    if not references:
        return made
    made.append(host_calculation(host, settings))
    for symbol in sorted(reservoirs | set(elements)):
        given = read_structure(elements[symbol]) if symbol in elements else None
        made.append(element_calculation(symbol, settings, given))
    return made


def _write(calculations: Sequence[Calculation], folder: Path, code: DftCode, settings: DftSettings) -> tuple[str, ...]:
    notes: dict[str, None] = dict.fromkeys(note_on_charges(calculations))
    for calculation in calculations:
        place = folder / calculation.name
        place.mkdir()
        notes |= dict.fromkeys(code.write(calculation, settings, place))
    return tuple(notes)


def _manifest(made: DftInputs, settings: DftSettings) -> dict[str, Any]:
    return {
        "tool": "defectgen",
        "version": defectgen.__version__,
        "code": made.code,
        "settings": settings.model_dump(mode="json"),
        "host": made.host.to_dict(),
        "calculations": [
            {
                "name": item.name,
                "role": item.role,
                "about": item.about,
                "configuration": item.configuration.key if item.configuration else None,
                "charge": item.charge,
                "spin": item.spin,
                "mesh": list(item.mesh),
                "atoms": len(item.structure),
            }
            for item in made.calculations
        ],
        "notes": list(made.notes),
    }
