"""The loop: propose structures, compute them, learn from them, propose better ones."""
