"""A flow of jobflow: one job for each structure, by any maker, by default atomate2's relaxation in VASP.

jobflow: Rosen et al., J Open Source Softw 9, 5995 (2024), doi 10.21105/joss.05995.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from defectgen.errors import DefectgenError, UsageError
from defectgen.exports.items import ExportItem
from defectgen.extras import import_extra


def write_flow(path: Path, items: Sequence[ExportItem], maker: str) -> list[str]:
    """The flow in the JSON that ``monty.serialization.loadfn`` reads.

    Raises:
        UsageError: a maker that is none.
        DefectgenError: jobflow or the maker's package is not installed.
    """
    from monty.json import MontyEncoder

    path.write_text(json.dumps(flow_of(items, maker), cls=MontyEncoder) + "\n", encoding="utf-8")
    return []


def flow_of(items: Sequence[ExportItem], maker: str) -> Any:
    """A `jobflow.Flow` with a job a structure, each named as the structure and with its configuration in the metadata.

    Args:
        items: the structures.
        maker: ``package.module:Class`` of a `jobflow.Maker` whose ``make`` takes a structure.
    """
    made = _maker(maker)
    jobflow = import_extra("jobflow", "exports", "This export")
    jobs = []
    for item in items:
        job = made.make(item.structure)
        job.name = f"{item.name} {job.name}"
        job.update_metadata(
            {"host": item.configuration.host.title, "configuration": item.configuration.key, **item.values}
        )
        jobs.append(job)
    return jobflow.Flow(jobs, name=f"defects of {items[0].configuration.host.title}")


def _maker(name: str) -> Any:
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise UsageError(f"got the maker {name!r}, expected e.g. atomate2.vasp.jobs.core:RelaxMaker.")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise DefectgenError(
            f"the maker {name} cannot be imported ({reason:.140}).",
            "Install its package, in an environment of its own if it wants another pymatgen; or name another --maker.",
        ) from error
    try:
        made = found() if callable(found) else found
    except TypeError:  # a function, or a class that wants arguments
        made = None
    if not callable(getattr(made, "make", None)):
        raise UsageError(f"{name} is no maker of jobflow.", "Expected a class with a method make(structure).")
    return made
