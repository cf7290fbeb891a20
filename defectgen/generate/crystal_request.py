"""What a user asks of a model of bulk crystals, checked as a whole, and the model that answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from defectgen.core.crystal import Crystal
from defectgen.errors import DefectgenError, UsageError
from defectgen.generate.sampling import (
    MAX_ATOMS,
    MIN_DISTANCE_ANGSTROM,
    RADII_SHARE,
    Check,
    CrystalJob,
    Draw,
    charge_check,
    constrained,
    distance_check,
    free,
    generation_job,
    infill_job,
    radii_check,
    spacegroup_check,
)
from defectgen.io.files import file_hash
from defectgen.io.structures import read_structure
from defectgen.llm.adapter import METADATA, WEIGHTS, AdapterCard, read_adapter
from defectgen.llm.base import has_crystal_tokens
from defectgen.llm.foreign_adapter import foreign_card, is_foreign, prompts_of, style_of
from defectgen.models import SHIPPED_BULK_ADAPTER, adapter_folder, shipped
from defectgen.tasks.bulk.crystal_grammar import MP_ELEMENTS
from defectgen.tasks.bulk.prompts import OURS, PromptStyle

if TYPE_CHECKING:
    from defectgen.llm.decode.generator import Generator, Sampling
    from defectgen.llm.loading import Placement


BALANCE_NATS = 5.0
"""How much crystals without a wanted formula lean towards an end where charges balance."""

COORDINATE_TEMPERATURE = 0.7
"""Of the coordinates. Lattice and elements drawn at it too are of too few kinds, too small and too dense."""


@dataclass(frozen=True)
class CrystalRequest:
    """Crystals that are asked for: new ones under conditions, or mutations of a known one.

    Attributes:
        conditions: see `generation_job`; absent ones may be None.
        exact_formula: admit no other composition than the wanted.
        infill: file of a crystal to mutate instead.
        mask: the element of it to replace.
        any_element: by any element, not only by ions of similar radius.
        elements: that may occur; none for those that the model was trained on.
        max_atoms: of a cell; None for as many as in training.
        min_distance_angstrom: least distance of two atoms; 0 for any.
        radii: least distance as a share of the sum of the radii; None for `RADII_SHARE`, with `infill` for any.
        neutral: refuse compositions that cannot be neutral in charge.
        balance: how much crystals lean towards an end where charges balance, in nats; refuses nothing. None for
            `BALANCE_NATS` where a crystal is written under the grammar and no formula is wanted.
        orbits: write atoms as orbits of the wanted space group, and refuse crystals that have another.
        free: decode without the grammar.
        guidance: weight of the conditions in the model, see `Sampling`; 1 is as trained.
        prompts: name of the prompts; None for those that the adapter was trained on.
        engine: that runs the model.
        allow_download: get the base model that an adapter names from the hub, if it is not on this machine.
        placement: where the weights lie; None for one place.

    Raises:
        UsageError: parts that do not go together.
    """

    conditions: Mapping[str, object]
    exact_formula: bool = True
    infill: Path | None = None
    mask: str | None = None
    any_element: bool = False
    elements: tuple[str, ...] = ()
    max_atoms: int | None = None
    min_distance_angstrom: float = MIN_DISTANCE_ANGSTROM
    radii: float | None = None
    neutral: bool = False
    balance: float | None = None
    orbits: bool = False
    free: bool = False
    guidance: float = 1.0
    prompts: str | None = None
    engine: str = "transformers"
    allow_download: bool = False
    placement: Placement | None = None

    def __post_init__(self) -> None:
        if self.infill is None and (self.mask is not None or self.any_element):
            raise UsageError("--mask and --any-element go with --infill FILE.")
        if self.infill is not None and (self.stated or self.max_atoms is not None):
            got = ", ".join([*self.stated, *(["max_atoms"] if self.max_atoms is not None else [])])
            raise UsageError(f"got --infill and {got}.", "Mutate a crystal, or generate under conditions.")
        if self.balance and (self.free or self.infill is not None):
            raise UsageError("--balance is a preference of the grammar of crystals.", "Leave out --free and --infill.")
        if self.balance and self.exact_formula and "formula" in self.stated:
            raise UsageError(
                "--balance decides where a crystal ends, which the formula decides already.",
                "Leave it out, or add --any-formula.",
            )
        if self.orbits and ("spacegroup" not in self.stated or self.free):
            raise UsageError("--orbits is a grammar of --spacegroup N.", "State that one, and leave out --free.")
        if self.guidance != 1 and (not self.stated or self.free):
            raise UsageError("--guidance stresses conditions.", "State one, and leave out --free.")
        if self.guidance != 1 and self.engine != "transformers":
            raise UsageError(f"got --guidance with --engine {self.engine}.", "Guidance goes with transformers.")
        if self.free and self.engine != "transformers":
            raise UsageError(f"got --free with --engine {self.engine}.", "Free decoding goes with transformers.")

    @property
    def stated(self) -> dict[str, object]:
        """The conditions that are not None."""
        return {key: value for key, value in self.conditions.items() if value is not None}

    @property
    def balance_nats(self) -> float:
        """How much crystals lean towards an end where charges balance."""
        if self.balance is not None:
            return self.balance
        return 0.0 if self.free or self.infill is not None or "formula" in self.stated else BALANCE_NATS

    @property
    def radii_share(self) -> float:
        """Least distance of two atoms as a share of the sum of their radii; 0 for any."""
        if self.radii is not None:
            return self.radii
        return 0.0 if self.infill is not None else RADII_SHARE

    def job(self, card: AdapterCard | None) -> CrystalJob:
        """What the model is asked.

        Args:
            card: of the adapter; None for a base model.

        Raises:
            UsageError: see `generation_job` and `infill_job`.
            DefectgenError: the crystal to mutate cannot be read.
        """
        allowed = self.elements or trained_elements(card) or MP_ELEMENTS
        style = self.style(card)
        if self.infill is None and not self.free and (foreign := _without_grammar(style, card)):
            raise UsageError(
                f"the grammar does not know {foreign}, on which this adapter was trained.",
                "Draw freely: defectgen generate --free.",
            )
        if self.infill is None:
            most = self.max_atoms or (card.data.get("max_atoms") if card else None) or MAX_ATOMS
            return generation_job(
                self.stated,
                max_atoms=most,
                elements=allowed,
                exact_formula=self.exact_formula,
                min_distance=self.min_distance_angstrom,
                radii=self.radii_share,
                balance=self.balance_nats,
                orbits=self.orbits,
                style=style,
            )
        try:
            crystal = Crystal.from_structure(read_structure(self.infill))
        except DefectgenError as error:
            text = str(error)
            raise DefectgenError(text if str(self.infill) in text else f"{self.infill}: {text}") from error
        if self.mask is None:
            raise UsageError(f"--infill needs --mask, one of {', '.join(crystal.elements)}.")
        return infill_job(crystal, self.mask, elements=allowed, any_element=self.any_element, style=style)

    def style(self, card: AdapterCard | None) -> PromptStyle:
        """How the prompts are worded.

        Raises:
            UsageError: the adapter was trained on other prompts than those asked for.
        """
        trained = prompts_of(card.data.get("settings", {})) if card else None
        if self.prompts is not None and trained not in (None, self.prompts):
            raise UsageError(
                f"the adapter was trained on the prompts {trained}, got --prompts {self.prompts}.",
                "Leave out --prompts: an adapter is asked as it was trained.",
            )
        settings = card.data.get("settings", {}) if card else {}
        return style_of({**settings, "prompts": self.prompts or trained or OURS.name})

    def checks(self) -> list[Check]:
        """What refuses a crystal, in this order."""
        found: list[Check] = [distance_check(self.min_distance_angstrom)]
        found += [radii_check(self.radii_share)] if self.radii_share else []
        found += [spacegroup_check(cast(int, self.conditions["spacegroup"]))] if self.orbits else []
        return [*found, *([charge_check] if self.neutral else [])]

    def facts(self, model: str, card: AdapterCard | None, sampling: Sampling) -> dict[str, Any]:
        """What the manifest of a run tells of model and settings."""
        return {
            "model": model,
            "trained": card is not None,
            "base_model": card.base_model if card else model,
            "engine": self.engine,
            "decoding": "free" if self.free else "grammar",
            "prompts": self.style(card).name,
            "temperature": sampling.temperature,
            "coordinate_temperature": sampling.coordinate_temperature,
            "top_p": sampling.top_p,
            "guidance": sampling.guidance,
            "batch_size": sampling.batch_size,
            "exact_formula": self.exact_formula,
            "min_distance_angstrom": self.min_distance_angstrom,
            "radii": self.radii_share,
            "neutral": self.neutral,
            "balance": self.balance_nats,
            "orbits": self.orbits,
        }


def crystal_sampling(
    temperature: float,
    coordinate_temperature: float | None = None,
    *,
    top_p: float = 1.0,
    guidance: float = 1.0,
    batch_size: int = 64,
    places: bool = True,
) -> Sampling:
    """How crystals are drawn.

    Args:
        temperature: of lattice and elements.
        coordinate_temperature: None for `COORDINATE_TEMPERATURE`, or `temperature` where that is lower.
        top_p: see `defectgen.llm.decode.generator.Sampling`, also for the others.
        guidance: likewise.
        batch_size: likewise.
        places: coordinates are written, under the grammar, which knows them.

    Raises:
        UsageError: numbers that cannot be.
    """
    from defectgen.llm.decode.generator import Sampling

    if not places and coordinate_temperature is not None:
        raise UsageError(
            "--coordinate-temperature is for coordinates under the grammar.", "Leave out --free and --infill."
        )
    if coordinate_temperature is None and places:
        coordinate_temperature = min(temperature, COORDINATE_TEMPERATURE)
    return Sampling(temperature, top_p, guidance, batch_size, coordinate_temperature)


def _without_grammar(style: PromptStyle, card: AdapterCard | None) -> str:
    """What of an adapter's texts the grammar does not write; empty if nothing."""
    if style.absolute:
        return "positions in angstrom"
    return "tokens of crystals" if card is not None and has_crystal_tokens(card.base_model) else ""


