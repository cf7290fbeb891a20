"""The settings of a run of VASP in words, the same from vasprun.xml and from OUTCAR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from defectgen.dft.codes.vasp import GGA_TAGS
from defectgen.dft.result import PLUS_U, U_MARK

FUNCTIONALS = {tag: name for name, tag in GGA_TAGS.items()} | {
    "CA": "LDA", "91": "PW91", "RP": "RPBE", "RE": "revPBE", "AM": "AM05", "OR": "optPBE", "BO": "optB88",
    "MK": "optB86b",
}  # fmt: skip
"""Names of GGA's values."""

DISPERSION = {
    1: "D2", 10: "D2", 11: "D3", 12: "D3(BJ)", 13: "D4", 2: "TS", 20: "TS", 21: "TS-HI", 202: "MBD", 263: "MBD",
    4: "dDsC",
}  # fmt: skip
"""Names of IVDW's values."""

UNSET = ("", "--", "NONE", "NO", "F")


def smearing(kind: object, width: object) -> dict[str, Any]:
    """Fields of `Fingerprint` on smearing by ISMEAR and SIGMA; none if these are not known."""
    if kind is None:
        return {}
    number = int(str(kind))
    if number <= -4:  # -4, -5, -14, -15
        return {"smearing": "tetrahedron", "width_ev": 0.0}
    if number in (-2, -3):
        return {"smearing": "fixed", "width_ev": 0.0}
    name = {-1: "fermi-dirac", 0: "gaussian"}.get(number, f"methfessel-paxton {number}")
    return {"smearing": name, "width_ev": None if width is None else round(float(str(width)), 4)}


def functional(tags: Mapping[str, Any], titles: Sequence[str], hubbard: Mapping[str, float]) -> str:
    """The functional with all that changes energies.

    Args:
        tags: of INCAR, with VASP's own values where it has none (GGA, METAGGA, LHFCALC, AEXX, HFSCREEN, IVDW, LVDW,
            LUSE_VDW).
        titles: of the potentials, e.g. ``PAW_PBE Mo_sv 02Feb2006``.
        hubbard: see `hubbard_terms`.
    """
    meta, gga = _text(tags, "METAGGA"), _text(tags, "GGA")
    kind = titles[0].split()[0] if titles and len(titles[0].split()) > 1 else ""
    family = kind.removeprefix("PAW_") if kind.startswith("PAW_") else ("LDA" if kind else "")
    name = FUNCTIONALS.get(gga, "") or (family if gga in UNSET else gga)
    if meta not in UNSET:
        name = meta
    if _flag(tags, "LHFCALC"):
        name += f" hybrid {float(tags.get('AEXX') or 0.25):g} {float(tags.get('HFSCREEN') or 0.0):g}"
    number = int(tags.get("IVDW") or 0)
    dispersion = DISPERSION.get(number, f"IVDW {number}") if number else ("D2" if _flag(tags, "LVDW") else "")
    if dispersion:
        name += f"+{dispersion}"
    if _flag(tags, "LUSE_VDW"):
        name += "+vdW-DF"
    return name + (PLUS_U if hubbard else "")


def hubbard_terms(
    elements: Sequence[str], u_ev: Sequence[float] | None, j_ev: Sequence[float] | None
) -> dict[str, float]:
    """U less J by element, eV; those that are 0 are left out.

    Args:
        elements: in the order of the potentials.
        u_ev: LDAUU, None where LDAU is off.
        j_ev: LDAUJ.
    """
    less = list(j_ev or []) + [0.0] * len(elements)
    pairs = zip(elements, u_ev or [], less, strict=False)
    return {element: float(u) - float(j) for element, u, j in pairs if float(u) != float(j)}


def setups(titles: Sequence[str], hubbard: Mapping[str, float]) -> tuple[tuple[str, str], ...]:
    """(element, potential and its U to the digit that OUTCAR prints) pairs, sorted."""
    words = [title.split() for title in titles]
    names = [word[1] if len(word) > 1 else word[0] for word in words if word]
    found = {(name.split("_")[0], name) for name in names}
    return tuple(sorted((e, f"{name}{U_MARK}{hubbard[e]:.1f}" if e in hubbard else name) for e, name in found))


def _text(tags: Mapping[str, Any], name: str) -> str:
    return str(tags.get(name) or "").strip().upper()


def _flag(tags: Mapping[str, Any], name: str) -> bool:
    value = tags.get(name)
    return value is True or str(value).strip().strip(".").upper() in ("T", "TRUE")
