"""The encodings that list every site: ``symbols`` and ``crystal``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from defectgen.core.configuration import Configuration
from defectgen.core.host import VACANCY, Host
from defectgen.errors import DefectgenError
from defectgen.tasks.defect.encodings.encoding import following_rules, wanted_properties
from defectgen.tasks.defect.site_grammar import SitesGrammar, allowed_for_kinds
from defectgen.tasks.defect.wording import PLAIN, Writing
from defectgen.tasks.parsing import MASK, ParseError


class SymbolsEncoding:
    """A prompt of sentences and masked sites, answered by the symbols in the order of the sites; see `Encoding`."""

    version = 2
    has_coordinates = True
    closing: ClassVar[str] = "Symbols in the same order:"
    """The end of the prompt."""

    def prompt(
        self, host: Host, values: Mapping[str, float], kinds: tuple[str, ...] = (), writing: Writing = PLAIN
    ) -> str:
        """See `Encoding.prompt`."""
        wanted = wanted_properties(values)
        rules = "; ".join(
            f"vacancy {rule.element}" if rule.is_vacancy else f"substitution {rule.element} to {rule.replacement}"
            for rule in (host.rules if writing.rules is None else writing.rules)
        )
        n_a, n_b = host.supercell
        lines = [
            writing.sentence(0).format(name=host.name, n_a=n_a, n_b=n_b),
            writing.sentence(1).format(name=host.name, rules=rules),
        ]
        if wanted:
            lines += [writing.sentence(2), *(f"- {p.sentence.format(value=text)}" for p, text in wanted)]
        if kinds:
            lines.append(writing.sentence(3).format(kinds=", ".join(kinds)))
        lines += [
            writing.sentence(4).format(mask=MASK, vacancy=VACANCY),
            writing.header(host),
            *(f"{MASK} {position}" for position in writing.coordinates(host)),
            self.closing,
        ]
        return "\n".join(lines)

    def completion(self, configuration: Configuration, writing: Writing = PLAIN) -> str:
        """The symbols."""
        return "".join(f" {species}" for species in configuration.species)

    def parse(self, host: Host, text: str, writing: Writing = PLAIN) -> Configuration:
        """See `Encoding.parse`."""
        try:
            symbols = self._symbols(host, text, writing)
            if len(symbols) != host.n_sites:
                raise ParseError(f"got {len(symbols)} symbols, expected {host.n_sites}.")
            stated = zip(host.sites(), symbols, strict=True)
            configuration = Configuration.of(host, {s: symbol for (s, element), symbol in stated if symbol != element})
        except (ValueError, DefectgenError) as error:
            raise ParseError(f"completion {text[:60]!r}: {error}") from error
        return following_rules(configuration, text)

    def grammar(
        self,
        host: Host,
        max_defects: int,
        *,
        min_defects: int = 1,
        kinds: tuple[str, ...] = (),
        writing: Writing = PLAIN,
    ) -> SitesGrammar:
        """See `Encoding.grammar`."""
        tails = self._tails(host, writing)
        return SitesGrammar(host, max_defects, min_defects, allowed_for_kinds(host, kinds), tails)

    def _symbols(self, host: Host, text: str, writing: Writing) -> list[str]:
        return text.split()

    def _tails(self, host: Host, writing: Writing) -> tuple[str, ...]:
        """What follows the symbol of each site."""
        return ("",) * host.n_sites


class CrystalEncoding(SymbolsEncoding):
    """The prompt of `SymbolsEncoding`, answered by every line with symbol and coordinates."""

    closing = "Completed crystal:\n"

    def completion(self, configuration: Configuration, writing: Writing = PLAIN) -> str:
        """A line a site."""
        tails = self._tails(configuration.host, writing)
        return "".join(species + tail for species, tail in zip(configuration.species, tails, strict=True))

    def _symbols(self, host: Host, text: str, writing: Writing) -> list[str]:
        lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
        if [line[-1] for line in lines] != list(writing.coordinates(host)):
            raise ParseError("coordinates differ from those of the prompt.")
        return [line[0] for line in lines]

    def _tails(self, host: Host, writing: Writing) -> tuple[str, ...]:
        return tuple(f" {position}\n" for position in writing.coordinates(host))
