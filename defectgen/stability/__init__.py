"""Stability of bulk crystals: energies above the convex hull."""
