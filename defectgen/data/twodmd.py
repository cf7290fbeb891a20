"""Reader of 2DMD, the published data set of point defects in 2D materials, as one table.

Source: Huang et al., npj 2D Mater Appl 7, 6 (2023), doi 10.1038/s41699-023-00369-1 (CC BY 4.0).
Two layouts are understood: the published one (``csv_cif/<density>/<set>/...`` with
``processed/<density>/<set>/targets.csv.gz``) and the pilot sample of 200 structures in the source
distribution of MEGNetSparse (``data.csv.gz``, ``targets.csv.gz``, ``descriptors.csv``).
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from defectgen.core import (
    Configuration,
    Host,
    NotADecorationError,
    canonicalize,
    configuration_from_atoms,
)
from defectgen.core.hosts import BUILT_IN
from defectgen.core.level_scale import LevelScale
from defectgen.data.levels import align_levels, reference_digest, reference_scale, scale_of
from defectgen.data.table_cache import cached_table
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.crystal_cif import CifError, atoms_from_cif
from defectgen.io.host_tables import HOST_RECORD

READER_VERSION = 4
"""Counts changes of what the reader returns; cached tables of another version or other level scales are not used."""

TOLERANCE_ANGSTROM = 0.05
"""Farthest that an atom of these unrelaxed structures may lie from its site."""


@dataclass(frozen=True)
class SetInfo:
    """One of the eight sets: its published folder name, host and density (``low`` or ``high``)."""

    name: str
    core_host: Host
    density: str

    @property
    def host(self) -> str:
        """Name of the host."""
        return self.core_host.name


SETS = (
    SetInfo("MoS2", BUILT_IN["MoS2"], "low"),
    SetInfo("WSe2", BUILT_IN["WSe2"], "low"),
    SetInfo("MoS2_500", BUILT_IN["MoS2"], "high"),
    SetInfo("WSe2_500", BUILT_IN["WSe2"], "high"),
    SetInfo("hBN_spin_500", BUILT_IN["BN"], "high"),
    SetInfo("BP_spin_500", BUILT_IN["P"], "high"),
    SetInfo("GaSe_spin_500", BUILT_IN["GaSe"], "high"),
    SetInfo("InSe_spin_500", BUILT_IN["InSe"], "high"),
)

LOW_DENSITY_MOST = 3
"""Most defects in a cell of the sets of low density."""

SET_NAMES = tuple(info.name for info in SETS)

_TARGETS = {
    "homo_raw_ev": "homo_max",
    "lumo_raw_ev": "lumo_min",
    "fermi_level_raw_ev": "fermi_level",
    "band_gap_ev": "homo_lumo_gap_min",
    "formation_energy_ev": "formation_energy",
    "formation_energy_per_site_ev": "formation_energy_per_site",
    "energy_per_atom_ev": "energy_per_atom",
    "energy_ev": "energy",
    "total_magnetization_mu_b": "total_mag",
}
"""Our column and the published one. Spin-polarized sets: the HOMO is the higher of the two channels',
the LUMO the lower, and the gap the smaller of the two channels' gaps (so it may exceed LUMO - HOMO)."""

_SPIN_TARGETS = {
    f"{ours}_{channel}{raw}_ev": f"{published}_{channel}"
    for channel in ("majority", "minority")
    for ours, published, raw in (("homo", "homo", "_raw"), ("lumo", "lumo", "_raw"), ("band_gap", "homo_lumo_gap", ""))
}
"""Likewise for each spin channel; both are the same where a cell was computed without spin."""

COLUMNS = (
    "id", "host", "set", "density", "supercell", "configuration", "label", "defect_class", "n_defects",
    "concentration", "homo_ev", "lumo_ev", "fermi_level_ev", "band_gap_ev", "formation_energy_ev",
    "formation_energy_per_site_ev", "energy_per_atom_ev", "energy_ev", "total_magnetization_mu_b", "homo_raw_ev",
    "lumo_raw_ev", "fermi_level_raw_ev", "level_shift_ev", "level_method", "level_error_ev", "core_level_raw_ev",
    "core_level_pristine_ev", "vbm_pristine_ev", "homo_majority_ev", "homo_minority_ev", "lumo_majority_ev",
    "lumo_minority_ev", "band_gap_majority_ev", "band_gap_minority_ev", "homo_majority_raw_ev", "homo_minority_raw_ev",
    "lumo_majority_raw_ev", "lumo_minority_raw_ev", HOST_RECORD,
)  # fmt: skip


