"""The verbs of the library beside `design`: hosts, structures, data, scores. `import defectgen` hands them on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from defectgen.core import Configuration, Host, NotADecorationError, Rule, as_host, canonicalize, get_host
from defectgen.core.enumeration import enumerate_class
from defectgen.core.hosts import HOSTS
from defectgen.core.matching import known_configuration
from defectgen.core.selection import select
from defectgen.core.whole import is_whole
from defectgen.errors import DefectgenError, UsageError
from defectgen.one_line import typed
from defectgen.score.protocol import FACTS, Scorer, checked_scores
from defectgen.watch import Watch, unwatched

if TYPE_CHECKING:
    import polars as pl
    from pymatgen.core import Structure

    from defectgen.score.surrogate import Surrogate

Supercell = tuple[int, int] | str
"""Repetitions along a and b: two numbers, or text such as ``8x8``."""

Allowed = Mapping[str, str | Sequence[str]] | Sequence[str] | Sequence[Rule] | None
"""What may stand in place of an element, see `read_host`."""


def host(name: str, supercell: Supercell | None = None) -> Host:
    """A host by name: ``MoS2``, ``WSe2``, ``BN``, ``GaSe``, ``InSe``, ``P``, or one that was added.

    Args:
        name: of the host, in any case.
        supercell: repetitions in the plane; None for those that the host has (built-in ones:
            those of 2DMD, which the shipped models were trained on).

    Raises:
        UsageError: no such host, or a supercell that is none.
    """
    if isinstance(name, str):
        return get_host(name, None if supercell is None else _supercell(supercell))
    raise UsageError(f"got {typed(name)} as host, expected a name.", f"E.g. {', '.join(HOSTS)}.")


def hosts() -> tuple[Host, ...]:
    """All hosts, the built-in ones first; `defectgen.core.register_host` adds others."""
    return tuple(HOSTS.values())


def read_host(
    path: Path | str,
    supercell: Supercell | None = None,
    allow: Allowed = None,
    symmetry_tolerance: float | None = None,
) -> Host:
    """The host whose unit cell is in a CIF or POSCAR file, any layer, or the one that a folder carries.

    Args:
        path: of a file with one unit cell of a layer and at least 6 angstrom of vacuum, an entry ``FILE#ID`` of a
            database such as C2DB's, JARVIS' or MC2D's that you have, or a folder with a surrogate, an adapter, records
            or a design run, which carry the host that they are of.
        supercell: repetitions in the plane; a file needs them.
        allow: what may stand in place of an element: ``{"W": ["Mo", "VAC"], "S": "VAC"}``, or texts such as
            ``W:Mo,VAC``; None for a vacancy of each element.
        symmetry_tolerance: a layer that has more symmetry to within so many angstrom than to within 0.01 is refused as
            one with rounded coordinates [0.1]; 0.01 takes a distorted layer with the symmetry that it has.

    Raises:
        UsageError: a supercell or rule that is none, or a rule for an element that the file does not have.
        DefectgenError: an unreadable file, no layer, partial occupancy, too many atoms.
    """
    from defectgen.io.host_files import NOISE_ANGSTROM, find_host, host_from_file

    found, size = _path(path), None if supercell is None else _supercell(supercell)
    if found.is_dir() or found.suffix.lower() == ".json":
        return find_host(str(found), size, _rules(allow))
    noise = NOISE_ANGSTROM if symmetry_tolerance is None else symmetry_tolerance
    return host_from_file(found, size, _rules(allow), noise)


def read_structure(path: Path | str, host: Host | None = None) -> Configuration | Structure:
    """What a CIF or POSCAR file holds.

    Args:
        path: of the file.
        host: what the structure decorates; None for any known host, in any supercell of it.

    Returns:
        The configuration if the structure decorates the host or a known one, relaxed or not, however its axes are
        named and wherever its origin is; else, if no host was given, the pymatgen structure as it is, in angstrom.

    Raises:
        DefectgenError: no such file, or one that cannot be read as a structure.
        NotADecorationError: no decoration of the given host; the message says which atom or cell does not fit.
    """
    from defectgen.io.structures import read_structure as read

    structure = read(_path(path))
    try:
        return known_configuration(structure, host)
    except NotADecorationError as error:
        if host is None:
            return structure
        raise NotADecorationError(f"{path}: {error}") from error


def enumerate_configurations(
    host: Host | str,
    label: str | Sequence[str] | None = None,
    *,
    rules: str | None = None,
    max_defects: int | None = None,
    min_defects: int = 1,
) -> Iterator[Configuration]:
    """Every symmetry-distinct configuration of some defect classes, each once, in canonical form and a fixed order.

    They are made one by one as they are asked for, so that the first of many millions come at once. Exactly one of
    `label`, `rules` and `max_defects` says which classes.

    Args:
        host: what is decorated, or the name of a built-in host.
        label: defect classes, e.g. ``v_S`` or ``["2v_S", "v_Mo+Se_S"]``.
        rules: a named list of classes: ``2dmd-low``, the 17 of the low-density part of 2DMD.
        max_defects: all classes of up to so many defects.
        min_defects: fewest defects, with `max_defects`.

    Raises:
        UsageError: none or several of these, a class that the host's rules do not have, or what is no host. Raised at
            once, before the first configuration is asked for.
    """
    found = as_host(host)
    named = (("label", label), ("rules", rules), ("max_defects", max_defects))
    given = [name for name, value in named if value is not None]
    if len(given) != 1:
        raise UsageError(
            f"got {' and '.join(given) or 'no defect classes'}, expected one of label, rules, max_defects.",
            'E.g. label="v_S", rules="2dmd-low" or max_defects=2.',
        )
    labels = [label] if isinstance(label, str) else list(label or ())
    selection = select(found, labels, rules=rules, max_defects=max_defects, min_defects=min_defects)
    return (distinct.configuration for defects in selection.classes for distinct in enumerate_class(found, defects))


def score(
    configurations: Iterable[Configuration] | Configuration,
    scorer: str | Scorer = "surrogate",
    *,
    surrogate: Path | str | None = None,
    m3gnet: Path | str | None = None,
) -> pl.DataFrame:
    """Predicted properties of configurations.

    Args:
        configurations: what is scored, in any form of each; a generator is read to its end.
        scorer: name of a registered scorer (``surrogate``, ``m3gnet``, ``chgnet``, ``slices-catboost``), or a scorer.
        surrogate: folder of a trained surrogate; None for the shipped one.
        m3gnet: folder of M3GNet, or its name on the hub.

    Returns:
        One row a configuration, in their order: ``host``, ``supercell``, ``label``, ``configuration`` (canonical key),
        then a column for each property that the scorer knows, e.g. ``homo_ev`` (eV, levels relative to the valence band
        maximum of the pristine host), beside it the half-width of its 90 % interval, e.g. ``homo_uncertainty_ev``, and
        ``in_domain``: whether the scorer was made for configurations like this one. The surrogate has no value for more
        changed sites than it has seen.

    Raises:
        UsageError: what is no configuration, a scorer that is none, or a host or defect that it does not know.
        DefectgenError: a model that is missing or damaged, or an extra that is not installed.
    """
    import polars as pl

    chosen = [configurations] if isinstance(configurations, Configuration) else _all(configurations)
    for item in chosen:
        if not isinstance(item, Configuration):
            raise UsageError(
                f"got {typed(item)}, expected a Configuration.",
                "Use defectgen.read_structure(FILE), or Configuration.from_structure(structure).",
            )
    if not isinstance(scorer, str) and not callable(getattr(scorer, "score", None)):
        raise UsageError(f"got {typed(scorer)} as scorer, expected a name or a Scorer.")
    found = _load(scorer, surrogate, m3gnet) if isinstance(scorer, str) else scorer
    facts = pl.DataFrame(
        {
            "host": [item.host.name for item in chosen],
            "supercell": [item.host.size for item in chosen],
            "label": [item.label for item in chosen],
            "configuration": [item.key for item in canonicalize(chosen)],
        },
        schema=dict.fromkeys(FACTS, pl.String),
    )
    return pl.concat([facts, checked_scores(found.score(chosen), len(chosen))], how="horizontal") if chosen else facts


def load_2dmd(path: Path | str, sets: str | Sequence[str] | None = None) -> pl.DataFrame:
    """The labelled structures of 2DMD (doi 10.1038/s41699-023-00369-1, CC BY 4.0), one a row.

    Args:
        path: a folder in the published layout, or one that ``defectgen fetch`` made; it is only read.
        sets: names of sets, e.g. ``["MoS2", "WSe2_500"]``, or one; None for all that the folder holds.

    Returns:
        ``id``, ``set``, ``host``, ``label``, ``configuration`` (canonical key), ``n_defects`` and the labels, in eV:
        ``homo_ev``, ``lumo_ev`` and ``fermi_level_ev`` relative to the valence band maximum of the pristine host, null
        where a cell's zero is not known. All columns: `defectgen.data.twodmd.read_2dmd`.

    Raises:
        UsageError: an unknown set.
        DefectgenError: no such data there, or a damaged file.
    """
    from defectgen.data.sources import read_dataset

    return read_dataset(_path(path), [sets] if isinstance(sets, str) else sets)


def train_surrogate(
    table: Path | str | pl.DataFrame,
    output: Path | str,
    host: Host | str | None = None,
    *,
    seed: int = 42,
    threads: int = 1,
    networks: int = 0,
    command: str = "",
    watch: Watch = unwatched,
) -> Surrogate:
    """A surrogate trained on one's own values of decorations of one host, written to a folder that carries the host.

    Nine tenths of the symmetry classes are trained on, a ninth of these chooses first; the other tenth is the test.
    Cells with up to three defects and cells with more have models of their own.

    Args:
        table: Parquet or CSV file, or the table itself: a column ``configuration`` (key such as ``VAC@A00+Se@B14``),
            ``structure`` (path of a file, beside the table) or ``label`` (where it has one decoration only), and a
            column for each property, e.g. ``homo_ev`` (eV above the pristine host's valence band maximum) and
            ``formation_energy_ev``.
        output: folder to write.
        host: what is decorated, or its name; None if the table carries it.
        seed: of split and trees.
        threads: of the trees; their number changes the last digits.
        networks: neural networks that have a share in crowded cells; 0 for none.
        command: to record, where a command line called this.
        watch: told of each finished model and network.

    Returns:
        The surrogate, as `score(..., surrogate=output)` and `design(..., models=Models(surrogate=output))` load it; its
        ``metadata["errors"]["test"]`` holds the errors on the test part.

    Raises:
        UsageError: a table without a host or property, defects that the host does not allow, or a folder in use.
        DefectgenError: a damaged table, or too few rows.
    """
    import polars as pl

    from defectgen.data.own_table import contradiction, own_rows, read_own_table
    from defectgen.data.splits import split_by_class
    from defectgen.io.files import file_hash
    from defectgen.io.host_tables import HOST_RECORD, host_of
    from defectgen.score.intervals import MIN_TRAIN_ROWS
    from defectgen.score.surrogate.host_models import learnt_columns
    from defectgen.score.surrogate.table_notes import table_notes
    from defectgen.score.surrogate.training import n_networks
    from defectgen.score.surrogate.training import train_surrogate as train

    found = None if host is None else as_host(host)
    if isinstance(table, pl.DataFrame):
        if found is None and HOST_RECORD not in table.columns:
            raise UsageError("the table does not say which host its rows decorate.", "Give host=.")
        rows, data = own_rows(table, found or host_of(table)), "a table in memory"
    else:
        path = _path(table)
        rows = read_own_table(path, found)
        data = f"{path.name} (sha256 {file_hash(path)[:12]})"
    rows = split_by_class(rows, seed=seed)
    for name, count in rows.filter(split="train").group_by("set", maintain_order=True).len().iter_rows():
        if count < MIN_TRAIN_ROWS or rows.filter(set=name, split="validation").is_empty():
            n = rows.filter(set=name).height
            raise DefectgenError(
                f"{n} rows of {name} give {count} to train on, expected {MIN_TRAIN_ROWS} or more and one to choose on.",
                "Cells with up to three defects and cells with more are trained on apart; give more rows, or leave the "
                "few of one kind out.",
            )
    about = {
        "command": command or "defectgen.train_surrogate",
        "data": f"{data}, {len(rows):,} structures of {host_of(rows).title}",
        "split": f"80/10/10 by symmetry class, seed {seed}",
        "own_table": True,
    }
    if notes := [line for line in (contradiction(rows), *table_notes(rows)) if line]:
        about["warning"] = "; ".join(notes)
    number = rows["set"].n_unique() * len(learnt_columns()) + n_networks(rows, networks)
    with watch("training", number, "models") as advance:
        return train(rows, Path(output), seed, threads=threads, about=about, networks=networks, advance=advance)


def train_surrogate_of_sets(
    path: Path | None,
    output: Path | str,
    sets: str = "all",
    *,
    half: str | None = None,
    seed: int = 42,
    threads: int = 1,
    networks: int = 0,
    command: str = "",
    watch: Watch = unwatched,
) -> Surrogate:
    """A surrogate trained on sets of 2DMD, written to a folder; see `train_surrogate`.

    Args:
        path: 2DMD in its published layout; None for the fetched one.
        output: folder to write.
        sets: names with commas between, or ``all``.
        half: ``a`` or ``b`` to learn from one half of the symmetry classes only; None for both.
        seed: of split, half and trees.
        threads, networks, command, watch: as there.

    Raises:
        UsageError: no such set or half, or a folder in use.
        DefectgenError: data that are missing or damaged.
    """
    from defectgen.data.levels import fit_level_scales
    from defectgen.data.locations import labelled_sets
    from defectgen.data.splits import split_by_class
    from defectgen.score.surrogate.cross_validation import half_of
    from defectgen.score.surrogate.host_models import learnt_columns
    from defectgen.score.surrogate.training import n_networks
    from defectgen.score.surrogate.training import train_surrogate as train

    whole = split_by_class(labelled_sets(path, sets).frame, seed=seed)
    rows = whole if half is None else half_of(whole, half, seed)
    scales = {name: scale.to_dict() for name, scale in fit_level_scales(whole).items()}
    part = "" if half is None else f"; of the 80 and the first 10 only half {half} of the classes"
    about = {
        "command": command or "defectgen.library.train_surrogate_of_sets",
        "data": f"2DMD (CC BY 4.0), {len(whole):,} labelled structures of {rows['set'].n_unique()} sets",
        "split": f"80/10/10 by symmetry class, stratified by set, seed {seed}{part}",
    }
    number = rows["set"].n_unique() * len(learnt_columns()) + n_networks(rows, networks)
    with watch("training", number, "models") as told:
        return train(
            rows, Path(output), seed, level_scales=scales, threads=threads, about=about, networks=networks, advance=told
        )


def _path(path: object) -> Path:
    if isinstance(path, str | Path):
        return Path(path)
    raise UsageError(f"got {typed(path)}, expected the path of a file.")


def _supercell(given: object) -> tuple[int, int]:
    from defectgen.io.host_files import parse_supercell

    if isinstance(given, str):
        return parse_supercell(given)
    sizes = list(given) if isinstance(given, Iterable) else []
    if len(sizes) == 2 and all(is_whole(number) and number > 0 for number in sizes):
        return int(sizes[0]), int(sizes[1])
    raise UsageError(f"got supercell {given!r:.40}, expected two whole numbers of 1 or more, e.g. (4, 4).")


def _rules(allow: object) -> tuple[Rule, ...]:
    from defectgen.io.host_files import parse_rules

    if allow is None:
        return ()
    if isinstance(allow, Mapping):
        news = {element: [new] if isinstance(new, str) else list(new) for element, new in allow.items()}
        return parse_rules([f"{element}:{','.join(map(str, new))}" for element, new in news.items()])
    if isinstance(allow, str):
        return parse_rules([allow])
    if isinstance(allow, Sequence) and all(isinstance(rule, Rule) for rule in allow):
        return tuple(allow)
    if isinstance(allow, Sequence) and all(isinstance(rule, str) for rule in allow):
        return parse_rules(allow)
    raise UsageError(f'got allow={allow!r:.40}, expected e.g. {{"W": ["Mo", "VAC"]}}.')


def _all(configurations: object) -> list[Configuration]:
    is_table = hasattr(configurations, "columns")
    if is_table or isinstance(configurations, str) or not isinstance(configurations, Iterable):
        hint = "Give one or several; a table: defectgen score FILE."
        raise UsageError(f"got {typed(configurations)}, expected configurations.", hint)
    return list(configurations)


def _load(name: str, surrogate: Path | str | None, m3gnet: Path | str | None) -> Scorer:
    """A registered scorer; the surrogate is kept in memory, as it is asked for again and again."""
    from defectgen.data.assets import cache_dir
    from defectgen.design.engine import load_surrogate
    from defectgen.models import SHIPPED_SURROGATE, shipped
    from defectgen.score.scorers import ScorerOptions, load_scorer

    if name == "surrogate":
        return load_surrogate(shipped(SHIPPED_SURROGATE) if surrogate is None else Path(surrogate))
    return load_scorer(name, ScorerOptions(cache=cache_dir() / "matgl", m3gnet=m3gnet))
