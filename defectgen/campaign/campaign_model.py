"""What a campaign has learnt: a scorer of all properties, with errors by cross-validation and calibrated intervals."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from defectgen import __version__
from defectgen.campaign.forms import Fitted, choose, fit, folds_of
from defectgen.campaign.structure_features import Described, describe
from defectgen.core import Configuration, Host, canonicalize
from defectgen.core.properties import BY_COLUMN, COLUMNS
from defectgen.errors import DefectgenError
from defectgen.io.documents import DocumentError, read_object
from defectgen.io.files import write_text
from defectgen.one_line import OneLine
from defectgen.score.intervals import LEAST_ROWS, quantile
from defectgen.score.protocol import uncertainty_column
from defectgen.score.surrogate.agreement import COLUMNS as AGREEING
from defectgen.score.surrogate.agreement import Agreement

Array = NDArray[np.float64]

FORMAT = 1
FILE = "model.json"

MIN_ROWS = 4
"""A property with fewer values is not learnt."""

SAME = 1e-6
"""Values that differ by less are all the same: there is nothing to learn."""

TOO_FEW_FACTOR = 1.5
"""With fewer than nine rows the largest error times this stands for the interval, which then promises nothing."""

BATCH = 2000
"""Structures that are scored at a time."""

NOT_LEARNT = ("energy_per_atom_ev",)
"""It follows from the formation energy and the composition."""

Base = Callable[[Sequence[Configuration]], Mapping[str, Array]]
"""Another model's values of configurations by column, each of shape (n,)."""


@dataclass(frozen=True)
class Judged:
    """How good a property's model is, by rows that it was not fitted on.

    Attributes:
        n: rows.
        mae: mean absolute error, in the property's unit.
        spread: mean absolute deviation of the values from their mean: the error of knowing nothing.
        covered: share of the rows inside their 90 % intervals.
        form: the model that was chosen, for people.
        calibrated: whether there are rows enough for intervals that promise something.
    """

    n: int
    mae: float
    spread: float
    covered: float
    form: str
    calibrated: bool


