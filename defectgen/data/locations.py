"""Where data is taken from: what the user names, what an environment variable names, or what was fetched."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from defectgen.data import sources
from defectgen.data.asset_cards import Card, get_card, load_cards
from defectgen.data.assets import asset_path
from defectgen.data.twodmd import SET_NAMES, SETS
from defectgen.errors import UsageError


def dataset_path(data: Path | None, *, pilot: bool = False) -> Path:
    """The folder given, or the fetched asset.

    Raises:
        UsageError: the folder does not exist.
        DefectgenError: the asset has not been fetched.
    """
    if pilot:
        return asset_path("2dmd-pilot")
    if data is None:
        return asset_path("2dmd")
    data = data.expanduser()
    if not data.is_dir():
        raise UsageError(f"{data} is not a folder.", "Expected 2DMD in its published layout.")
    return data


@dataclass(frozen=True)
class LabelledSets:
    """Labelled structures of some sets.

    Attributes:
        path: folder that they come from.
        card: of the data set: licence, citation.
        frame: the columns of the data reader.
    """

    path: Path
    card: Card
    frame: pl.DataFrame

    @property
    def names(self) -> list[str]:
        """Names of the sets, in the order of the rows."""
        names: list[str] = self.frame["set"].unique(maintain_order=True).to_list()
        return names


def labelled_sets(data: Path | None, sets: str, *, pilot: bool = False) -> LabelledSets:
    """Some or all sets of 2DMD.

    Args:
        data: see `dataset_path`.
        sets: see `chosen_sets`.
        pilot: the sample of 200 structures instead.

    Raises:
        UsageError: no such folder, no such set in it, or a source whose licence is not known.
        DefectgenError: the asset has not been fetched.
    """
    chosen = chosen_sets(sets)
    path = dataset_path(data, pilot=pilot)
    source = sources.source_name(path)
    if source not in load_cards():
        raise UsageError(
            f"the data source {source!r} has no card with its licence and citation.",
            "Read it with defectgen.data.sources.read_dataset.",
        )
    frame = sources.read_dataset(path, chosen)
    if chosen is not None:
        frame = frame.filter(pl.col("set").is_in(chosen))  # the pilot sample is read as a whole
        if frame.is_empty():
            raise UsageError(f"{path} holds no set {chosen[0]}.", "The pilot sample holds MoS2 only.")
    return LabelledSets(path, get_card(source), frame)


def crystals_path(data: Path | None) -> Path:
    """The file or folder of bulk crystals given, the one that ``DEFECTGEN_MP20`` names, or the fetched MP-20.

    The name of a data set that can be fetched (``materials-project``) stands for its folder in the cache.

    Raises:
        DefectgenError: the data set has not been fetched.
    """
    if data is None and os.environ.get("DEFECTGEN_MP20"):
        return Path(os.environ["DEFECTGEN_MP20"]).expanduser()
    name = "mp20" if data is None else str(data)
    return asset_path(name) if data is None or (name in load_cards() and not data.exists()) else data


def chosen_sets(sets: str) -> list[str] | None:
    """The names of the sets, None for all.

    Raises:
        UsageError: no name, or one that no set has; says the nearest one.
    """
    if sets.strip() == "all":
        return None
    names = [name.strip() for name in sets.split(",") if name.strip()]
    if not names:
        raise UsageError(f"got --sets {sets!r}, expected all or some of {', '.join(SET_NAMES)}.")
    for name in names:
        if name not in SET_NAMES:
            known = {set_name.lower(): set_name for set_name in SET_NAMES}
            close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
            nearest = [info.name for info in SETS if info.host.lower() == name.lower()] or [known[c] for c in close]
            meant = f"Did you mean {nearest[0]}? " if nearest else ""
            raise UsageError(f"unknown set {name!r}.", f"{meant}Known sets: {', '.join(SET_NAMES)}, or all.")
    return names