def read_2dmd(path: Path, sets: Sequence[str] | None = None, cache: bool = True) -> pl.DataFrame:
    """The published sets as one table: one row a structure, in the order of the sets and of the ids.

    Args:
        path: folder with ``csv_cif`` and ``processed``; it is only read.
        sets: published folder names; by default all that the folder holds.
        cache: keep the table of each set in the cache folder (`defectgen.data.assets.cache_dir`) and
            use it as long as the files have the same sizes and times.

    Returns:
        Columns `COLUMNS`. Energies and levels in eV. ``homo_ev``, ``lumo_ev`` and ``fermi_level_ev`` are
        relative to the pristine host's VBM, null where cells cannot be aligned (see
        `defectgen.data.levels`); ``*_raw_ev`` are on each cell's own zero. ``configuration`` is the key of
        the canonical configuration; ``defect_class`` (X1 to S6) exists at low density only. Labels that
        are NaN in the files are null. Structures without labels are left out.

    Raises:
        UsageError: an unknown set.
        DefectgenError: a missing, truncated or incomplete file, named; duplicate ids; a structure that
            is no decoration of its host.
    """
    path = Path(path)
    unknown = [name for name in sets or () if name not in SET_NAMES]
    if unknown:
        raise UsageError(f"unknown set {unknown[0]!r}.", f"Known sets: {', '.join(SET_NAMES)}.")
    absent = [name for name in sets or () if not set_folder(path, next(i for i in SETS if i.name == name)).is_dir()]
    if absent:
        held = [info.name for info in SETS if set_folder(path, info).is_dir()]
        raise UsageError(f"{path} holds no set {absent[0]}.", f"It holds: {', '.join(held) or 'none of them'}.")
    chosen = [info for info in SETS if (info.name in sets if sets is not None else set_folder(path, info).is_dir())]
    if not chosen:
        raise DefectgenError(f"{path} holds none of the sets {', '.join(SET_NAMES)}.")
    frame = pl.concat([_cached_set(path, info) if cache else _read_set(path, info) for info in chosen])
    _refuse_duplicates(frame["id"], path)
    return frame


def read_pilot(path: Path) -> pl.DataFrame:
    """The pilot sample of 200 low-density structures, with the columns of `read_2dmd`.

    The sample has no core levels: levels are aligned by the shifts that the full set shows. In most cells
    with a metal vacancy it takes another band for the highest occupied one than the full release does
    (up to 0.5 eV apart; there it lies above the Fermi level): HOMO, LUMO and gap of these cells are null,
    so that one word means one quantity. Energies and Fermi levels agree.

    Args:
        path: the folder ``examples`` of the source distribution, or a folder with these files side by side.

    Raises:
        DefectgenError: as `read_2dmd`.
    """
    path = Path(path)
    folder = path / "pilot" if (path / "pilot").is_dir() else path
    data = read_csv(folder / "data.csv.gz", ("structures",))
    targets = read_csv(folder / "targets.csv.gz", ("_id", "descriptor_id", *_TARGETS.values()))
    descriptors = read_csv(path / "descriptors.csv", ("_id", "description", "base"))
    if len(data) != len(targets) or (data.to_series(0) != targets["descriptor_id"]).any():
        raise DefectgenError(f"{folder}: data.csv.gz and targets.csv.gz do not list the same structures.")
    _refuse_duplicates(targets["_id"], folder / "targets.csv.gz")
    bases = dict(zip(descriptors["_id"], descriptors["base"], strict=True))
    parts = []
    for info in SETS[:2]:
        mine = [k for k, found in enumerate(targets["descriptor_id"]) if bases.get(found) == info.host]
        texts = dict(zip(targets["_id"][mine], data["structures"][mine], strict=True))
        if mine:
            parts.append(_table(info, targets[mine], descriptors, texts, reference_scale(info.name)))
    if not parts:
        raise DefectgenError(f"{folder}: no structure of MoS2 or WSe2 in it.")
    other_band = pl.col("label").str.contains("v_(?:Mo|W)") & (pl.col("homo_raw_ev") < pl.col("fermi_level_raw_ev"))
    columns = ("homo_ev", "lumo_ev", "band_gap_ev", "homo_raw_ev", "lumo_raw_ev")
    return pl.concat(parts).with_columns(
        pl.when(other_band).then(None).otherwise(pl.col(name)).alias(name) for name in columns
    )


