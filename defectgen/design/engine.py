"""The language model, surrogate and known structures of one host, which design, feedback and evaluation share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from defectgen import __version__
from defectgen.core import Configuration, Host
from defectgen.core.hosts import common_name
from defectgen.core.level_scale import LevelScale
from defectgen.core.properties import BY_COLUMN
from defectgen.data.twodmd import LOW_DENSITY_MOST, SETS
from defectgen.design.limits import Limits, Space
from defectgen.design.model_proposer import ModelProposer
from defectgen.design.raw_reference import RawReference
from defectgen.errors import UsageError
from defectgen.llm.adapter import WEIGHTS, AdapterCard, read_defect_adapter, training_configurations
from defectgen.llm.base import base_model_path, hub_note
from defectgen.llm.decode.generator import Sampling
from defectgen.models import SHIPPED_ADAPTER, SHIPPED_CROWDED_ADAPTER, SHIPPED_SURROGATE, adapter_folder, shipped
from defectgen.score.surrogate.model import METADATA
from defectgen.tasks.defect.defect_task import DefectTask

if TYPE_CHECKING:
    from defectgen.llm.decode.generator import Generator
    from defectgen.score.surrogate import Surrogate

BATCH = 64
"""Proposals that the language model draws together."""


@dataclass(frozen=True)
class Drawing:
    """How the language model draws.

    Attributes:
        temperature: see `defectgen.llm.decode.generator.Sampling`, as the next two.
        top_p: share of the probability that is kept.
        guidance: weight of the wanted values.
    """

    temperature: float = 0.5
    top_p: float = 1.0
    guidance: float = 1.0


@dataclass(frozen=True)
class Models:
    """What proposes and predicts.

    Attributes:
        adapter: folder of a trained adapter, a path or its text, or the name of a shipped one; None for a shipped one,
            see `shipped_adapter`.
        surrogate: folder of a trained surrogate, a path or its text; None for the shipped one.
        engine: what runs the language model: ``transformers`` or ``vllm``.
        allow_download: get the base model that the adapter names from the hub, if it is not on this machine.
    """

    adapter: Path | None = None
    surrogate: Path | None = None
    engine: str = "transformers"
    allow_download: bool = False

    def __post_init__(self) -> None:
        if self.adapter is not None:
            object.__setattr__(self, "adapter", adapter_folder(self.adapter))
        if self.surrogate is not None:
            object.__setattr__(self, "surrogate", Path(self.surrogate))


SHIPPED = Models()
"""The models that come with the package."""

USUAL = Drawing()
"""Draws as they are evaluated in docs/results/targets.md."""


@dataclass(frozen=True, repr=False)
class Engine:
    """Everything that proposes and scores for one host.

    Attributes:
        host: what is decorated.
        card: of the adapter.
        proposer: the language model.
        scorer: the surrogate.
        known: canonical keys of the structures that the adapter was trained on.
        facts: what to report of the models and draws.
        warnings: what a reader of the results has to know, a line each.
    """

    host: Host
    card: AdapterCard
    proposer: ModelProposer
    scorer: Surrogate
    known: frozenset[str]
    facts: dict[str, object]
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        model, surrogate = self.facts.get("model"), self.facts.get("surrogate")
        return f"Engine({self.host.title}: model {model}, surrogate {surrogate})"


def raw_reference(host: Host, scorer: Surrogate, known: frozenset[str], least: int, most: int) -> RawReference:
    """Conversion to the zero of the data's own cells, low or high density as the numbers of defects are.

    Raises:
        UsageError: no training structure tells that zero, or the numbers of defects have several.
    """
    parts = {part.density: part for part in scorer.parts if part.host == host.name}
    limit = parts["low"].defects_range[1] if "low" in parts else 0
    if least <= limit < most:
        raise UsageError(
            f"cells of {common_name(host)} with up to {limit} and with more defects have other zeros of their own.",
            f"Give --max-defects {limit} or --min-defects {limit + 1}, or leave --reference out.",
        )
    part = parts.get("low" if most <= limit else "high")
    if part is None or part.level_scale is None:
        raise UsageError(f"the surrogate has no raw scale for {common_name(host)}.", "Leave --reference out.")
    scale = LevelScale.from_dict(part.level_scale)
    trained = [Configuration.from_key(host, key) for key in sorted(known)]
    shifts = [scale.shift(c) for c in trained if least <= c.n_defects <= most]
    if not shifts:
        raise UsageError(
            f"the training data of {common_name(host)} has no cells with {least} to {most} defects, so that their raw "
            "zero is not known.",
            "Widen --min-defects and --max-defects, or leave --reference out.",
        )
    return RawReference(scale, float(np.mean(shifts)))


def coverage(card: AdapterCard, host: Host, raw: RawReference | None = None) -> dict[str, list[float]]:
    """Ranges of the training data in eV, on the raw scale if one is given; empty for a host without."""
    covered: dict[str, list[float]] = card.covered_ev.get(host.name, {})
    if raw is None:
        return covered
    offset = raw.scale.e_vbm_ev + raw.mean_shift_ev
    return {c: [v + offset for v in r] if BY_COLUMN[c].is_level else r for c, r in covered.items()}


def load_engine(host: Host, models: Models = SHIPPED, limits: Limits | None = None, drawing: Drawing = USUAL) -> Engine:
    """Load adapter, base model and surrogate for a host.

    Raises:
        UsageError: the models were not trained for the host, a number is out of range, or no engine of that name.
        DefectgenError: an asset or a model is missing or does not fit.
    """
    limits = limits or Limits()
    adapter = models.adapter or shipped_adapter(host, limits.min_defects)
    _card_for(host, adapter)
    scorer = load_surrogate(models.surrogate or shipped(SHIPPED_SURROGATE))
    if host.name not in scorer.hosts:
        raise UsageError(
            f"the surrogate was trained on {', '.join(map(common_name, scorer.hosts))}, not on {common_name(host)}."
        )
    check_cell(host, [part.core_host for part in scorer.parts])
    proposer, card = load_proposer(host, models, limits, drawing)
    trained, most = card.max_defects[host.name], proposer.max_defects
    warnings: tuple[str, ...] = ()
    if most > trained:
        warnings = (f"the model saw at most {trained} defects in {common_name(host)}; {most} is beyond its training.",)
    if note := hub_note(card.base_model):
        warnings = (*warnings, f"{note}.")
    known = training_configurations(adapter).get(host.title, frozenset())
    facts: dict[str, object] = {
        "defectgen": __version__,
        "model": adapter.name if models.adapter is None else str(adapter),
        "base_model": card.base_model,
        "engine": models.engine,
        "encoding": card.encoding,
        "prompt_version": card.prompt_version,
        "surrogate": SHIPPED_SURROGATE if models.surrogate is None else str(models.surrogate),
        "supercell": host.size,
        "min_defects": proposer.min_defects,
        "max_defects": most,
        "kinds": ", ".join(proposer.kinds) or "any",
        "temperature": drawing.temperature,
        "top_p": drawing.top_p,
        "guidance": drawing.guidance,
    }
    return Engine(host, card, proposer, scorer, known, facts, warnings)


def load_proposer(
    host: Host, models: Models = SHIPPED, limits: Limits | None = None, drawing: Drawing = USUAL
) -> tuple[ModelProposer, AdapterCard]:
    """Load adapter and base model for a host, whatever predicts its values.

    Raises:
        UsageError: the adapter was not trained for the host, a number is out of range, or no engine of that name.
        DefectgenError: an asset or a model is missing or does not fit.
    """
    limits = limits or Limits()
    adapter = models.adapter or shipped_adapter(host, limits.min_defects)
    card = _card_for(host, adapter)
    space = Space.of(host, limits, card.max_defects[host.name])
    least, most, kinds = space.least, space.most, limits.kinds
    task = task_of(card)
    try:
        task.grammar(host, most, min_defects=least, kinds=kinds)
    except ValueError as error:
        raise UsageError(f"{least} to {most} defects: {error}.") from error
    sampling = Sampling(drawing.temperature, drawing.top_p, drawing.guidance, batch_size=BATCH)
    generator = _load_generator(
        models.engine,
        adapter,
        base_model_path(card.base_model),
        _changed(adapter / WEIGHTS),
        allow_download=models.allow_download,
    )
    only = space if limits.beyond_kinds else None
    properties = frozenset(card.covered_ev.get(host.name, {}))
    return ModelProposer(generator, task, least, most, kinds, sampling, only, properties), card


def _card_for(host: Host, adapter: Path) -> AdapterCard:
    """The card of an adapter that was trained on a host."""
    card = read_defect_adapter(adapter)
    if host.name not in card.hosts:
        raise UsageError(
            f"the model in {adapter.name} was trained on {', '.join(map(common_name, card.hosts))}, "
            f"not on {common_name(host)}.",
            f"Train one on {common_name(host)} (build-data --sets, finetune) and give it with --model.",
        )
    if card.core_hosts:
        check_cell(host, card.core_hosts)
    return card


def shipped_adapter(host: Host, least: int) -> Path:
    """The shipped adapter for cells of a host with so many defects or more.

    That for crowded cells where 2DMD has no set of low density, or where all cells have more defects than those sets.
    """
    dilute = {info.host for info in SETS if info.density == "low"}
    return shipped(SHIPPED_ADAPTER if host.name in dilute and least <= LOW_DENSITY_MOST else SHIPPED_CROWDED_ADAPTER)


def check_cell(host: Host, trained: Sequence[Host]) -> None:
    """Refuse a host that has the name of one that a model was trained on, but another cell or other sites.

    Args:
        host: what is wanted.
        trained: the hosts that the model carries.

    Raises:
        UsageError: it has.
    """
    named = [item for item in trained if item.name == host.name]
    sizes = sorted({item.size for item in named})
    if host.size not in sizes:
        raise UsageError(f"the models know {common_name(host)} in cells of {', '.join(sizes)}, got {host.size}.")
    if not any(host.is_like(item) for item in named):
        raise UsageError(
            f"the models were trained on {common_name(host)} with its sites in another order or place than here.",
            "Use the host that they carry: defectgen.read_host(FOLDER of the surrogate), or defectgen.host for the "
            "shipped ones.",
        )


def task_of(card: AdapterCard) -> DefectTask:
    """The task that an adapter for defects was trained on."""
    settings: dict[str, Any] = card.data.get("settings", {})
    return DefectTask(card.encoding, cartesian=bool(settings.get("cartesian", False)))


def load_surrogate(folder: Path) -> Surrogate:
    """The surrogate in a folder, kept in memory until the folder changes or another one is loaded."""
    return _load_surrogate(folder, _changed(folder / METADATA))


def _changed(file: Path) -> int:
    """When a file was last written, 0 if there is none: a model trained anew is loaded anew."""
    return file.stat().st_mtime_ns if file.is_file() else 0


@lru_cache(maxsize=1)
def _load_surrogate(folder: Path, _changed: int) -> Surrogate:
    from defectgen.score.surrogate import Surrogate

    return Surrogate.load(folder)


@lru_cache(maxsize=1)
def _load_generator(
    engine: str, adapter: Path, _base: str, _changed: int, *, allow_download: bool = False
) -> Generator:
    from defectgen.llm.decode.engines import load_generator

    return load_generator(engine, adapter, allow_download=allow_download)[0]
