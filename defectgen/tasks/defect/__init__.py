"""Defects of a host as text: prompts, encodings, wordings and grammars."""
