"""The verbs of the library beside `design`: hosts, structures, data, scores. `import defectgen` hands them on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from defectgen.core import Configuration, Host, NotADecorationError, Rule, canonicalize, get_host, host_names
from defectgen.core.enumeration import enumerate_class
from defectgen.core.matching import known_configuration
from defectgen.core.selection import select
from defectgen.errors import UsageError

if TYPE_CHECKING:
    import polars as pl
    from pymatgen.core import Structure

    from defectgen.score.protocol import Scorer

Supercell = tuple[int, int] | str
"""Repetitions along a and b: two numbers, or text such as ``8x8``."""


def host(name: str, supercell: Supercell | None = None) -> Host:
    """A host by name: ``MoS2``, ``WSe2``, ``BN``, ``GaSe``, ``InSe``, ``P``, or one that was added.

    Args:
        name: of the host, in any case.
        supercell: repetitions in the plane; None for those that the host has (built-in ones:
            those of 2DMD, which the shipped models were trained on).

    Raises:
        UsageError: no such host, or a supercell that is none.
    """
    if not isinstance(name, str):
        raise UsageError(f"got {type(name).__name__} {name!r:.40} as host, expected a name.", _names())
    return get_host(name, None if supercell is None else _supercell(supercell))


def hosts() -> tuple[Host, ...]:
    """All hosts, the built-in ones first; `defectgen.core.register_host` adds others."""
    return tuple(get_host(name) for name in host_names())


def read_host(
    path: Path | str,
    supercell: Supercell,
    allow: Mapping[str, str | Sequence[str]] | Sequence[str] | Sequence[Rule] | None = None,
) -> Host:
    """The host whose unit cell is in a CIF or POSCAR file: any layer.

    Args:
        path: of a file with one unit cell of a layer and at least 6 angstrom of vacuum.
        supercell: repetitions in the plane.
        allow: what may stand in place of an element: ``{"W": ["Mo", "VAC"], "S": "VAC"}``, or texts such as
            ``W:Mo,VAC``; None for a vacancy of each element.

    Raises:
        UsageError: a supercell or rule that is none, or a rule for an element that the file does not have.
        DefectgenError: an unreadable file, no layer, partial occupancy, too many atoms.
    """
    from defectgen.io.host_files import host_from_file

    return host_from_file(_path(path), _supercell(supercell), _rules(allow))


def read_structure(path: Path | str, host: Host | None = None) -> Configuration | Structure:
    """What a CIF or POSCAR file holds.

    Args:
        path: of the file.
        host: what the structure decorates; None for any known host, in any supercell of it.

    Returns:
        The configuration if the structure decorates the host or a known one, relaxed or not, however its axes are
        named and wherever its origin is; else, if no host was
        given, the pymatgen structure as it is, lengths in angstrom.

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
    found = get_host(host) if isinstance(host, str) else host
    if not isinstance(found, Host):
        raise UsageError(f"got {type(host).__name__} {host!r:.40} as host, expected a Host.", _names())
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
        UsageError: what is no configuration, an unknown scorer, or a host or defect that the scorer does not know.
        DefectgenError: a model that is missing or damaged, or an extra that is not installed.
    """
    import polars as pl

    chosen = [configurations] if isinstance(configurations, Configuration) else _all(configurations)
    for item in chosen:
        if not isinstance(item, Configuration):
            raise UsageError(
                f"got {type(item).__name__} {item!r:.40}, expected a Configuration.",
                "Use defectgen.read_structure(FILE), or Configuration.from_structure(structure).",
            )
    if not isinstance(scorer, str) and not callable(getattr(scorer, "score", None)):
        raise UsageError(f"got {type(scorer).__name__} {scorer!r:.40} as scorer, expected a name or a Scorer.")
    found = _load(scorer, surrogate, m3gnet) if isinstance(scorer, str) else scorer
    facts = pl.DataFrame(
        {
            "host": [item.host.name for item in chosen],
            "supercell": [item.host.size for item in chosen],
            "label": [item.label for item in chosen],
            "configuration": [item.key for item in canonicalize(chosen)],
        },
        schema=dict.fromkeys(("host", "supercell", "label", "configuration"), pl.String),
    )
    return pl.concat([facts, found.score(chosen)], how="horizontal") if chosen else facts


def load_2dmd(path: Path | str, sets: Sequence[str] | None = None) -> pl.DataFrame:
    """The labelled structures of 2DMD (doi 10.1038/s41699-023-00369-1, CC BY 4.0), one a row.

    Args:
        path: a folder in the published layout, or one that ``defectgen fetch`` made; it is only read.
        sets: names of sets, e.g. ``["MoS2", "WSe2_500"]``; None for all that the folder holds.

    Returns:
        ``id``, ``set``, ``host``, ``label``, ``configuration`` (canonical key), ``n_defects`` and the labels, in eV:
        ``homo_ev``, ``lumo_ev`` and ``fermi_level_ev`` relative to the valence band maximum of the pristine host, null
        where a cell's zero is not known. All columns: `defectgen.data.twodmd.read_2dmd`.

    Raises:
        UsageError: an unknown set.
        DefectgenError: no such data there, or a damaged file.
    """
    from defectgen.data.sources import read_dataset

    return read_dataset(_path(path), sets)


def _path(path: object) -> Path:
    if isinstance(path, str | Path):
        return Path(path)
    raise UsageError(f"got {type(path).__name__} {path!r:.40}, expected the path of a file.")


def _names() -> str:
    return f"Known ones: {', '.join(host_names())}; any other: defectgen.read_host(FILE, supercell=(4, 4))."


def _supercell(given: object) -> tuple[int, int]:
    from defectgen.io.host_files import parse_supercell

    if isinstance(given, str):
        return parse_supercell(given)
    if isinstance(given, Sequence) and len(given) == 2 and all(type(number) is int and number > 0 for number in given):
        return given[0], given[1]
    raise UsageError(f"got supercell {given!r:.40}, expected two whole numbers of 1 or more, e.g. (4, 4).")


def _rules(allow: object) -> tuple[Rule, ...]:
    from defectgen.io.host_files import parse_rules

    if allow is None:
        return ()
    if isinstance(allow, Mapping):
        news = {element: [new] if isinstance(new, str) else list(new) for element, new in allow.items()}
        return parse_rules([f"{element}:{','.join(new)}" for element, new in news.items()])
    if isinstance(allow, str):
        return parse_rules([allow])
    if isinstance(allow, Sequence) and all(isinstance(rule, Rule) for rule in allow):
        return tuple(allow)
    if isinstance(allow, Sequence) and all(isinstance(rule, str) for rule in allow):
        return parse_rules(allow)
    raise UsageError(f'got allow={allow!r:.40}, expected e.g. {{"W": ["Mo", "VAC"]}}.')


def _all(configurations: object) -> list[Configuration]:
    if isinstance(configurations, str) or not isinstance(configurations, Iterable):
        got = f"{type(configurations).__name__} {configurations!r:.40}"
        raise UsageError(f"got {got}, expected configurations.", "Give a Configuration or several.")
    return list(configurations)


def _load(name: str, surrogate: Path | str | None, m3gnet: Path | str | None) -> Scorer:
    """A registered scorer; the surrogate is kept in memory, as it is asked for again and again."""
    from defectgen.data.assets import cache_dir
    from defectgen.design.engine import load_surrogate
    from defectgen.models import SHIPPED_SURROGATE, shipped
    from defectgen.score.registry import ScorerOptions, load_scorer

    if name == "surrogate":
        return load_surrogate(shipped(SHIPPED_SURROGATE) if surrogate is None else Path(surrogate))
    return load_scorer(name, ScorerOptions(cache=cache_dir() / "matgl", m3gnet=m3gnet))
