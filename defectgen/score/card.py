"""The model card that is written beside a trained surrogate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from defectgen.core.properties import BY_COLUMN
from defectgen.score.evaluation import PER_SITE


def model_card(metadata: Mapping[str, Any]) -> str:
    """The card in Markdown, from the metadata of `defectgen.score.training.train_surrogate`."""
    sets = ", ".join(f"{part['set']} ({part['host']} {part['supercell']})" for part in metadata["parts"])
    lines = [
        "# Surrogate for defects in 2D materials",
        "",
        f"Predicts six properties of a decorated supercell, with 90 % intervals. Sets: {sets}.",
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
        "Each set has its own models. A property is the sum of a ridge regression on the counts of defects,",
        "pairs and triangles (a cluster expansion) and of gradient-boosted trees, or one of the two: whichever",
        "did best on the validation part. With up to three defects the trees see the distance and the symmetry",
        "orbit of every pair of defects, otherwise how often each short pair occurs. Features are invariant",
        "under the host's symmetry. HOMO, LUMO and gap agree with each other wherever they do in the data. The",
        "energy per atom follows from the formation energy and the chemical potentials. Intervals are conformal,",
        "by defect label where there are 40 rows of it: from the validation part at low density, and from rows",
        "left out of five fits on training and validation rows in the small high-density sets.",
        "",
        "## Units and zeros",
        "",
        "eV. HOMO, LUMO and Fermi level are relative to the pristine host's valence band maximum; rows whose",
        "cells cannot be put on that zero were left out. Labels are from DFT (PBE) at relaxed geometries.",
        "",
        "## Errors",
        "",
        "Mean absolute error in meV and number of rows, on the validation part (which chose the models) and on",
        "the test part (which chose nothing); share of test rows within 20 meV; share of test values inside the",
        "90 % interval.",
        "",
        "| set | property | validation | n | test | n | within 20 meV | in interval |",
        "|---|---|---|---|---|---|---|---|",
    ]
    errors = metadata["errors"]
    for name, found in errors["validation"].items():
        for column, values in found.items():
            test = errors["test"].get(name, {}).get(column)
            title = "E_form per site" if column == PER_SITE else BY_COLUMN[column].title
            cells = [name, title, _number(values["mae_mev"]), str(values["n"])]
            cells += ["-"] * 4 if test is None else _test_cells(test)
            lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "## Limits",
        "",
        "- Made for the hosts, supercells and kinds of defects above; other numbers of defects than in the",
        "  training rows are extrapolated and marked `in_domain = false`.",
        "- High-density sets have 360 training rows each: use their values to rank, not to replace a calculation.",
        "- In cells with a metal vacancy the data set's HOMO lies above the Fermi level of the calculation;",
        "  predictions follow the data set.",
        "- The Fermi level lies anywhere in the gap of a semiconducting cell; its scatter is that of the labels.",
        "",
        "## Source",
        "",
        "2DMD (CC BY 4.0): Huang et al., npj 2D Mater Appl 7, 6 (2023), doi 10.1038/s41699-023-00369-1;",
        "Kazeev et al., npj Comput Mater 9, 113 (2023), doi 10.1038/s41524-023-01062-z.",
        "",
    ]
    return "\n".join(lines)


def _test_cells(values: Mapping[str, Any]) -> list[str]:
    return [
        _number(values["mae_mev"]),
        str(values["n"]),
        _share(values["within_20_mev"]),
        _share(values["coverage_90"]),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
