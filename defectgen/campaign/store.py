"""The state of a campaign: an ASE SQLite database, one row a structure."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from defectgen.core import Configuration, Host
from defectgen.core.properties import COLUMNS
from defectgen.errors import DefectgenError
from defectgen.io.files import FULL
from defectgen.io.locks import try_lock
from defectgen.one_line import OneLine

if TYPE_CHECKING:
    from pymatgen.core import Structure

PROPOSED, RUNNING, DONE, FAILED = STATES = ("proposed", "running", "done", "failed")

LOCK = ".lock"

PREDICTED, WIDTH = "predicted_", "width_"
"""Before a column: its value when the structure was proposed, and the half-width of the 90 % interval."""

PATIENCE_S = 60.0
"""How long to wait for another run that changes the database."""

SAID_AFTER_S = 2.0
"""After so long the wait is said."""

POLL_S = 0.1

DISK = (*FULL, "disk I/O error")
"""What SQLite says of a disk that takes no more."""


@dataclass(frozen=True, repr=False)
class StructureRow(OneLine):
    """One structure.

    Attributes:
        id: in the database; 0 before it is there.
        configuration: canonical.
        state: one of `STATES`.
        round: in which it was proposed, from 1; 0 for one that was added before any.
        origin: why it is there, e.g. ``space-filling``, ``band_gap_ev=0.900``, ``added``.
        predicted: when it was proposed, by column.
        widths: half-widths of the 90 % intervals then.
        computed: by column.
        settings: of what was computed, as `defectgen.dft.layer_settings.LayerSettings.text` gives them.
        place: folder of its calculation below ``calculations``; empty before.
        reason: why it failed.
        cpu_s: CPU time of its calculation; 0 if not known.
    """

    id: int
    configuration: Configuration
    state: str = PROPOSED
    round: int = 0
    origin: str = ""
    predicted: Mapping[str, float] = field(default_factory=dict)
    widths: Mapping[str, float] = field(default_factory=dict)
    computed: Mapping[str, float] = field(default_factory=dict)
    settings: str = ""
    place: str = ""
    reason: str = ""
    cpu_s: float = 0.0

    @property
    def key(self) -> str:
        """Canonical key of the configuration."""
        return self.configuration.key

    def values(self) -> dict[str, Any]:
        """As key-value pairs of ASE's database, which knows neither null nor a text that looks like a number."""
        texts = {
            "key": self.key, "label": self.configuration.label, "state": self.state, "origin": self.origin,
            "settings": f"id-{self.settings}" if self.settings else "", "place": self.place, "reason": self.reason,
        }  # fmt: skip
        numbers = {
            **{f"{PREDICTED}{column}": value for column, value in self.predicted.items()},
            **{f"{WIDTH}{column}": value for column, value in self.widths.items()},
            **self.computed,
            **({"cpu_s": self.cpu_s} if self.cpu_s else {}),
        }
        finite = {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
        return {**{name: text for name, text in texts.items() if text}, "round": self.round, **finite}


@dataclass(frozen=True)
class CampaignStore:
    """The database of a campaign.

    Attributes:
        path: of its file.
        host: what the structures decorate.
    """

    path: Path
    host: Host

    def create(self) -> None:
        """Make an empty database."""
        with self.changed(), _plain_errors(self.path):
            self._connect().count()

    def rows(self) -> list[StructureRow]:
        """All structures in the order in which they came.

        Raises:
            DefectgenError: the database is missing or damaged.
        """
        self._require()
        with _plain_errors(self.path):
            return [self._row(found) for found in self._connect().select(sort="id")]

    def settings(self) -> list[str]:
        """The settings of what is computed, each once; empty before any."""
        self._require()
        with _plain_errors(self.path), closing(sqlite3.connect(self.path)) as database:
            found = database.execute("SELECT DISTINCT value FROM text_key_values WHERE key = 'settings' ORDER BY value")
            return [str(value).removeprefix("id-") for (value,) in found]

    def get(self, identity: int) -> StructureRow:
        """One structure by its id."""
        self._require()
        with _plain_errors(self.path):
            return self._row(self._connect().get(identity))

    def structure(self, identity: int) -> Structure:
        """The atoms of a structure: as they were computed, else on the host's sites."""
        from pymatgen.io.ase import AseAtomsAdaptor

        self._require()
        with _plain_errors(self.path):
            return AseAtomsAdaptor.get_structure(self._connect().get(identity).toatoms())

    def add(self, rows: Sequence[StructureRow]) -> list[StructureRow]:
        """Put in new structures; those whose configuration is there already are left out. Hold `changed` around it.

        Args:
            rows: their `id` does not count; atoms are put on the host's sites.
        """
        known = {row.key for row in self.rows()}
        made = []
        with _plain_errors(self.path), self._connect() as database:
            for row in rows:
                if row.key in known:
                    continue
                known.add(row.key)
                made.append(replace(row, id=int(database.write(row.configuration.to_ase(), row.values()))))
        return made

    def update(self, row: StructureRow, structure: Structure | None = None) -> None:
        """Write a row anew, its atoms as in a structure if one is given. Hold `changed` around it."""
        with _plain_errors(self.path), self._connect() as database:
            before = database.get(row.id)
            gone = [name for name in before.key_value_pairs if name not in row.values()]
            database.update(
                row.id, atoms=None if structure is None else _atoms(structure), delete_keys=gone, **row.values()
            )

    @contextmanager
    def changed(self, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
        """Keep other runs from changing the database for a moment.

        Args:
            say: is told where another run is waited for.

        Raises:
            DefectgenError: another run holds it for longer than `PATIENCE_S`.
        """
        try:
            file = (self.path.parent / LOCK).open("ab")
        except OSError as error:
            raise DefectgenError(f"{self.path.parent} cannot be written ({error.strerror or error}).") from error
        with file:
            started, said = time.monotonic(), False
            while not try_lock(file):
                waited = time.monotonic() - started
                if waited > PATIENCE_S:
                    raise DefectgenError(
                        f"another run has held {self.path} for {waited:.0f} s.", "Wait for it to end, and try again."
                    )
                if waited > SAID_AFTER_S and not said:
                    said = True
                    say(f"waiting for another run that holds {self.path} ...")
                time.sleep(POLL_S)
            yield

    def _require(self) -> None:
        """Refuse a missing or empty file, which SQLite would take for a new database."""
        if not self.path.is_file() or not self.path.stat().st_size:
            what = "empty" if self.path.is_file() else "missing"
            raise DefectgenError(f"{self.path} is {what}.", "Put it back, or make a new campaign and add the results.")

    def _connect(self) -> Any:
        from ase.db import connect

        made: Any = connect
        return made(str(self.path), type="db", use_lock_file=False)

    def _row(self, found: Any) -> StructureRow:
        pairs: Mapping[str, Any] = found.key_value_pairs

        def some(prefix: str) -> dict[str, float]:
            return {column: float(pairs[prefix + column]) for column in COLUMNS if prefix + column in pairs}

        return StructureRow(
            id=int(found.id),
            configuration=Configuration.from_key(self.host, pairs["key"]),
            state=pairs["state"],
            round=int(pairs["round"]),
            origin=pairs.get("origin", ""),
            predicted=some(PREDICTED),
            widths=some(WIDTH),
            computed=some(""),
            settings=str(pairs.get("settings", "")).removeprefix("id-"),
            place=pairs.get("place", ""),
            reason=pairs.get("reason", ""),
            cpu_s=float(pairs.get("cpu_s", 0.0)),
        )


@contextmanager
def _plain_errors(path: Path) -> Iterator[None]:
    """What SQLite and ASE say of a database that cannot be read or written, in one line."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        text = str(error)
        if any(part in text for part in DISK):
            raise DefectgenError(f"{path}: no space left.", "Free some, then give the same command again.") from error
        advice = "Put back a copy, or make a new campaign and add the results."
        raise DefectgenError(f"{path} cannot be used ({text}).", advice) from error
    except (KeyError, ValueError) as error:
        raise DefectgenError(f"{path} is damaged ({type(error).__name__}: {error}).", "Put back a copy.") from error


def _atoms(structure: Structure) -> Any:
    from pymatgen.io.ase import AseAtomsAdaptor

    return AseAtomsAdaptor.get_atoms(structure, msonable=False)


def table_of(rows: Sequence[StructureRow]) -> dict[str, NDArray[np.float64]]:
    """Computed values by column, NaN where there is none, each of shape (n,)."""
    columns = [column for column in COLUMNS if any(column in row.computed for row in rows)]
    return {column: np.array([row.computed.get(column, np.nan) for row in rows], dtype=float) for column in columns}


def covered_by(rows: Sequence[StructureRow]) -> dict[str, list[float]]:
    """Least and largest computed value by column."""
    return {column: [float(np.nanmin(found)), float(np.nanmax(found))] for column, found in table_of(rows).items()}
