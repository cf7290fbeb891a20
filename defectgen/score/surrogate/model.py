"""The surrogate: predicted levels and energies of a configuration in milliseconds."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from defectgen.core import Configuration, Host, parse_label
from defectgen.core.hosts import common_name
from defectgen.core.properties import COLUMNS, MAGNETIZATION, USUAL
from defectgen.errors import DefectgenError, UsageError
from defectgen.models import SHIPPED_SURROGATE, shipped
from defectgen.score.metadata import read_metadata
from defectgen.score.network.network_file import NetworkFile
from defectgen.score.protocol import uncertainty_column
from defectgen.score.surrogate.host_models import HostModels, file_name
from defectgen.score.trees import load_trees

if TYPE_CHECKING:
    from catboost import CatBoostRegressor

FORMAT_VERSION = 5
METADATA = "surrogate.json"
SEEN = "seen.txt"
NETWORK = "network-{}.safetensors"
"""Name of the file of a host's networks."""
DENSITIES = ("low", "high")
ADVICE = "Train one with: defectgen surrogate train --data DIR -o MODEL"


def trained_defects(folder: Path) -> dict[str, int]:
    """For each host of a surrogate the largest number of defects in a training row; no model is loaded.

    Raises:
        DefectgenError: no surrogate in the folder, or damaged metadata.
    """
    most: dict[str, int] = {}
    try:
        for part in read_metadata(folder / METADATA, FORMAT_VERSION, "surrogate", ADVICE)["parts"]:
            name = part["host"]["name"]
            most[name] = max(int(part["defects_range"][1]), most.get(name, 0))
    except (LookupError, TypeError, ValueError) as error:
        raise DefectgenError(f"{folder / METADATA} is damaged ({type(error).__name__}: {error}).") from error
    return most


def digest(host: str, key: str) -> str:
    """Short name of a symmetry class: 12 hexadecimal digits of host and canonical key."""
    return hashlib.sha256(f"{host}/{key}".encode()).hexdigest()[:12]


@cache
def _is_within(label: str, labels: tuple[str, ...]) -> bool:
    """Whether one of the labels holds all the defects of the first."""
    defects = parse_label(label)
    return any(defects <= other for other in _parsed(labels))


@cache
def _parsed(labels: tuple[str, ...]) -> tuple[Counter[tuple[str, str]], ...]:
    return tuple(parse_label(label) for label in labels)


@lru_cache(maxsize=64)
def _are_alike(host: Host, other: Host) -> bool:
    return host is other or host == other or host.is_like(other)


def _in_host(item: Configuration, host: Host) -> Configuration:
    """The decoration in a host that is like its own, whose rules may be others."""
    return item if item.host is host else Configuration(host, item.edits)


def _trees(folder: Path, part: Mapping[str, Any]) -> dict[str, CatBoostRegressor]:
    """The trees of a part by column."""
    models = part["models"]["models"]
    wanted = [column for column, model in models.items() if model["trees"]]
    host = str(part["host"]["name"])
    if part["density"] not in DENSITIES or Path(host).name != host:
        raise ValueError(f"no such part: {host} {part['density']}")
    return {column: load_trees(folder / file_name(host, part["density"], column)) for column in wanted}


def file_hashes(folder: Path) -> dict[str, str]:
    """Checksums of everything in a folder that its metadata answers for."""
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.iterdir())
        if file.suffix in (".cbm", ".safetensors") or file.name == SEEN
    }


def _check_files(folder: Path, expected: object) -> None:
    """Compare the files with the checksums in the metadata.

    Raises:
        DefectgenError: a file is missing, too many, or another one than was trained.
    """
    if not isinstance(expected, dict):
        raise DefectgenError(f"{folder / METADATA} is damaged (no checksums).")
    found = file_hashes(folder)
    for name in sorted({*expected, *found}):
        if found.get(name) != expected.get(name):
            wrong = "is missing" if name not in found else "is not the file that was trained"
            raise DefectgenError(f"{folder / name} {wrong}.", "Get the folder again, or train a new surrogate.")


