"""One part of each kind as another package would write it: host, property, scorer, proposer, encoding, data source,
output format."""
# ruff: noqa: ARG002  # the protocols name what these parts have no use for

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

import defectgen as dg
from defectgen.core.properties import Property
from defectgen.design.proposers import Ask, Proposal, ProposerOptions
from defectgen.io.writers import OutputStructure
from defectgen.score.scorers import ScorerOptions
from defectgen.tasks.defect.encodings import kinds_of, wanted_properties
from defectgen.tasks.defect.wording import PLAIN, Writing
from defectgen.tasks.grammar import END
from defectgen.tasks.parsing import ParseError

GRAPHENE = dg.Host(
    name="graphene",
    lattice=((2.46, 0.0, 0.0), (-1.23, 2.13042249, 0.0), (0.0, 0.0, 15.0)),
    species=("C", "C"),
    frac_coords=((1 / 3, 2 / 3, 0.5), (2 / 3, 1 / 3, 0.5)),
    supercell=(4, 4),
    rules=(dg.Rule("C", "B"), dg.Rule("C", "N"), dg.Rule("C", "VAC")),
)

STIFFNESS = Property(
    column="stiffness_gpa",
    option="stiffness",
    title="stiffness",
    prompt="stiff",
    sentence="The stiffness is {value} GPa.",
    decimals=1,
    description="in-plane stiffness",
    unit="GPa",
    unit_suffix="gpa",
    weight_ev=0.01,
)


def stiffness_gpa(configuration: dg.Configuration) -> float:
    """1000 GPa, 50 less for each vacancy and 10 less for each other defect."""
    empty = sum(species == "VAC" for _, species in configuration.edits)
    return 1000.0 - 50.0 * empty - 10.0 * (configuration.n_defects - empty)


class StiffnessScorer:
    """Knows the stiffness and nothing else."""

    name = "springs"

    def score(self, configurations: Sequence[dg.Configuration]) -> pl.DataFrame:
        return pl.DataFrame({STIFFNESS.column: [stiffness_gpa(item) for item in configurations]})


def load_springs(_: ScorerOptions) -> StiffnessScorer:
    return StiffnessScorer()


@dataclass(frozen=True)
class InOrder:
    """Proposes what the enumeration gives, in its order."""

    most: int

    def propose(self, host: dg.Host, asks: Sequence[Ask]) -> Iterator[Proposal]:
        for index, ask in enumerate(asks):
            found = dg.enumerate(host, max_defects=self.most)
            yield from (Proposal(index, item) for item, _ in zip(found, range(ask.n), strict=False))


def make_in_order(options: ProposerOptions) -> InOrder:
    return InOrder(options.limits.max_defects or 1)


@dataclass(frozen=True)
class NumbersGrammar:
    """Pieces such as ``12=VAC;``, sites in rising order; the state is the last site and how many there are."""

    host: dg.Host
    least: int
    most: int
    kinds: tuple[str, ...]

    @property
    def start(self) -> tuple[int, int]:
        return -1, 0

    def choices(self, state: tuple[int, int]) -> Mapping[str, tuple[int, int]]:
        last, count = state
        found = {END: state} if count >= self.least else {}
        if count < self.most:
            room = self.host.n_sites - max(0, self.least - count - 1)
            for site in range(last + 1, room):
                for new in self.host.allowed[self.host.site_cell(site)[0]]:
                    made = dg.Configuration.of(self.host, {site: new})
                    if not self.kinds or set(kinds_of(made)) <= set(self.kinds):
                        found[f"{site}={new};"] = (site, count + 1)
        return found


class NumbersEncoding:
    """``graphene 4x4 with stiff 900.0 >`` and ``12=VAC;30=N;``."""

    version = 1
    has_coordinates = False

    def prompt(
        self, host: dg.Host, values: Mapping[str, float], kinds: tuple[str, ...] = (), writing: Writing = PLAIN
    ) -> str:
        wanted = [f"{item.prompt} {text}" for item, text in wanted_properties(values)]
        return " ".join([host.name, host.size, "with", *wanted, *kinds, ">"])

    def completion(self, configuration: dg.Configuration, writing: Writing = PLAIN) -> str:
        return "".join(f"{site}={species};" for site, species in configuration.edits)

    def parse(self, host: dg.Host, text: str, writing: Writing = PLAIN) -> dg.Configuration:
        try:
            pairs = [piece.split("=") for piece in text.removesuffix(";").split(";")]
            return dg.Configuration.of(host, [(int(site), species) for site, species in pairs])
        except ValueError as error:
            raise ParseError(f"completion {text[:60]!r}: {error}") from error

    def grammar(
        self,
        host: dg.Host,
        max_defects: int,
        *,
        min_defects: int = 1,
        kinds: tuple[str, ...] = (),
        writing: Writing = PLAIN,
    ) -> NumbersGrammar:
        return NumbersGrammar(host, min_defects, max_defects, kinds)


class SpringTables:
    """A folder with ``springs.csv``: id and edits such as ``3:VAC 8:N``, for graphene."""

    layout = "springs.csv"

    def claims(self, path: Path) -> bool:
        return (path / "springs.csv").is_file()

    def read(self, path: Path, sets: Sequence[str] | None = None) -> pl.DataFrame:
        host = dg.host("graphene")
        rows = []
        for line in csv.DictReader((path / "springs.csv").open()):
            edits = [edit.split(":") for edit in line["edits"].split()]
            item = dg.Configuration.of(host, [(int(site), new) for site, new in edits])
            rows.append(
                {
                    "id": line["id"],
                    "host": host.name,
                    "set": "springs",
                    "supercell": host.size,
                    "configuration": item.canonical().key,
                    "label": item.label,
                    "n_defects": item.n_defects,
                    STIFFNESS.column: stiffness_gpa(item),
                }
            )
        return pl.DataFrame(rows)


class EditLists:
    """All structures in one file, a line each: name and edits."""

    suffix = ".edits"
    several = True

    def write(self, path: Path, structures: Sequence[OutputStructure]) -> None:
        lines = []
        for item in structures:
            assert isinstance(item.structure, dg.Configuration)
            lines.append(f"{item.name} {item.structure.key}\n")
        path.write_text("".join(lines))
