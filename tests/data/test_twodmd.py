"""The reader of 2DMD: both layouts, every label, and what it refuses."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from synthetic import cif_text, defect_list, distinct_configurations, made_up_labels, write_rows, write_set

from defectgen.core import Configuration, Host, get_host
from defectgen.data import twodmd
from defectgen.data.checks import descriptor_mismatches, formation_energy_errors
from defectgen.data.sources import read_dataset
from defectgen.data.twodmd import COLUMNS, SET_NAMES, read_2dmd
from defectgen.errors import DefectgenError, UsageError


@pytest.fixture
def folder(tmp_path: Path, mos2: Host) -> Path:
    """Twelve structures of one set, free to be damaged."""
    root = tmp_path / "published"
    write_set(root, "MoS2", distinct_configurations(mos2, 12, 3, (1, 2, 3)))
    return root


def low(root: Path, name: str = "MoS2") -> Path:
    return root / "csv_cif" / "low_density_defects" / name


def test_each_row_is_the_structure_and_the_labels_of_its_id(tmp_path: Path, mos2: Host, wse2: Host) -> None:
    expected = {}
    for host, seed in ((mos2, 5), (wse2, 6)):
        items = distinct_configurations(host, 30, seed, (1, 2, 3))
        expected |= dict(zip(write_set(tmp_path, host.name, items), items, strict=True))
    frame = read_2dmd(tmp_path, cache=False)
    assert tuple(frame.columns) == COLUMNS
    assert frame["id"].to_list() == sorted(expected)
    for row in frame.iter_rows(named=True):
        item = expected[row["id"]]
        labels = made_up_labels(item)
        assert row["configuration"] == item.canonical().key
        assert (row["label"], row["n_defects"], row["supercell"]) == (item.label, item.n_defects, "8x8")
        assert row["concentration"] == pytest.approx(item.n_defects / 192)
        assert row["defect_class"] == f"class {item.label}"
        assert row["formation_energy_ev"] == pytest.approx(labels["formation_energy"])
        assert row["band_gap_ev"] == pytest.approx(labels["homo_lumo_gap_min"])
        assert row["lumo_ev"] - row["homo_ev"] == pytest.approx(row["band_gap_ev"])
        assert row["homo_raw_ev"] == pytest.approx(labels["homo_max"])


def test_levels_are_on_the_pristine_vbm_even_where_the_core_level_is_foreign(tmp_path: Path, wse2: Host) -> None:
    items = distinct_configurations(wse2, 60, 8, (1, 2, 3))
    ids = dict(zip(write_set(tmp_path, "WSe2", items), items, strict=True))
    frame = read_2dmd(tmp_path, ["WSe2"], cache=False)
    foreign = {key for key, item in ids.items() if "Mo_W" in item.label}
    assert 10 < len(foreign) < 50
    for row in frame.iter_rows(named=True):
        labels = made_up_labels(ids[row["id"]])
        assert row["level_method"] == ("fitted_shift" if row["id"] in foreign else "core_level")
        unfitted_ev = 0.005 * ids[row["id"]].kinds["W", "Mo"]
        assert row["homo_ev"] == pytest.approx(0.1 * labels["formation_energy"], abs=1e-9 + unfitted_ev)
        assert (row["level_error_ev"] == 0) == (row["id"] not in foreign)


def test_high_density_cells_in_another_vacuum_and_upside_down_are_read(tmp_path: Path, mos2: Host) -> None:
    items = distinct_configurations(mos2, 8, 4, (5, 12, 24))
    plain, turned = tmp_path / "plain", tmp_path / "turned"
    write_set(plain, "MoS2_500", items)
    write_set(turned, "MoS2_500", items, height_angstrom=23.1, flip=True)
    for root in (plain, turned):  # the made-up E_1 knows no other vacuum
        path = root / "processed" / "high_density_defects" / "MoS2_500" / "targets.csv.gz"
        targets = pl.read_csv(path).with_columns(pl.col("E_1", "homo_max", "lumo_min", "fermi_level") - 1.4)
        path.write_bytes(gzip.compress(targets.write_csv().encode()))
    first, second = read_2dmd(plain, cache=False), read_2dmd(turned, cache=False)
    assert first.equals(second)
    assert first["defect_class"].null_count() == len(first)
    assert set(first["configuration"]) == {item.canonical().key for item in items}


def test_spin_channels_share_the_mean_core_level(tmp_path: Path, mos2: Host) -> None:
    write_set(tmp_path, "MoS2", distinct_configurations(mos2, 12, 3, (1, 2, 3)))
    path = tmp_path / "processed" / "low_density_defects" / "MoS2" / "targets.csv.gz"
    targets = pl.read_csv(path).with_columns(E_1_majority=pl.col("E_1") - 0.02, E_1_minority=pl.col("E_1") + 0.04)
    path.write_bytes(gzip.compress(targets.drop("E_1").write_csv().encode()))
    frame = read_2dmd(tmp_path, cache=False)
    assert (frame["core_level_raw_ev"] - targets.sort("_id")["E_1"] - 0.01).abs().max() < 1e-9


def test_a_label_that_is_not_a_number_is_null(folder: Path) -> None:
    path = folder / "processed" / "low_density_defects" / "MoS2" / "targets.csv.gz"
    targets = pl.read_csv(path).with_columns(
        energy_per_atom=pl.when(pl.int_range(pl.len()) == 3).then(float("nan")).otherwise("energy_per_atom"),
        homo_max=pl.when(pl.int_range(pl.len()) == 5).then(None).otherwise("homo_max"),
    )
    path.write_bytes(gzip.compress(targets.write_csv().encode()))
    frame = read_2dmd(folder, cache=False)
    assert frame["energy_per_atom_ev"].is_null().to_list() == [k == 3 for k in range(12)]
    assert frame["homo_ev"].is_null().to_list() == [k == 5 for k in range(12)]


def test_structures_without_labels_are_left_out(folder: Path) -> None:
    path = folder / "processed" / "low_density_defects" / "MoS2" / "targets.csv.gz"
    targets = pl.read_csv(path)
    path.write_bytes(gzip.compress(targets.head(9).write_csv().encode()))
    assert read_2dmd(folder, cache=False)["id"].to_list() == targets["_id"].head(9).to_list()


def test_formation_energies_follow_from_total_energies(tiny_2dmd: Path, own_cache: Path) -> None:
    errors = formation_energy_errors(tiny_2dmd)
    assert set(errors) == {"MoS2", "WSe2"}
    assert max(errors.values()) < 1e-9
    assert own_cache.is_dir()


def test_structures_that_are_not_their_descriptors_are_named(folder: Path, own_cache: Path) -> None:  # noqa: ARG001
    assert descriptor_mismatches(folder) == {"MoS2": []}
    path = folder / "csv_cif" / "low_density_defects" / "MoS2" / "descriptors.csv"
    table = pl.read_csv(path)
    other = table.with_columns(
        defects=pl.when(pl.int_range(pl.len()) == 0).then(pl.lit(defect_list("3W_Mo+v_S"))).otherwise("defects")
    )
    path.write_text(other.write_csv())
    label = table["_id"][0].removeprefix("d-")
    named = read_2dmd(folder).filter(label=label)["id"].to_list()
    assert descriptor_mismatches(folder) == {"MoS2": named}


def test_the_second_read_comes_from_the_cache_until_a_file_changes(folder: Path, own_cache: Path) -> None:
    frame = read_2dmd(folder)
    (table,) = (own_cache / "tables").iterdir()
    archive = low(folder) / "initial.tar.gz"
    stat = archive.stat()
    damaged = bytearray(archive.read_bytes())
    damaged[50:90] = bytes(40)
    archive.write_bytes(damaged)
    os.utime(archive, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert read_2dmd(folder).equals(frame), "same sizes and times: the archive is not opened"
    table.write_bytes(b"not a table")
    with pytest.raises(DefectgenError, match=r"initial\.tar\.gz is truncated or damaged"):
        read_2dmd(folder)
    os.utime(archive, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    frame.write_parquet(table)
    with pytest.raises(DefectgenError, match=r"initial\.tar\.gz is truncated or damaged"):
        read_2dmd(folder)


def test_a_table_of_other_level_scales_is_made_again(
    folder: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = read_2dmd(folder)
    (table,) = (own_cache / "tables").iterdir()
    frame.with_columns(homo_ev=pl.col("homo_ev") + 0.017).write_parquet(table)
    assert not read_2dmd(folder).equals(frame), "what lies there is taken"
    monkeypatch.setattr(twodmd, "reference_digest", lambda: "of another version")
    assert read_2dmd(folder).equals(frame)


def test_a_cache_that_cannot_be_written_is_done_without(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("DEFECTGEN_CACHE", str(tmp_path / "file"))
    assert len(read_2dmd(folder)) == 12


@pytest.mark.parametrize("name", ["descriptors.csv", "initial_structures.csv", "initial.tar.gz"])
@pytest.mark.usefixtures("own_cache")
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (low(folder) / name).unlink()
    with pytest.raises(DefectgenError, match=f"{name} is missing"):
        read_2dmd(folder)


@pytest.mark.parametrize(
    "path",
    ["csv_cif/low_density_defects/MoS2/initial.tar.gz", "processed/low_density_defects/MoS2/targets.csv.gz"],
)
def test_a_truncated_file_is_named(folder: Path, path: str) -> None:
    content = (folder / path).read_bytes()
    (folder / path).write_bytes(content[: len(content) // 2])
    with pytest.raises(DefectgenError, match=f"{Path(path).name} is truncated or damaged"):
        read_2dmd(folder, cache=False)


def test_a_missing_column_is_named_with_the_known_ones(folder: Path) -> None:
    path = folder / "processed" / "low_density_defects" / "MoS2" / "targets.csv.gz"
    path.write_bytes(gzip.compress(pl.read_csv(path).drop("lumo_min").write_csv().encode()))
    with pytest.raises(DefectgenError, match=r"no column 'lumo_min'; its columns are _id, descriptor_id, energy"):
        read_2dmd(folder, cache=False)


def test_an_id_that_occurs_twice_is_refused(folder: Path) -> None:
    path = folder / "processed" / "low_density_defects" / "MoS2" / "targets.csv.gz"
    targets = pl.read_csv(path)
    path.write_bytes(gzip.compress(pl.concat([targets, targets[4:5]]).write_csv().encode()))
    with pytest.raises(DefectgenError, match="the id MoS2-0004 occurs 2 times"):
        read_2dmd(folder, cache=False)


def rewrite_cif(archive: Path, name: str, text: str | None) -> None:
    """Replace one member of a tar file, or drop it."""
    with tarfile.open(archive) as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    members.pop(name)
    if text is not None:
        members[name] = text.encode()
    with tarfile.open(archive, "w:gz") as tar:
        for key, data in members.items():
            info = tarfile.TarInfo(key)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_an_atom_away_from_its_site_is_refused_with_id_and_distance(folder: Path, mos2: Host) -> None:
    text = cif_text(Configuration.of(mos2, {70: "VAC"}))
    line = next(line for line in text.splitlines() if " S100 " in line)
    species, label, x, y, z = line.split()
    moved = text.replace(line, f"  {species}  {label}  {float(x) + 0.3 / 25.5:.8f}  {y}  {z}")
    rewrite_cif(low(folder) / "initial.tar.gz", "MoS2-0002.cif", moved)
    with pytest.raises(DefectgenError, match=r"structure MoS2-0002 of MoS2 .* lies 0\.30 angstrom from the nearest"):
        read_2dmd(folder, cache=False)


def test_a_structure_that_is_not_in_the_archive_is_named(folder: Path) -> None:
    rewrite_cif(low(folder) / "initial.tar.gz", "MoS2-0007.cif", None)
    with pytest.raises(DefectgenError, match=r"lacks 1 of 12 structures, e.g. MoS2-0007.cif"):
        read_2dmd(folder, cache=False)


def test_text_that_is_no_cif_is_refused_with_the_id(folder: Path) -> None:
    rewrite_cif(low(folder) / "initial.tar.gz", "MoS2-0003.cif", "this is no CIF")
    with pytest.raises(DefectgenError, match=r"structure MoS2-0003 of MoS2 .* cannot be read as a CIF"):
        read_2dmd(folder, cache=False)


def damaged(folder: Path, column: str, value: str) -> None:
    """Put some text in one column of the first row of the labels."""
    path = folder / "processed" / "low_density_defects" / "MoS2" / "targets.csv.gz"
    targets = pl.read_csv(path)
    first = pl.int_range(pl.len()) == 0
    changed = targets.with_columns(
        pl.when(first).then(pl.lit(value)).otherwise(pl.col(column).cast(pl.String)).alias(column)
    )
    path.write_bytes(gzip.compress(changed.write_csv().encode()))


@pytest.mark.parametrize("column", ["homo_max", "E_1", "formation_energy"])
@pytest.mark.parametrize("value", ["inf", "NaN", "-inf"])
def test_labels_that_are_not_finite_are_null(folder: Path, column: str, value: str) -> None:
    damaged(folder, column, value)
    frame = read_2dmd(folder, cache=False)
    first = frame.row(0, named=True)
    ours = {"homo_max": "homo_ev", "E_1": "core_level_raw_ev", "formation_energy": "formation_energy_ev"}[column]
    assert first[ours] is None
    assert frame[ours].null_count() == 1
    assert frame["lumo_ev"].null_count() == 0


def test_labels_that_are_no_numbers_are_named(folder: Path) -> None:
    damaged(folder, "homo_max", "deep")
    with pytest.raises(DefectgenError, match="set MoS2, structure MoS2-0000: homo_max is 'deep', expected a number"):
        read_2dmd(folder, cache=False)


def test_structures_that_occur_twice_are_named(folder: Path) -> None:
    archive = folder / "csv_cif" / "low_density_defects" / "MoS2" / "initial.tar.gz"
    with tarfile.open(archive) as tar:
        members = [(m, tar.extractfile(m).read()) for m in tar.getmembers()]  # type: ignore[union-attr]
    with tarfile.open(archive, "w:gz") as tar:
        for member, data in [*members, members[0]]:
            tar.addfile(member, io.BytesIO(data))
    with pytest.raises(DefectgenError, match="MoS2-0000 occurs twice"):
        read_2dmd(folder, cache=False)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  S  S189", "  Xx  S189", "'Xx' is no element"),
        ("_cell_length_a   25.52252560", "_cell_length_a   nan", "cannot be read as a CIF"),
        ("_atom_site_fract_x", "_atom_site_other", "no atoms"),
    ],
)
def test_cifs_with_senseless_content_are_refused(old: str, new: str, message: str, mos2: Host) -> None:
    from defectgen.data.twodmd import configuration_from_cif

    text = cif_text(Configuration.of(mos2, {0: "VAC"}))
    assert old in text
    with pytest.raises(DefectgenError, match=message):
        configuration_from_cif(mos2, text.replace(old, new, 1))


def test_the_fast_reader_and_the_one_of_all_commands_see_the_same(mos2: Host) -> None:
    from defectgen.core import configuration_from_structure
    from defectgen.data.twodmd import configuration_from_cif
    from defectgen.io.structures import parse_cif

    for edits in ({0: "VAC"}, {0: "W", 64: "Se", 70: "VAC"}, {}):
        text = cif_text(Configuration.of(mos2, edits))
        assert configuration_from_cif(mos2, text) == configuration_from_structure(mos2, parse_cif(text))
        assert configuration_from_cif(mos2, text) == Configuration.of(mos2, edits)


def test_unknown_sets_and_other_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown set 'MoS3'"):
        read_2dmd(folder, ["MoS3"])
    with pytest.raises(DefectgenError, match="holds no data of a known source: 2dmd"):
        read_dataset(tmp_path / "published" / "csv_cif")
    with pytest.raises(DefectgenError, match=r"holds no set WSe2\. It holds: MoS2"):
        read_2dmd(folder, ["WSe2"])


def write_pilot(root: Path, host: Host) -> list[Configuration]:
    """The pilot layout with six structures, one of them with a metal vacancy."""
    vacancy = Configuration.of(host, {3: "VAC"})
    items = [vacancy, *(i for i in distinct_configurations(host, 20, 9, (1, 2)) if "v_Mo" not in i.label)][:6]
    targets = [{"_id": f"p{k}", "descriptor_id": f"d{k}", **made_up_labels(item)} for k, item in enumerate(items)]
    write_rows(root / "pilot" / "targets.csv.gz", [{k: v for k, v in row.items() if k != "E_1"} for row in targets])
    write_rows(root / "pilot" / "data.csv.gz", [{"": f"d{k}", "structures": cif_text(i)} for k, i in enumerate(items)])
    rows = [{"_id": f"d{k}", "description": "X9", "base": "MoS2"} for k in range(len(items))]
    write_rows(root / "descriptors.csv", rows)
    return items


@pytest.mark.parametrize("flat", [False, True])
def test_the_pilot_layout_is_read_with_its_two_traps(tmp_path: Path, mos2: Host, flat: bool) -> None:
    items = write_pilot(tmp_path, mos2)
    if flat:
        for file in (tmp_path / "pilot").iterdir():
            shutil.move(file, tmp_path / file.name)
        (tmp_path / "pilot").rmdir()
    frame = read_dataset(tmp_path)
    assert tuple(frame.columns) == COLUMNS
    assert frame["configuration"].to_list() == [item.canonical().key for item in items]
    assert frame["homo_ev"].is_null().to_list() == [True, *[False] * 5], "another band in cells with a metal vacancy"
    assert frame["formation_energy_ev"].null_count() == 0
    assert set(frame["level_method"]) == {"fitted_shift"}
    for row, item in zip(frame.rows(named=True)[1:], items[1:], strict=True):
        expected = 0.1 * made_up_labels(item)["formation_energy"]
        assert row["homo_ev"] == pytest.approx(expected, abs=0.015), "made-up shifts are near the real ones"


class TestRealData:
    """What is known about the published data."""

    def test_every_structure_is_a_distinct_decoration_that_follows_the_rules(self, twodmd: pl.DataFrame) -> None:
        assert set(twodmd["set"]) == set(SET_NAMES)
        assert twodmd.select("host", "configuration").is_unique().all()
        for host_name, keys in twodmd.group_by("host").agg("configuration").iter_rows():
            host = get_host(host_name)
            assert all(Configuration.from_key(host, key).follows_rules() for key in keys[:200])
        counts = Counter(twodmd.filter(density="low")["n_defects"])
        assert set(counts) == {1, 2, 3}

    def test_formation_energies_follow_from_total_energies(self, twodmd_dir: Path) -> None:
        errors = formation_energy_errors(twodmd_dir)
        assert set(errors) == set(SET_NAMES)
        assert max(errors.values()) < 1e-6

    def test_every_structure_has_the_defects_of_its_descriptor(self, twodmd_dir: Path) -> None:
        assert descriptor_mismatches(twodmd_dir) == {name: [] for name in SET_NAMES}

    def test_no_level_is_off_by_a_core_level(self, twodmd: pl.DataFrame) -> None:
        assert twodmd["homo_ev"].min() > -0.5  # type: ignore[operator]
        assert twodmd["lumo_ev"].max() < 5.0  # type: ignore[operator]
        span = twodmd.filter(set="MoS2").select(pl.col("homo_ev").min().alias("a"), pl.col("lumo_ev").max().alias("b"))
        assert span.row(0) == pytest.approx((0.0, 1.82), abs=0.01)
        mixed = twodmd.filter(set="WSe2")["level_method"].value_counts()
        assert set(mixed["level_method"]) == {"core_level", "fitted_shift"}

    def test_the_pilot_agrees_with_the_full_release(self, twodmd: pl.DataFrame, pilot_dir: Path) -> None:
        both = read_dataset(pilot_dir).join(twodmd, on="id", suffix="_full")
        assert len(both) > 150
        assert (both["configuration"] == both["configuration_full"]).all()
        for name, tolerance in {"homo_ev": 0.04, "band_gap_ev": 1e-6, "formation_energy_ev": 1e-3}.items():
            assert (both[name] - both[f"{name}_full"]).abs().max() < tolerance  # type: ignore[operator]
