"""An output format: all structures in one file, a line each with name and edits."""

from collections.abc import Sequence
from pathlib import Path

import defectgen as dg
from defectgen.io.writers import OutputStructure


class EditLists:
    """For structures that decorate a host."""

    suffix = ".edits"
    several = True

    def write(self, path: Path, structures: Sequence[OutputStructure]) -> None:
        lines = []
        for item in structures:
            assert isinstance(item.structure, dg.Configuration)
            lines.append(f"{item.name} {item.structure.key}\n")
        path.write_text("".join(lines))


EDIT_LISTS = EditLists()
