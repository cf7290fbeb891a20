"""Structures as an OPTIMADE response (specification 1.2, https://specification.optimade.org), layers as layers."""

from __future__ import annotations

import datetime
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import defectgen
from defectgen.exports.items import ExportItem

VERSION = "1.2.0"
PREFIX = "_defectgen_"
"""Of fields that are not in the specification."""


def write_optimade(path: Path, items: Sequence[ExportItem]) -> list[str]:
    """A JSON document as ``/structures`` of a server answers."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    values = {
        "data": [structure_resource(item, now) for item in items],
        "meta": {
            "query": {"representation": "/structures"},
            "api_version": VERSION,
            "more_data_available": False,
            "data_returned": len(items),
            "time_stamp": now,
            "provider": {"name": "defectgen", "description": "Point defects in layers", "prefix": "defectgen"},
            "implementation": {"name": "defectgen", "version": defectgen.__version__},
        },
    }
    path.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return []


def structure_resource(item: ExportItem, modified: str) -> dict[str, Any]:
    """One structure: periodic in the plane, with the cell's third vector as it is."""
    structure = item.structure
    symbols = [site.specie.symbol for site in structure]
    counts = Counter(symbols)
    elements = sorted(counts)
    divisor = math.gcd(*counts.values())
    ordered = sorted(counts.values(), reverse=True)
    own = {
        "host": item.configuration.host.name,
        "supercell": item.configuration.host.size,
        "configuration": item.configuration.key,
        "charge": item.charge,
        **({} if item.energy_ev is None else {"energy_ev": item.energy_ev}),
        **item.values,
    }
    return {
        "id": item.name,
        "type": "structures",
        "attributes": {
            "last_modified": modified,
            "immutable_id": item.name,
            "elements": elements,
            "nelements": len(elements),
            "elements_ratios": [counts[element] / len(symbols) for element in elements],
            "chemical_formula_descriptive": "".join(f"{e}{counts[e]}" for e in elements),
            "chemical_formula_reduced": "".join(_part(e, counts[e] // divisor) for e in elements),
            "chemical_formula_anonymous": "".join(
                _part(_anonymous(place), count // divisor) for place, count in enumerate(ordered)
            ),
            "dimension_types": [1, 1, 0],
            "nperiodic_dimensions": 2,
            "lattice_vectors": structure.lattice.matrix.tolist(),
            "cartesian_site_positions": structure.cart_coords.tolist(),
            "nsites": len(symbols),
            "species_at_sites": symbols,
            "species": [{"name": e, "chemical_symbols": [e], "concentration": [1.0]} for e in elements],
            "structure_features": [],
            **{f"{PREFIX}{name}": value for name, value in own.items()},
        },
    }


def _part(symbol: str, count: int) -> str:
    return symbol if count == 1 else f"{symbol}{count}"


def _anonymous(place: int) -> str:
    """A, B, ..., Z, Aa, Ba, ..."""
    first = chr(ord("A") + place % 26)
    return first if place < 26 else first + chr(ord("a") + place // 26 - 1)