@dataclass(frozen=True, eq=False, repr=False)
class CampaignModel(OneLine):
    """Models of all properties; a `defectgen.score.protocol.Scorer`.

    Attributes:
        host: what is decorated.
        keys: configurations that were learnt from.
        models: by column.
        quantiles: half-width of the 90 % interval in standard deviations, by column.
        floors: least standard deviation, by column.
        judged: by column.
        agreement: how HOMO, LUMO and gap are made to agree; None unless all three are modelled.
        base: the other model that some means are of, or None.
    """

    host: Host
    keys: tuple[str, ...]
    models: Mapping[str, Fitted]
    quantiles: Mapping[str, float]
    floors: Mapping[str, float]
    judged: Mapping[str, Judged]
    agreement: Agreement | None
    base: Base | None = None

    def score(self, configurations: Sequence[Configuration]) -> pl.DataFrame:
        """See `defectgen.score.protocol.Scorer.score`; a kind of defect that no row has is out of domain."""
        starts = range(0, max(len(configurations), 1), BATCH)
        return pl.concat([self._score(configurations[start : start + BATCH]) for start in starts])

    def _score(self, configurations: Sequence[Configuration]) -> pl.DataFrame:
        own = [item if item.host is self.host else Configuration(self.host, item.edits) for item in configurations]
        rows = describe(self.host, own)
        values, spreads = self.predict(rows, self.base(own) if self.base is not None and own else None)
        columns: dict[str, pl.Series] = {}
        for column in values:
            columns[column] = pl.Series(values[column])
            columns[uncertainty_column(column)] = pl.Series(self.quantiles[column] * spreads[column])
        most = self._seen.sum(axis=1).max(initial=0.0)
        within = (rows.counts[:, self._seen.max(axis=0) == 0] == 0).all(axis=1) & (rows.counts.sum(axis=1) <= most)
        return pl.DataFrame({**columns, "in_domain": within})

    def predict(self, rows: Described, base: Mapping[str, Array] | None) -> tuple[dict[str, Array], dict[str, Array]]:
        """Values and standard deviations by column, each of shape (n,)."""
        values, spreads = {}, {}
        for column, model in self.models.items():
            value, spread = model.predict(column, rows, None if base is None else base.get(column))
            values[column], spreads[column] = value, np.maximum(spread, self.floors[column])
        return _agreed(values, self.agreement), spreads

    @property
    def without_intervals(self) -> tuple[str, ...]:
        """Which properties have too few rows for intervals that promise something, a line for each number of rows."""
        found: dict[str, list[str]] = {}
        for column, judged in self.judged.items():
            if note := interval_note(judged):
                found.setdefault(note, []).append(BY_COLUMN[column].title)
        return tuple(f"no intervals of {', '.join(titles)}: {note}" for note, titles in found.items())

    @property
    def cautions(self) -> tuple[str, ...]:
        """See `defectgen.score.protocol.CautiousScorer.cautions`."""
        return tuple(
            f"{line}; the half-widths shown are {TOO_FEW_FACTOR:g} times the largest error of a row left out."
            for line in self.without_intervals
        )

    @property
    def _seen(self) -> Array:
        return next(iter(self.models.values())).rows.counts

    def save(self, folder: Path) -> None:
        """Write the model to a folder."""
        values = {
            "format": FORMAT,
            "version": __version__,
            "host": self.host.to_dict(),
            "keys": self.keys,
            "models": {column: model.to_dict() for column, model in self.models.items()},
            "rows": {
                column: {"counts": model.rows.counts.tolist(), "pairs": model.rows.pairs.tolist()}
                for column, model in self.models.items()
            },
            "quantiles": self.quantiles,
            "floors": self.floors,
            "judged": {column: vars(found) for column, found in self.judged.items()},
            "agreement": None if self.agreement is None else self.agreement.to_dict(),
            "base": self.base is not None,
        }
        write_text(folder / FILE, json.dumps(values) + "\n")

    @classmethod
    def load(cls, folder: Path, base: Base | None = None) -> CampaignModel:
        """The model in a folder.

        Raises:
            DefectgenError: none there, or a damaged one.
        """
        path = folder / FILE
        try:
            values = read_object(path, {"format": int, "host": dict, "models": dict})
        except DocumentError as error:
            raise DefectgenError(f"{path} is damaged ({error.reason}).", "Learn again.") from error
        if values["format"] != FORMAT:
            raise DefectgenError(f"{path} has format {values['format']}, expected {FORMAT}.", "Learn again.")
        try:
            rows = {
                column: Described(np.array(found["counts"], dtype=float), np.array(found["pairs"], dtype=float))
                for column, found in values["rows"].items()
            }
            return cls(
                Host.from_dict(values["host"]),
                tuple(values["keys"]),
                {column: Fitted.from_dict(rows[column], found) for column, found in values["models"].items()},
                values["quantiles"],
                values["floors"],
                {column: Judged(**found) for column, found in values["judged"].items()},
                None if values["agreement"] is None else Agreement.from_dict(values["agreement"]),
                base if values["base"] else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DefectgenError(f"{path} is damaged ({type(error).__name__}: {error}).", "Learn again.") from error


def learn(
    configurations: Sequence[Configuration],
    values: Mapping[str, Array],
    seed: int = 0,
    base: Base | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> CampaignModel:
    """Models of all properties that have values enough, each chosen and judged by cross-validation.

    The kind of model is chosen on rows that are left out one by one. Errors are those of rows that neither the choice
    nor the fit has seen: each alone up to twenty rows, else a tenth at a time. Intervals are conformal: the errors in
    standard deviations of each prediction, and of these the quantile.

    Args:
        configurations: of one host, each once.
        values: by column in its unit, NaN where there is none, each of shape (n,).
        seed: of the parts.
        base: another model that means may be of.
        advance: told of each finished property.

    Raises:
        DefectgenError: no property with values enough.
    """
    host = configurations[0].host if configurations else None
    known = {column: ~np.isnan(values[column]) for column in COLUMNS if column in values}
    learnable = [
        column
        for column, there in known.items()
        if column not in NOT_LEARNT and there.sum() >= MIN_ROWS and np.ptp(values[column][there]) > SAME
    ]
    if host is None or not learnable:
        n = max((int(there.sum()) for there in known.values()), default=0)
        raise DefectgenError(
            f"{n} results with values, expected {MIN_ROWS} or more that differ.", "Run or add more calculations."
        )
    items = [Configuration(host, item.edits) for item in configurations]
    rows = describe(host, items)
    said = base(items) if base is not None else {}
    models, errors, spreads, forms = {}, {}, {}, {}
    for column in learnable:
        chosen = np.flatnonzero(known[column])
        part, target = rows.some(chosen), values[column][chosen]
        other = said[column][chosen] if column in said and not np.isnan(said[column][chosen]).any() else None
        predicted, spread = _cross_validated(column, part, target, other, seed)
        errors[column], spreads[column] = _whole(chosen, predicted, len(items)), _whole(chosen, spread, len(items))
        form = choose(column, part, target, other)
        models[column], forms[column] = fit(form, column, part, target, other), form.text
        advance(1)
    agreement = None
    if all(column in models for column in AGREEING):
        squares = [float(np.nanmean((errors[column] - values[column]) ** 2)) for column in AGREEING]
        agreement = Agreement.given({c: values[c] for c in AGREEING}, np.diag(squares))
        errors = _agreed(errors, agreement)
    quantiles, floors, judged = {}, {}, {}
    for column in learnable:
        there = known[column]
        true = values[column][there]
        off = np.abs(errors[column][there] - true)
        floors[column] = max(float(off.mean()) / 2, 1e-6)
        ratio = off / np.maximum(spreads[column][there], floors[column])
        found = quantile(ratio)
        quantiles[column] = float(ratio.max()) * TOO_FEW_FACTOR if found is None else found
        judged[column] = Judged(
            n=int(there.sum()),
            mae=float(off.mean()),
            spread=float(np.abs(true - true.mean()).mean()),
            covered=float((ratio <= quantiles[column] + 1e-12).mean()),
            form=forms[column],
            calibrated=found is not None,
        )
    keys = tuple(item.key for item in canonicalize(items))
    return CampaignModel(host, keys, models, quantiles, floors, judged, agreement, base)


def _cross_validated(column: str, rows: Described, values: Array, base: Array | None, seed: int) -> tuple[Array, Array]:
    """Value and standard deviation of each row by a model, chosen and fitted, of rows that hold it not."""
    value, spread = np.full(len(values), np.nan), np.full(len(values), np.nan)
    everything = np.arange(len(values))
    for fold in folds_of(len(values), seed):
        rest = np.setdiff1d(everything, fold)
        part, other = rows.some(rest), None if base is None else base[rest]
        form = choose(column, part, values[rest], other)
        model = fit(form, column, part, values[rest], other)
        value[fold], spread[fold] = model.predict(column, rows.some(fold), None if base is None else base[fold])
    return value, spread


def _whole(chosen: NDArray[np.int64], values: Array, n: int) -> Array:
    found = np.full(n, np.nan)
    found[chosen] = values
    return found


def _agreed(values: Mapping[str, Array], agreement: Agreement | None) -> dict[str, Array]:
    """Values within the bounds of physics, HOMO, LUMO and gap in agreement."""
    found = dict(values)
    if agreement is not None:
        found |= agreement.apply({column: found[column] for column in AGREEING})
    for column in found:
        if column == "band_gap_ev" or BY_COLUMN[column].unit != "eV":
            found[column] = np.maximum(found[column], 0.0)
    return found


def interval_note(judged: Judged) -> str:
    """What the intervals promise, in a clause."""
    return "" if judged.calibrated else f"{judged.n} rows, intervals need {LEAST_ROWS}"