def configuration_from_cif(host: Host, text: str) -> Configuration:
    """The configuration in the text of an unrelaxed CIF.

    Raises:
        NotADecorationError: unreadable text, or an atom away from the host's sites.
    """
    try:
        atoms = atoms_from_cif(text)
    except CifError as error:
        raise NotADecorationError(f"cannot be read as a CIF ({error}).") from error
    return configuration_from_atoms(host, atoms.lattice(), list(atoms.species), atoms.fractional, TOLERANCE_ANGSTROM)


_CORE = ("core_level_raw_ev", "core_level_pristine_ev", "vbm_pristine_ev")


def set_folder(path: Path, info: SetInfo) -> Path:
    """Where the structures and descriptors of a set are."""
    return path / "csv_cif" / f"{info.density}_density_defects" / info.name


def targets_file(path: Path, info: SetInfo) -> Path:
    """The labels of a set."""
    return path / "processed" / f"{info.density}_density_defects" / info.name / "targets.csv.gz"


def _cached_set(path: Path, info: SetInfo) -> pl.DataFrame:
    """`_read_set` through the cache."""
    names = ("descriptors.csv", "initial_structures.csv", "initial.tar.gz")
    files = [*(set_folder(path, info) / name for name in names), targets_file(path, info)]
    about = f"{READER_VERSION} {info.name} {reference_digest()}"
    return cached_table(f"2dmd-{info.name}", about, files, lambda: _read_set(path, info))


def _read_set(path: Path, info: SetInfo) -> pl.DataFrame:
    folder = set_folder(path, info)
    targets = read_csv(targets_file(path, info), ("_id", "descriptor_id", *_TARGETS.values()))
    channels = ("E_1_majority", "E_1_minority")
    core: tuple[str, ...] = channels if all(name in targets.columns for name in channels) else ("E_1",)
    _require(targets, core, targets_file(path, info))
    descriptors = read_csv(folder / "descriptors.csv", ("_id", "description", "base"))
    _refuse_duplicates(descriptors["_id"], folder / "descriptors.csv")
    pristine = read_csv(folder / "initial_structures.csv", ("base", "E_1", "E_VBM")).filter(base=info.host)
    if pristine.is_empty():
        raise DefectgenError(f"{folder / 'initial_structures.csv'} has no row for {info.host}.")
    _refuse_duplicates(targets["_id"], targets_file(path, info))
    wanted = set(targets["_id"])
    archive = folder / "initial.tar.gz"
    texts: dict[str, str] = {}
    for name, text in _members(archive):
        if name in texts:
            raise DefectgenError(f"{archive}: the structure {name} occurs twice, expected once.")
        if name in wanted:
            texts[name] = text
    missing = wanted - texts.keys()
    if missing:
        raise DefectgenError(f"{archive} lacks {len(missing)} of {len(wanted)} structures, e.g. {min(missing)}.cif.")
    targets = targets.with_columns(
        core_level_raw_ev=sum((_numbers(targets, name, info) for name in core[1:]), _numbers(targets, core[0], info))
        / len(core),
        core_level_pristine_ev=pl.lit(pristine["E_1"][0]),
        vbm_pristine_ev=pl.lit(pristine["E_VBM"][0]),
    )
    return _table(info, targets, descriptors, texts, None)


