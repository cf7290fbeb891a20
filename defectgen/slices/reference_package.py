"""The reference package of SLICES, in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defectgen.errors import DefectgenError

if TYPE_CHECKING:
    from pymatgen.core import Structure

PYTHON_VARIABLE = "DEFECTGEN_SLICES_PYTHON"
"""Names the Python interpreter of that environment."""

INSTALL_HINT = "See docs/slices.md for the command that makes its environment."

_PROGRAM = """
import contextlib, json, sys, time, warnings
warnings.simplefilter("ignore")
job = json.load(sys.stdin)
results = []
with contextlib.redirect_stdout(sys.stderr):
    from pymatgen.core import Structure
    from slices.core import SLICES
    decode = job["task"] == "decode"
    slices = SLICES(relax_model="m3gnet" if decode else None, graph_method="econnn")
    for item in job["items"]:
        structure = None if decode else Structure(item["lattice"], item["species"], item["frac_coords"])
        start = time.process_time()
        try:
            if decode:
                structure, energy = slices.SLICES2structure(item)
                answer = {
                    "lattice": structure.lattice.matrix.tolist(),
                    "species": [site.specie.symbol for site in structure],
                    "frac_coords": structure.frac_coords.tolist(),
                    "energy_per_atom_ev": float(energy) or None,
                }
            else:
                answer = {"slices": slices.structure2SLICES(structure)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        results.append({**answer, "seconds": time.process_time() - start})
json.dump(results, sys.stdout)
"""


@dataclass(frozen=True)
class ReferencePackage:
    """The package ``slices`` 2.0.12, called in another interpreter.

    Attributes:
        python: that interpreter.
    """

    python: Path

    @classmethod
    def from_environment(cls) -> ReferencePackage:
        """The one that the variable `PYTHON_VARIABLE` names.

        Raises:
            DefectgenError: it is not set.
        """
        python = os.environ.get(PYTHON_VARIABLE)
        if not python:
            raise DefectgenError(
                f"{PYTHON_VARIABLE} is not set; expected the Python of an environment with the package slices.",
                INSTALL_HINT,
            )
        return cls(Path(python))

    def encode(self, structures: Sequence[Structure]) -> list[tuple[str, float]]:
        """SLICES string (strategy 4, EconNN) of each structure, and the seconds of CPU that it took.

        Raises:
            DefectgenError: the package cannot be run, or fails for a structure.
        """
        items = [
            {
                "lattice": structure.lattice.matrix.tolist(),
                "species": [site.specie.symbol for site in structure],
                "frac_coords": structure.frac_coords.tolist(),
            }
            for structure in structures
        ]
        answers = self._run("encode", items)
        for number, answer in enumerate(answers, start=1):
            if "error" in answer:
                raise DefectgenError(
                    f"the package slices cannot encode item {number} of {len(items)} ({_reason(answer)})."
                )
        return [(str(answer["slices"]), float(answer["seconds"])) for answer in answers]

    def decode(self, texts: Sequence[str]) -> list[Structure | str]:
        """A structure for each SLICES string, relaxed by the package with its M3GNet; half a minute for a small one.

        Where the package fails for a string, the reason stands in place of the structure.

        Only nets with bonds in all three directions have an embedding there: a layer with vacuum fails.

        Raises:
            DefectgenError: the package cannot be run.
        """
        from pymatgen.core import Structure

        answers = self._run("decode", list(texts))
        return [
            _reason(answer)
            if "error" in answer
            else Structure(answer["lattice"], answer["species"], answer["frac_coords"])
            for answer in answers
        ]

    def _run(self, task: str, items: Sequence[Any]) -> list[dict[str, Any]]:
        job = json.dumps({"task": task, "items": items})
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        try:
            done = subprocess.run(
                [self.python, "-c", _PROGRAM], input=job, capture_output=True, text=True, check=False, env=environment
            )
        except OSError as error:
            raise DefectgenError(f"{self.python} cannot be run ({error.strerror}).", INSTALL_HINT) from error
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise DefectgenError(f"the package slices fails in {self.python} ({last}).", INSTALL_HINT)
        answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
        return answers


def _reason(answer: dict[str, Any]) -> str:
    """Why the package failed for an item, in one line."""
    return " ".join(answer["error"].split())
