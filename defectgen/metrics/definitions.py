"""What each metric of bulk crystals is called, what it means, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from defectgen.io.documents import read_object

CDVAE = "CDVAE (Xie et al. 2022)"
GRUVER = "Gruver et al. 2024"
OWN = "defectgen"


@dataclass(frozen=True)
class Definition:
    """One metric: short name, title of at most 36 characters, meaning with its denominator, source, kind."""

    name: str
    title: str
    text: str
    source: str
    is_share: bool = True


DEFINITIONS = tuple(
    Definition(*row)
    for row in (
        ("raw_parsed", "raw: readable", "draws that can be read as a crystal, of all draws", OWN),
        ("raw_structural", "raw: structural validity", "as structural, of all draws", OWN),
        ("raw_compositional", "raw: compositional validity", "as compositional, of all draws", OWN),
        ("parsed", "readable", "crystals that can be read, of all crystals", OWN),
        ("structural", "structural validity (0.5 A)",
         "no two atoms closer than 0.5 angstrom and a volume of at least 0.1 cubic angstrom, of all crystals", CDVAE),
        ("structural_half_radius", "structural validity (half radius)",
         "no two atoms nearer than half the sum of their atomic radii, of all crystals; stricter than what published "
         "tables count", OWN),
        ("compositional", "compositional validity (SMACT)",
         "one oxidation state an element gives a neutral formula with cations below anions in electronegativity; "
         "elements and alloys of metals pass; of all crystals", CDVAE),
        ("valid", "valid (0.5 A and SMACT)", "structurally (0.5 A) and compositionally valid, of all crystals", CDVAE),
        ("cov_recall", "coverage recall (COV-R)",
         "reference crystals with a structural fingerprint within 0.4 and a composition fingerprint within 10 among "
         "the crystals, of all reference crystals", CDVAE),
        ("cov_precision", "coverage precision (COV-P)", "the same the other way round, of all crystals", CDVAE),
        ("cov_recall_same", "COV-R, one crystal for both", "as COV-R, with both fingerprints of one and the same "
         "crystal, as CDVAE's paper defines it but its code does not do it", CDVAE),
        ("cov_precision_same", "COV-P, one crystal for both", "the same the other way round", CDVAE),
        ("cov_recall_valid", "COV-R, of valid crystals",
         "as COV-R, where invalid crystals of either set have no fingerprint, of the valid reference crystals, as the "
         "code of Gruver et al. counts", GRUVER),
        ("cov_precision_valid", "COV-P, of valid crystals", "the same the other way round, of the valid crystals",
         GRUVER),
        ("wasserstein_density", "Wasserstein distance, density",
         "between valid crystals and the reference, g/cm3", CDVAE, False),
        ("wasserstein_elements", "Wasserstein distance, elements",
         "of the number of elements, between valid crystals and the reference", CDVAE, False),
        ("diversity_structure", "diversity, structure",
         "mean distance of two structural fingerprints in the pool", CDVAE, False),
        ("diversity_composition", "diversity, composition",
         "mean distance of two composition fingerprints in the pool, in standard deviations of MP-20", CDVAE, False),
        ("diversity_structure_relative", "... over that of the reference", "diversity by that of the reference",
         GRUVER, False),
        ("diversity_composition_relative", "... over that of the reference", "diversity by that of the reference",
         GRUVER, False),
        ("novel_structure", "novel structure (> 0.1)",
         "no structural fingerprint of the training set within 0.1, of the pool", GRUVER),
        ("novel_composition", "novel composition (> 2)",
         "no composition fingerprint of the training set within 2, of the pool", GRUVER),
        ("novel", "novel structure or composition", "either, of the pool", GRUVER),
        ("novel_structure_relative", "novel structure over reference's", "share by that of the reference, as in "
         "appendix B.6", GRUVER, False),
        ("novel_composition_relative", "novel composition over reference's", "share by that of the reference", GRUVER,
         False),
        ("novel_relative", "novel over reference's", "share by that of the reference", GRUVER, False),
        ("new", "not in training (matcher)",
         "the same as no training crystal by pymatgen's StructureMatcher, of the pool", OWN),
        ("unique", "unique (matcher)",
         "distinct crystals by pymatgen's StructureMatcher within a formula, of the pool", OWN),
        ("new_unique", "pool, new and unique", "distinct crystals of the pool that are not in training, of all "
         "crystals", OWN),
        ("hit_formula", "asked formula hit", "the asked reduced formula, of crystals asked for one", GRUVER),
        ("hit_spacegroup", "asked space group hit",
         "the asked space group by spglib within 0.2 angstrom, of crystals asked for one", GRUVER),
        ("hit_e_above_hull", "asked stability hit", "the asked side of 0.1 eV/atom above the hull, of crystals asked "
         "for one", GRUVER),
        ("hit_band_gap", "asked band gap hit (within 0.5 eV)", "a predicted gap within 0.5 eV of the asked one, of "
         "crystals asked for one", OWN),
        ("deviation_band_gap", "asked band gap, deviation (eV)",
         "mean absolute deviation of the predicted gap from the asked one, eV; interval by resampling", OWN, False),
        ("rank_band_gap", "asked band gap, rank correlation",
         "Spearman's correlation of asked and predicted gap; interval by resampling", OWN, False),
        ("deviation_e_above_hull", "asked stability, deviation (eV/atom)",
         "mean absolute deviation of the energy above the hull from the asked one, eV/atom; interval by resampling",
         OWN, False),
        ("rank_e_above_hull", "asked stability, rank correlation",
         "Spearman's correlation of asked and found energy above the hull; interval by resampling", OWN, False),
        ("metastable", "metastable (< 0.1 eV/atom)", "valid, with an energy above the hull below 0.1 eV/atom, of all "
         "crystals", GRUVER),
        ("stable", "stable (< 0 eV/atom)", "valid, with an energy above the hull below 0, of all crystals", GRUVER),
        ("competitors_known", "competitors on the hull known",
         "the hull knows a compound of its elements, of crystals with an energy above it", OWN),
        ("hit_formula_metastable", "asked formula hit, metastable", "both, of crystals asked for a formula", GRUVER),
        ("hit_spacegroup_metastable", "asked space group hit, metastable", "both, of crystals asked for one", GRUVER),
        ("hit_band_gap_metastable", "asked band gap hit, metastable", "both, of crystals asked for one", OWN),
        ("crystals_per_hour", "crystals an hour", "rate that the generator noted", OWN, False),
    )
)  # fmt: skip
"""In the order in which they are shown.

"All crystals" are those after redraw: where a generator notes rejected draws, the accepted ones; else every
entry, unreadable ones included. The pool is the valid crystals that have fingerprints, only the metastable
ones among them where energies above the hull are given.
"""

BY_NAME = {item.name: item for item in DEFINITIONS}


def published() -> Mapping[str, Any]:
    """The published rows: ``source``, and ``rows`` as name to values by metric (None where there is none)."""
    data = read_object(Path(__file__).with_name("published.json"))
    rows = {row[0]: dict(zip(data["columns"][1:], row[1:], strict=True)) for row in data["rows"]}
    return {"source": data["source"], "rows": rows}
