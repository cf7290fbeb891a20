"""Defect structures of 2D materials on demand: from wanted levels to ranked, DFT-ready cells."""

__version__ = "0.1.0"
