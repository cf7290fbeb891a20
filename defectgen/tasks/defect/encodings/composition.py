"""The ``composition`` encoding: how often each rule is applied, then the sites, rule by rule."""

from __future__ import annotations

import re
from collections.abc import Mapping

from defectgen.core.configuration import Configuration, Edit
from defectgen.core.host import Host
from defectgen.errors import DefectgenError
from defectgen.tasks.defect.composition_grammar import (
    MOST_OF_A_RULE,
    CompositionGrammar,
    count_piece,
    counted_rules,
)
from defectgen.tasks.defect.encodings.edits import EditsEncoding
from defectgen.tasks.defect.encodings.encoding import following_rules
from defectgen.tasks.defect.site_grammar import allowed_for_kinds
from defectgen.tasks.defect.wording import PLAIN, Writing
from defectgen.tasks.parsing import ParseError


class CompositionEncoding:
    """``MoS2 8x8 HOMO 0.050 LUMO 1.150:`` and `` 01 00 02 00 A05 B00 B14``; see `Encoding`."""

    version = 1
    has_coordinates = False

    def prompt(
        self, host: Host, values: Mapping[str, float], kinds: tuple[str, ...] = (), writing: Writing = PLAIN
    ) -> str:
        """As in the ``edits`` encoding."""
        return EditsEncoding().prompt(host, values, kinds, writing)

    def completion(self, configuration: Configuration, writing: Writing = PLAIN) -> str:
        """Two digits for each rule of the host, then the sites of the first rule, of the second one, ...

        Raises:
            DefectgenError: an edit that no rule allows, or more than 99 of one rule.
        """
        host = configuration.host
        by_rule: dict[tuple[str, str], list[int]] = {(r.element, r.replacement): [] for r in counted_rules(host)}
        for site, species in configuration.edits:
            edit = (host.site_element(site), species)
            if edit not in by_rule:
                raise DefectgenError(f"{configuration.label}: {edit[0]}>{edit[1]} is no rule of {host.name}.")
            by_rule[edit].append(site)
        if max(map(len, by_rule.values()), default=0) > MOST_OF_A_RULE:
            raise DefectgenError(f"{configuration.label}: more than {MOST_OF_A_RULE} defects of one rule.")
        counts = "".join(count_piece(len(sites)) for sites in by_rule.values())
        return counts + "".join(f" {host.site_name(site)}" for sites in by_rule.values() for site in sites)

    def parse(self, host: Host, text: str, writing: Writing = PLAIN) -> Configuration:
        """See `Encoding.parse`."""
        words, rules = text.split(), counted_rules(host)
        try:
            if not all(re.fullmatch("[0-9]{2}", word) for word in words[: len(rules)]):
                raise ParseError(f"expected {len(rules)} counts of two digits, one for each rule of {host.name}.")
            counts = [int(word) for word in words[: len(rules)]]
            names = words[len(rules) :]
            if len(counts) < len(rules) or sum(counts) != len(names):
                raise ParseError(f"got {len(names)} sites, expected {sum(counts)} by its counts.")
            species = [(rule, k) for rule, n in zip(rules, counts, strict=True) for k in range(n)]
            edits: list[Edit] = []
            for name, (rule, k) in zip(names, species, strict=True):
                site = host.parse_site(name)
                if host.site_element(site) != rule.element:
                    raise ParseError(f"{name} is {host.site_element(site)}, expected {rule.element}.")
                if k and site <= edits[-1][0]:
                    raise ParseError(f"{name} stands behind {host.site_name(edits[-1][0])}, expected ascending sites.")
                edits.append((site, rule.replacement))
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
    ) -> CompositionGrammar:
        """See `Encoding.grammar`."""
        return CompositionGrammar(host, max_defects, min_defects, allowed_for_kinds(host, kinds))
