"""Where a command takes its data from."""

from __future__ import annotations

from pathlib import Path


def dataset_path(data: Path | None, *, pilot: bool = False) -> Path:
    """The folder given, or the fetched asset.

    Raises:
        UsageError: the folder does not exist.
        DefectgenError: the asset has not been fetched.
    """
    from defectgen.data.assets import asset_path
    from defectgen.errors import UsageError

    if pilot:
        return asset_path("2dmd-pilot")
    if data is None:
        return asset_path("2dmd")
    if not data.is_dir():
        raise UsageError(f"{data} is not a folder.", "Expected 2DMD in its published layout.")
    return data
