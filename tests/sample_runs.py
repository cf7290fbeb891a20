"""Design runs with made-up predictions, for everything that shows or writes them."""

from __future__ import annotations

import numpy as np

from defectgen.core import Configuration, Host, get_host
from defectgen.core.properties import COLUMNS
from defectgen.design.candidates import PRISTINE_VBM, Candidate, DesignRun, Target


def random_configuration(host: Host, n_defects: int, rng: np.random.Generator) -> Configuration:
    sites = [int(site) for site in rng.choice(host.n_sites, n_defects, replace=False)]
    return Configuration.of(host, {site: str(rng.choice(host.allowed[host.site_cell(site)[0]])) for site in sites})


def make_run(
    host_name: str = "MoS2",
    targets: tuple[Target, ...] = (Target("1", (("homo_ev", 0.05), ("lumo_ev", 1.15))),),
    n: int = 4,
    seed: int = 0,
    **changes: object,
) -> DesignRun:
    rng = np.random.default_rng(seed)
    host = get_host(host_name)
    candidates: list[Candidate] = []
    for target in targets:
        found: dict[str, Configuration] = {}
        while len(found) < n:
            configuration = random_configuration(host, int(rng.integers(1, 5)), rng).canonical()
            found[configuration.key] = configuration
        scored = []
        for configuration in found.values():
            predicted = {column: float(rng.normal(1.0, 0.2)) for column in COLUMNS}
            scored.append((target.distance_ev(predicted), configuration, predicted))
        scored.sort(key=lambda entry: entry[0])
        uncertainty = dict.fromkeys(COLUMNS, 0.1)
        candidates += [
            Candidate(rank, target, configuration, predicted, uncertainty, distance, rank % 2 == 1)
            for rank, (distance, configuration, predicted) in enumerate(scored, 1)
        ]
    given: dict[str, object] = {"settings": {"seed": seed, "seconds": 1.25, "model": "tiny"}, **changes}
    return DesignRun(host, PRISTINE_VBM, tuple(candidates), targets=targets, **given)  # type: ignore[arg-type]
