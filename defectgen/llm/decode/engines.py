"""The generation engines by name."""

from __future__ import annotations

from pathlib import Path

from defectgen.errors import UsageError
from defectgen.llm.adapter import AdapterCard
from defectgen.llm.decode.generator import Generator
from defectgen.llm.loading import ONE_PLACE, Placement

ENGINES = ("transformers", "vllm")


def load_generator(
    engine: str,
    adapter: Path,
    dtype: str = "auto",
    *,
    allow_download: bool = False,
    placement: Placement = ONE_PLACE,
) -> tuple[Generator, AdapterCard]:
    """An engine for a trained adapter on its base model, and the adapter's card.

    Args:
        engine: ``transformers``, or ``vllm`` for many prompts on a GPU (its own extra).
        adapter: folder of the adapter.
        dtype: see `defectgen.llm.loading.pick_dtype`.
        allow_download: get the base model that the adapter names from the hub, if it is not on this machine.
        placement: where the weights lie.

    Raises:
        UsageError: no engine of that name, or a placement that it has not.
        DefectgenError: the engine is not installed; no adapter there; a base model that is missing
            or does not fit.
    """
    placement.check(engine)
    if engine == "transformers":
        from defectgen.llm.decode.transformers_engine import TransformersGenerator

        return TransformersGenerator.from_adapter(adapter, dtype, allow_download=allow_download, placement=placement)
    if engine == "vllm":
        from defectgen.llm.decode.vllm_engine import VllmGenerator

        return VllmGenerator.from_adapter(adapter, dtype, allow_download=allow_download, placement=placement)
    raise UsageError(f"unknown engine {engine!r}.", f"Expected one of: {', '.join(ENGINES)}.")
