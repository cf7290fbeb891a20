"""Bulk crystals by a language model or by swapping elements of known ones."""
