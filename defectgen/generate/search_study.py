"""A search for stable crystals in a folder: draws and relaxations that go on, at the end a study of stability."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from defectgen.errors import DefectgenError, UsageError
from defectgen.generate.crystal_request import CrystalRequest, bulk_card, open_generator, weights_hash
from defectgen.generate.crystal_search import Complete, CrystalSearch, check_search, completing, search_crystals
from defectgen.generate.sampling import Check, CrystalJob
from defectgen.io.crystal_files import NamedCrystal
from defectgen.io.run_settings import claim_settings
from defectgen.llm.decode.generator import Generator, Sampling
from defectgen.score.potentials.potential import Potential
from defectgen.stability.assessment import RelaxationSettings, judge, relax_all
from defectgen.stability.hull import Hull
from defectgen.stability.study import Study, element_references, open_hull, open_potential, run_study
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


@dataclass(frozen=True)
class StableSearch:
    """What a search has found.

    Attributes:
        found: draws and crystals.
        study: of their stability.
        settings: of the search.
    """

    found: CrystalSearch
    study: Study
    settings: Mapping[str, object]


def run_search(
    request: CrystalRequest,
    model: str,
    hull: str,
    output: Path,
    *,
    n: int,
    method: str,
    potential: str = "m3gnet",
    m3gnet: str | None = None,
    sampling: Sampling,
    seed: int = 0,
    max_draws: int | None = None,
    watch: Watch = unwatched,
    say: Callable[[str], None] = lambda _: None,
) -> StableSearch:
    """Search by a model, a potential and a hull that are named; the model is loaded when something is to be drawn.

    Args:
        request: what is asked.
        model: folder of an adapter, or a base model.
        hull: known compounds, see `defectgen.stability.study.open_hull`.
        output: folder of the search, claimed; one that was stopped goes on.
        n: crystals to relax.
        method: see `search_crystals`.
        potential: what relaxes them.
        m3gnet: M3GNet, if it is that.
        sampling: how tokens are drawn.
        seed: of the draws.
        max_draws: at most so many.
        watch: told how far it is.
        say: takes messages.

    Raises:
        UsageError: see `search_stable`; or the folder holds something else, or a search with other settings.
        DefectgenError: see `search_stable`.
    """
    check_search(n, method)
    card = bulk_card(model)
    job = request.job(card)
    known, loaded = open_hull(hull), open_potential(potential, m3gnet)
    judging = Judge(loaded, known, Path(hull), RelaxationSettings(loaded.name))
    judging.require_known(job)
    facts = request.facts(model, card, sampling)
    settings = {
        **{key: facts[key] for key in sorted(facts) if key != "batch_size"},
        "weights": weights_hash(model),
        "conditions": request.stated,
        "max_atoms": job.max_atoms,
        "elements": list(job.elements),
        "method": method,
        "seed": seed,
        "hull": known.source,
        "potential": loaded.name,
    }
    claim_settings(output, "search", settings)

    @cache
    def generator() -> Generator:
        say(f"loading {model} ...")
        return open_generator(model, card, request)

    texts, checks = completing(generator, job, sampling), request.checks()
    found, study = search_stable(
        job, texts, judging, n, output, method=method, seed=seed, checks=checks, max_draws=max_draws, watch=watch
    )
    return StableSearch(found, study, settings)


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
