"""Groups of options that design, feedback and evaluate share; `defectgen_cli.option_groups` expands them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from defectgen_cli.options import POTENTIALS, AllowDownloadOption, M3GNetOption, SeedOption, SurrogateOption

if TYPE_CHECKING:
    from collections.abc import Callable

    from defectgen.design.candidates import DesignRun, Target
    from defectgen.design.engine import Drawing, Models
    from defectgen.design.limits import Limits
    from defectgen.design.request import Ranking
    from defectgen.design.with_potential import PotentialUse

LEVEL_HELP = "eV relative to the pristine VBM"

EngineOption = Annotated[
    str, typer.Option("--engine", metavar="NAME", help="What runs the language model: transformers or vllm.")
]


def names(text: str | None) -> tuple[str, ...]:
    """Names with commas between them."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


@dataclass(frozen=True)
class GrowthOptions:
    """Growth conditions that formation energies are for."""

    conditions: Annotated[
        str, typer.Option(metavar="NAME", help="Formation energies for growth conditions: S-rich, Mo-rich.")
    ] = ""
    mu: Annotated[
        str, typer.Option(metavar="X=EV,...", help="Chemical potentials relative to the elements instead: S=-0.6.")
    ] = ""


@dataclass(frozen=True)
class TargetOptions:
    """What is wanted: one target by options, or many in a table."""

    homo: Annotated[
        str | None,
        typer.Option("--homo", metavar="WISH", help=f"Wanted HOMO, {LEVEL_HELP}: 0.05, 0.1:0.3, 0.05+-0.02, min, max."),
    ] = None
    lumo: Annotated[str | None, typer.Option("--lumo", metavar="WISH", help=f"Wanted LUMO, {LEVEL_HELP}.")] = None
    band_gap: Annotated[str | None, typer.Option("--band-gap", metavar="WISH", help="Wanted HOMO-LUMO gap, eV.")] = None
    formation_energy: Annotated[
        str | None, typer.Option("--formation-energy", metavar="WISH", help="Wanted formation energy of the cell, eV.")
    ] = None
    fermi_level: Annotated[
        str | None, typer.Option("--fermi-level", metavar="WISH", help=f"Wanted Fermi level, {LEVEL_HELP}.")
    ] = None
    energy_per_atom: Annotated[
        str | None, typer.Option("--energy-per-atom", metavar="WISH", help="Wanted total energy per atom, eV.")
    ] = None
    magnetization: Annotated[
        str | None,
        typer.Option("--magnetization", metavar="WISH", help="Wanted magnetization of the cell, Bohr magnetons."),
    ] = None
    targets: Annotated[
        Path | None,
        typer.Option(
            "--targets", metavar="FILE", help="Many targets, CSV or YAML: a column a property, tolerance or limit."
        ),
    ] = None

    def read(self) -> tuple[Target, ...]:
        """The targets.

        Raises:
            UsageError: none, a table beside options, or values that do not fit.
        """
        from defectgen.design.targets import read_targets, single_target, wanted_values
        from defectgen.errors import UsageError

        given = {name: value for name, value in vars(self).items() if name != "targets" and value is not None}
        if self.targets is None:
            return (single_target(wanted_values(given)),)
        if given:
            raise UsageError("got --targets and single targets.", "Give either a table or options.")
        return read_targets(self.targets)


@dataclass(frozen=True)
class LimitOptions:
    """Which defects may be proposed."""

    max_defects: Annotated[
        int | None, typer.Option("--max-defects", min=1, help="Most point defects in a cell [as in training].")
    ] = None
    min_defects: Annotated[int, typer.Option("--min-defects", min=1, help="Fewest point defects in a cell.")] = 1
    kinds: Annotated[
        str | None, typer.Option("--kinds", metavar="KIND", help="Only these defects: vacancy or substitution.")
    ] = None
    defects: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="What there has to be: v_S, v_S=2, v_S=1:3.")
    ] = None
    only: Annotated[str | None, typer.Option(metavar="NAME,...", help="No other defects than these, e.g. v_S.")] = None
    without: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="None of these defects or species: W_Mo, Se, VAC (empty)."),
    ] = None
    concentration: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Share of changed sites, 0 to 1: at most, or a range 0.02:0.05.")
    ] = None
    sublattice: Annotated[
        str | None, typer.Option(metavar="SIDE", help="All defects on one side of the layer: top or bottom.")
    ] = None
    least_distance: Annotated[
        float, typer.Option(metavar="ANGSTROM", help="No two defects are nearer to each other.")
    ] = 0.0

    def limits(self) -> Limits:
        """For the library."""
        from defectgen.design.limits import Limits, parse_share

        return Limits(
            self.min_defects,
            self.max_defects,
            names(self.kinds),
            names(self.defects),
            names(self.only),
            names(self.without),
            None if self.concentration is None else parse_share(self.concentration),
            self.sublattice,
            self.least_distance,
        )


