from itertools import product

import numpy as np
import pytest
from sample_runs import random_configuration

from defectgen.core import VACANCY, Configuration, get_host
from defectgen.report.scene import scene


def poscar(text: str) -> tuple[np.ndarray, list[tuple[str, np.ndarray]]]:
    """Axes, and element and position of each atom, in angstrom."""
    lines = text.splitlines()
    axes = np.array([line.split() for line in lines[2:5]], dtype=float)
    elements = [e for e, n in zip(lines[5].split(), lines[6].split(), strict=True) for _ in range(int(n))]
    return axes, [(e, np.array(row.split(), dtype=float) @ axes) for e, row in zip(elements, lines[8:], strict=True)]


@pytest.mark.parametrize(("name", "n_defects"), [("MoS2", 1), ("MoS2", 5), ("BN", 8), ("GaSe", 3), ("P", 4)])
def test_sites_are_where_the_poscar_has_them(name: str, n_defects: int) -> None:
    configuration = random_configuration(get_host(name), n_defects, np.random.default_rng(n_defects))
    found = scene(configuration)
    axes, atoms = poscar(found.poscar)
    assert len(found.sites) == n_defects
    for site in found.sites:
        near = [element for element, position in atoms if np.linalg.norm(position - site.position) < 1e-3]
        assert near == ([] if site.species == VACANCY else [site.species])
        assert np.array(site.frac) @ axes == pytest.approx(np.array(site.position), abs=1e-9)
        assert f"{site.species}@{site.site}" in configuration.key.split("+")


@pytest.mark.parametrize("seed", range(4))
def test_lines_are_the_shortest_that_join_all_defects(seed: int) -> None:
    configuration = random_configuration(get_host("WSe2"), 7, np.random.default_rng(seed))
    found = scene(configuration)
    axes, _ = poscar(found.poscar)
    positions = np.array([site.position for site in found.sites])
    images = [i * axes[0] + j * axes[1] for i, j in product(range(-2, 3), repeat=2)]
    lengths = np.array([[min(np.linalg.norm(b + v - a) for v in images) for b in positions] for a in positions])
    reached, total = {0}, 0.0
    while len(reached) < len(positions):  # Prim's tree is as short as Kruskal's
        length, new = min((lengths[a, b], b) for a in reached for b in range(len(positions)) if b not in reached)
        reached.add(new)
        total += length
    assert sum(line.length_angstrom for line in found.distances) == pytest.approx(total)
    for line in found.distances:
        assert np.linalg.norm(np.subtract(line.end, line.start)) == pytest.approx(line.length_angstrom)
    np.fill_diagonal(lengths, np.inf)
    assert [site.nearest_angstrom for site in found.sites] == pytest.approx(lengths.min(axis=1).tolist())


def test_a_pair_across_the_border_is_joined_through_it() -> None:
    host = get_host("MoS2")
    configuration = Configuration.of(host, {host.parse_site("B00"): VACANCY, host.parse_site("B70"): VACANCY})
    found = scene(configuration)
    assert [site.label for site in found.sites] == ["v_S 1", "v_S 2"]
    assert [(site.nearest, round(site.nearest_angstrom, 2)) for site in found.sites] == [
        ("v_S 2", 3.19),
        ("v_S 1", 3.19),
    ]
    (line,) = found.distances
    assert np.subtract(line.end, line.start) == pytest.approx([-3.1903157, 0, 0], abs=1e-6)
    assert all(site.layer == "bottom" for site in found.sites)


def test_a_single_defect_has_no_distance() -> None:
    host = get_host("BN")
    (site,) = scene(Configuration.of(host, {3: VACANCY})).sites
    assert (site.nearest, site.nearest_angstrom) == ("", 0.0)
    assert scene(Configuration.of(host, {})).sites == ()