@dataclass(frozen=True, repr=False)
class Surrogate:
    """Trained models of several hosts; a `defectgen.score.protocol.Scorer`.

    A configuration whose defects are some or all of those of a low-density training row of its host goes to
    the low-density models, any other to the high-density models if there are any.

    Attributes:
        parts: the models of each host and density.
        metadata: all of ``surrogate.json``.
        seen: digests of the configurations of the training and validation rows.
        networks: by name of the host those that have a share in its crowded cells.
    """

    parts: tuple[HostModels, ...]
    metadata: Mapping[str, Any]
    seen: frozenset[str]
    networks: Mapping[str, NetworkFile] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Surrogate({len(self.parts)} parts for {', '.join(self.hosts)}, {len(self.seen)} structures seen)"

    @classmethod
    def load(cls, folder: Path | None = None) -> Surrogate:
        """The surrogate in a folder, by default the one that comes with the package.

        Raises:
            DefectgenError: a missing or damaged file, or another format.
        """
        folder = shipped(SHIPPED_SURROGATE) if folder is None else Path(folder)
        metadata = read_metadata(folder / METADATA, FORMAT_VERSION, "surrogate", ADVICE)
        _check_files(folder, metadata.get("files"))
        seen = (folder / SEEN).read_text(encoding="ascii", errors="replace").split()
        try:
            parts = tuple(HostModels.from_dict(values, _trees(folder, values)) for values in metadata["parts"])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise DefectgenError(f"{folder / METADATA} is damaged ({type(error).__name__}: {error}).") from error
        networks: dict[str, NetworkFile] = {}
        for part in (part for part in parts if part.network is not None):
            file = folder / NETWORK.format(part.host)
            if not file.is_file():
                raise DefectgenError(f"{file} is missing.", "Get the folder again, or train a new surrogate.")
            networks[part.host] = NetworkFile.load(file)
            if not networks[part.host].covers(part.core_host):
                raise DefectgenError(
                    f"{file} does not cover {part.core_host.title} and its defects.",
                    "Get the folder again, or train a new surrogate.",
                )
        return cls(parts, metadata, frozenset(seen), networks)

    @cached_property
    def quick(self) -> Surrogate:
        """The same without its networks: by the processes alone."""
        return replace(self, networks={}) if self.networks else self

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that it knows."""
        return tuple(sorted({part.host for part in self.parts}))

    @property
    def knows_2dmd(self) -> bool:
        """Whether it learnt the values of 2DMD: only then its labels may stand beside the predictions."""
        return str(self.metadata.get("data", "")).startswith("2DMD (")

    @property
    def level_scales(self) -> dict[str, Mapping[str, Any]]:
        """The level scale of each set as plain values, for `defectgen.core.level_scale.LevelScale.from_dict`."""
        return {part.set_name: part.level_scale for part in self.parts if part.level_scale is not None}

    def part_for(self, configuration: Configuration) -> HostModels:
        """The part that scores a configuration.

        Raises:
            UsageError: a host or supercell that it was not trained for.
        """
        host = configuration.host
        parts = {part.density: part for part in self._parts_of(host.name)}
        some = next(iter(parts.values()))
        if (some.supercell, some.core_host.n_basis) != (host.size, host.n_basis):
            kind = "" if host.n_basis == some.core_host.n_basis else f" of a unit cell with {host.n_basis} atoms"
            raise UsageError(
                f"the surrogate knows {common_name(host)} in cells of {some.supercell}, got {host.size}{kind}: "
                "it does not cover this supercell."
            )
        if not _are_alike(host, some.core_host):
            raise UsageError(
                f"the surrogate was trained on {host.title} with its sites in another order or place.",
                "Use the host that it carries: defectgen.read_host(FOLDER).",
            )
        if len(parts) == 1:
            return some
        low = parts["low"]
        crowded = configuration.n_defects > low.defects_range[1]  # its label, which is slow to find, is not needed
        return parts["high" if crowded or not _is_within(configuration.label, tuple(low.labels)) else "low"]

    def why_not(self, configuration: Configuration) -> str:
        """Why a configuration has no value; empty if it has one. See `defectgen.score.protocol.BoundedScorer`."""
        host = configuration.host
        most = max((part.defects_range[1] for part in self._parts_of(host.name)), default=0)
        if configuration.n_defects <= most:
            return ""
        return (
            f"the surrogate has seen {host.title} with {most} changed sites at most, "
            f"got {configuration.n_defects}: it knows nothing of such a cell."
        )

    def has_seen(self, host: str, key: str) -> bool:
        """Whether the configuration with this canonical key is among the training or validation rows."""
        return digest(host, key) in self.seen

    def score(self, configurations: Sequence[Configuration]) -> pl.DataFrame:
        """See `defectgen.score.protocol.Scorer.score`.

        Values of a property are null where the training data had none, or only one: no magnetic cells, say. All are
        null for a configuration with more changed sites than any training row of its host has, see `why_not`.
        Networks have a share in crowded cells, which take 1.4 to 2 times as long: `quick` goes without.
        """
        rows: dict[tuple[str, str], list[int]] = {}
        parts: dict[tuple[str, str], HostModels] = {}
        for item in configurations:
            if not item.n_defects:
                raise UsageError(f"the surrogate predicts cells with defects, got pristine {common_name(item.host)}.")
        for row, item in enumerate(configurations):
            part = self.part_for(item)
            parts[part.host, part.density] = part
            rows.setdefault((part.host, part.density), []).append(row)
        n = len(configurations)
        learnt = {*USUAL, MAGNETIZATION, *(column for part in self.parts for column in part.models.models)}
        names = [column for column in COLUMNS if column in learnt]
        values = {name: np.full(n, np.nan) for name in names}
        widths = {name: np.full(n, np.nan) for name in names}
        known = np.zeros(n, dtype=bool)
        for key, part in parts.items():
            chosen = [_in_host(configurations[row], part.core_host) for row in rows[key]]
            labels = [item.label if part.density == "low" else "" for item in chosen]
            predicted, half, known[rows[key]] = part.score(chosen, labels, self.networks.get(part.host))
            for name in predicted:
                if name in values:
                    values[name][rows[key]], widths[name][rows[key]] = predicted[name], half[name]
        beyond = [row for row, item in enumerate(configurations) if self.why_not(item)]
        for name in names:
            values[name][beyond], widths[name][beyond] = np.nan, np.nan
        columns = {}
        for name in names:
            columns[name] = pl.Series(values[name]).fill_nan(None)
            columns[uncertainty_column(name)] = pl.Series(widths[name]).fill_nan(None)
        return pl.DataFrame({**columns, "in_domain": known})

    @cached_property
    def _by_host(self) -> dict[str, list[HostModels]]:
        return {host: [part for part in self.parts if part.host == host] for host in self.hosts}

    def _parts_of(self, host: str) -> list[HostModels]:
        if host not in self._by_host:
            raise UsageError(
                f"the surrogate does not know {common_name(host)}.",
                f"It was trained for {', '.join(map(common_name, self.hosts))}.",
            )
        return self._by_host[host]