def trained_elements(card: AdapterCard | None) -> tuple[str, ...]:
    """The elements in an adapter's training data; none of a base model."""
    return tuple(card.data.get("elements", ())) if card else ()


def bulk_model(name: str | None) -> str:
    """The model of bulk crystals that a user named, a shipped one by its name; the shipped one where none is named."""
    return str(adapter_folder(name)) if name else str(shipped(SHIPPED_BULK_ADAPTER))


def bulk_card(model: str, prompts: str | None = None) -> AdapterCard | None:
    """The card of an adapter for bulk crystals; None for a base model.

    Args:
        model: folder of an adapter, or a base model.
        prompts: those asked for; a folder of LoRA weights from another program needs them, see `foreign_card`.

    Raises:
        UsageError: an adapter for something else, or no model.
    """
    from defectgen.llm.base import base_model_path

    if is_foreign(Path(model)):
        return foreign_card(Path(model), prompts)
    if not (Path(model) / METADATA).is_file():
        base_model_path(model)
        return None
    card = read_adapter(Path(model))
    if not card.is_bulk:
        raise UsageError(
            f"the adapter in {model} writes defects ({card.encoding}), expected one trained on bulk crystals.",
            "Train one: defectgen build-data --task bulk, then defectgen finetune.",
        )
    return card


