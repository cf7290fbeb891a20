"""Evaluation of generated bulk crystals: validity, coverage, diversity, novelty, uniqueness and asked conditions."""
