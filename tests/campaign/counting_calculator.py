"""A calculator of ASE that writes down each calculation, and may be slow, or find the disk full, as files say."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ase.calculators.lj import LennardJones


class Counting(LennardJones):
    """Lennard-Jones, with a line in ``log`` for each calculation that ends.

    Args:
        folder: of the files ``log``, ``pause`` (seconds of each calculation), ``full``, ``broken`` (formulas).
        more: of Lennard-Jones.
    """

    def __init__(self, folder: str, **more: Any) -> None:
        super().__init__(**more)
        self.place = Path(folder)

    def calculate(self, *args: Any, **more: Any) -> None:
        if (self.place / "full").exists():
            raise OSError(28, "No space left on device")
        if (self.place / "pause").exists():
            time.sleep(float((self.place / "pause").read_text()))
        super().calculate(*args, **more)
        formula = self.atoms.get_chemical_formula()
        broken = self.place / "broken"
        if broken.exists() and formula in broken.read_text().split():
            raise RuntimeError("it fell apart")
        with (self.place / "log").open("a") as file:
            file.write(f"{Path.cwd().parent.name} {formula} {os.getpid()}\n")
