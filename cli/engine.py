"""The model, surrogate and known structures that design and evaluation share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from defectgen.core import Host
    from defectgen.design.pipeline import RawReference
    from defectgen.design.proposers import ModelProposer
    from defectgen.llm.adapter import AdapterCard
    from defectgen.llm.decode.generator import Generator
    from defectgen.score.surrogate import Surrogate
    from defectgen.tasks.defect.defect_task import DefectTask

SHIPPED_ADAPTER = "defect-smollm2"
SHIPPED_SURROGATE = "surrogate"


def shipped(name: str) -> Path:
    """Folder of a shipped model."""
    import defectgen

    return Path(defectgen.__file__).parent / "models" / name


@dataclass(frozen=True)
class Drawing:
    """How proposals are drawn.

    Attributes:
        min_defects: fewest defects in a cell.
        max_defects: most; None for as many as the model saw in the host.
        kinds: kinds of defects to make; empty for any.
        temperature: see `defectgen.llm.decode.generator.Sampling`, as the next two.
        top_p: share of the probability that is kept.
        guidance: weight of the wanted values.
        engine: what runs the language model.
    """

    min_defects: int = 1
    max_defects: int | None = None
    kinds: tuple[str, ...] = ()
    temperature: float = 0.5
    top_p: float = 1.0
    guidance: float = 1.0
    engine: str = "transformers"


@dataclass(frozen=True)
class Engine:
    """Everything that proposes and scores for one host."""

    host: Host
    card: AdapterCard
    proposer: ModelProposer
    scorer: Surrogate
    known: frozenset[str]
    facts: dict[str, object]
    warnings: tuple[str, ...]

    def raw_reference(self) -> RawReference:
        """Conversion to the zero of the data's own cells, low or high density as the numbers of defects are."""
        import numpy as np

        from defectgen.core import Configuration
        from defectgen.data.levels import LevelScale
        from defectgen.design.pipeline import RawReference
        from defectgen.errors import UsageError

        parts = {part.density: part for part in self.scorer.parts if part.host == self.host.name}
        least, most = self.proposer.min_defects, self.proposer.max_defects
        limit = parts["low"].defects_range[1] if "low" in parts else 0
        if least <= limit < most:
            raise UsageError(
                f"cells of {self.host.name} with up to {limit} and with more defects have other zeros of their own.",
                f"Give --max-defects {limit} or --min-defects {limit + 1}, or leave --reference out.",
            )
        part = parts.get("low" if most <= limit else "high")
        if part is None or part.level_scale is None:
            raise UsageError(f"the surrogate has no raw scale for {self.host.name}.", "Leave --reference out.")
        scale = LevelScale.from_dict(part.level_scale)
        known = [Configuration.from_key(self.host, key) for key in sorted(self.known)]
        shifts = [scale.shift(c) for c in known if least <= c.n_defects <= most]
        if not shifts:
            raise UsageError(
                f"the training data of {self.host.name} has no cells with {least} to {most} defects, so that their raw "
                "zero is not known.",
                "Widen --min-defects and --max-defects, or leave --reference out.",
            )
        return RawReference(scale, float(np.mean(shifts)))

    def raw_coverage(self, raw: RawReference) -> dict[str, list[float]]:
        """Ranges that the model was trained on, on the raw scale, in eV."""
        from defectgen.core.properties import BY_COLUMN

        offset = raw.scale.e_vbm_ev + raw.mean_shift_ev
        covered = self.card.covered_ev[self.host.name]
        return {c: [v + offset for v in r] if BY_COLUMN[c].is_level else r for c, r in covered.items()}


def load_engine(host: Host, model: Path | None, surrogate: Path | None, drawing: Drawing) -> Engine:
    """Load adapter, base model and surrogate for a host.

    Raises:
        UsageError: the models were not trained for the host, a number is out of range, or no engine of that name.
        DefectgenError: an asset or a model is missing or does not fit.
    """
    from defectgen import __version__
    from defectgen.design.proposers import ModelProposer
    from defectgen.errors import UsageError
    from defectgen.llm.adapter import read_adapter, training_configurations

    adapter = model or shipped(SHIPPED_ADAPTER)
    card = read_adapter(adapter)
    if card.encoding == "bulk":
        raise UsageError(f"the model in {adapter.name} makes bulk crystals, not defects.", "Use: defectgen generate")
    if host.name not in card.hosts:
        raise UsageError(
            f"the model in {adapter.name} was trained on {', '.join(card.hosts)}, not on {host.name}.",
            f"Train one on {host.name} (build-data --sets, finetune) and give it with --model.",
        )
    scorer = load_surrogate(surrogate or shipped(SHIPPED_SURROGATE))
    if host.name not in scorer.hosts:
        raise UsageError(f"the surrogate was trained on {', '.join(scorer.hosts)}, not on {host.name}.")
    if drawing.min_defects > host.n_sites:
        sites = f"{host.n_sites}, the sites of {host.name} {host.size}"
        raise UsageError(f"got --min-defects {drawing.min_defects}, expected at most {sites}.")
    trained = card.max_defects[host.name]
    most, kinds = drawing.max_defects or max(trained, drawing.min_defects), drawing.kinds
    warnings: tuple[str, ...] = ()
    if most > trained:
        warnings = (f"the model saw at most {trained} defects in {host.name}; {most} is beyond its training.",)
    known = training_configurations(adapter).get(f"{host.name} {host.size}", frozenset())
    task = task_of(card)
    try:
        task.grammar(host, most, min_defects=drawing.min_defects, kinds=kinds)
    except ValueError as error:
        raise UsageError(f"{drawing.min_defects} to {most} defects: {error}.") from error

    from defectgen.llm.decode.generator import Sampling

    sampling = Sampling(drawing.temperature, drawing.top_p, drawing.guidance, batch_size=64)
    generator = _load_generator(drawing.engine, adapter)
    facts: dict[str, object] = {
        "defectgen": __version__,
        "model": adapter.name if model is None else str(adapter),
        "base_model": card.base_model,
        "engine": drawing.engine,
        "encoding": card.encoding,
        "prompt_version": card.prompt_version,
        "surrogate": SHIPPED_SURROGATE if surrogate is None else str(surrogate),
        "supercell": host.size,
        "min_defects": drawing.min_defects,
        "max_defects": most,
        "kinds": ", ".join(kinds) or "any",
        "temperature": drawing.temperature,
        "top_p": drawing.top_p,
        "guidance": drawing.guidance,
    }
    proposer = ModelProposer(generator, task, drawing.min_defects, most, kinds, sampling)
    return Engine(host, card, proposer, scorer, known, facts, warnings)


def task_of(card: AdapterCard) -> DefectTask:
    """The task that an adapter for defects was trained on."""
    from defectgen.tasks.defect.defect_task import DefectTask

    cartesian = bool(card.data.get("settings", {}).get("cartesian", False))
    return DefectTask(card.encoding, cartesian=cartesian)  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def load_surrogate(folder: Path) -> Surrogate:
    """The surrogate in a folder."""
    from defectgen.score.surrogate import Surrogate

    return Surrogate.load(folder)


@lru_cache(maxsize=1)
def _load_generator(engine: str, adapter: Path) -> Generator:
    from defectgen.llm.decode.engines import load_generator

    return load_generator(engine, adapter)[0]
