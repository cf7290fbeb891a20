"""Reading whatever others wrote, denominators, hits of conditions, and the command."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from defectgen.core.crystal import Crystal
from defectgen.core.space_group import crystal_space_group
from defectgen.data.mp20 import crystal_of, read_crystals
from defectgen.errors import DefectgenError, UsageError
from defectgen.metrics.atom_distances import far_enough
from defectgen.metrics.by_atoms import atoms_class
from defectgen.metrics.charge_balance import smact_valid
from defectgen.metrics.crystal_matching import groups, known
from defectgen.metrics.crystal_metrics import measure, rate
from defectgen.metrics.definitions import DEFINITIONS, published
from defectgen.metrics.fingerprint_store import structure_fingerprints
from defectgen.metrics.fingerprints import composition_fingerprint, scale_composition
from defectgen.metrics.generated_entries import Crystals, Entry, read_entries
from defectgen.metrics.met_conditions import meets

has_extra = importlib.util.find_spec("smact") is not None and importlib.util.find_spec("matminer") is not None


def salt(length=5.64, cation="Na", anion="Cl"):
    """Rock salt in its primitive cell."""
    edge = length / 2**0.5
    return Crystal((edge,) * 3, (60.0,) * 3, (cation, anion), ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5)))


def crowded():
    return Crystal((4.0,) * 3, (90.0,) * 3, ("Na", "Cl"), ((0.0, 0.0, 0.0), (0.05, 0.0, 0.0)))


def cif(crystal):
    return crystal.to_structure().to(fmt="cif")


class Silent:
    def __init__(self, *_):
        pass

    def __enter__(self):
        return lambda _: None

    def __exit__(self, *_):
        return None


def run(entries, reference=None, training=None, **facts):
    sets = [Crystals(tuple(Entry("x", c) for c in part)) if part else None for part in (reference, training)]
    return measure(Crystals(tuple(entries), **facts), *sets, store=None, watch=Silent)


def test_same_crystals_are_found_in_other_cells():
    cubic = Crystal.from_structure(salt().to_structure().to_conventional())
    moved = salt().translated((0.2, 0.3, 0.4))
    assert groups([salt(), salt(5.7), moved, salt(anion="Br"), cubic]) == [0, 0, 0, 3, 0]
    assert known([salt(), salt(cation="K")], [moved]) == [True, False]


def test_unreadable_and_crowded_crystals_stay_in_the_denominators():
    report = run(
        [Entry("a", salt()), Entry("b", crowded()), Entry("c", None, "no CIF"), Entry("d", salt(4.2, "Mg", "O"))]
    )
    metrics = report.metrics
    assert (metrics["parsed"]["n"], metrics["parsed"]["of"]) == (3, 4)
    assert (metrics["structural"]["n"], metrics["structural"]["of"]) == (2, 4)
    assert (metrics["structural_half_radius"]["n"], metrics["structural_half_radius"]["of"]) == (2, 4)
    assert report.failures["no CIF"] == 1
    assert report.counts["pool"] == 2
    assert "raw_parsed" not in metrics
    assert metrics["cov_recall"]["value"] is None
    if has_extra:
        assert (metrics["compositional"]["n"], metrics["compositional"]["of"]) == (3, 4)
    else:
        assert metrics["compositional"] == {"value": None, "of": 4, "why": "needs the extra bulk"}


def iron():
    return Crystal((2.87,) * 3, (90.0,) * 3, ("Fe", "Fe"), ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5)))


def counted(metric):
    """Numerator and denominator of a share."""
    assert metric["value"] == pytest.approx(metric["n"] / metric["of"])
    low, high = metric["interval_95"]
    assert 0 <= low <= metric["value"] <= high <= 1
    return metric["n"], metric["of"]


def test_intervals_of_shares_are_those_of_wilson():
    """Table 1 of Newcombe, Stat. Med. 17, 857 (1998), doi 10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E."""  # noqa: E501
    for n, of, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert rate(n, of)["interval_95"] == pytest.approx([low, high], abs=5e-5)


def coincident():
    return Crystal((4.0,) * 3, (90.0,) * 3, ("Na", "Cl"), ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)))


def test_atoms_on_one_place_fail_in_structure_alone(tmp_path):
    row = {"raw_text": "x", "reason": "", "task": "generation", "conditions": '{"spacegroup": 221}'}
    rows = [
        row | {"cif": cif(salt()), "valid": True},
        row | {"cif": cif(coincident()), "valid": False, "reason": "distance: 0.00"},
        row | {"cif": cif(coincident()), "valid": True},
    ]
    found = read_entries([write_samples(tmp_path / "run", rows)])
    crystals = Crystals((Entry("x", coincident()), Entry("y", salt())))
    metrics = measure(found, crystals, crystals, store=None, watch=Silent).metrics
    assert counted(metrics["raw_parsed"]) == (3, 3)
    assert counted(metrics["raw_structural"]) == (1, 3)
    assert metrics["structural_half_radius"]["n"] == 1
    if has_extra:
        assert counted(metrics["raw_compositional"]) == (3, 3)
        assert metrics["compositional"]["value"] == 1.0


def test_rejected_draws_count_in_the_raw_rates_alone():
    report = run([Entry("a", salt()), Entry("b", crowded(), accepted=False)], has_draws=True)
    assert report.metrics["raw_structural"]["value"] == 0.5
    assert report.metrics["structural"]["value"] == 1.0
    assert report.metrics["structural"]["of"] == 1


def test_a_set_against_itself_and_against_another():
    crystals = [salt(), salt(4.2, "Mg", "O"), salt(4.2, "Mg", "O")]
    same = run([Entry("x", crystal) for crystal in crystals], reference=crystals, training=crystals).metrics
    assert same["novel_structure"]["value"] == same["new"]["value"] == same["new_unique"]["value"] == 0.0
    assert same["wasserstein_density"]["value"] == same["wasserstein_elements"]["value"] == 0.0
    assert counted(same["unique"]) == (2, 3)
    assert same["diversity_structure_relative"]["value"] == pytest.approx(1.0)
    other = run([Entry("x", crystal) for crystal in crystals], reference=[iron()], training=[iron()]).metrics
    assert other["novel_structure"]["value"] == other["new"]["value"] == 1.0
    assert counted(other["new_unique"]) == (2, 3)
    assert other["wasserstein_elements"]["value"] == 1.0
    if has_extra:
        assert same["cov_recall"]["value"] == same["cov_precision"]["value"] == 1.0
        assert same["novel_composition"]["value"] == 0.0
        assert other["cov_recall"]["value"] == other["cov_precision"]["value"] == 0.0


def real_crystals(n):
    """Random crystals of the real MP-20 data."""
    folder = os.environ.get("DEFECTGEN_MP20")
    if not folder:
        pytest.skip("DEFECTGEN_MP20 is not set: tests on the real MP-20 data left out")
    frame = read_crystals(Path(folder)).frame
    return [crystal_of(row) for row in frame.sample(n, seed=2).iter_rows(named=True)]


@pytest.mark.skipif(not has_extra, reason="the extra bulk is not installed")
def test_coverage_of_valid_crystals_is_that_of_the_published_code():
    """Written out for real crystals and broken ones: no fingerprint where invalid, shares of what has one."""
    from scipy.spatial.distance import cdist

    crystals = real_crystals(24)
    own, others = crystals[:16], crystals[16:]
    own[3], own[7] = crowded(), Crystal((4.0,) * 3, (90.0,) * 3, ("Na", "Ne"), ((0.0,) * 3, (0.5,) * 3))
    metrics = run([Entry(str(i), crystal) for i, crystal in enumerate(own)], reference=others).metrics

    def prints(some):
        valid = [c for c in some if far_enough(c) and smact_valid(c)]
        structure = [p for p in structure_fingerprints(valid, None, lambda _: None) if not isinstance(p, str)]
        assert len(structure) == len(valid)
        return np.array(structure), scale_composition(np.array([composition_fingerprint(c) for c in valid]))

    (a, b), (c, d) = prints(own), prints(others)
    assert 8 <= len(a) <= 14
    structure, composition = cdist(a, c), cdist(b, d)
    for name, axis, of in (("cov_recall_valid", 0, len(c)), ("cov_precision_valid", 1, len(a))):
        hits = (structure.min(axis=axis) <= 0.4) & (composition.min(axis=axis) <= 10.0)
        assert counted(metrics[name]) == (int(hits.sum()), of)
    assert counted(metrics["cov_precision"])[1] == len(own), "CDVAE divides by all crystals"


def test_novelty_is_also_divided_by_that_of_the_reference():
    kept, others = [salt(), salt(4.2, "Mg", "O")], [salt(4.2, "Mg", "O"), iron()]
    metrics = run([Entry("x", crystal) for crystal in kept], reference=others, training=[salt()]).metrics
    assert metrics["novel_structure"]["value"] == 0.0
    assert metrics["novel_structure_relative"]["value"] == 0.0, "half of the reference is novel in structure"
    if has_extra:
        assert metrics["novel"]["value"] == 0.5
        assert metrics["novel_relative"]["value"] == pytest.approx(0.5)
    same = run([Entry("x", salt())], reference=[salt()], training=[salt()]).metrics
    assert same["novel_structure_relative"] == {"value": None, "of": 1, "why": "no crystal of the reference is novel"}


def test_nothing_valid_gives_no_figures_but_no_error():
    metrics = run([Entry("b", crowded()), Entry("c", None, "no CIF")], reference=[salt()], training=[salt()]).metrics
    assert counted(metrics["structural"]) == (0, 2)
    assert metrics["novel_structure"]["value"] is None
    assert metrics["wasserstein_density"]["value"] is None
    assert metrics["new_unique"]["value"] == 0.0


def test_the_pool_is_metastable_where_energies_are_given():
    entries = [Entry("a", salt(), e_above_hull_ev=0.05), Entry("b", salt(4.2, "Mg", "O"), e_above_hull_ev=0.1)]
    crowded_low = Entry("d", crowded(), e_above_hull_ev=-1.0)  # low in energy, and no crystal
    report = run([*entries, Entry("c", salt()), crowded_low], stability_column="e_above_hull_ev")
    assert counted(report.metrics["metastable"]) == (1, 4)
    assert report.counts["pool"] == 1


@pytest.mark.skipif(not has_extra, reason="compositional validity needs the extra bulk")
def test_a_composition_that_cannot_be_neutral_is_not_metastable():
    unbalanced = Crystal((4.0,) * 3, (90.0,) * 3, ("Na", "Na", "Cl"), ((0, 0, 0), (0.5, 0.5, 0), (0.5, 0.5, 0.5)))
    entries = [Entry("a", salt(), e_above_hull_ev=0.0), Entry("b", unbalanced, e_above_hull_ev=0.0)]
    report = run(entries, stability_column="e_above_hull_ev")
    assert report.metrics["structural"]["n"] == 2
    assert counted(report.metrics["metastable"]) == (1, 2)


def test_conditions():
    entry = Entry("x", salt(), conditions={"formula": "Na4Cl4", "spacegroup": 225, "e_above_hull": 0.0})
    assert meets(entry, "formula") is True
    assert meets(entry, "spacegroup") is True
    assert meets(entry, "e_above_hull") is False  # no energy came with it
    assert meets(Entry("x", salt(), conditions={"formula": "NaCl2"}), "formula") is False
    assert meets(Entry("x", salt(), conditions={"spacegroup": 221}), "spacegroup") is False
    assert meets(Entry("x", None, conditions={"formula": "NaCl"}), "formula") is False
    assert meets(Entry("x", salt()), "formula") is None
    for asked, energy, hit in ((0.0, 0.05, True), (0.0, 0.2, False), (0.3, 0.2, True), (0.3, 0.0, False)):
        found = Entry("x", salt(), conditions={"e_above_hull": asked}, e_above_hull_ev=energy)
        assert meets(found, "e_above_hull") is hit


def test_shares_by_the_number_of_atoms():
    """Each in the class of its own cell; what cannot be read is in none."""
    cell = Crystal.from_structure(salt().to_structure().to_conventional())
    asked = {"formula": "NaCl"}
    entries = [
        Entry("a", salt(), conditions=asked, e_above_hull_ev=0.05),
        Entry("b", salt(cation="K"), conditions=asked, e_above_hull_ev=0.05),
        Entry("c", cell, conditions=asked, e_above_hull_ev=0.3),
        Entry("d", None, "no CIF", conditions=asked),
    ]
    found = run(entries, stability_column="e").by_atoms
    assert list(found) == ["1-5", "6-10"]
    assert {name: counted(item) for name, item in found["1-5"].items()} == {
        "valid": (2, 2), "hit_formula": (1, 2), "hit_formula_metastable": (1, 2), "metastable": (2, 2),
    }  # fmt: skip
    assert {name: counted(item) for name, item in found["6-10"].items()} == {
        "valid": (1, 1), "hit_formula": (1, 1), "hit_formula_metastable": (0, 1), "metastable": (0, 1),
    }  # fmt: skip
    assert "metastable" not in run(entries).by_atoms["1-5"]
    assert [atoms_class(n) for n in (1, 5, 6, 20, 21)] == ["1-5", "1-5", "6-10", "16-20", ">20"]


def test_conditions_of_another_form_count_as_not_asked():
    assert meets(Entry("x", salt(), conditions={"formula": "Na1 Cl1", "spacegroup": "225"}), "formula") is True
    assert meets(Entry("x", salt(), conditions={"spacegroup": 225.0}), "spacegroup") is True
    strange = {"formula": "Met8", "spacegroup": "Fm-3m", "e_above_hull": "low"}
    for name, value in [*strange.items(), ("formula", "Na0.5Cl"), ("spacegroup", [225]), ("e_above_hull", "nan")]:
        assert meets(Entry("x", salt(), conditions={name: value}), name) is None, (name, value)
    entries = [Entry("a", salt(), conditions=strange), Entry("b", salt(), conditions={"spacegroup": 225})]
    report = run(entries, stability_column="e_above_hull")
    assert counted(report.metrics["hit_spacegroup"]) == (1, 1)
    assert "hit_formula" not in report.metrics
    for name in strange:
        assert f"1 asked values of {name} cannot be read and count as not asked" in report.notes


def test_the_space_group_allows_for_two_digit_coordinates():
    rough = Crystal((5.7,) * 3, (90.0,) * 3, ("Cs", "Cl"), ((0.0, 0.0, 0.01), (0.5, 0.51, 0.5)))
    assert crystal_space_group(rough) == 221


def write_samples(folder, rows):
    folder.mkdir()
    pl.DataFrame(rows).write_parquet(folder / "samples.parquet")
    (folder / "manifest.json").write_text(json.dumps({"crystals_per_second": 2.0}), encoding="utf-8")
    return folder


def test_a_generated_folder_is_read_by_its_table(tmp_path):
    row = {"raw_text": "x", "reason": "", "conditions": '{"formula": "NaCl"}', "task": "generation", "valid": True}
    rows = [
        row | {"cif": cif(salt())},
        row | {"cif": None, "valid": False, "reason": "text: 3 lines"},
        row | {"cif": cif(crowded()), "valid": False, "reason": "distance: 0.2"},
        row | {"cif": cif(salt(anion="Br")), "task": "infill"},
    ]
    found = read_entries([write_samples(tmp_path / "run", rows)])
    assert found.has_draws
    assert found.crystals_per_s == 2.0
    assert [entry.accepted for entry in found.entries] == [True, False, False, True]
    assert found.entries[1].problem == "text: 3 lines"
    assert found.entries[0].conditions == {"formula": "NaCl"}
    assert found.entries[3].conditions == {}
    metrics = measure(found, None, None, store=None, watch=Silent).metrics
    assert (metrics["raw_parsed"]["n"], metrics["raw_parsed"]["of"]) == (3, 4)
    assert counted(metrics["hit_formula"]) == (1, 1)
    assert metrics["crystals_per_hour"]["value"] == 7200


def test_folders_of_cifs_tables_and_extended_xyz_give_the_same(tmp_path):
    (tmp_path / "cifs").mkdir()
    for index, text in enumerate((cif(salt()), "broken", cif(salt(4.2, "Mg", "O")))):
        (tmp_path / "cifs" / f"{index}.cif").write_text(text, encoding="utf-8")
    pl.DataFrame({"cif": [cif(salt()), "broken", cif(salt(4.2, "Mg", "O"))]}).write_csv(tmp_path / "all.csv")
    for path in (tmp_path / "cifs", tmp_path / "all.csv"):
        entries = read_entries([path]).entries
        assert [entry.crystal.formula if entry.crystal else None for entry in entries] == ["NaCl", None, "MgO"]
        assert "not a CIF" in entries[1].problem
    from ase import io
    from pymatgen.io.ase import AseAtomsAdaptor

    io.write(tmp_path / "all.extxyz", [AseAtomsAdaptor.get_atoms(c.to_structure()) for c in (salt(), crowded())])
    entries = read_entries([tmp_path / "all.extxyz"]).entries
    assert [entry.crystal.formula for entry in entries] == ["NaCl", "NaCl"]
    assert entries[0].crystal.lengths == pytest.approx(salt().lengths)


def test_bad_input_is_named(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        read_entries([tmp_path / "none"])
    with pytest.raises(UsageError, match="holds no crystals"):
        read_entries([tmp_path])
    (tmp_path / "a.csv").write_text("formula\nNaCl\n", encoding="utf-8")
    with pytest.raises(DefectgenError, match="no column cif, got formula"):
        read_entries([tmp_path / "a.csv"]).require_readable()
    (tmp_path / "a.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UsageError, match="no file of crystals"):
        read_entries([tmp_path / "a.txt"])


def test_samples_are_drawn_by_seed():
    crystals = Crystals(tuple(Entry(str(index), None) for index in range(50)))
    names = [entry.name for entry in crystals.sampled(10, 3).entries]
    assert names == [entry.name for entry in crystals.sampled(10, 3).entries] == sorted(names, key=int)
    assert len(set(names)) == 10
    assert names != [entry.name for entry in crystals.sampled(10, 4).entries]
    assert crystals.sampled(50, 3) is crystals


def test_published_rows_are_those_of_table_1():
    rows = published()["rows"]
    assert len(rows) == 9
    assert rows["LLaMA-2 70B, T 0.7"] == {
        "structural": 0.996, "compositional": 0.954, "cov_recall": None, "cov_precision": None,
        "cov_recall_valid": 0.858, "cov_precision_valid": 0.989,
        "wasserstein_density": 0.81, "wasserstein_elements": 0.44, "metastable": 0.498, "stable_dft": 0.106,
        "crystals_per_hour": 8774,
    }  # fmt: skip
    assert rows["LM-CH"]["metastable"] is None
    assert (rows["CDVAE"]["cov_recall"], rows["CDVAE"]["cov_recall_valid"]) == (0.991, None)


def test_every_metric_is_defined_and_titles_fit():
    names = {item.name for item in DEFINITIONS}
    asked = {"formula": "NaCl", "spacegroup": 225, "e_above_hull": 0.0, "band_gap": 5.0}
    entry = Entry("a", salt(), conditions=asked, e_above_hull_ev=0.0, n_competing=1, band_gap_ev=5.0)
    facts = {"has_draws": True, "stability_column": "e_above_hull", "crystals_per_s": 1.0, "gap_source": "trees"}
    report = run([entry], [salt()], [salt()], **facts)
    assert set(report.metrics) == names
    assert all(len(item.title) <= 36 for item in DEFINITIONS)