@dataclass(frozen=True)
class RankingOptions:
    """How many structures compete, what decides between them, and how many come out."""

    n: Annotated[int, typer.Option("-n", "--n", min=1, help="Candidates to return for each target.")] = 16
    rank_by: Annotated[
        str, typer.Option(metavar="WHAT", help="expected (distance, uncertainty counted) or distance (predicted).")
    ] = "expected"
    reference: Annotated[
        str, typer.Option(metavar="ZERO", help="Zero of all levels: vbm (of the pristine host), or raw (of the data).")
    ] = "vbm"
    samples: Annotated[
        int | None, typer.Option(min=1, help="Structures to generate for each target before ranking [16 n].")
    ] = None
    random: Annotated[
        int | None,
        typer.Option(min=0, help="Random structures beside what can be listed [400; 1000 without a list]."),
    ] = None
    diversity: Annotated[
        bool, typer.Option("--diversity/--all", help="One row for structures that are alike, or each its own.")
    ] = True
    novel: Annotated[bool, typer.Option("--novel", help="Only structures without a label, and not trained on.")] = False
    budget: Annotated[
        str, typer.Option(metavar="TIME|N", help="How long to look for each target: 30s, 5m, or structures.")
    ] = ""
    seed: SeedOption = 0

    def ranking(self) -> Ranking:
        """For the library."""
        from defectgen.design.proposers import ENDLESS, parse_budget
        from defectgen.design.request import Ranking

        return Ranking(
            self.n,
            self.samples,
            self.random,
            self.rank_by,  # type: ignore[arg-type]
            self.reference,
            self.seed,
            self.diversity,
            self.novel,
            parse_budget(self.budget) if self.budget else ENDLESS,
        )


@dataclass(frozen=True)
class DrawingOptions:
    """How the language model draws."""

    temperature: Annotated[float, typer.Option(min=0.0, help="Sampling temperature of the language model.")] = 0.5
    top_p: Annotated[
        float, typer.Option("--top-p", min=0.0, max=1.0, help="Draw from the likeliest tokens of this probability.")
    ] = 1.0
    guidance: Annotated[
        float, typer.Option(min=0.0, help="Weight of the target in the model: 1 as trained, more is stricter.")
    ] = 1.0

    def drawing(self) -> Drawing:
        """For the library."""
        from defectgen.design.engine import Drawing

        return Drawing(self.temperature, self.top_p, self.guidance)


@dataclass(frozen=True)
class ModelOptions:
    """What proposes and predicts."""

    model: Annotated[
        Path | None, typer.Option("--model", metavar="DIR|NAME", help="Adapter, see defectgen doctor [a shipped one].")
    ] = None
    engine: EngineOption = "transformers"
    surrogate: SurrogateOption = None
    allow_download: AllowDownloadOption = False

    def models(self) -> Models:
        """For the library."""
        from defectgen.design.engine import Models

        return Models(self.model, self.surrogate, self.engine, self.allow_download)


@dataclass(frozen=True)
class ManyModelOptions:
    """Models that are compared, and what judges them."""

    model: Annotated[
        list[Path] | None,
        typer.Option("--model", metavar="DIR|NAME", help="Adapter; repeat for several [a shipped one]."),
    ] = None
    engine: EngineOption = "transformers"
    surrogate: SurrogateOption = None
    allow_download: AllowDownloadOption = False

    def models(self) -> Models:
        """For the library, without the adapters."""
        from defectgen.design.engine import Models

        return Models(None, self.surrogate, self.engine, self.allow_download)


@dataclass(frozen=True)
class PotentialOptions:
    """Whether the best are relaxed, by what, and what that decides."""

    potential: Annotated[
        str | None,
        typer.Option(
            "--potential", metavar="NAME", help=f"Relax the best with a potential: {' or '.join(POTENTIALS)}."
        ),
    ] = None
    potential_top: Annotated[
        int, typer.Option("--potential-top", metavar="K", min=1, help="Candidates of each target to relax.")
    ] = 3
    potential_use: Annotated[
        str, typer.Option("--potential-use", metavar="HOW", help="columns, filter or tie-break, see above.")
    ] = "columns"
    m3gnet: M3GNetOption = None

    def use(self) -> PotentialUse | None:
        """For the library.

        Raises:
            UsageError: another use, or one without a potential.
        """
        from defectgen.design.with_potential import PotentialUse
        from defectgen.errors import UsageError

        if self.potential is None:
            if self.potential_use != "columns":
                raise UsageError(f"got --potential-use {self.potential_use} without a potential.", "Add --potential.")
            return None
        return PotentialUse(self.potential, self.potential_top, self.potential_use, self.m3gnet)  # type: ignore[arg-type]


@dataclass(frozen=True)
class InputsOptions:
    """DFT inputs beside the candidates."""

    inputs: Annotated[
        str | None,
        typer.Option("--inputs", metavar="CODE", help="DFT inputs of the candidates too: vasp, gpaw or qe."),
    ] = None
    inputs_settings: Annotated[
        str, typer.Option("--inputs-settings", metavar="NAME|FILE.yaml", help="2dmd, mp, lcao, or your own.")
    ] = "2dmd"

    def writer(self, vacuum: float | None) -> Callable[[DesignRun], Callable[[Path], object] | None]:
        """What writes the inputs of a run into its folder; None of these for no inputs.

        Args:
            vacuum: of the structures, in angstrom; inputs have it where their settings name none.

        Raises:
            UsageError: an unknown code or unknown settings.
        """
        code = self.inputs
        if code is None:
            return lambda _: None
        from defectgen.dft.codes import CODES
        from defectgen.dft.inputs import dft_inputs
        from defectgen.dft.settings import load_settings

        CODES.find(code)
        settings = load_settings(self.inputs_settings)
        if vacuum is not None and settings.vacuum_angstrom is None:
            settings = settings.model_copy(update={"vacuum_angstrom": vacuum})
        return lambda run: lambda folder: dft_inputs(run, folder / f"{code}-inputs", code, settings=settings)
