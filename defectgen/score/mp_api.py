"""Energies of the Materials Project by its web interface, with the user's key.

Source: https://api.materialsproject.org/docs, route ``materials/thermo``.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from defectgen.errors import DefectgenError, UsageError

KEY_VARIABLE = "MP_API_KEY"
"""Environment variable with the user's key, the one that mp-api reads; the key is never written anywhere."""

URL_VARIABLE = "MP_API_ENDPOINT"
"""Environment variable with another address of the interface, the one that mp-api reads."""

URL = "https://api.materialsproject.org"

THERMO_TYPE = "GGA_GGA+U"
"""The hull of PBE energies with MP2020 corrections, with which M3GNet's and CHGNet's can be compared."""

PAGE = 1000
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class MaterialsProject:
    """The web interface of the Materials Project.

    Attributes:
        key: of the user.
        url: of the interface.
    """

    key: str
    url: str = URL

    def __repr__(self) -> str:
        return f"MaterialsProject(url={self.url!r})"

    @classmethod
    def from_environment(cls) -> MaterialsProject:
        """With the key and the address of the environment.

        Raises:
            UsageError: there is no key.
        """
        key = os.environ.get(KEY_VARIABLE, "").strip()
        if not key:
            raise UsageError(
                f"the Materials Project needs a key, and {KEY_VARIABLE} is not set.",
                "Get one at https://next-gen.materialsproject.org/api, or give --hull a file.",
            )
        return cls(key, os.environ.get(URL_VARIABLE, "").strip().rstrip("/") or URL)

    def energies(self, elements: Sequence[str]) -> list[tuple[str, float]]:
        """All compounds of these elements and of any part of them.

        Args:
            elements: symbols.

        Returns:
            Formula and corrected energy in eV an atom of each.

        Raises:
            DefectgenError: no connection, a key that is not accepted, or an answer of another form.
        """
        systems = [
            "-".join(part)
            for size in range(1, len(elements) + 1)
            for part in itertools.combinations(sorted(elements), size)
        ]
        found: list[tuple[str, float]] = []
        while True:
            rows, total = self._page(",".join(systems), len(found))
            found += rows
            if not rows or len(found) >= total:
                return found

    def _page(self, systems: str, skip: int) -> tuple[list[tuple[str, float]], int]:
        import httpx

        query: dict[str, str | int] = {
            "chemsys": systems,
            "thermo_types": THERMO_TYPE,
            "_fields": "material_id,formula_pretty,energy_per_atom",
            "_limit": PAGE,
            "_skip": skip,
        }
        try:
            answer = httpx.get(
                f"{self.url}/materials/thermo/",
                params=query,
                headers={"X-API-KEY": self.key},
                timeout=TIMEOUT_S,
                follow_redirects=True,
            )
        except httpx.HTTPError as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DefectgenError(
                f"the Materials Project cannot be reached at {self.url} ({reason:.100}).",
                "Check the connection, or give --hull a file.",
            ) from error
        if answer.status_code in (401, 403):
            raise DefectgenError(f"the Materials Project does not accept the key in {KEY_VARIABLE}.", "Check the key.")
        if answer.status_code != httpx.codes.OK:
            raise DefectgenError(f"the Materials Project answered {answer.status_code} at {self.url}.", "Try later.")
        try:
            content: Any = answer.json()
            rows = [(str(row["formula_pretty"]), float(row["energy_per_atom"])) for row in content["data"]]
            total = int(content.get("meta", {}).get("total_doc", len(rows)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DefectgenError(
                f"the answer of {self.url} is not that of the Materials Project ({type(error).__name__}).",
                f"Check {URL_VARIABLE}.",
            ) from error
        return rows, total
