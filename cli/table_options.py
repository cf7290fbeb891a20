"""The options of commands that take a table of one's own values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from defectgen_cli.options import SupercellOption
from defectgen_cli.output import say

if TYPE_CHECKING:
    from defectgen.core import Host


@dataclass(frozen=True)
class TableOptions:
    """A table in place of 2DMD, and what its rows decorate."""

    table: Annotated[
        Path | None,
        typer.Option("--table", metavar="FILE", help="Your own values, .parquet or .csv, in place of 2DMD."),
    ] = None
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="NAME|FILE", help="With --table: known host, or CIF or POSCAR of a unit cell."),
    ] = None
    supercell: SupercellOption = None
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow", metavar="EL:SP[,SP]", help="With --table: defects of the host, e.g. W:Mo,VAC; several times."
        ),
    ] = None

    def find_host(self) -> Host | None:
        """The host that is named; None if the table has to carry it.

        Raises:
            UsageError: a host that is not known, or options without a table or host.
        """
        from defectgen.core.hosts import common_title, is_known_name
        from defectgen.data.own_table import has_keys_alone
        from defectgen.errors import UsageError
        from defectgen.io.host_files import host_of_options

        given = {"--host": self.host, "--supercell": self.supercell, "--allow": self.allow}
        if self.table is None and any(given.values()):
            raise UsageError(
                f"{next(k for k, v in given.items() if v)} is for --table.", "Leave it out, or add --table."
            )
        host = host_of_options(self.host, self.supercell, self.allow)
        named = self.host is not None and self.supercell is None and is_known_name(self.host)
        if host is not None and named and self.table is not None and has_keys_alone(self.table):
            say(
                f"warning: {self.table} does not say of which supercell its keys are, they are read as of "
                f"{common_title(host)}: a key names other sites in each. Say it with --supercell."
            )
        return host


NO_TABLE = TableOptions()
