"""Whether two results of layers may stand side by side: their settings, density of k points and smearing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from defectgen.dft.result import DftResult, Fingerprint
from defectgen.io.documents import parse_json

DENSITY_RATIO = 1.35
"""Densities of k points that differ by more than this factor are other settings."""

NARROW_EV = 0.1
"""Smearings of one kind up to this width are alike: it is what a cell that does not converge is tried with last."""

NO_ARGUMENTS = "{}"
"""As the basis of a calculator without arguments was written before it was empty."""

SHARP = ("tetrahedron", "fixed")
"""Occupations without a width."""


@dataclass(frozen=True)
class LayerSettings:
    """What the values of a layer depend on besides its structure.

    Attributes:
        fingerprint: see `Fingerprint`.
        reach_angstrom: k points times length of the cell vector in the plane, the smaller one; None if not known.
    """

    fingerprint: Fingerprint
    reach_angstrom: float | None = None

    @classmethod
    def of(cls, result: DftResult) -> LayerSettings:
        """Those of a result."""
        mesh = result.fingerprint.mesh
        if not mesh:
            return cls(result.fingerprint)
        lengths = np.linalg.norm(np.asarray(result.structure.lattice.matrix), axis=1)
        reach = min(n * length for n, length in zip(mesh[:2], lengths[:2], strict=True))
        return cls(result.fingerprint, round(float(reach), 2))

    def differs(self, other: LayerSettings) -> str:
        """What keeps two layers from being compared, in one clause; empty if nothing does."""
        return self.fingerprint.differs(other.fingerprint) or self._density(other) or self._smearing(other)

    def differs_from_any(self, others: Iterable[LayerSettings]) -> str:
        """What keeps a layer from being compared with one of several, in one clause; empty if nothing does."""
        return next((reason for other in others if (reason := self.differs(other))), "")

    def text(self) -> str:
        """As JSON, for a database."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> LayerSettings | None:
        """From `text`; None if it is of an earlier version, which kept a checksum.

        Raises:
            ValueError: it is damaged.
        """
        if not text.startswith("{"):
            return None
        try:
            values = parse_json(text, "settings")
            given = values["fingerprint"]
            lists: dict[str, Any] = {
                "setups": tuple((str(a), str(b)) for a, b in given["setups"]),
                "mesh": tuple(given["mesh"]),
            }
            if given["basis"] == NO_ARGUMENTS:
                lists["basis"] = ""
            return cls(Fingerprint(**(given | lists)), values["reach_angstrom"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"settings are damaged ({error})") from error

    def _density(self, other: LayerSettings) -> str:
        mine, theirs = self.reach_angstrom, other.reach_angstrom
        if mine is None or theirs is None or max(mine, theirs) / min(mine, theirs) <= DENSITY_RATIO:
            return ""
        return f"k points of {mine:.0f} angstrom against {theirs:.0f}"

    def _smearing(self, other: LayerSettings) -> str:
        first, second = self.fingerprint, other.fingerprint
        mine, theirs = first.width_ev, second.width_ev
        if mine is None or theirs is None:
            return ""
        one_kind = first.smearing == second.smearing or first.smearing in SHARP or second.smearing in SHARP
        if one_kind and (max(mine, theirs) <= NARROW_EV or abs(mine - theirs) < 1e-3):
            return ""
        return f"smearing {first.smearing_text} against {second.smearing_text}"


def alike(settings: Sequence[LayerSettings]) -> list[list[LayerSettings]]:
    """Different settings in groups, as far as nothing keeps them apart, in the order in which they came."""
    found: list[list[LayerSettings]] = []
    for item in dict.fromkeys(settings):
        home = next((group for group in found if not item.differs_from_any(group)), None)
        if home is None:
            found.append([item])
        else:
            home.append(item)
    return found


def differences(kinds: Sequence[Sequence[LayerSettings]]) -> str:
    """What tells the groups of `alike` apart, in one clause."""
    firsts = [kind[0] for kind in kinds]
    shown = [
        " ".join(str(p) for p in (k.code, k.functional, k.cutoff_ev and f"{k.cutoff_ev:g} eV", k.basis) if p)
        for k in (first.fingerprint for first in firsts)
    ]
    if len(set(shown)) == len(shown):
        return "; ".join(shown)
    earlier = [[item for kind in kinds[:number] for item in kind] for number in range(len(kinds))]
    reasons = [first.differs_from_any(before) for first, before in zip(firsts, earlier, strict=True)]
    return "; ".join([shown[0], *reasons[1:]])
