"""Bulk crystals as text: prompts, crystals and the grammar of a crystal."""
