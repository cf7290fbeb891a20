"""The model card that is written beside a trained surrogate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from defectgen.core.host import Host
from defectgen.core.hosts import common_title
from defectgen.core.properties import BY_COLUMN, MAGNETIZATION, unit_suffix
from defectgen.io.hub_card import TAGS, hub_header, model_index
from defectgen.score.surrogate.evaluation import PER_SITE
from defectgen.score.surrogate.network_share import SHARED

TITLES = {PER_SITE: "E_form per site", MAGNETIZATION: "magnetization"}


PUBLISHED_HOMO = (
    "- In cells with a metal vacancy the data set's HOMO lies above the Fermi level of the calculation;",
    "  predictions follow the data set.",
)

SOURCE = (
    "## Source",
    "",
    "2DMD (CC BY 4.0): Huang et al., npj 2D Mater Appl 7, 6 (2023), doi 10.1038/s41699-023-00369-1;",
    "Kazeev et al., npj Comput Mater 9, 113 (2023), doi 10.1038/s41524-023-01062-z.",
    "",
)


def model_card(metadata: Mapping[str, Any]) -> str:
    """The card in Markdown, from the metadata of `defectgen.score.surrogate.training.train_surrogate`."""
    sets = ", ".join(f"{part['set']} ({_cell(part['host'])})" for part in metadata["parts"])
    own = bool(metadata.get("own_table"))
    lines = [
        *_header(metadata),
        "# Surrogate for defects in 2D materials",
        "",
        "Predicts formation energy, energy per atom, HOMO, LUMO, gap, Fermi level and, where labels are",
        f"spin-polarized, the magnetization of a decorated supercell, with 90 % intervals. Sets: {sets}.",
        "",
        "| | |",
        "|---|---|",
        f"| defectgen | {metadata['defectgen']} |",
        f"| data | {metadata.get('data', 'not recorded')} |",
        f"| split | {metadata.get('split', 'not recorded')} |",
        f"| seed of the trees | {metadata['seed']} |",
        f"| command | `{metadata.get('command', 'not recorded')}` |",
        "",
        "## Model",
        "",
        "Each set has its own models, fitted on the training and validation rows. Low density: a ridge regression on",
        "counts of defects, pairs and triangles (a cluster expansion), gradient-boosted trees, or trees on what the",
        "regression leaves, whichever did best on the validation part; the trees see the distance and the symmetry",
        "orbit of every pair of defects, and the symmetry that the decoration keeps. High density: a Gaussian process",
        "whose kernel is a weighted sum (composition, pairs, surroundings of each defect; weights by marginal",
        "likelihood), which also knows 200 low-density rows of the same host, averaged with trees where that helped on",
        "rows left out. Labels far from what their neighbours say count less (errors of Student's t distribution).",
        *_processes(metadata),
        *_parity(metadata),
        "Values are the same for all symmetry images of a decoration. HOMO, LUMO and gap are moved to the nearest",
        "values that agree as labels do: LUMO - HOMO is the gap where there is one spin channel, and never more than",
        "the gap where there are two. The energy per atom follows from the formation energy and the chemical",
        "potentials. Intervals are conformal at low density, by defect label from the validation part; at high density",
        "a multiple of the process's own standard deviation that held on training rows left out in five folds: they",
        "widen away from the training rows. Those of levels also hold the error of their zero (below).",
        *_networks(metadata),
        "",
        "## Units and zeros",
        "",
        "eV; Bohr magnetons for the magnetization. HOMO, LUMO and Fermi level are relative to the pristine host's",
        "valence band maximum; rows whose cells cannot be put on that zero were left out.",
        *(["Labels are those of the table."] if own else ["Labels are from DFT (PBE) at relaxed geometries."]),
        "",
        "How far the zero of a cell may be off (half-width of the 90 % interval, meV, over the training rows); 0 where",
        "cells have the host's own core level, else the error of a shift fitted to so many rows of up to so many",
        "defects:",
        "",
        "| set | rows of the fit | defects | kinds without coefficient | median | 90th percentile |",
        "|---|---|---|---|---|---|",
        *(_zero(part) for part in metadata["parts"] if part["level_scale"]),
        "",
        "## Errors",
        "",
        "On the test part, which no choice has seen: mean absolute error (meV; Bohr magnetons for the magnetization),",
        "number of rows, share of rows within 20 meV, share of values inside the 90 % interval.",
        "",
        "| set | property | error | n | within 20 meV | in interval |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in metadata["errors"]["test"].items():
        for column, values in found.items():
            title = TITLES.get(column) or BY_COLUMN[column].title
            suffix = unit_suffix(column)
            error = values["mae_mev" if suffix == "ev" else f"mae_{suffix}"]
            cells = [name, title, _number(error), str(values["n"])]
            cells += [_share(values.get("within_20_mev")), _share(values["coverage_90"])]
            lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "## Limits",
        "",
        "- Made for the hosts, supercells and kinds of defects above; other numbers of defects than in the",
        "  training rows are extrapolated and marked `in_domain = false`.",
        f"- High-density sets have {'few' if own else 'about 400'} training rows{'' if own else ' each'}: use their "
        "values to rank, not to replace a DFT run.",
        f"- High-density models hold their training rows with labels{'' if own else ' (CC BY 4.0, see below)'}.",
        *([] if own else PUBLISHED_HOMO),
        "- The Fermi level lies anywhere in the gap of a semiconducting cell; its scatter is that of the labels.",
        "",
        *([] if own else SOURCE),
    ]
    return "\n".join(lines)


def _header(metadata: Mapping[str, Any]) -> list[str]:
    """What model hubs read, with the errors of the gap and of the formation energy per site."""
    figures = [
        (name, "test", f"{TITLES.get(column) or BY_COLUMN[column].title}, MAE in meV", values["mae_mev"])
        for name, found in metadata["errors"]["test"].items()
        for column, values in found.items()
        if column in (PER_SITE, "band_gap_ev") and values["mae_mev"] is not None
    ]
    return hub_header(
        license=None if metadata.get("own_table") else "cc-by-4.0",
        library_name="defectgen",
        pipeline_tag="tabular-regression",
        tags=[*TAGS, "uncertainty"],
        model__index=model_index("surrogate", figures) if figures else None,
    )


def _zero(part: Mapping[str, Any]) -> str:
    scale, width = part["level_scale"], part["zero_half_width_ev"]
    cells = [part["set"], scale["n_rows"], scale["most_defects"], ", ".join(scale["unfitted"]) or "-"]
    return f"| {' | '.join(map(str, cells))} | {width['median'] * 1e3:.0f} | {width['percentile_90'] * 1e3:.0f} |"


def _processes(metadata: Mapping[str, Any]) -> list[str]:
    """The labels of three defects whose levels have a process beside the trees."""
    sets = {part["set"]: len(part["models"].get("processes", ())) for part in metadata["parts"]}
    named = [f"{number} labels in {name}" for name, number in sets.items() if number]
    if not named:
        return []
    return [
        f"Low-density levels of cells of three defects ({', '.join(named)}) are averaged with",
        "those of Gaussian processes over the orbits of their three pairs, one for each label, by shares that did best",
        "on the validation part.",
    ]


def _parity(metadata: Mapping[str, Any]) -> list[str]:
    """The sets in which the parity of the electrons counts."""
    sets = [part["set"] for part in metadata["parts"] if any(part["models"].get("odd_kinds", ()))]
    if not sets:
        return []
    return [
        f"In {', '.join(sets)} levels of cells with an odd number of electrons more or less than the host are learnt",
        "apart from those with an even number, since that helped on rows left out.",
    ]


def _networks(metadata: Mapping[str, Any]) -> list[str]:
    """What networks add, their shares, and the errors of rows left out without and with it."""
    parts = [part for part in metadata["parts"] if "network" in part]
    if not parts:
        return []
    return [
        "",
        "In crowded cells neural networks have a share: they pass messages between the defects of a cell. Hosts of",
        "one structure, such as MoS2 and WSe2, are learnt by the same networks, from rows of all densities. Nodes are",
        "the defects (elements, height); pairs are seen by the distances of all images. In hosts of B, C, N, P, S,",
        "Ga, Se and In alone they first learn the levels of random cells by a universal tight-binding model of s and",
        "p orbitals (Harrison; nothing fitted), then the labels. Shares come from rows that neither has seen (five",
        "folds), one for the formation energy and one for HOMO, LUMO and gap; where process and network differ, the",
        "interval is wider. Steps of a search go by the processes, corrected by what networks add where they",
        "began. Mean absolute errors of those rows in meV, processes alone / both (the shares were chosen on them;",
        "energies are of the cell):",
        "",
        f"| set | shares, energy and levels | {' | '.join(BY_COLUMN[column].title for column in SHARED)} |",
        f"|---|---|{'---|' * len(SHARED)}",
        *(_share_row(part) for part in parts),
    ]


def _share_row(part: Mapping[str, Any]) -> str:
    """A line of the table of shares."""
    found, alone = part["network"], part["models"]["models"]
    shares = [f"{found['shares'][c]:.2f}" for c in (SHARED[0], SHARED[1]) if c in found["shares"]]
    errors = [
        f"{1e3 * alone[c]['error']:.0f} / {1e3 * found['errors'][c]:.0f}" if c in found["errors"] else "-"
        for c in SHARED
    ]
    return f"| {part['set']} | {', '.join(shares)} | {' | '.join(errors)} |"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _cell(record: Mapping[str, Any]) -> str:
    """Common name and supercell of a host's record, e.g. ``hBN 8x8``."""
    return common_title(Host.from_dict(record))
