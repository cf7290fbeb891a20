"""How a call of the program is read: what is wrong with it on one line, and no value of an option dropped."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer
from typer.core import TyperArgument, TyperOption

from defectgen.errors import UsageError
from defectgen.one_line import shown

WrongCall: type[Exception] = typer.BadParameter.__mro__[1]
"""What typer raises for a call that it cannot read: click's UsageError, or its own copy of it."""

NEAR = 0.6
"""Likeness (difflib's ratio) from which a name is taken for a misspelt one."""

_EXPECTED = {
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "greater than or equal to": "a number of at least",
    "less than or equal to": "a number of at most",
    "greater than": "a number above",
    "less than": "a number below",
}
"""Words of pydantic, and those of messages here; longer ones first."""

_VALUES: dict[Any, str] = {int: "N", float: "X", str: "NAME"}
"""Names of values in the help by their type."""


class _OneValue(TyperOption):
    """An option with one value. Typer takes the last of several silently, here they are refused."""

    def add_to_parser(self, parser: Any, ctx: Any) -> None:  # noqa: ARG002
        if not self.is_flag:
            parser.add_option(obj=self, opts=self.opts, dest=self.name, action="append", nargs=self.nargs)
            return
        for names, const in ((self.opts, True), (self.secondary_opts, False)):
            parser.add_option(obj=self, opts=names, dest=self.name, action="append_const", const=const)

    def consume_value(self, ctx: Any, opts: Mapping[str, Any]) -> Any:
        given = opts.get(self.name)
        if given and not ctx.resilient_parsing:  # which completion is
            self._check(given, ctx)
        return super().consume_value(ctx, {**opts, self.name: given[0]} if given else opts)

    def _check(self, given: list[Any], ctx: Any) -> None:
        name = self.opts[0]
        if self.is_flag:
            if len(set(given)) > 1:
                raise UsageError(f"got {name} and {self.secondary_opts[0]}, expected one of them.", "Leave one out.")
            return
        if following := [value for value in given if value in _options(ctx.command)]:
            raise UsageError(
                f"{name} got no value: the option {following[0]} follows.", f"See {ctx.command_path} --help."
            )
        if len(given) > 1:
            times = "twice" if len(given) == 2 else f"{len(given)} times"
            advice = "Join them with a comma." if "," in (self.metavar or "") else "Leave out all but one."
            raise UsageError(f"got {name} {times} ({' and '.join(map(str, given))}), expected one value.", advice)


def refuse_repeats(command: Any) -> None:
    """Make all options of a command, and of those below it, refuse a second value, unless they may be repeated."""
    for param in command.params:
        if _is_option(param) and not param.multiple and (not param.is_flag or param.secondary_opts):
            param.__class__ = _OneValue
    for below in getattr(command, "commands", {}).values():
        refuse_repeats(below)


class _Named(TyperArgument):
    """An argument whose help stands beside its name alone, not beside ``<list[path]>`` too."""

    def display_type_rich(self, ctx: Any) -> str | None:  # noqa: ARG002
        return None


def name_values(command: Any) -> None:
    """Name the values in the help of a command, and of those below it, as a user would: N, X, not <int range>."""
    for param in command.params:
        if not _is_option(param):
            param.__class__ = _Named
            param.metavar = _name(param)
        elif param.metavar is None and not param.is_flag:
            kind = getattr(getattr(param, "type_descriptor", None), "annotation", None)
            param.metavar = _VALUES.get(kind)
    for below in getattr(command, "commands", {}).values():
        name_values(below)


def shows_help(error: Exception) -> bool:
    """Whether it stands for a group of commands that was called without any, and has the help to show."""
    return type(error).__name__ == "NoArgsIsHelpError"


def one_line(error: Any, program: Any, words: Sequence[str]) -> str:
    """What is wrong with a call: what came, what was expected, what to do.

    Args:
        error: a `WrongCall`.
        program: all commands.
        words: the call, without the program's name.
    """
    command, path = program, "defectgen"
    for word in words:  # typer does not always say in which command it was
        if (below := getattr(command, "commands", {}).get(word)) is None:
            break
        command, path = below, f"{path} {word}"
    kind, see, options = type(error).__name__, f"See {path} --help.", _options(command)
    if kind == "NoSuchOption":
        at_group = "Options of a command stand after its name." if hasattr(command, "commands") else see
        return f"{path} has no option {error.option_name}. {_meant(error.option_name, options) or at_group}"
    if kind == "BadOptionUsage" and (option := options.get(error.option_name)):
        if option.is_flag:
            return f"{error.option_name} takes no value. Leave out '=' and what follows."
        return f"{error.option_name} got no value, expected{_meaning(option)}. {see}"
    if kind == "MissingParameter":
        return f"{path} got no {_name(error.param)}, expected{_meaning(error.param)}. {see}"
    if kind == "BadParameter" and error.param is not None:
        return f"{_bad_value(error)} {see}"
    if unexpected := re.fullmatch(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", error.message, re.DOTALL):
        return f"got {shown(unexpected[1])}, which {path} does not take. {see}"
    said = f"{error.message[:1].lower()}{error.message[1:]}"  # an unknown command, with the nearest one
    return said if said.endswith("?") else f"{said.rstrip('.')}. {see}"


def _bad_value(error: Any) -> str:
    """What a value is, and what it should be: pydantic's words where typer has read it so, else those of typer."""
    name = error.param.opts[0] if _is_option(error.param) else _name(error.param)
    if (details := getattr(error.__cause__, "errors", None)) is None:
        return f"{name}: {error.message.rstrip('.')}."
    first = details()[0]
    expected = first["msg"].removeprefix("Input should be ").partition(",")[0]
    for words, ours in _EXPECTED.items():
        expected = expected.replace(words, ours)
    return f"got {name} {shown(first['input'])}, expected {expected}."


def _is_option(param: Any) -> bool:
    return bool(param.param_type_name == "option")


def _options(command: Any) -> dict[str, Any]:
    """The options of a command by each of their names."""
    options = [param for param in command.params if _is_option(param)]
    return {name: option for option in options for name in (*option.opts, *option.secondary_opts)}


def _meant(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=NEAR)
    return f"Did you mean {near[0]}?" if near else ""


def _name(param: Any) -> str:
    """How the help names a parameter, e.g. ``-o DIR`` or ``FILES``."""
    if not _is_option(param):
        return str(param.metavar or param.name.upper())
    return f"{param.opts[0]} {param.metavar or ''}".rstrip()


def _meaning(param: Any) -> str:
    """What a parameter is for, by its help, after a word such as ``expected``."""
    text = (param.help or "a value").rstrip(".")
    return f": {text[:1].lower() if text[1:2].islower() else text[:1]}{text[1:]}"
