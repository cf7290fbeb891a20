"""The ``edits`` encoding: the host by its name, and the sites that change."""

from __future__ import annotations

from collections.abc import Mapping

from defectgen.core.configuration import Configuration
from defectgen.core.host import Host
from defectgen.errors import DefectgenError
from defectgen.tasks.defect.encodings.encoding import following_rules, wanted_properties
from defectgen.tasks.defect.site_grammar import EditsGrammar, allowed_for_kinds
from defectgen.tasks.defect.wording import PLAIN, Writing
from defectgen.tasks.parsing import ParseError


class EditsEncoding:
    """``MoS2 8x8 HOMO 0.050 LUMO 1.150:`` and `` VAC A00 Se B14``; see `Encoding`."""

    version = 1
    has_coordinates = False

    def prompt(
        self, host: Host, values: Mapping[str, float], kinds: tuple[str, ...] = (), writing: Writing = PLAIN
    ) -> str:
        """Name, size, values and kinds; there is one wording."""
        wanted = (f"{p.prompt} {text}" for p, text in wanted_properties(values))
        return " ".join([host.name, host.size, *wanted, *kinds]) + ":"

    def completion(self, configuration: Configuration, writing: Writing = PLAIN) -> str:
        """Species and site of each defect."""
        host = configuration.host
        return "".join(f" {species} {host.site_name(site)}" for site, species in configuration.edits)

    def parse(self, host: Host, text: str, writing: Writing = PLAIN) -> Configuration:
        """See `Encoding.parse`."""
        words = text.split()
        try:
            if len(words) % 2:
                raise ParseError(f"got {len(words)} words, expected pairs of species and site.")
            edits = [(host.parse_site(site), species) for species, site in zip(words[::2], words[1::2], strict=True)]
            configuration = Configuration.of(host, edits)
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
    ) -> EditsGrammar:
        """See `Encoding.grammar`."""
        return EditsGrammar(host, max_defects, min_defects, allowed_for_kinds(host, kinds))
