"""A search for stable crystals in a folder: draws and relaxations that go on, at the end a study of stability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from defectgen.errors import DefectgenError, UsageError
from defectgen.generate.crystal_search import Complete, CrystalSearch, search_crystals
from defectgen.generate.sampling import Check, CrystalJob
from defectgen.io.crystal_files import NamedCrystal
from defectgen.score.potentials.potential import Potential
from defectgen.stability.assessment import RelaxationSettings, judge, relax_all
from defectgen.stability.hull import Hull
from defectgen.stability.study import Study, element_references, run_study
from defectgen.watch import Watch, unwatched


@dataclass(frozen=True)
class Judge:
    """What relaxes crystals and tells how far they lie above a hull.

    Attributes:
        potential: what computes the energies.
        hull: to compare with.
        hull_file: where it comes from.
        settings: of the relaxations.
    """

    potential: Potential
    hull: Hull
    hull_file: Path
    settings: RelaxationSettings

    def require_known(self, job: CrystalJob) -> None:
        """Make sure, before anything is drawn, that crystals of the wanted formula can be judged.

        Raises:
            UsageError: the potential never saw one of the elements.
            NoReferenceError: the hull does not know one of them.
        """
        if job.composition is None:
            return
        from pymatgen.core import Composition

        if unknown := sorted(set(job.composition) - self.potential.elements):
            raise UsageError(f"{self.potential.name} never saw {', '.join(unknown)}.", "Ask for another formula.")
        self.hull.above(Composition(dict(job.composition)), 0.0)


def search_stable(
    job: CrystalJob,
    complete: Complete,
    judging: Judge,
    n: int,
    folder: Path,
    *,
    method: str,
    seed: int = 0,
    checks: Sequence[Check] = (),
    max_draws: int | None = None,
    watch: Watch = unwatched,
) -> tuple[CrystalSearch, Study]:
    """Search crystals, and write them, the lowest energy above the hull first, as a study of stability.

    Args:
        job: what is asked.
        complete: where texts come from.
        judging: gives the energies.
        n: crystals to relax.
        folder: of the search, claimed.
        method: see `search_crystals`, as the following ones.
        seed: of the draws.
        checks: refuse crystals before they are relaxed.
        max_draws: at most so many.
        watch: told how far it is.

    Raises:
        UsageError: see `search_crystals`.
        DefectgenError: no draw passed the checks; see also `defectgen.stability.study.run_study`.
    """
    hull, potential, settings = judging.hull, judging.potential, judging.settings
    references = element_references(hull, judging.hull_file, None, potential, settings, folder, watch)
    with watch("drawing and relaxing", n, "crystals") as advance:

        def energies(crystals: Sequence[NamedCrystal]) -> list[float | None]:
            rows = relax_all(crystals, potential, settings, folder, advance=advance)
            return judge(rows, hull, references)["e_above_hull_ev_per_atom"].to_list()

        search = search_crystals(
            job, complete, energies, n, folder, method=method, seed=seed, checks=checks, max_draws=max_draws
        )
    if not search.found:
        raise DefectgenError(f"none of {search.draws} draws is a crystal that passes the checks.")
    ranked = [found.crystal for found in search.ranked]
    study = run_study(ranked, hull, potential, settings, folder, hull_file=judging.hull_file, watch=watch)
    return search, study
