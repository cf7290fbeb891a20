"""An encoding: ``graphene 4x4 with stiff 900.0 >`` and ``12=VAC;30=N;``."""
# ruff: noqa: ARG002  # the protocol names what this encoding has no use for

from collections.abc import Mapping
from dataclasses import dataclass

import defectgen as dg
from defectgen.tasks.defect.encodings import kinds_of, wanted_properties
from defectgen.tasks.defect.wording import PLAIN, Writing
from defectgen.tasks.grammar import END
from defectgen.tasks.parsing import ParseError


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

    def choices(self, state: tuple[int, int]) -> Mapping[str, tuple[int, int] | None]:
        last, count = state
        found: dict[str, tuple[int, int] | None] = {END: None} if count >= self.least else {}
        if count < self.most:
            room = self.host.n_sites - max(0, self.least - count - 1)
            for site in range(last + 1, room):
                for new in self.host.allowed[self.host.site_cell(site)[0]]:
                    made = dg.Configuration.of(self.host, {site: new})
                    if not self.kinds or set(kinds_of(made)) <= set(self.kinds):
                        found[f"{site}={new};"] = (site, count + 1)
        return found


class NumbersEncoding:
    """Sites by their numbers."""

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


NUMBERS = NumbersEncoding()
