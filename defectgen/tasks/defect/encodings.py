"""How the defect task is written: prompt and completion of each encoding, and the way back.

All encodings pose one task: a host whose symbols are masked, its defect rules, wanted properties
and kinds of defects go in; the symbols come out. They differ in how much of it is spelled out.

- ``crystal``: the prompt lists every site as ``[MASK]`` with coordinates, the completion every
  line with symbol and coordinates.
- ``symbols``: the same prompt, the completion is the symbols only, in the order of the sites.
- ``edits``: host and site list are implied by the host's name, the completion lists what changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from defectgen.core.configuration import Configuration
from defectgen.core.host import VACANCY, Host
from defectgen.core.properties import PROPERTIES
from defectgen.errors import DefectgenError
from defectgen.tasks.defect.site_grammar import EditsGrammar, SitesGrammar, allowed_for_kinds
from defectgen.tasks.defect.wording import PLAIN, Writing
from defectgen.tasks.grammar import Grammar
from defectgen.tasks.numbers import format_number
from defectgen.tasks.parsing import MASK, ParseError

Encoding = Literal["edits", "symbols", "crystal"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)

PROMPT_VERSIONS: dict[str, int] = {"edits": 1, "symbols": 2, "crystal": 2}
"""For each encoding, raised whenever a prompt or a completion would read differently; adapters carry it."""

KINDS = ("vacancy", "substitution")


def kinds_of(configuration: Configuration) -> tuple[str, ...]:
    """Which of ``vacancy`` and ``substitution`` occur."""
    found = {"vacancy" if species == VACANCY else "substitution" for _, species in configuration.edits}
    return tuple(kind for kind in KINDS if kind in found)


def write_prompt(
    encoding: Encoding,
    host: Host,
    values: Mapping[str, float],
    kinds: tuple[str, ...] = (),
    writing: Writing = PLAIN,
) -> str:
    """The prompt for one request.

    Args:
        encoding: see the module.
        host: the supercell.
        values: wanted properties by column in eV, levels relative to the pristine host's VBM;
            properties are written in their fixed order.
        kinds: kinds of defects to make; none leaves the choice open.
        writing: sentences, rules and coordinates of a long prompt.
    """
    wanted = [(p, format_number(values[p.column], p.decimals)) for p in PROPERTIES if p.column in values]
    if encoding == "edits":
        parts = [host.name, host.size, *(f"{p.prompt} {text}" for p, text in wanted), *kinds]
        return " ".join(parts) + ":"
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
        "Completed crystal:" if encoding == "crystal" else "Symbols in the same order:",
    ]
    text = "\n".join(lines)
    return text + "\n" if encoding == "crystal" else text


def write_completion(encoding: Encoding, configuration: Configuration, writing: Writing = PLAIN) -> str:
    """What fills the masks."""
    if encoding == "edits":
        host = configuration.host
        return "".join(f" {species} {host.site_name(site)}" for site, species in configuration.edits)
    if encoding == "symbols":
        return "".join(f" {species}" for species in configuration.species)
    tails = _tails(configuration.host, writing)
    return "".join(species + tail for species, tail in zip(configuration.species, tails, strict=True))


def parse_completion(encoding: Encoding, host: Host, text: str, writing: Writing = PLAIN) -> Configuration:
    """The configuration that a completion states; the exact inverse of `write_completion`.

    Raises:
        ParseError: wrong number of sites, changed coordinates, an unknown site or species.
    """
    try:
        if encoding == "edits":
            words = text.split()
            if len(words) % 2:
                raise ParseError(f"got {len(words)} words, expected pairs of species and site.")
            edits = [(host.parse_site(site), species) for species, site in zip(words[::2], words[1::2], strict=True)]
            configuration = Configuration.of(host, edits)
        else:
            configuration = _from_symbols(host, _symbols(encoding, host, text, writing))
    except (ValueError, DefectgenError) as error:
        raise ParseError(f"completion {text[:60]!r}: {error}") from error
    if not configuration.follows_rules():
        raise ParseError(f"completion {text[:60]!r}: a species that the rules of {host.name} do not allow.")
    return configuration


def _tails(host: Host, writing: Writing) -> tuple[str, ...]:
    """What follows the symbol on each line of the `crystal` encoding."""
    return tuple(f" {position}\n" for position in writing.coordinates(host))


def _symbols(encoding: Encoding, host: Host, text: str, writing: Writing) -> list[str]:
    if encoding == "symbols":
        return text.split()
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    if [line[-1] for line in lines] != list(writing.coordinates(host)):
        raise ParseError("coordinates differ from those of the prompt.")
    return [line[0] for line in lines]


def _from_symbols(host: Host, symbols: list[str]) -> Configuration:
    if len(symbols) != host.n_sites:
        raise ParseError(f"got {len(symbols)} symbols, expected {host.n_sites}.")
    changed = {site: symbol for (site, element), symbol in zip(host.sites(), symbols, strict=True) if symbol != element}
    return Configuration.of(host, changed)


def make_grammar(
    encoding: Encoding,
    host: Host,
    max_defects: int,
    *,
    min_defects: int = 1,
    kinds: tuple[str, ...] = (),
    writing: Writing = PLAIN,
) -> Grammar:
    """The grammar of all valid completions with `min_defects` to `max_defects` defects of these kinds."""
    allowed = allowed_for_kinds(host, kinds)
    if encoding == "edits":
        return EditsGrammar(host, max_defects, min_defects, allowed)
    tails = _tails(host, writing) if encoding == "crystal" else ("",) * host.n_sites
    return SitesGrammar(host, max_defects, min_defects, allowed, tails)
