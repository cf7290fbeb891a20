"""Where the program begins: an interrupt is caught from here on, while the commands are still being imported."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the program with the words of the process, see `defectgen_cli.app.main`."""
    try:
        from defectgen_cli.app import main as run
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    return run()