def _table(
    info: SetInfo, targets: pl.DataFrame, descriptors: pl.DataFrame, texts: dict[str, str], scale: LevelScale | None
) -> pl.DataFrame:
    """One set's rows. Without a scale, `defectgen.data.levels.scale_of` finds it."""
    host = info.core_host
    found: list[Configuration] = []
    for name in targets["_id"]:
        try:
            found.append(configuration_from_cif(host, texts[name]))
        except NotADecorationError as error:
            raise DefectgenError(f"structure {name} of {info.name} is no decoration of {info.host}: {error}") from error
        if not found[-1].follows_rules():
            raise DefectgenError(
                f"structure {name} of {info.name}: {found[-1].label} is no defect that {info.host} allows."
            )
    found = canonicalize(found)
    classes = dict(zip(descriptors["_id"], descriptors["description"], strict=True))
    unknown = set(targets["descriptor_id"]) - classes.keys()
    if unknown:
        raise DefectgenError(f"descriptors.csv of {info.name} lacks {len(unknown)} descriptors, e.g. {min(unknown)}.")
    low = info.density == "low"
    frame = pl.DataFrame(
        {
            "id": targets["_id"],
            "host": [info.host] * len(found),
            "set": [info.name] * len(found),
            "density": [info.density] * len(found),
            "supercell": [host.size] * len(found),
            HOST_RECORD: [host.to_json()] * len(found),
            "configuration": [item.key for item in found],
            "label": [item.label for item in found],
            "defect_class": [classes[key] if low else None for key in targets["descriptor_id"]],
            "n_defects": [item.n_defects for item in found],
            "concentration": [item.concentration for item in found],
        },
        schema_overrides={"defect_class": pl.String},
    ).with_columns(
        (_numbers(targets, source, info) if source in targets.columns else pl.lit(None, pl.Float64)).alias(name)
        for name, source in (_TARGETS | _SPIN_TARGETS | {name: name for name in _CORE}).items()
    )
    return align_levels(frame, scale or scale_of(frame)).select(COLUMNS).sort("id")


def _members(archive: Path) -> Iterator[tuple[str, str]]:
    """Name without suffix and text of each CIF in a compressed tar file, which is only read in memory."""
    if not archive.is_file():
        raise DefectgenError(f"{archive} is missing.")
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                handle = tar.extractfile(member) if member.name.endswith(".cif") else None
                if handle is not None:
                    yield Path(member.name).stem, handle.read().decode()
    except (tarfile.TarError, EOFError, zlib.error, OSError, UnicodeDecodeError) as error:
        raise DefectgenError(f"{archive} is truncated or damaged ({error}).") from error


def read_csv(path: Path, columns: Iterable[str]) -> pl.DataFrame:
    """A CSV file, compressed or not; empty fields and NaN are null.

    Raises:
        DefectgenError: missing or damaged file, or a column that it lacks.
    """
    if not path.is_file():
        raise DefectgenError(f"{path} is missing.")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        frame = pl.read_csv(io.BytesIO(content), infer_schema_length=None, null_values=["", "NaN", "nan"])
    except (EOFError, zlib.error, OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DefectgenError(f"{path} is truncated or damaged ({reason}).") from error
    _require(frame, columns, path)
    return frame


def _numbers(table: pl.DataFrame, column: str, info: SetInfo) -> pl.Series:
    """A column as numbers; what is not finite is null.

    Raises:
        DefectgenError: text that is no number, with its row.
    """
    values = table[column].cast(pl.Float64, strict=False)
    wrong = (values.is_null() & table[column].is_not_null()).arg_true()
    if len(wrong):
        row = int(wrong[0])
        raise DefectgenError(
            f"set {info.name}, structure {table['_id'][row]}: {column} is {table[column][row]!r}, expected a number."
        )
    return values.set(~values.is_finite().fill_null(False), None)


def _require(frame: pl.DataFrame, columns: Iterable[str], path: Path) -> None:
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise DefectgenError(f"{path} has no column {missing[0]!r}; its columns are {', '.join(frame.columns)}.")


def _refuse_duplicates(ids: pl.Series, path: Path) -> None:
    if ids.null_count():
        raise DefectgenError(f"{path}: {ids.null_count()} rows have no id.")
    twice = ids.filter(ids.is_duplicated())
    if len(twice):
        raise DefectgenError(f"{path}: the id {twice[0]} occurs {int((ids == twice[0]).sum())} times, expected once.")
