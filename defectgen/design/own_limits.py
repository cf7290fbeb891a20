"""Limits and growth conditions that a row of a targets file has for itself, in place of those of the options."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from defectgen.design.candidates import DesignRun, Target
from defectgen.design.limits import Limits, parse_share
from defectgen.errors import UsageError
from defectgen.one_line import shown

if TYPE_CHECKING:
    from defectgen.design.request import DesignRequest

TOLERANCE = "tolerance"
"""Column that widens every plain number of its row to a range."""

CONDITIONS, MU = "conditions", "mu"


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in re.split(r"[,;\s]+", text) if name)


def _whole(text: str) -> int:
    if not re.fullmatch(r"\d{1,6}", text):
        raise UsageError(f"got {shown(text)}, expected a whole number.")
    return int(text)


def _length(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"got {shown(text)}, expected a number of angstrom.") from error


_FIELDS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "min_defects": ("min_defects", _whole),
    "max_defects": ("max_defects", _whole),
    "kinds": ("kinds", _names),
    "defects": ("defects", _names),
    "only": ("only", _names),
    "without": ("without", _names),
    "concentration": ("concentration", parse_share),
    "sublattice": ("side", str),
    "least_distance": ("least_distance_angstrom", _length),
}
"""Field of `Limits` and reader of each column; in a cell names stand with commas, semicolons or spaces between."""

OWN_COLUMNS = (*_FIELDS, CONDITIONS, MU)


def own_limits(limits: Limits, own: Sequence[tuple[str, str]]) -> Limits:
    """The limits with those of a row in place of their own.

    Args:
        limits: of the options.
        own: (column, text) pairs of the row, columns of `OWN_COLUMNS`.

    Raises:
        UsageError: what is no such limit, or limits that contradict each other.
    """
    changed = {}
    for column, text in own:
        if column in _FIELDS:
            field, read = _FIELDS[column]
            try:
                changed[field] = read(text)
            except UsageError as error:
                raise UsageError(f"{column}: {error}") from error
    return replace(limits, **changed) if changed else limits


def divided(request: DesignRequest) -> list[DesignRequest]:
    """One request for all targets with the same limits and conditions.

    Raises:
        UsageError: limits of a target that contradict each other or those of the options; names the target.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Target]] = {}
    for target in request.targets:
        groups.setdefault(target.own, []).append(target)
    parts = []
    for own, targets in groups.items():
        texts = dict(own)
        try:
            limits = own_limits(request.limits, own)
        except UsageError as error:
            raise named(error, targets[0]) from error
        growth = (request.conditions, request.mu)
        if CONDITIONS in texts or MU in texts:
            growth = (texts.get(CONDITIONS, "").strip(), _names(texts.get(MU, "")))
        parts.append(replace(request, targets=tuple(targets), limits=limits, conditions=growth[0], mu=growth[1]))
    return parts


def named(error: UsageError, target: Target) -> UsageError:
    """The error with the target that it is of, if that has limits of its own."""
    return UsageError(f"target {target.id}: {error}") if target.own else error


def _merged(values: Sequence[tuple[str, object]], none: str) -> object:
    """The value if all agree, else each with its targets."""
    if all(value == values[0][1] for _, value in values):
        return values[0][1]
    return "; ".join(f"{none if value is None else value} ({who})" for who, value in values)


SUMMED = ("proposed", "valid", "distinct", "generation_seconds")
"""Settings that count over all targets."""


ADDED = ("proposed_by",)
"""Settings that count over all targets, by name."""


def united(runs: Sequence[DesignRun], ids: Sequence[str]) -> DesignRun:
    """Runs of the parts of one request as one.

    Args:
        runs: of one host; the last one may be interrupted.
        ids: of all targets in the order asked for.
    """
    place = {identity: number for number, identity in enumerate(ids)}
    targets = sorted((target for run in runs for target in run.targets), key=lambda target: place[target.id])
    by_target = {target: run.of(target) for run in runs for target in run.targets}
    named_parts = [(_some([target.id for target in run.targets]), run.settings) for run in runs]
    settings: dict[str, object] = {}
    for name in dict.fromkeys(name for _, part in named_parts for name in part):
        found = [(who, part.get(name)) for who, part in named_parts]
        if name in SUMMED:
            settings[name] = sum(value for _, value in found if isinstance(value, int | float))
        elif name in ADDED:
            settings[name] = _added([value for _, value in found if isinstance(value, Mapping)])
        elif any(isinstance(value, Mapping) for _, value in found):
            same = all(value == found[0][1] for _, value in found)
            settings[name] = found[0][1] if same else _merged([(who, _listed(value)) for who, value in found], "none")
        else:
            settings[name] = _merged(found, "the elements" if name == "formation_energy_at" else "any")
    return replace(
        runs[0],
        candidates=tuple(candidate for target in targets for candidate in by_target[target]),
        settings=settings,
        warnings=tuple(dict.fromkeys(line for run in runs for line in run.warnings)),
        complete=all(run.complete for run in runs),
        targets=tuple(targets),
        verdicts=tuple(sorted((v for run in runs for v in run.verdicts), key=lambda v: place[v.target_id])),
        fronts=tuple(sorted((f for run in runs for f in run.fronts), key=lambda f: place[f.target_id])),
    )


def _listed(value: object) -> object:
    """A mapping of numbers in words; other values as they are."""
    if not isinstance(value, Mapping):
        return value
    return ", ".join(
        f"{key} {number:g}" if isinstance(number, float) else f"{key} {number}" for key, number in value.items()
    )


def _added(parts: Sequence[Mapping[Any, Any]]) -> dict[Any, Any]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: sum(part.get(name, 0) for part in parts) for name in names}


SHOWN_IDS = 3


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
    return f"target{'s' if len(ids) > 1 else ''} {', '.join(ids[:SHOWN_IDS])}{more}"
