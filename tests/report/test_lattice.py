import xml.etree.ElementTree as ET

import numpy as np
import pytest
from sample_runs import random_configuration

from defectgen.core import VACANCY, Configuration, get_host, host_names
from defectgen.report.lattice import lattice_svg
from defectgen.report.site_positions import centring_shift, layer_names, top_view

MAX_BYTES = 25_000


def elements(svg: str) -> list[ET.Element]:
    return list(ET.fromstring(svg).iter())


def sites_of(svg: str) -> tuple[list[ET.Element], list[ET.Element]]:
    """Elements of all sites and of the changed ones."""
    classes = [(element, element.get("class", "").split()) for element in elements(svg)]
    return [e for e, c in classes if "s" in c], [e for e, c in classes if "d" in c]


@pytest.mark.parametrize("name", host_names())
@pytest.mark.parametrize("n_defects", [0, 1, 3, 10])
def test_every_site_is_drawn_once_and_exactly_the_edited_ones_are_marked(name: str, n_defects: int) -> None:
    host = get_host(name)
    configuration = random_configuration(host, n_defects, np.random.default_rng(n_defects))
    svg = lattice_svg(configuration)
    sites, defects = sites_of(svg)
    assert len(sites) == host.n_sites
    assert sorted(e.attrib["data-site"] for e in defects) == sorted(host.site_name(s) for s, _ in configuration.edits)
    assert len(svg.encode()) < MAX_BYTES


def test_a_vacancy_is_a_hollow_dashed_ring_and_a_substitution_a_filled_one_with_its_symbol() -> None:
    host = get_host("MoS2")
    svg = lattice_svg(Configuration.of(host, {0: VACANCY, 1: "W"}))
    _, defects = sites_of(svg)
    marks = {element.attrib["data-site"]: element for element in defects}
    assert "stroke-dasharray" in marks["A00"].attrib
    assert "fill" not in marks["A00"].attrib  # the picture's own fill is none
    assert "stroke-dasharray" not in marks["A01"].attrib
    assert marks["A01"].attrib["fill"].startswith("#")
    texts = [element.text for element in elements(svg) if element.tag.endswith("text")]
    assert texts.count("W") == 1
    assert "vacancy" in texts
    assert "W, substituted" in texts


@pytest.mark.parametrize("name", ["MoS2", "WSe2", "GaSe", "InSe"])
def test_the_top_atom_is_the_upper_half(name: str) -> None:
    host = get_host(name)
    assert len(set(layer_names(host))) >= 2
    for basis, layer in enumerate(layer_names(host)):
        if not layer:
            continue
        site = host.site_index(basis, 2, 3)
        (mark,) = sites_of(lattice_svg(Configuration.of(host, {site: VACANCY})))[1]
        title = next(iter(mark)).text
        assert title is not None
        assert title.endswith(layer)
        width = float(mark.attrib["d"].split("0 0 1 ")[1].split()[0])
        assert (width > 0) == (layer == "top")  # drawn left to right: the arc runs over the top
        partner = [b for b, f in enumerate(host.frac_coords) if b != basis and f[:2] == host.frac_coords[basis][:2]]
        assert (host.frac_coords[basis][2] > host.frac_coords[partner[0]][2]) == (layer == "top")


def test_layers_of_phosphorene_are_told_apart_by_pointers() -> None:
    host = get_host("P")
    assert layer_names(host) == ("bottom", "top", "top", "bottom")
    assert layer_names(get_host("BN")) == ("", "")

    def tip_direction(basis: int) -> float:
        svg = lattice_svg(Configuration.of(host, {host.site_index(basis, 3, 3): "N"}))
        path = next(
            e.attrib["d"] for e in elements(svg) if e.get("fill") == "currentColor" and "h6.8L" in e.get("d", "")
        )
        start, tip = path.removesuffix("z").split("h6.8L")
        return float(tip.split()[1]) - float(start.split()[1])

    assert tip_direction(0) > 0  # points down
    assert tip_direction(1) < 0