def weights_hash(model: str) -> str | None:
    """Checksum of an adapter's weights; None for a base model."""
    weights = Path(model) / WEIGHTS
    return file_hash(weights) if weights.is_file() else None


def open_draw(
    model: str, card: AdapterCard | None, request: CrystalRequest, job: CrystalJob, sampling: Sampling
) -> Draw:
    """The model, loaded: where the texts come from.

    Args:
        model: folder of an adapter, or a base model.
        card: of the adapter.
        request: names the engine, and whether the grammar holds.
        job: what is asked.
        sampling: how tokens are drawn.

    Raises:
        UsageError: no such engine, or one that does not run the model.
        DefectgenError: the engine is not installed, or the model is missing or does not fit.
    """
    return draw_from(open_generator(model, card, request), request, job, sampling)


def draw_from(generator: Generator, request: CrystalRequest, job: CrystalJob, sampling: Sampling) -> Draw:
    """Where the texts of a job come from, by a model that is loaded already."""
    from defectgen.llm.decode.transformers_engine import TransformersGenerator

    if request.free and isinstance(generator, TransformersGenerator):
        return free(generator.model, generator.tokenizer, job, sampling)
    return constrained(generator, job, sampling)


def open_generator(model: str, card: AdapterCard | None, request: CrystalRequest) -> Generator:
    """The model, loaded; see `open_draw`."""
    from defectgen.llm.decode.engines import ENGINES, load_generator
    from defectgen.llm.decode.transformers_engine import TransformersGenerator
    from defectgen.llm.loading import ONE_PLACE, load_base

    engine, placement = request.engine, request.placement or ONE_PLACE
    if engine not in ENGINES:
        raise UsageError(f"unknown engine {engine!r}.", f"Expected one of: {', '.join(ENGINES)}.")
    if card is not None and is_foreign(Path(model)):
        if engine != "transformers":
            raise UsageError(f"{engine} runs adapters of `defectgen finetune`, got {model}.", "Use transformers.")
        placement.check(engine)
        download = request.allow_download
        return TransformersGenerator.with_card(Path(model), card, download=download, placement=placement)
    if card is not None:
        return load_generator(engine, Path(model), allow_download=request.allow_download, placement=placement)[0]
    if engine == "transformers":
        placement.check(engine)
        base, tokenizer, _ = load_base(model, "auto", placement.quantization, spread=placement.spread)
        return TransformersGenerator(base, tokenizer)
    raise UsageError(f"{engine} runs trained adapters, got base model {model}.", "Use --engine transformers.")
