"""The forms of hand-over by short name, and the one function that writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from defectgen.core import Host
from defectgen.core.registry import Registry, breaks, require_type
from defectgen.errors import UsageError
from defectgen.exports.items import ExportItem, What, export_items
from defectgen.io.files import require_writable, write_whole

RELAX_MAKER = "atomate2.vasp.jobs.core:RelaxMaker"


@dataclass(frozen=True)
class ExportOptions:
    """What a form of hand-over may be told.

    Attributes:
        maker: ``package.module:Class`` of the job that jobflow runs for each structure.
    """

    maker: str = RELAX_MAKER


@dataclass(frozen=True)
class Exporter:
    """One form of hand-over.

    Attributes:
        description: one line.
        suffix: of its file.
        write: writes one file that does not exist yet; returns what the reader has to know, a line each.
    """

    description: str
    suffix: str
    write: Callable[[Path, Sequence[ExportItem], ExportOptions], Sequence[str]]


def _check(name: str, item: Exporter) -> None:
    require_type("export", name, item, Exporter)
    if not callable(item.write):
        raise breaks("export", name, "its write cannot be called")


def _doped(path: Path, items: Sequence[ExportItem], _: ExportOptions) -> Sequence[str]:
    from defectgen.exports.defect_entries import write_doped

    return write_doped(path, items)


def _defects(path: Path, items: Sequence[ExportItem], _: ExportOptions) -> Sequence[str]:
    from defectgen.exports.defect_entries import write_defects

    return write_defects(path, items)


def _jobflow(path: Path, items: Sequence[ExportItem], options: ExportOptions) -> Sequence[str]:
    from defectgen.exports.flows import write_flow

    return write_flow(path, items, options.maker)


def _optimade(path: Path, items: Sequence[ExportItem], _: ExportOptions) -> Sequence[str]:
    from defectgen.exports.optimade import write_optimade

    return write_optimade(path, items)


def _db(path: Path, items: Sequence[ExportItem], _: ExportOptions) -> Sequence[str]:
    from defectgen.exports.ase_db import write_db

    return write_db(path, items)


EXPORTERS: Registry[Exporter] = Registry("export", "exports", _check)
EXPORTERS.built_in(
    {
        "doped": Exporter("DefectEntry objects of doped, which its DefectsSet takes (extra exports)", ".json", _doped),
        "defects": Exporter(
            "pymatgen-analysis-defects: DefectEntry with an energy, else Defect (extra exports)", ".json", _defects
        ),
        "jobflow": Exporter("a flow of jobflow, by default atomate2's relaxation in VASP", ".json", _jobflow),
        "optimade": Exporter("structures as an OPTIMADE response", ".json", _optimade),
        "db": Exporter("ASE's database with values as key-value pairs", ".db", _db),
    }
)


def export(
    what: What | Iterable[What],
    path: Path | str,
    to: str,
    *,
    host: Host | None = None,
    options: ExportOptions | None = None,
    overwrite: bool = False,
    left_out: list[str] | None = None,
) -> tuple[Path, tuple[str, ...]]:
    """Write structures in the form that another tool reads.

    Args:
        what: see `export_items`.
        path: of the file.
        to: ``doped``, ``defects``, ``jobflow``, ``optimade``, ``db``, or one that was added to `EXPORTERS`.
        host: what structure files decorate; None for any built-in host.
        options: see `ExportOptions`.
        overwrite: whether a file that is there is replaced.
        left_out: see `defectgen.dft.inputs.dft_inputs`.

    Returns:
        The file, and what the reader has to know, a line each.

    Raises:
        UsageError: an unknown form, nothing to export, or a file that is there.
        DefectgenError: a library that is missing, or files that cannot be read or written.
    """
    exporter = EXPORTERS.find(to)
    target = Path(path)
    if target.suffix.lower() != exporter.suffix:
        raise UsageError(f"got {target} for {to}, expected a file that ends in {exporter.suffix}.")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} is there already.", "Name another file, or pass --overwrite.")
    require_writable(target.parent)
    items = export_items(what, host, left_out)
    notes: list[str] = []
    write_whole(target, lambda part: notes.extend(exporter.write(part, items, options or ExportOptions())))
    return target, tuple(notes)
