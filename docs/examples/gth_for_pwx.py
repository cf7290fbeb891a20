"""PBE pseudopotentials for pw.x from the table of Goedecker, Teter and Hutter that comes with CP2K.

    apt-get install --no-install-recommends cp2k-data
    python gth_for_pwx.py pseudo Mo S Se W

writes pseudo/Mo.gth and so on (doi 10.1103/PhysRevB.54.1703, 10.1007/s00214-005-0655-y). They are norm-conserving, hard
(500 eV and more for levels to 0.1 eV), and there at once; for work to be published take a tested library of UPF files.
"""

import sys
from pathlib import Path

from pymatgen.core import Element

TABLE = Path("/usr/share/cp2k/GTH_POTENTIALS")


def blocks(text: str) -> dict[str, list[str]]:
    """Numbers by name, such as Mo GTH-PBE-q14; the last entry of an element has the most electrons."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        words = line.split()
        if not words or line.startswith("#"):
            name = ""
        elif words[0][0].isalpha():
            name = f"{words[0]} {words[1]}"
            found[name] = []
        elif name:
            found[name] += [f"{len(words)}:", *words] if not found[name] else words
    return found


def gth(symbol: str, numbers: list[str], title: str) -> str:
    """A pseudopotential in the format that pw.x reads in files ending in .gth."""
    shells = int(numbers[0].rstrip(":"))
    electrons = sum(map(int, numbers[1 : 1 + shells]))
    rest = iter(numbers[1 + shells :])
    radius, terms = next(rest), int(next(rest))
    local = [next(rest) for _ in range(terms)]
    channels = []
    for _ in range(int(next(rest))):
        width, size = next(rest), int(next(rest))
        channels.append((width, [[next(rest) for _ in range(size - row)] for row in range(size)]))
    while channels and not channels[-1][1]:
        channels.pop()
    highest = len(channels) - 1
    lines = [title, f"{Element(symbol).Z} {electrons} 0", f"10 11 {highest} {highest + 1} 2001 0"]
    lines += [" ".join([radius, str(terms), *local]), str(len(channels))]
    for number, (width, rows) in enumerate(channels):
        lines += [" ".join([width, str(len(rows)), *(rows[0] if rows else [])]), *(" ".join(row) for row in rows[1:])]
        lines += [" ".join("0.0" for _ in row) for row in rows] if number else []  # no spin-orbit coupling
    return "\n".join(lines) + "\n"


def main(folder: str, *symbols: str) -> None:
    """Write the files of elements into a folder."""
    known = blocks(TABLE.read_text(encoding="utf-8"))
    Path(folder).mkdir(parents=True, exist_ok=True)
    for symbol in symbols:
        names = [name for name in known if name.startswith(f"{symbol} GTH-PBE-q")]
        if not names:
            sys.exit(f"{TABLE} has no PBE pseudopotential of {symbol}.")
        name = max(names, key=lambda text: int(text.rpartition("q")[2]))
        (Path(folder) / f"{symbol}.gth").write_text(gth(symbol, known[name], f"{name} of CP2K"), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
