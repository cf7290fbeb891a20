"""PAW or ultrasoft pseudopotentials of B, C, N and O, made by the ld1.x that comes with pw.x.

    apt-get install --no-install-recommends quantum-espresso
    python paw_for_pwx.py pseudo B N C
    python paw_for_pwx.py --ultrasoft pseudo B N C

writes pseudo/B.paw.UPF and so on, of PBE and scalar-relativistic. They are there at once and hardly tested: for work
to be published take a library (SSSP, PseudoDojo).
"""

import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

P_ELECTRONS = {"B": 1, "C": 2, "N": 3, "O": 4}

INPUT = """\
 &input
  title='{symbol}', zed={number}, rel=1, config='[He] 2s2 2p{electrons} 3d-2', iswitch=3, dft='PBE'
 /
 &inputp
  lpaw=.{paw}., pseudotype=3, lloc=2, tm=.true., nlcc=.true., new_core_ps=.true., rcore=0.8,
  which_augfun='BESSEL', rmatch_augfun=1.1, file_pseudopw='{file}'
 /
5
2S  1  0  2.00  0.00  1.00  1.30
2S  1  0  0.00  0.05  1.00  1.30
2P  2  1  {electrons}.00  0.00  1.00  1.45
2P  2  1  0.00  0.05  1.00  1.45
3D  3  2 -2.00  0.15  1.10  1.10
"""


def narrow(text: str) -> str:
    """The same with an attribute of the header a line and short rows: pw.x 6.7 reads no long lines of ld1.x 6.7."""
    text = re.sub(r"<PP_HEADER[^>]*>", lambda found: re.sub(r' (?=\w+=")', "\n ", found[0]), text)
    rows = [textwrap.wrap(line, 200) if len(line) > 200 else [line] for line in text.splitlines()]
    return "\n".join(part for row in rows for part in row) + "\n"


def main(*words: str) -> None:
    """Make the files of elements in a folder."""
    kind = "us" if "--ultrasoft" in words else "paw"
    place, *symbols = (word for word in words if not word.startswith("--"))
    folder = Path(place)
    folder.mkdir(parents=True, exist_ok=True)
    for symbol in symbols:
        if symbol not in P_ELECTRONS:
            sys.exit(f"got {symbol}, expected one of {', '.join(P_ELECTRONS)}.")
        electrons = P_ELECTRONS[symbol]
        file = f"{symbol}.{kind}.UPF"
        given = INPUT.format(
            symbol=symbol, number=electrons + 4, electrons=electrons, paw=str(kind == "paw").lower(), file=file
        )
        with tempfile.TemporaryDirectory() as scratch:
            done = subprocess.run(["ld1.x"], input=given, cwd=scratch, capture_output=True, text=True, check=False)
            made = Path(scratch) / file
            if not made.is_file():
                sys.exit(f"ld1.x made no pseudopotential of {symbol}:\n{done.stdout[-2000:]}")
            (folder / file).write_text(narrow(made.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
