"""Groups of options as one dataclass each, which commands share: the command line shows their fields one by one."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

Result = TypeVar("Result")

_REQUIRED = inspect.Parameter.empty


def expand_groups(command: Callable[..., Result]) -> Callable[..., Result]:
    """A command whose groups of options are single options to typer.

    A parameter annotated with a dataclass is a group. Each of its fields, ``Annotated`` as typer wants it, becomes an
    option in the parameter's place; the command itself is called with the dataclass. A default of the parameter, an
    instance, gives the options other defaults than the fields have::

        @dataclass(frozen=True)
        class SamplingOptions:
            temperature: Annotated[float, typer.Option(min=0.0, help="Sampling temperature.")] = 0.5

        HOTTER = SamplingOptions(temperature=0.8)

        @expand_groups
        def feedback(data: DataOption, sampling: SamplingOptions = HOTTER) -> None: ...

        app.command("feedback")(feedback)

    Raises:
        TypeError: two groups, or a group and the command, have an option of one name.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, type[Any]] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        kind = hints[name]
        if inspect.isclass(kind) and dataclasses.is_dataclass(kind):
            groups[name] = kind
            parameters += _options(kind, parameter.default)
        else:
            parameters.append(_option(name, kind, parameter.default))
    names = [parameter.name for parameter in parameters]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TypeError(f"{command.__name__}: option {twice[0]!r} occurs twice")

    @functools.wraps(command)
    def call(**values: Any) -> Result:
        for name, kind in groups.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in dataclasses.fields(kind)})
        return command(**values)

    del call.__dict__["__wrapped__"]  # typer would look behind the new signature
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _options(group: type[Any], given: Any) -> list[inspect.Parameter]:
    """The fields of a group as parameters, with the defaults of `given` if it is an instance."""
    hints = get_type_hints(group, include_extras=True)
    found = []
    for field in dataclasses.fields(group):
        default = field.default if given is _REQUIRED else getattr(given, field.name)
        found.append(_option(field.name, hints[field.name], _REQUIRED if default is dataclasses.MISSING else default))
    return found


def _option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
