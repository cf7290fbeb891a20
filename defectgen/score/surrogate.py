"""The surrogate: predicted levels and energies of a configuration in milliseconds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from defectgen.core import Configuration, parse_label
from defectgen.core.properties import COLUMNS
from defectgen.errors import DefectgenError, UsageError
from defectgen.score.parts import Part
from defectgen.score.protocol import uncertainty_column
from defectgen.score.trees import load_trees

FORMAT_VERSION = 1
METADATA = "surrogate.json"
SEEN = "seen.txt"


def default_surrogate_dir() -> Path:
    """The trained surrogate that comes with the package."""
    return Path(__file__).parents[1] / "models" / "surrogate"


def digest(host: str, key: str) -> str:
    """Short name of a symmetry class: 12 hexadecimal digits of host and canonical key."""
    return hashlib.sha256(f"{host}/{key}".encode()).hexdigest()[:12]


@cache
def _is_within(label: str, labels: tuple[str, ...]) -> bool:
    """Whether one of the labels holds all the defects of the first."""
    return any(parse_label(label) <= parse_label(other) for other in labels)


@dataclass(frozen=True)
class Surrogate:
    """Trained models of several hosts; a `defectgen.score.protocol.Scorer`.

    A configuration whose defects are some or all of those of a low-density training row of its host goes to
    the low-density models, any other to the high-density models if there are any.

    Attributes:
        parts: the models of each host and density.
        metadata: all of ``surrogate.json``.
        seen: digests of the configurations of the training and validation rows.
    """

    parts: tuple[Part, ...]
    metadata: Mapping[str, Any]
    seen: frozenset[str]

    @classmethod
    def load(cls, folder: Path | None = None) -> Surrogate:
        """The surrogate in a folder, by default the one that comes with the package.

        Raises:
            DefectgenError: a missing or damaged file, or another format.
        """
        folder = default_surrogate_dir() if folder is None else Path(folder)
        try:
            metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
            seen = (folder / SEEN).read_text(encoding="ascii").split()
        except OSError as error:
            raise DefectgenError(
                f"{folder} holds no trained surrogate ({Path(error.filename or METADATA).name} cannot be read).",
                "Train one with: defectgen surrogate train --data DIR -o MODEL",
            ) from error
        except ValueError as error:
            raise DefectgenError(f"{folder / METADATA} is damaged ({error}).") from error
        version = metadata.get("format") if isinstance(metadata, dict) else None
        if version != FORMAT_VERSION:
            raise DefectgenError(
                f"{folder} holds a surrogate of format {version}, expected {FORMAT_VERSION}.", "Train it again."
            )
        try:
            names = [m["trees"] for part in metadata["parts"] for m in part["models"].values() if m["trees"]]
            trees = {name: load_trees(folder / name) for name in names if Path(name).name == name}
            parts = tuple(Part.from_dict(values, trees) for values in metadata["parts"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DefectgenError(f"{folder / METADATA} is damaged ({type(error).__name__}: {error}).") from error
        return cls(parts, metadata, frozenset(seen))

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that it knows."""
        return tuple(sorted({part.host for part in self.parts}))

    @property
    def level_scales(self) -> dict[str, Mapping[str, Any]]:
        """The level scale of each set as plain values, for `defectgen.data.levels.LevelScale.from_dict`."""
        return {part.set_name: part.level_scale for part in self.parts if part.level_scale is not None}

    def covered(self, host: str) -> dict[str, tuple[float, float]]:
        """Least and largest training value of each property of a host over its parts, in eV.

        Raises:
            UsageError: a host that it does not know.
        """
        ranges: dict[str, tuple[float, float]] = {}
        for part in self._parts_of(host):
            for name, (low, high) in part.covered_ev.items():
                old = ranges.get(name, (low, high))
                ranges[name] = min(old[0], low), max(old[1], high)
        return ranges

    def part_for(self, configuration: Configuration) -> Part:
        """The part that scores a configuration.

        Raises:
            UsageError: a host or supercell that it was not trained for.
        """
        host = configuration.host
        parts = {part.density: part for part in self._parts_of(host.name)}
        some = next(iter(parts.values()))
        if some.supercell != host.size:
            raise UsageError(f"the surrogate knows {host.name} in cells of {some.supercell}, got {host.size}.")
        if len(parts) == 1:
            return some
        return parts["low" if _is_within(configuration.label, tuple(parts["low"].labels)) else "high"]

    def has_seen(self, configuration: Configuration) -> bool:
        """Whether this symmetry class is among the training or validation rows."""
        return digest(configuration.host.name, configuration.canonical().key) in self.seen

    def score(self, configurations: Sequence[Configuration]) -> pl.DataFrame:
        """See `defectgen.score.protocol.Scorer.score`."""
        rows: dict[tuple[str, str], list[int]] = {}
        parts: dict[tuple[str, str], Part] = {}
        for row, item in enumerate(configurations):
            part = self.part_for(item)
            parts[part.host, part.density] = part
            rows.setdefault((part.host, part.density), []).append(row)
        n = len(configurations)
        values = {name: np.full(n, np.nan) for name in COLUMNS}
        widths = {name: np.full(n, np.nan) for name in COLUMNS}
        known = np.zeros(n, dtype=bool)
        for key, part in parts.items():
            chosen = [configurations[row] for row in rows[key]]
            for name, predicted in part.predict(chosen).items():
                values[name][rows[key]] = predicted
                widths[name][rows[key]] = part.half_widths(name, chosen)
            known[rows[key]] = [part.in_domain(item) for item in chosen]
        columns = {}
        for name in COLUMNS:
            columns[name] = pl.Series(values[name]).fill_nan(None)
            columns[uncertainty_column(name)] = pl.Series(widths[name]).fill_nan(None)
        return pl.DataFrame({**columns, "in_domain": known})

    @cached_property
    def _by_host(self) -> dict[str, list[Part]]:
        return {host: [part for part in self.parts if part.host == host] for host in self.hosts}

    def _parts_of(self, host: str) -> list[Part]:
        if host not in self._by_host:
            raise UsageError(f"the surrogate does not know {host}.", f"It was trained for {', '.join(self.hosts)}.")
        return self._by_host[host]
