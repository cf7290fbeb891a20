"""All metrics of a set of crystals in one go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from defectgen.core.crystal import Crystal
from defectgen.core.interval import counted_share
from defectgen.errors import DefectgenError
from defectgen.metrics import crystal_matching, fingerprint_distances
from defectgen.metrics.atom_distances import far_enough, radii_apart
from defectgen.metrics.by_asked import distances_from_asked, figures_by_asked
from defectgen.metrics.by_atoms import shares_by_atoms
from defectgen.metrics.charge_balance import smact_valid
from defectgen.metrics.fingerprint_distances import Fingerprints
from defectgen.metrics.fingerprint_store import structure_fingerprints
from defectgen.metrics.fingerprints import (
    COMPOSITION_SIZE,
    STRUCTURE_SIZE,
    Vector,
    composition_fingerprint,
    scale_composition,
)
from defectgen.metrics.generated_entries import Crystals, Entry
from defectgen.metrics.met_conditions import CHECKED, METASTABLE_EV, STABLE_EV, checkable, meets, unreadable
from defectgen.watch import Watch

Metric = dict[str, Any]
"""``value`` (None if there is none), ``n`` and ``of`` (numerator and denominator of a share), ``why`` if None."""

NO_TRAINING = "needs --training"
NO_REFERENCE = "needs --reference"
NO_EXTRA = "needs the extra bulk"


@dataclass(frozen=True)
class JudgedCrystal:
    """An entry with what the cheap rules say; a rule that cannot be asked has None."""

    entry: Entry
    far_enough: bool
    radii_apart: bool
    smact: bool | None

    @property
    def valid(self) -> bool:
        return self.far_enough and self.smact is not False

    def is_below(self, limit_ev: float) -> bool:
        """Whether it is valid with an energy above the hull below a limit in eV/atom."""
        energy = self.entry.e_above_hull_ev
        return self.valid and energy is not None and energy < limit_ev


@dataclass(frozen=True)
class Report:
    """What was measured.

    Attributes:
        metrics: by name of `definitions.DEFINITIONS`; those that the input says nothing about are absent.
        counts: how many crystals of which kind.
        failures: how often each reason for an unreadable crystal or a missing fingerprint came up.
        notes: what to know when reading the figures.
        by_atoms: shares by the number of atoms in the cell, see `defectgen.metrics.by_atoms`.
        by_asked: band gaps and energies above the hull by asked value, see `defectgen.metrics.by_asked`.
    """

    metrics: dict[str, Metric]
    counts: dict[str, int]
    failures: dict[str, int]
    notes: tuple[str, ...]
    by_atoms: dict[str, dict[str, Metric]]
    by_asked: dict[str, dict[str, dict[str, Metric]]]


def measure(
    crystals: Crystals, reference: Crystals | None, training: Crystals | None, store: Path | None, watch: Watch
) -> Report:
    """Measure a set of crystals.

    Args:
        crystals: what is evaluated.
        reference: crystals of the distribution to be met, for coverage and distributions; None leaves them out.
        training: crystals that a new one must differ from; None leaves novelty out.
        store: folder for fingerprints (see `fingerprint_store`).
        watch: shows progress.
    """
    notes: list[str] = []
    smact_problem = _problem(smact_valid, notes)
    composition_problem = _problem(composition_fingerprint, notes)
    with watch("checking", len(crystals.entries), "crystals") as advance:
        draws = [_judge(entry, smact_problem, advance) for entry in crystals.entries]
    judged = [item for item in draws if item.entry.accepted]
    metrics = _validity(draws, judged, crystals.has_draws, smact_problem)
    metrics |= _conditions(judged, crystals)
    entries = [item.entry for item in judged]
    metrics |= distances_from_asked(entries, crystals)
    strange = {condition: sum(unreadable(item.entry, condition) for item in judged) for condition in CHECKED}
    notes += [f"{n} asked values of {name} cannot be read and count as not asked" for name, n in strange.items() if n]
    if smact_problem:
        notes.append("valid means structurally valid alone in what follows")
    failures = Counter(item.entry.problem for item in draws if item.entry.crystal is None)

    readable = [item for item in judged if item.entry.crystal is not None]
    with watch("fingerprints", len(readable), "crystals") as advance:
        prints = structure_fingerprints([_crystal(item.entry) for item in readable], store, advance)
    failures.update(problem for problem in prints if isinstance(problem, str))
    known = {id(item): value for item, value in zip(readable, prints, strict=True) if not isinstance(value, str)}
    with_prints = [item for item in judged if id(item) in known]
    pool, pool_name = _pool(with_prints, crystals.stability_column)
    counts = {
        "draws": len(draws),
        "crystals": len(judged),
        "readable": len(readable),
        "valid": sum(item.valid for item in judged),
        "with_fingerprints": len(with_prints),
        "pool": len(pool),
    }
    notes.append(f"pool of diversity, novelty and uniqueness: {pool_name}")

    own = _fingerprints(with_prints, known, composition_problem)
    in_pool = {id(item) for item in pool}
    chosen = np.array([id(item) in in_pool for item in with_prints], dtype=bool)
    picked = own.only(chosen)
    others = _compared_prints(reference, "reference", store, watch, composition_problem)
    trained = others if training is reference else _compared_prints(
        training, "training", store, watch, composition_problem
    )  # fmt: skip
    for name, crystals_of, prints_of in (("reference", reference, others), ("training", training, trained)):
        if crystals_of is not None and prints_of is not None:
            counts |= {name: len(crystals_of.entries), f"{name}_with_fingerprints": len(prints_of.fingerprints)}
    metrics |= _coverage(own, others, len(judged), reference, composition_problem)
    valid = np.array([item.valid for item in with_prints], dtype=bool)
    metrics |= _coverage_of_valid(own.only(valid), others, reference, smact_problem or composition_problem)
    metrics |= _distributions(judged, reference)
    metrics |= _diversity(picked, others, composition_problem)
    metrics |= _novelty(picked, trained, others, composition_problem)
    metrics |= _uniqueness([_crystal(item.entry) for item in pool], len(judged), training, watch)
    if crystals.crystals_per_s is not None:
        metrics["crystals_per_hour"] = {"value": crystals.crystals_per_s * 3600}
    if crystals.partial_hull:
        notes.append(f"the hull is partial ({crystals.partial_hull}): shares of metastable crystals are upper bounds")
    if crystals.gap_source:
        notes.append(crystals.gap_source)
        if "hit_band_gap" not in metrics:
            notes.append("no crystal was asked for a band gap")
    by_atoms, by_asked = shares_by_atoms(judged, crystals), figures_by_asked(entries, crystals)
    return Report(metrics, counts, dict(failures.most_common()), tuple(notes), by_atoms, by_asked)


def _judge(entry: Entry, smact_problem: str, advance: Callable[[int], None]) -> JudgedCrystal:
    advance(1)
    if entry.crystal is None:
        return JudgedCrystal(entry, False, False, None if smact_problem else False)
    composition = None if smact_problem else smact_valid(entry.crystal)
    return JudgedCrystal(entry, far_enough(entry.crystal), radii_apart(entry.crystal), composition)


def _validity(
    draws: Sequence[JudgedCrystal], judged: Sequence[JudgedCrystal], has_draws: bool, smact_problem: str
) -> dict[str, Metric]:
    metrics: dict[str, Metric] = {}
    if has_draws:
        metrics["raw_parsed"] = share([item.entry.crystal is not None for item in draws])
        metrics["raw_structural"] = share([item.far_enough for item in draws])
        metrics["raw_compositional"] = share([bool(item.smact) for item in draws], smact_problem)
    metrics["parsed"] = share([item.entry.crystal is not None for item in judged])
    metrics["structural"] = share([item.far_enough for item in judged])
    metrics["structural_half_radius"] = share([item.radii_apart for item in judged])
    metrics["compositional"] = share([bool(item.smact) for item in judged], smact_problem)
    metrics["valid"] = share([item.valid for item in judged], smact_problem)
    return metrics


def _conditions(judged: Sequence[JudgedCrystal], crystals: Crystals) -> dict[str, Metric]:
    metrics = {}
    for condition in checkable(crystals):
        verdicts = [meets(item.entry, condition) for item in judged]
        if any(verdict is not None for verdict in verdicts):
            metrics[f"hit_{condition}"] = share([verdict for verdict in verdicts if verdict is not None])
            if crystals.stability_column and condition != "e_above_hull":
                both = [
                    v and item.is_below(METASTABLE_EV)
                    for item, v in zip(judged, verdicts, strict=True)
                    if v is not None
                ]
                metrics[f"hit_{condition}_metastable"] = share(both)
    if crystals.stability_column:
        metrics["metastable"] = share([item.is_below(METASTABLE_EV) for item in judged])
        metrics["stable"] = share([item.is_below(STABLE_EV) for item in judged])
        with_energy = [item.entry for item in judged if item.entry.e_above_hull_ev is not None]
        if any(entry.n_competing is not None for entry in with_energy):
            metrics["competitors_known"] = share([bool(entry.n_competing) for entry in with_energy])
    return metrics


def _pool(items: Sequence[JudgedCrystal], stability_column: str) -> tuple[list[JudgedCrystal], str]:
    if not stability_column:
        return [item for item in items if item.valid], "valid crystals with fingerprints"
    return [
        item for item in items if item.is_below(METASTABLE_EV)
    ], f"valid crystals below 0.1 eV/atom by {stability_column}"


def _fingerprints(items: Sequence[JudgedCrystal], known: dict[int, Vector], composition_problem: str) -> Fingerprints:
    structure = np.array([known[id(item)] for item in items]).reshape(-1, STRUCTURE_SIZE)
    return Fingerprints(structure, _compositions([_crystal(item.entry) for item in items], composition_problem))


def _compositions(crystals: Sequence[Crystal], problem: str) -> Vector:
    if problem or not crystals:
        return np.zeros((len(crystals), COMPOSITION_SIZE))
    return scale_composition(np.array([composition_fingerprint(crystal) for crystal in crystals]))


@dataclass(frozen=True)
class _Compared:
    """A set that crystals are compared with: its crystals that have fingerprints, and these."""

    crystals: tuple[Crystal, ...]
    fingerprints: Fingerprints


def _compared_prints(
    crystals: Crystals | None, title: str, store: Path | None, watch: Watch, composition_problem: str
) -> _Compared | None:
    if crystals is None:
        return None
    readable = [entry.crystal for entry in crystals.entries if entry.crystal is not None]
    with watch(f"fingerprints of {title}", len(readable), "crystals") as advance:
        prints = structure_fingerprints(readable, store, advance)
    good = [(crystal, p) for crystal, p in zip(readable, prints, strict=True) if not isinstance(p, str)]
    structure = np.array([p for _, p in good]).reshape(-1, STRUCTURE_SIZE)
    found = tuple(crystal for crystal, _ in good)
    return _Compared(found, Fingerprints(structure, _compositions(found, composition_problem)))


def _coverage(
    own: Fingerprints, others: _Compared | None, n_all: int, reference: Crystals | None, problem: str
) -> dict[str, Metric]:
    names = ("cov_recall", "cov_precision", "cov_recall_same", "cov_precision_same")
    if others is None or reference is None or problem:
        return {name: {"value": None, "why": problem or NO_REFERENCE} for name in names}
    there = others.fingerprints
    recall, precision = fingerprint_distances.nearest(there, own), fingerprint_distances.nearest(own, there)
    hits = (recall.covered, precision.covered, recall.together, precision.together)
    totals = (len(reference.entries), n_all) * 2
    return {name: rate(int(hit.sum()), total) for name, hit, total in zip(names, hits, totals, strict=True)}


def _coverage_of_valid(
    own: Fingerprints, others: _Compared | None, reference: Crystals | None, problem: str
) -> dict[str, Metric]:
    """Coverage as Gruver et al. count it: invalid crystals have no fingerprint, on either side.

    Their ``basic_eval.py`` makes fingerprints of valid crystals alone and divides by the number of these.

    Args:
        own: fingerprints of the valid crystals.
        others: the reference.
        reference: whether there is one.
        problem: why validity or fingerprints cannot be had, or empty.
    """
    names = ("cov_recall_valid", "cov_precision_valid")
    if others is None or reference is None or problem:
        return {name: {"value": None, "why": problem or NO_REFERENCE} for name in names}
    valid = np.array([far_enough(crystal) and smact_valid(crystal) for crystal in others.crystals], dtype=bool)
    there = others.fingerprints.only(valid)
    hits = fingerprint_distances.nearest(there, own).covered, fingerprint_distances.nearest(own, there).covered
    return {name: rate(int(hit.sum()), len(hit)) for name, hit in zip(names, hits, strict=True)}


def _distributions(judged: Sequence[JudgedCrystal], reference: Crystals | None) -> dict[str, Metric]:
    if reference is None:
        return {f"wasserstein_{name}": {"value": None, "why": NO_REFERENCE} for name in ("density", "elements")}
    own = [_crystal(item.entry) for item in judged if item.valid]
    others = [entry.crystal for entry in reference.entries if entry.crystal is not None]
    density = fingerprint_distances.wasserstein(_densities(own), _densities(others))
    elements = fingerprint_distances.wasserstein(
        np.array([float(len(crystal.elements)) for crystal in own]),
        np.array([float(len(crystal.elements)) for crystal in others]),
    )
    return {
        "wasserstein_density": _value(density, len(own), "no valid crystals"),
        "wasserstein_elements": _value(elements, len(own), "no valid crystals"),
    }


def _densities(crystals: Sequence[Crystal]) -> Vector:
    return np.array([float(crystal.to_structure().density) for crystal in crystals])


def _diversity(picked: Fingerprints, others: _Compared | None, problem: str) -> dict[str, Metric]:
    metrics: dict[str, Metric] = {}
    for name in ("structure", "composition"):
        why = problem if name == "composition" else ""
        value = None if why else fingerprint_distances.mean_distance(getattr(picked, name))
        base = (
            None if others is None or why else fingerprint_distances.mean_distance(getattr(others.fingerprints, name))
        )
        metrics[f"diversity_{name}"] = _value(value, len(picked), why or "fewer than two crystals in the pool")
        ratio = value / base if value is not None and base else None
        metrics[f"diversity_{name}_relative"] = _value(ratio, len(picked), why or NO_REFERENCE)
    return metrics


def _novelty(
    picked: Fingerprints, trained: _Compared | None, others: _Compared | None, problem: str
) -> dict[str, Metric]:
    names = ("novel_structure", "novel_composition", "novel")
    if trained is None:
        return {f"{name}{end}": {"value": None, "why": NO_TRAINING} for name in names for end in ("", "_relative")}
    found = fingerprint_distances.novel(picked, trained.fingerprints)
    metrics = {name: share(found[name].tolist(), "" if name == "novel_structure" else problem) for name in names}
    base = None if others is None else fingerprint_distances.novel(others.fingerprints, trained.fingerprints)
    for name in names:
        metric, usual = metrics[name], None if base is None or not len(base[name]) else float(base[name].mean())
        value = metric["value"] / usual if metric["value"] is not None and usual else None
        why = metric.get("why") or (NO_REFERENCE if usual is None else "no crystal of the reference is novel")
        metrics[f"{name}_relative"] = _value(value, metric["of"], why)
    return metrics


def _uniqueness(pool: Sequence[Crystal], n_all: int, training: Crystals | None, watch: Watch) -> dict[str, Metric]:
    with watch("matching", len(pool), "crystals") as advance:
        firsts = crystal_matching.groups(pool, advance)
    first = [index == own for own, index in enumerate(firsts)]
    metrics = {"unique": share(first)}
    if training is None:
        missing: Metric = {"value": None, "why": NO_TRAINING}
        return metrics | {"new": missing, "new_unique": missing}
    others = [entry.crystal for entry in training.entries if entry.crystal is not None]
    with watch("matching with training", len(pool), "crystals") as advance:
        new = [not same for same in crystal_matching.known(pool, others, advance)]
    both = sum(a and b for a, b in zip(first, new, strict=True))
    return metrics | {"new": share(new), "new_unique": rate(both, n_all)}


def share(hits: Sequence[bool], problem: str = "") -> Metric:
    """A share with numerator and denominator, or why there is none."""
    return {"value": None, "of": len(hits), "why": problem} if problem else rate(sum(hits), len(hits))


def rate(n: int, of: int) -> Metric:
    """A share, with its 95 % interval, see `counted_share`."""
    if not of:
        return {"value": None, "n": 0, "of": 0, "why": "none of them"}
    return counted_share(n, of)


def _value(value: float | None, of: int, why: str) -> Metric:
    return {"value": value, "of": of} if value is not None else {"value": None, "of": of, "why": why}


def _problem(function: Callable[[Crystal], object], notes: list[str]) -> str:
    """Why a metric cannot be had at all, empty if it can; a note says what to do."""
    try:
        function(Crystal((1.0, 1.0, 1.0), (90.0, 90.0, 90.0), ("H",), ((0.0, 0.0, 0.0),)))
    except DefectgenError as error:
        notes.append(str(error))
        return NO_EXTRA
    return ""


def _crystal(entry: Entry) -> Crystal:
    if entry.crystal is None:
        raise ValueError(f"{entry.name} is no crystal")
    return entry.crystal
