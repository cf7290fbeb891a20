"""Generation under a grammar, and without one."""
