"""The evaluation of generated crystals: which sets are compared, all metrics, and rows of earlier evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from defectgen import __version__
from defectgen.errors import UsageError
from defectgen.io.documents import read_object
from defectgen.metrics.crystal_metrics import measure
from defectgen.metrics.definitions import published
from defectgen.metrics.generated_entries import Crystals, GapPredictor, read_entries
from defectgen.watch import Watch, unwatched

SAMPLES = "samples.parquet"

NAMED_PROBLEMS = 20
"""So many of the crystals that cannot be read are named in the result; all are counted."""


@dataclass(frozen=True)
class CrystalSets:
    """What is judged, and what with.

    Attributes:
        files: crystals to judge, see `defectgen.metrics.generated_entries.read_entries`.
        reference: crystals to be covered, e.g. a test part.
        training: crystals that a novel one differs from.
        stability: table of energies above the hull, row by row of `files`.
        limit: judge a random sample of so many.
        reference_limit: take a random sample of so many of `reference` and of `training`.
        seed: of the samples.
    """

    files: tuple[Path, ...]
    reference: Path | None = None
    training: Path | None = None
    stability: Path | None = None
    limit: int | None = None
    reference_limit: int | None = None
    seed: int = 0

    def judged(self) -> Crystals:
        """The crystals to judge.

        Raises:
            UsageError: no crystals, or a table of energies of other ones.
            DefectgenError: none of the crystals can be read, unless they are a generator's draws.
        """
        found = read_entries(self.files)
        if not found.has_draws:
            found.require_readable()
        if self.stability is not None:
            found = found.with_stability(self.stability)
        return found.sampled(self.limit, self.seed)

    def compared(self) -> tuple[Crystals | None, Crystals | None]:
        """Reference and training set, each None if there is none; one object if both are the same files.

        Raises:
            UsageError: see `judged`, or a set of refused draws only.
            DefectgenError: none of the crystals can be read.
        """
        reference = self._others(self.reference) if self.reference else None
        if self.training is None:
            return reference, None
        return reference, reference if self.training == self.reference else self._others(self.training)

    def settings(self) -> dict[str, Any]:
        """The same in types of JSON."""
        return {
            "files": [str(path) for path in self.files],
            **{
                key: None if path is None else str(path)
                for key, path in (
                    ("reference", self.reference), ("training", self.training), ("stability", self.stability),
                )
            },
            "limit": self.limit,
            "reference_limit": self.reference_limit,
            "seed": self.seed,
        }  # fmt: skip

    def _others(self, path: Path) -> Crystals:
        found = read_entries([path]).accepted()
        if not found.entries:
            raise UsageError(f"{path} holds refused draws only.", "Give crystals to compare with.")
        found.require_readable()
        return found.sampled(self.reference_limit, self.seed)


def evaluate_crystals(
    sets: CrystalSets,
    name: str,
    store: Path | None = None,
    watch: Watch = unwatched,
    gaps: GapPredictor | None = None,
) -> dict[str, Any]:
    """All metrics of a set of crystals beside the published ones, in types of JSON.

    Args:
        sets: what is judged, and what with.
        name: of the row.
        store: folder that keeps fingerprints.
        watch: told how far it is.
        gaps: predicts band gaps, for those asked for; None leaves them out.

    Returns:
        ``name``, ``defectgen`` (version), ``settings``, ``counts``, ``metrics``, ``by_atoms``, ``by_asked``,
        ``failures``, ``notes`` (see `defectgen.metrics.crystal_metrics.Report`), ``unreadable`` (of all sets, the first
        `NAMED_PROBLEMS` with ``name`` and ``reason``), ``skipped`` (files of the folders) and ``published``.
    """
    judged, (reference, training) = sets.judged(), sets.compared()
    if gaps is not None:
        judged = judged.with_gaps(gaps)
    report = measure(judged, reference, training, store, watch)
    others = [other for other in (reference, None if training is reference else training) if other is not None]
    everything = [judged, *others]
    unreadable = [entry for found in everything for entry in found.accepted().entries if entry.crystal is None]
    skipped = [path for found in everything for path in found.left_out]
    return {
        "name": name,
        "defectgen": __version__,
        "settings": sets.settings(),
        "counts": report.counts,
        "metrics": report.metrics,
        "by_atoms": report.by_atoms,
        "by_asked": report.by_asked,
        "failures": report.failures,
        "notes": list(report.notes),
        "unreadable": [{"name": item.name, "reason": item.problem} for item in unreadable[:NAMED_PROBLEMS]],
        "skipped": [str(path) for path in skipped],
        "published": published(),
    }


def row_name(path: Path) -> str:
    """How a row of these crystals is called: after the folder, the folder of a table of samples, or the file."""
    place = path.resolve()
    if place.is_dir():
        return place.name
    return place.parent.name if place.name == SAMPLES else place.stem


def earlier_rows(paths: Sequence[Path], name: str) -> dict[str, Mapping[str, Any]]:
    """Metrics of earlier evaluations by name of the row.

    Args:
        paths: files of `evaluate_crystals`.
        name: of the new row.

    Raises:
        UsageError: two rows of one name, or a file without metrics.
    """
    rows: dict[str, Mapping[str, Any]] = {}
    for path in paths:
        try:
            data = read_object(path, {"name": str, "metrics": dict})
            earlier, metrics = str(data["name"]), {key: item["value"] for key, item in data["metrics"].items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path} holds no metrics of `defectgen evaluate bulk`.", "Give its -o file.") from error
        if earlier in (name, *rows):
            raise UsageError(f"two rows are named {earlier!r}, one in {path}.", "Give each evaluation its own --name.")
        rows[earlier] = metrics
    return rows
