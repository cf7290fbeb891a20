"""Tasks: how a structure and its properties become prompt, completion, grammar and back."""
