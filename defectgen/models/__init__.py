"""The models that come with the package, and where they are."""

from __future__ import annotations

from pathlib import Path

SHIPPED_ADAPTER = "defect-smollm2"
"""Folder of the language model's adapter for cells with up to three defects."""

SHIPPED_CROWDED_ADAPTER = "crowded-smollm2"
"""Folder of the language model's adapter for cells with many defects."""

SHIPPED_BULK_ADAPTER = "bulk-smollm2"
"""Folder of the language model's adapter, which writes bulk crystals."""

SHIPPED_SURROGATE = "surrogate"
"""Folder of the surrogate, which predicts properties."""

SHIPPED_SLICES = "slices-catboost"
"""Folder of the trees on SLICES strings, the published baseline."""


SHIPPED_ADAPTERS = (SHIPPED_ADAPTER, SHIPPED_CROWDED_ADAPTER, SHIPPED_BULK_ADAPTER)
"""Language models that may be named wherever a folder of one is taken."""


def shipped(name: str) -> Path:
    """Folder of a shipped model."""
    return Path(__file__).parent / name


def adapter_folder(given: Path | str) -> Path:
    """The folder of an adapter that the user named: of a shipped one by its name, unless a folder has that name."""
    path = Path(given)
    return shipped(path.name) if str(path) in SHIPPED_ADAPTERS and not path.exists() else path
