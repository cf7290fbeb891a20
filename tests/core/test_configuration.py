"""Configurations: canonical form, labels, keys, and the way to structures and back."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectgen.core import VACANCY, Configuration, Host, get_host, host_names, parse_label, site_permutations
from defectgen.core.configuration import labels_of_keys
from defectgen.core.host import Rule
from defectgen.core.hosts import common_name
from defectgen.core.matching import configuration_from_structure
from defectgen.core.slab import NotADecorationError
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.structures import read_configuration
from defectgen.io.writers import cif_text

N_OPERATIONS = {"MoS2": 768, "WSe2": 768, "BN": 384, "GaSe": 432, "InSe": 432, "P": 144 * 2}
MAX_DEFECTS = 12


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    host = get_host(draw(st.sampled_from(host_names())))
    sites = draw(st.sets(st.integers(0, host.n_sites - 1), max_size=MAX_DEFECTS))
    return Configuration.of(
        host, [(site, draw(st.sampled_from(host.allowed[host.site_cell(site)[0]]))) for site in sorted(sites)]
    )


def distances(host: Host, sites: np.ndarray) -> np.ndarray:
    """Minimum-image distances of all sites from the first eight, in angstrom."""
    frac = host.site_frac_coords[sites]
    shifts = np.array([(a, b, 0) for a in (-1, 0, 1) for b in (-1, 0, 1)])
    difference = (frac[:, None] - frac[None, :8])[..., None, :] + shifts
    return np.linalg.norm(difference @ host.supercell_lattice, axis=-1).min(axis=-1)


@pytest.mark.parametrize("name", host_names())
def test_site_permutations_form_a_group_of_isometries(name: str) -> None:
    host = get_host(name)
    permutations = site_permutations(host)
    assert len(permutations) == N_OPERATIONS[name]
    assert (permutations[0] == np.arange(host.n_sites)).all()
    rows = {row.tobytes() for row in permutations}
    rng = np.random.default_rng(0)
    for _ in range(50):
        g, h = permutations[rng.integers(len(permutations), size=2)]
        assert g[h].tobytes() in rows
        before, after = distances(host, np.arange(host.n_sites)), distances(host, g)
        assert np.abs(before - after).max() < 1e-3
        assert all(host.site_element(s) == host.site_element(int(g[s])) for s in range(host.n_sites))


@settings(deadline=None, max_examples=150)
@given(configurations(), st.integers(0, 10**6))
def test_canonical_form_is_the_same_for_every_symmetry_image(configuration: Configuration, draw: int) -> None:
    image = configuration.image(draw % len(site_permutations(configuration.host)))
    assert image.canonical() == configuration.canonical()
    assert image.label == configuration.label


@settings(deadline=None, max_examples=40)
@given(configurations())
def test_canonical_form_is_the_smallest_of_all_images(configuration: Configuration) -> None:
    images = [configuration.image(g).edits for g in range(len(site_permutations(configuration.host)))]
    assert configuration.canonical().edits == min(images)


def test_inequivalent_pairs_have_different_canonical_forms() -> None:
    host = get_host("MoS2")
    first = host.site_index(1, 0, 0)
    chalcogens = range(64, 192)
    forms = {
        Configuration.of(host, {first: "VAC", site: "VAC"}).canonical().edits for site in chalcogens if site != first
    }
    assert len(forms) == 19  # X2 of Huang et al. 2023, table 1


@settings(deadline=None, max_examples=100)
@given(configurations())
def test_keys_and_labels_round_trip(configuration: Configuration) -> None:
    assert Configuration.from_key(configuration.host, configuration.key) == configuration
    assert parse_label(configuration.label) == configuration.kinds
    assert labels_of_keys(configuration.host, [configuration.key] * 2) == [configuration.label] * 2


@settings(deadline=None, max_examples=30)
@given(configurations(), st.integers(0, 2**31))
def test_structures_become_the_same_configuration_again(configuration: Configuration, seed: int) -> None:
    rng = np.random.default_rng(seed)
    structure = configuration.to_structure()
    assert configuration_from_structure(configuration.host, structure) == configuration
    structure.perturb(0.2, 0.0)
    assert configuration_from_structure(configuration.host, structure) == configuration
    order = rng.permutation(len(structure))
    shuffled = structure.from_sites([structure[int(k)] for k in order])
    shuffled.translate_sites(range(len(shuffled)), [0.0, 0.0, float(rng.random())], frac_coords=True)
    assert configuration_from_structure(configuration.host, shuffled) == configuration


def test_labels_keep_multiplicity_in_the_order_of_the_formula() -> None:
    host = get_host("MoS2")
    configuration = Configuration.of(host, {100: "Se", 3: "VAC", 70: "Se", 71: "VAC", 4: "W"})
    assert configuration.label == "v_Mo+W_Mo+v_S+2Se_S"
    assert configuration.formula == "Mo62S125Se2W1"
    assert Configuration.of(host, {}).label == "pristine"


def test_foreign_structures_are_refused_with_the_reason() -> None:
    mos2, wse2 = get_host("MoS2"), get_host("WSe2")
    pristine = Configuration.of(mos2, {}).to_structure()
    with pytest.raises(NotADecorationError, match=r"in-plane cell is 25\.52"):
        configuration_from_structure(wse2, pristine)
    moved = pristine.copy()
    moved.translate_sites([5], [0.0, 0.0, 2.0], frac_coords=False)
    with pytest.raises(NotADecorationError, match=r"atom 5 lies \d\.\d\d angstrom"):
        configuration_from_structure(mos2, moved)
    crowded = pristine.copy()
    crowded.remove_sites([1])
    crowded.insert(0, "S", pristine[0].frac_coords + np.array([0.001, 0.0, 0.0]))
    with pytest.raises(NotADecorationError, match="two atoms sit on site"):
        configuration_from_structure(mos2, crowded)


def test_unreadable_and_missing_files_give_one_line(tmp_path) -> None:  # type: ignore[no-untyped-def]
    broken = tmp_path / "broken.cif"
    broken.write_text("not a cif")
    with pytest.raises(
        DefectgenError, match=r"broken\.cif: cannot be read as CIF \(not a CIF of one crystal"
    ) as caught:
        read_configuration(get_host("MoS2"), broken)
    assert "\n" not in str(caught.value)
    with pytest.raises(DefectgenError, match="is not a file"):
        read_configuration(get_host("MoS2"), tmp_path / "none.cif")
    for host, reason in (
        (get_host("MoS2", "6x6"), r"no decoration of MoS2 6x6: it is v_S in MoS2 4x4, expected the supercell 6x6\."),
        (get_host("WSe2"), r"no decoration of WSe2 8x8: Mo16S31 is another compound\."),
    ):
        path = tmp_path / "small.cif"
        path.write_text(cif_text(Configuration.from_key(get_host("MoS2", "4x4"), "VAC@B00")))
        with pytest.raises(NotADecorationError, match=reason):
            read_configuration(host, path)


def test_hosts_are_found_by_any_usual_name() -> None:
    assert get_host("mos2") is get_host("MoS2")
    assert get_host("hBN").name == "BN"
    assert get_host("BP").name == "P"


@pytest.mark.parametrize(
    ("name", "meant"),
    [("MoS_2", "MoS2"), ("W-Se2", "WSe2"), ("S2Mo", "MoS2"), ("MoSs2", "MoS2"), ("InSee", "InSe"), ("h_bn", "BN")],
)
def test_a_mistyped_host_is_guessed(name: str, meant: str) -> None:
    with pytest.raises(UsageError, match=rf"unknown host '{name}'\. Did you mean {meant}\? Known hosts: MoS2, WSe2, "):
        get_host(name)


@pytest.mark.parametrize("name", ["WS2", "ws2", "Ws2", "wS2", "MoS3", "GASE2", "MoTe2", "graphene", ""])
def test_another_compound_is_no_typo(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        get_host(name)
    assert str(caught.value) == (
        f"unknown host {name!r}. Known hosts: MoS2, WSe2, hBN, GaSe, InSe, BP; "
        "any other layer from its unit cell: --host FILE.cif (read_host in Python); "
        "a design in it needs a surrogate of its values, or a campaign."
    )


@pytest.mark.parametrize(
    "edits", [((5, "W"), (3, "W")), ((3, "W"), (3, "VAC")), ((500, "W"),), ((3, "Mo"),), ((3, "Xx"),)]
)
def test_impossible_configurations_are_refused(edits: tuple[tuple[int, str], ...]) -> None:
    with pytest.raises(ValueError, match=r"got|already"):
        Configuration(get_host("MoS2"), edits)
    with pytest.raises(UsageError, match=r"got|already"):
        Configuration(get_host("MoS2"), edits)


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        (5, "got edit 5, expected a site and a species"),
        ([0], "got edit 0, expected a site and a species"),
        (["VAC@A00"], "got edit 'VAC@A00', expected a site and a species"),
        ([(1.5, "VAC")], "got site 1.5, expected its number or its name"),
        ([(0, 42)], "got species 42, expected an element or VAC"),
        ({0: None}, "got species None, expected an element or VAC"),
    ],
)
def test_what_are_no_edits_is_refused_in_one_line(edits: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Configuration.of(get_host("MoS2"), edits)


def test_sites_have_names_in_pairs_too() -> None:
    host = get_host("MoS2")
    assert Configuration.of(host, [("A00", "W")]) == Configuration.of(host, {"A00": "W"})


@pytest.mark.parametrize("changes", [{"species": ("Mo", "S", "Zz")}, {"rules": (Rule("S", "Zz"),)}])
def test_a_host_of_no_elements_is_refused(changes: dict[str, tuple[object, ...]]) -> None:
    with pytest.raises(ValueError, match="'Zz' is no element"):
        dataclasses.replace(get_host("MoS2"), **changes)  # type: ignore[arg-type]


def test_people_call_a_host_by_its_common_name() -> None:
    assert [common_name(get_host(name)) for name in ("BN", "P", "MoS2")] == ["hBN", "BP", "MoS2"]
    assert common_name(get_host("BN", "4x4")) == "hBN"
    blue = dataclasses.replace(get_host("P"), lattice=((3.3, 0.0, 0.0), (-1.65, 2.858, 0.0), (0.0, 0.0, 18.0)))
    assert common_name(blue) == "P", "another layer of phosphorus"


def test_sites_may_be_named() -> None:
    host = get_host("MoS2")
    assert Configuration.of(host, {"B14": "Se", "A00": VACANCY}).key == "VAC@A00+Se@B14"
    with pytest.raises(UsageError, match="site 'Z00' does not exist in MoS2"):
        Configuration.of(host, {"Z00": VACANCY})
