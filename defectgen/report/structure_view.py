"""The 3D view of some structures on its own, for a notebook or as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from defectgen.io.files import write_text
from defectgen.report.element_colours import colour, muted_colour
from defectgen.report.lattice import VACANCY_COLOUR
from defectgen.report.pack import packed_json, packed_viewer
from defectgen.report.page_templates import template
from defectgen.report.rows import Row
from defectgen.report.scene import scene

HOST_SHARE = 0.3
"""Share of its own colour that an atom of the host has; the rest is grey."""

HEIGHT_PX = 640


@dataclass(frozen=True, repr=False)
class StructureView:
    """A page with the 3D view of some structures, as a notebook shows it.

    Attributes:
        page: the page, which needs nothing else (about 250 kB).
        n_structures: in it, one at a time.
    """

    page: str
    n_structures: int

    def __repr__(self) -> str:
        n = self.n_structures
        return f"StructureView({n} structure{'' if n == 1 else 's'})"

    def _repr_html_(self) -> str:
        return (
            f'<iframe title="3D view" sandbox="allow-scripts allow-downloads" loading="lazy" '
            f'style="width:100%;height:{HEIGHT_PX}px;border:0" srcdoc="{escape(self.page, quote=True)}"></iframe>'
        )

    def save(self, path: Path | str) -> Path:
        """Write the page to a file that any browser opens.

        Raises:
            DefectgenError: it cannot be written.
        """
        write_text(Path(path), self.page)
        return Path(path)


def view_of(rows: Sequence[Row], title: str) -> StructureView:
    """The 3D view of candidates.

    Args:
        rows: the candidates, in the order of the view.
        title: of the page.

    Raises:
        ValueError: there is none.
    """
    if not rows:
        raise ValueError("got no candidate to view, expected at least one")
    page = template("structure.html").render(
        title=title, structures=packed_json(rows_record(rows)), viewer=packed_viewer()
    )
    return StructureView(page + "\n", len(rows))


def rows_record(rows: Sequence[Row]) -> dict[str, object]:
    """What a page's scripts show and save: colours, and each structure by the name of its files."""
    found: dict[str, object] = {}
    elements: set[str] = set()
    for row in rows:
        record = {"title": f"#{row.candidate.rank} {row.configuration.label}", **scene(row.configuration).record()}
        if row.candidate.relaxation is not None:
            record["relaxed"] = str(row.candidate.relaxation.structure.to(fmt="cif"))
        found[row.name] = record
        elements |= {*row.configuration.host.elements, *(species for _, species in row.configuration.edits)}
    colours = {
        "elements": {element: colour(element) for element in sorted(elements)},
        "muted": {element: muted_colour(element, HOST_SHARE) for element in sorted(elements)},
        "vacancy": VACANCY_COLOUR,
    }
    return {"colours": colours, "structures": found}