@pytest.mark.parametrize("name", host_names())
def test_a_complex_across_the_border_is_drawn_in_one_piece(name: str) -> None:
    host = get_host(name)
    n_a, n_b = host.supercell
    corner = {host.site_index(0, i, j): host.allowed[0][0] for i in (0, n_a - 1) for j in (0, n_b - 1)}
    configuration = Configuration.of(host, corner)
    view = top_view(configuration)
    points = view.positions[[site for site, _ in configuration.edits]]
    longest = max(np.linalg.norm(a - b) for a in points for b in points)
    edges = np.asarray(host.lattice)[:2]
    assert longest <= np.linalg.norm(edges, axis=1).sum() + 1e-6
    middle = view.outline.mean(axis=0)
    assert np.linalg.norm(points.mean(axis=0) - middle) <= np.linalg.norm(edges, axis=1).sum()


def test_the_shift_is_a_translation_of_whole_cells() -> None:
    host = get_host("GaSe")
    configuration = random_configuration(host, 3, np.random.default_rng(5))
    shift = np.array(centring_shift(configuration))
    view = top_view(configuration)
    plane = host.supercell_lattice[:2, :2]
    expected = host.site_frac_coords[:, :2] + shift / np.array(host.supercell)
    difference = view.positions @ np.linalg.inv(plane) - expected
    assert np.abs(difference - np.rint(difference)).max() < 1e-9


@pytest.mark.parametrize(("name", "per_cell"), [("MoS2", 3), ("BN", 3), ("GaSe", 3), ("P", 6)])
def test_bonds_join_nearest_neighbours(name: str, per_cell: int) -> None:
    host = get_host(name)
    cells = host.supercell[0] * host.supercell[1]
    bonds = top_view(Configuration.of(host, {})).bonds
    assert 0.7 * per_cell * cells < len(bonds) <= per_cell * cells  # those across the border are left out
    stack = next(column for column in top_view(Configuration.of(host, {})).columns if 0 in column)
    holes = dict.fromkeys(stack, VACANCY)  # a bond of two columns is there as long as one pair of their sites is
    assert len(top_view(Configuration.of(host, holes)).bonds) < len(bonds)


def test_the_picture_is_the_same_each_time_and_has_a_name() -> None:
    configuration = random_configuration(get_host("InSe"), 3, np.random.default_rng(1))
    svg = lattice_svg(configuration, 300)
    assert svg == lattice_svg(configuration, 300)
    root = ET.fromstring(svg)
    assert root.attrib["width"] == "300"
    assert configuration.label in root.attrib["aria-label"]
    assert any(text.endswith(" \u00c5") for text in root.itertext())
    with pytest.raises(ValueError, match="at least 120"):
        lattice_svg(configuration, 50)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["MoS2", "P"])
def test_the_origin_is_where_the_poscar_has_it(name: str, seed: int) -> None:
    host = get_host(name)
    configuration = random_configuration(host, 3, np.random.default_rng(seed))
    view = top_view(configuration)
    lattice = np.asarray(host.supercell_lattice)[:2, :2]
    for site in range(host.n_sites):
        from_origin = (view.positions[site] - view.origin) @ np.linalg.inv(lattice)
        expected = np.asarray(host.site_frac_coords[site])[:2]
        assert (from_origin - expected + 0.5) % 1.0 == pytest.approx([0.5, 0.5], abs=1e-9)


def test_the_axes_are_drawn_at_the_origin_along_a_and_b() -> None:
    host = get_host("MoS2")
    configuration = Configuration.of(host, {host.parse_site("A00"): VACANCY})
    (group,) = (e for e in elements(lattice_svg(configuration)) if e.get("class") == "origin")
    assert group[0].text == "origin and axes of the POSCAR"
    paths = [e.attrib["d"] for e in group if e.tag.endswith("path")]
    assert len(set(paths)) == 1
    (circle,) = (e for e in group if e.tag.endswith("circle"))
    assert paths[0].startswith(f"M{circle.attrib['cx']} {circle.attrib['cy']}l26 0")  # a to the right
    assert "l-13 -22.5" in paths[0]  # b at 120 degrees, upwards


def test_the_axes_do_not_cover_what_names_a_defect() -> None:
    svg = lattice_svg(Configuration.of(get_host("MoS2"), {0: "W"}))
    assert svg.index('class="origin"') < svg.index('class="s d"') < svg.index(">W</text>")
