"""Fixtures of the benchmarks' tests."""

from tiny_model import tiny_generator, tiny_model_dir

__all__ = ["tiny_generator", "tiny_model_dir"]
