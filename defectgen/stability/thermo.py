"""Energies of the Materials Project for phase diagrams, route ``materials/thermo`` of its web interface."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from defectgen.web import MaterialsProject

THERMO_TYPE = "GGA_GGA+U"
"""The hull of PBE energies with MP2020 corrections, with which M3GNet's and CHGNet's can be compared."""

PAGE = 1000
"""Documents in one request."""

SYSTEMS = 100
"""Chemical systems in one request: their names stand in its address, whose length is limited."""


def competing_energies(project: MaterialsProject, elements: Sequence[str]) -> list[tuple[str, float]]:
    """All compounds of some elements and of any part of them.

    Args:
        project: the interface.
        elements: symbols.

    Returns:
        Formula and corrected energy in eV an atom of each.

    Raises:
        DefectgenError: no connection, a key that is not accepted, or an answer of another form.
    """
    sizes = range(1, len(elements) + 1)
    systems = ["-".join(part) for size in sizes for part in itertools.combinations(sorted(elements), size)]
    parts = [systems[start : start + SYSTEMS] for start in range(0, len(systems), SYSTEMS)]
    return [row for part in parts for row in _compounds(project, part)]


def _compounds(project: MaterialsProject, systems: Sequence[str]) -> list[tuple[str, float]]:
    """Formula and energy of all compounds of some systems, page by page."""
    query = {
        "chemsys": ",".join(systems),
        "thermo_types": THERMO_TYPE,
        "_fields": "material_id,formula_pretty,energy_per_atom",
    }
    found: list[tuple[str, float]] = []
    while True:
        page = project.page("materials/thermo", query, len(found), PAGE)
        try:
            found += [(str(row["formula_pretty"]), float(row["energy_per_atom"])) for row in page.documents]
        except (ValueError, KeyError, TypeError) as error:
            raise project.foreign() from error
        if not page.documents or len(found) >= page.total:
            return found
