"""Where results go: found out before the work that makes them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from defectgen.errors import UsageError


def require_writable(path: Path) -> None:
    """Make sure that a file or folder can be made, by making a folder beside it, or in it, for a moment.

    Raises:
        UsageError: it cannot.
    """
    whole = path.absolute()
    place = whole if whole.is_dir() else next(known for known in whole.parents if known.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".defectgen-", dir=place):
            pass
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({place}: {error.strerror}).", "Name another place.") from error
