"""The settings of a design run in words, for its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

TITLES = {
    "supercell": "Supercell",
    "trained_on": "Values learnt from",
    "surrogate": "Predictions by",
    "labels_by": "Labels by",
    "pristine_band_gap_ev": "Gap of the host, eV",
    "host_formation_enthalpy_ev": "Formation enthalpy of the host, eV per formula unit",
    "formation_energy_at": "Growth conditions of formation energies",
    "chemical_potentials_ev": "Chemical potentials relative to the elements, eV",
    "min_defects": "Fewest point defects in a cell",
    "max_defects": "Most point defects in a cell",
    "kinds": "Kinds of defects",
    "defects": "Defects that there have to be",
    "only": "No other defects than",
    "without": "Defects and species left out",
    "concentration": "Share of changed sites",
    "sublattice": "Side of the layer with all defects",
    "least_distance_angstrom": "Least distance of two defects, \u00c5",
    "proposers": "Structures come from",
    "listed": "Structures listed one by one",
    "listed_up_to_defects": "All are listed up to so many defects",
    "samples_per_target": "Structures that a proposer draws for each target",
    "random": "Random structures asked for",
    "budget": "Budget of each target (s: seconds, else structures)",
    "proposed": "Proposals",
    "proposed_by": "Proposals by origin",
    "valid": "Valid proposals",
    "distinct": "Symmetry-distinct structures among them",
    "model": "Language model",
    "base_model": "Base model of it",
    "engine": "Engine of it",
    "encoding": "Text form of structures (encoding)",
    "prompt_version": "Version of the prompts",
    "temperature": "Sampling temperature",
    "top_p": "Probability of the tokens kept (top-p)",
    "guidance": "Weight of the target in the model (guidance)",
    "n": "Candidates of each target",
    "rank_by": "Ranked by",
    "diverse": "One row for structures that are alike",
    "novel_only": "Only structures without a label",
    "relaxed": "Relaxed candidates",
    "relaxed_by": "Relaxed by",
    "potential_decides": "What the relaxation decides",
    "seed": "Seed",
    "defectgen": "Version of defectgen",
}
"""What settings are called on a page, with units, in the order in which they stand there."""

_VALUES = {
    ("surrogate", "surrogate"): "the shipped surrogate",
    ("rank_by", "expected"): "deviation to be expected, uncertainty counted",
    ("rank_by", "distance"): "deviation of the predicted values",
    ("potential_decides", "columns"): "nothing; columns only",
    ("potential_decides", "filter"): "which candidates are left out",
    ("potential_decides", "tie-break"): "the order of equal candidates",
}


def setting_lines(settings: Mapping[str, object]) -> list[tuple[str, str]]:
    """Titles and values: those of `TITLES` in its order, then those of other packages by their names.

    What was not asked for (None) and durations are left out; nested settings of other packages have dotted names.
    """
    known = [
        (title, _VALUES.get((key, str(settings[key]))) or _text(settings[key], counts=key != "seed"))
        for key, title in TITLES.items()
        if settings.get(key) is not None
    ]
    return known + _others({str(key): value for key, value in settings.items() if key not in TITLES})


def _others(settings: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for key, value in sorted(settings.items()):
        if key.endswith("seconds"):
            continue
        if isinstance(value, Mapping):
            lines += _others({str(name): item for name, item in value.items()}, f"{prefix}{key}.")
        else:
            lines.append((f"{prefix}{key}", _text(value)))
    return lines


def _text(value: object, *, counts: bool = False) -> str:
    """A value for people; of whole numbers that count something the thousands are parted."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "\u2013"
    if isinstance(value, int) and counts:
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(item, counts=counts)}" for name, item in value.items())
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_text(item) for item in value)
    return str(value)
