"""Crystals at several temperatures and nucleus sizes: what is gained in validity is lost in coverage.

Source: Gruver et al., ICLR 2024, appendix B.3 and figure 8 (arXiv 2402.04379).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from defectgen.errors import UsageError
from defectgen.generate.crystal_request import CrystalRequest, bulk_card, draw_from, open_generator, weights_hash
from defectgen.generate.sampling import Check, CrystalJob, Draw, sample_crystals, write_samples
from defectgen.io.documents import read_object
from defectgen.io.folders import MANIFEST
from defectgen.io.run_settings import claim_settings
from defectgen.llm.decode.generator import Sampling
from defectgen.metrics.crystal_evaluation import CrystalSets, evaluate_crystals
from defectgen.watch import Watch, unwatched

COLUMNS = (
    "raw_structural",
    "raw_compositional",
    "valid",
    "cov_recall",
    "cov_precision",
    "cov_recall_valid",
    "cov_precision_valid",
    "wasserstein_density",
    "wasserstein_elements",
)
"""Metrics in the table of a sweep."""


@dataclass(frozen=True)
class SweepPoint:
    """One way to draw.

    Attributes:
        temperature: of sampling.
        top_p: nucleus size.
    """

    temperature: float
    top_p: float

    @property
    def name(self) -> str:
        """Name of its folder, e.g. ``t0.7-p0.9``."""
        return f"t{self.temperature:g}-p{self.top_p:g}"


def points_of(temperatures: Sequence[float], top_ps: Sequence[float]) -> list[SweepPoint]:
    """All pairs, each once, in their order.

    Raises:
        UsageError: none, or a temperature or nucleus size that cannot be.
    """
    if not temperatures or not top_ps:
        raise UsageError("got no temperatures or no nucleus sizes, expected one of each at least.")
    if wrong := [t for t in temperatures if not 0 <= t < float("inf")]:
        raise UsageError(f"got temperature {wrong[0]:g}, expected 0 or more.")
    if wrong := [p for p in top_ps if not 0 < p <= 1]:
        raise UsageError(f"got nucleus size {wrong[0]:g}, expected more than 0 and at most 1.")
    return list(dict.fromkeys(SweepPoint(t, p) for p in top_ps for t in temperatures))


def is_done(folder: Path) -> bool:
    """Whether the draws of a point are all there."""
    try:
        return bool(read_object(folder / MANIFEST).get("complete"))
    except (OSError, ValueError):
        return False


def draw_point(
    point: SweepPoint,
    folder: Path,
    job: CrystalJob,
    draw: Draw,
    n: int,
    seed: int,
    checks: Sequence[Check],
    facts: Mapping[str, object],
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Draw `n` crystals at one point, without redraw, and write them as a folder of samples.

    An interrupted point leaves nothing, so that it is drawn as a whole by the next run.

    Raises:
        KeyboardInterrupt: it was interrupted.
        DefectgenError: what the engine fails with.
    """
    facts = {**facts, "temperature": point.temperature, "top_p": point.top_p}
    run = sample_crystals(job, draw, n, seed=seed, checks=checks, max_draws=n, facts=facts, progress=progress)
    if run.error is not None:
        raise run.error
    if not run.complete:
        raise KeyboardInterrupt
    write_samples(run, folder)


@dataclass(frozen=True)
class Sweep:
    """What a sweep has found.

    Attributes:
        rows: see `judge_points`.
        drawn: points that were drawn by this run; those of an earlier one are not drawn again.
        settings: of the draws.
    """

    rows: list[dict[str, Any]]
    drawn: int
    settings: Mapping[str, object]


def run_sweep(
    request: CrystalRequest,
    model: str,
    points: Sequence[SweepPoint],
    output: Path,
    reference: Path,
    *,
    n: int,
    seed: int = 0,
    batch_size: int = 64,
    store: Path | None = None,
    watch: Watch = unwatched,
    say: Callable[[str], None] = lambda _: None,
) -> Sweep:
    """Draw crystals at all points that a folder does not hold yet, and judge those of all points.

    Args:
        request: what is asked, without redraw.
        model: folder of an adapter, or a base model.
        points: how to draw.
        output: folder of the sweep, claimed; a folder in it for each point.
        reference: crystals to be covered.
        n: crystals to draw at each point.
        seed: of the draws.
        batch_size: crystals decoded at once.
        store: folder that keeps fingerprints.
        watch: told how far it is.
        say: takes messages.

    Raises:
        UsageError: the folder holds something else, or a sweep with other settings.
        KeyboardInterrupt: it was interrupted; see `draw_point`, as for others.
    """
    card = bulk_card(model)
    job = request.job(card)
    settings = {
        "model": model,
        "weights": weights_hash(model),
        "n": n,
        "seed": seed,
        "min_distance_angstrom": request.min_distance_angstrom,
        "radii": request.radii,
        "balance": request.balance_nats,
    }
    claim_settings(output, "sweep", settings)
    missing = [point for point in points if not is_done(output / point.name)]
    if missing:
        say(f"loading {model} ...")
        generator = open_generator(model, card, request)
    for point in missing:
        sampling = Sampling(temperature=point.temperature, top_p=point.top_p, batch_size=batch_size)
        draw = draw_from(generator, request, job, sampling)
        facts = request.facts(model, card, sampling) | {"max_draws": n}
        with watch(f"drawing {point.name}", n, "valid crystals") as advance:
            draw_point(point, output / point.name, job, draw, n, seed, request.checks(), facts, advance)
    return Sweep(judge_points(points, output, reference, store, watch), len(missing), settings)


def judge_points(
    points: Sequence[SweepPoint],
    folder: Path,
    reference: Path,
    store: Path | None = None,
    watch: Watch = unwatched,
) -> list[dict[str, Any]]:
    """The figures of all points, a row each.

    Args:
        points: whose draws are in `folder`.
        folder: of the sweep.
        reference: crystals to be covered.
        store: folder that keeps fingerprints.
        watch: told how far it is.

    Returns:
        ``temperature``, ``top_p``, ``draws``, the metrics of `COLUMNS`, and for shares the ends of their 95 %
        interval as ``NAME_low`` and ``NAME_high``.
    """
    rows = []
    for point in points:
        result = evaluate_crystals(CrystalSets((folder / point.name,), reference), point.name, store, watch)
        row: dict[str, Any] = {
            "temperature": point.temperature,
            "top_p": point.top_p,
            "draws": result["counts"]["draws"],
        }
        for name in COLUMNS:
            metric = result["metrics"].get(name, {})
            row[name] = metric.get("value")
            if "interval_95" in metric:
                row[f"{name}_low"], row[f"{name}_high"] = metric["interval_95"]
        rows.append(row)
    return rows
