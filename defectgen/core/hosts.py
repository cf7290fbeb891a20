"""The hosts by name: the six of 2DMD, with their unit cells and defect rules, and those that others add.

Unit cells and rules are facts of the data set: Huang et al., npj 2D Mater Appl 7, 6 (2023),
doi 10.1038/s41699-023-00369-1 (CC BY 4.0). MoS2 and WSe2 carry the vacuum of the low-density
part, the other hosts 20 angstrom along the normal.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from defectgen.core.crystal import SYMBOLS
from defectgen.core.host import VACANCY, Host, Rule
from defectgen.core.registry import Registry, breaks, require_type
from defectgen.errors import UsageError
from defectgen.one_line import typed

_THIRD = 1.0 / 3.0

LONGEST_FORMULA = 40
"""Characters beyond which a text is no formula."""

_ALIASES: dict[str, tuple[str, ...]] = {"BN": ("hBN", "h-BN"), "P": ("BP",)}
"""Other names of a host."""

_WORDS = {"PHOSPHORENE": "P", "BLACKPHOSPHORUS": "P", "BLACKP": "P", "HEXAGONALBORONNITRIDE": "BN"}
"""Names in words that `get_host` takes, in capitals without spaces and hyphens."""

_COMMON = {"BN": "hBN", "P": "BP"}
"""What people call a host."""


def _cell(a: float, b: float, c: float, gamma: float) -> tuple[tuple[float, float, float], ...]:
    angle = math.radians(gamma)
    return ((a, 0.0, 0.0), (b * math.cos(angle), b * math.sin(angle), 0.0), (0.0, 0.0, c))


def _rules(**replacements: tuple[str, ...]) -> tuple[Rule, ...]:
    return tuple(Rule(element, new) for element, news in replacements.items() for new in (*news, VACANCY))


def _dichalcogenide(name: str, metal: str, chalcogen: str, a: float, c: float, z: tuple[float, float]) -> Host:
    other_metal, other_chalcogen = {"Mo": "W", "W": "Mo"}[metal], {"S": "Se", "Se": "S"}[chalcogen]
    return Host(
        name=name,
        lattice=_cell(a, a, c, 120.0),
        species=(metal, chalcogen, chalcogen),
        frac_coords=((_THIRD, 2 * _THIRD, 0.25), (2 * _THIRD, _THIRD, z[0]), (2 * _THIRD, _THIRD, z[1])),
        supercell=(8, 8),
        rules=_rules(**{metal: (other_metal,), chalcogen: (other_chalcogen,)}),
    )


def _check(name: str, item: Host) -> None:
    require_type("host", name, item, Host)
    if item.name != name:
        raise breaks("host", name, f"its name is {item.name!r}")
    _refuse_taken(name)


def _refuse_taken(name: str) -> None:
    if known := _by_upper().get(name.upper()):
        raise UsageError(f"the host {name!r} is there already, as {known}.", "Choose another name for the new one.")


def _by_upper() -> dict[str, str]:
    """Hosts by each of their names, in capitals."""
    return {other.upper(): name for name in HOSTS for other in (name, *host_aliases(name))}


BUILT_IN: Mapping[str, Host] = MappingProxyType(
    {
        host.name: host
        for host in (
            _dichalcogenide("MoS2", "Mo", "S", 3.19031570, 14.879004, (0.144826, 0.355174)),
            _dichalcogenide("WSe2", "W", "Se", 3.32706951, 15.068951, (0.361569, 0.138431)),
            Host(
                name="BN",
                lattice=_cell(2.51242846, 2.51242846, 20.0, 120.0),
                species=("B", "N"),
                frac_coords=((_THIRD, 2 * _THIRD, 0.192681625), (2 * _THIRD, _THIRD, 0.192681625)),
                supercell=(8, 8),
                rules=_rules(B=("C",), N=("C",)),
            ),
            Host(
                name="GaSe",
                lattice=_cell(3.81906671, 3.81906671, 20.0, 120.0),
                species=("Ga", "Ga", "Se", "Se"),
                frac_coords=(
                    (2 * _THIRD, _THIRD, 0.38327267),
                    (2 * _THIRD, _THIRD, 0.50681713),
                    (_THIRD, 2 * _THIRD, 0.56548028),
                    (_THIRD, 2 * _THIRD, 0.32460952),
                ),
                supercell=(6, 6),
                rules=_rules(Ga=("In",), Se=("S",)),
            ),
            Host(
                name="InSe",
                lattice=_cell(4.09647352, 4.09647352, 20.0, 120.0),
                species=("In", "In", "Se", "Se"),
                frac_coords=(
                    (_THIRD, 2 * _THIRD, 0.52943777),
                    (_THIRD, 2 * _THIRD, 0.38773463),
                    (2 * _THIRD, _THIRD, 0.59281346),
                    (2 * _THIRD, _THIRD, 0.32435894),
                ),
                supercell=(6, 6),
                rules=_rules(In=("Ga",), Se=("S",)),
            ),
            Host(
                name="P",
                lattice=_cell(3.299918, 4.600926, 20.0, 90.0),
                species=("P", "P", "P", "P"),
                frac_coords=(
                    (0.0, 0.588557, 0.20912339),
                    (0.0, 0.411443, 0.31443551),
                    (0.5, 0.088557, 0.31443551),
                    (0.5, 0.911443, 0.20912339),
                ),
                supercell=(6, 6),
                rules=_rules(P=("N",)),
            ),
        )
    }
)
"""The hosts of 2DMD by name."""

HOSTS: Registry[Host] = Registry("host", "hosts", _check)
"""All hosts by name."""

HOSTS.built_in(BUILT_IN)


def register_host(host: Host, aliases: Sequence[str] = ()) -> Host:
    """Add a host under its name, for `get_host` and everything that takes a host by name.

    Args:
        host: what is added; its supercell is the one that the name stands for.
        aliases: other names for it.

    Raises:
        UsageError: its name or an alias is taken, in whatever case, or it is no `Host`.
    """
    name = str(getattr(host, "name", host))
    require_type("host", name, host, Host)
    if isinstance(aliases, str):
        raise UsageError(f"got aliases {aliases!r}, expected several names such as ({aliases!r},).")
    for alias in aliases:
        _refuse_taken(alias)
    HOSTS.register(name, host)
    _ALIASES[name] = tuple(aliases)
    return host


def host_names() -> tuple[str, ...]:
    """Names of all hosts, the built-in ones first."""
    return tuple(HOSTS)


def host_aliases(name: str) -> tuple[str, ...]:
    """Other names that `get_host` takes for a host, e.g. ``hBN`` for ``BN``."""
    return _ALIASES.get(name, ())


def common_name(host: Host | str) -> str:
    """What people call a host: ``hBN`` for ``BN``, ``BP`` for ``P``, the others by their formula.

    A layer of one's own may have the same formula and be something else, e.g. blue phosphorus: it keeps its name.
    """
    if isinstance(host, str):
        return _COMMON.get(host, host)
    built_in = BUILT_IN.get(host.name)
    return common_name(host.name) if built_in is not None and built_in.lattice == host.lattice else host.name


def common_title(host: Host) -> str:
    """What people call a host, and its supercell, e.g. ``hBN 8x8``."""
    return f"{common_name(host)} {host.size}"


def is_known_name(name: str) -> bool:
    """Whether `get_host` knows a host of this name."""
    try:
        get_host(name)
    except UsageError:
        return False
    return True


def get_host(name: str, supercell: tuple[int, int] | str | None = None) -> Host:
    """The host of this name: ``MoS2``, ``WSe2``, ``BN``, ``GaSe``, ``InSe``, ``P``, or one that was added.

    ``hBN``, ``BP`` and ``phosphorene`` are understood, and so are another case and subscript digits.
    `supercell`, two numbers or e.g. ``8x8``, replaces the size that 2DMD uses, or that an added host has.

    Raises:
        UsageError: no such host; names the nearest if the name is mistyped, not if it is another compound.
    """
    by_upper = _by_upper()
    plain = unicodedata.normalize("NFKC", name).strip().upper()
    known = by_upper.get(plain) or _WORDS.get(re.sub(r"[\s_-]", "", plain))
    if known is None:
        meant = _mistyped(name, by_upper)
        raise UsageError(
            f"unknown host {name!r}.",
            f"{f'Did you mean {meant}? ' if meant else ''}Known hosts: {', '.join(map(common_name, HOSTS))}; "
            "any other layer from its unit cell: --host FILE.cif (read_host in Python); "
            "a design in it needs a surrogate of its values, or a campaign.",
        )
    host = HOSTS[known]
    if isinstance(supercell, str):
        n_a, n_b = (int(n) for n in supercell.split("x"))
        supercell = n_a, n_b
    return host if supercell is None else dataclasses.replace(host, supercell=supercell)


def as_host(host: Host | str) -> Host:
    """A host as it is, or the one of a name.

    Raises:
        UsageError: neither; lists the known ones.
    """
    found = get_host(host) if isinstance(host, str) else host
    if not isinstance(found, Host):
        raise UsageError(
            f"got {typed(host)} as host, expected a Host or a name.",
            f"Known ones: {', '.join(map(common_name, HOSTS))}; "
            "any other: defectgen.read_host(FILE, supercell=(4, 4)).",
        )
    return found


def _mistyped(name: str, by_upper: dict[str, str]) -> str:
    """The host that a mistyped name was meant to be; empty if there is none, or if the name is another compound's."""
    letters = re.sub(r"[^A-Za-z0-9]", "", name)
    if exact := by_upper.get(letters.upper()):
        return exact
    if _is_formula(letters):  # of one of the hosts in another order, or of another compound
        return next((host for host in HOSTS if sorted(_atoms(host)) == sorted(_atoms(letters))), "")
    close = difflib.get_close_matches(letters.upper(), by_upper, n=1)
    return by_upper[close[0]] if close else ""


def _is_formula(text: str) -> bool:
    """Whether a text reads as a chemical formula, in whatever case, with no element twice (``MoSs2`` is a typo)."""
    symbols = {symbol.upper() for symbol in SYMBOLS}

    def reads(rest: str, earlier: frozenset[str]) -> bool:
        if not rest:
            return bool(earlier)
        ahead = (rest[:length] for length in (2, 1) if rest[:length] in symbols - earlier)
        return any(reads(rest[len(symbol) :].lstrip(string.digits), earlier | {symbol}) for symbol in ahead)

    return len(text) < LONGEST_FORMULA and reads(text.upper(), frozenset())


def _atoms(formula: str) -> list[tuple[str, str]]:
    return re.findall(r"([A-Z][a-z]?)(\d*)", formula)
