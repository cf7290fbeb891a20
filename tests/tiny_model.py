"""The tiny untrained model of the tests of `defectgen.llm`, as fixtures for other rooms."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("llm_fixtures", Path(__file__).parent / "llm" / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)

tiny_model_dir = _module.tiny_model_dir
tiny_generator = _module.tiny_generator
