"""Configuration of a stage: a YAML file, then ``--set key=value``, then options; unknown keys are refused."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from defectgen.errors import DefectgenError, UsageError
from defectgen.io.documents import DocumentError
from defectgen.io.yaml_documents import parse_yaml, read_yaml
from defectgen.one_line import printable, shown


class StageConfig(BaseModel):
    """Base of all stage configurations: frozen, no unknown keys, no number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


C = TypeVar("C", bound=StageConfig)


def package_folder(package: str) -> Path:
    """The folder of an installed data-only package.

    `importlib.resources` of Python 3.11 cannot read a namespace package of an editable install: its
    path holds the name of an import hook beside the folder. So the folder is taken from that path.

    Raises:
        DefectgenError: the package is not installed.
    """
    try:
        places = [Path(place) for place in import_module(package).__path__]
    except ModuleNotFoundError:
        places = []
    for place in places:
        if place.is_dir():
            return place
    raise DefectgenError(f"the folder of {package} is missing from this installation.", "Install defectgen again.")


def find_config(name: str, group: str) -> Path:
    """A configuration file by path, or a shipped one by name.

    Args:
        name: path, name (``smollm2-cpu``), or group and name (``bulk/llama2-7b``).
        group: what a name without a group belongs to; only its names are told where there is none, of ``defect`` all.

    Raises:
        UsageError: neither a file nor a shipped name.
    """
    if Path(name).is_file():
        return Path(name)
    files = sorted(package_folder("defectgen_configs").glob("*/*.yaml"))
    shipped = {f"{path.parent.name}/{path.stem}": path for path in files}
    wanted = name if "/" in name else f"{group}/{name}"
    if wanted in shipped:
        return shipped[wanted]
    own = [key for key in shipped if group == "defect" or key.startswith(f"{group}/")]
    known = [key.removeprefix(f"{group}/") for key in own]
    near = difflib.get_close_matches(name, known, n=1)
    guess = f"Did you mean {near[0]}? " if near else ""
    raise UsageError(f"no configuration {name!r}.", f"{guess}Expected a YAML file or one of: {', '.join(known)}.")


def config_name(path: Path) -> str:
    """Group and name of a shipped configuration (``bulk/llama2-7b``), the name alone of a user's own file."""
    shipped = path.parent.parent == package_folder("defectgen_configs")
    return f"{path.parent.name}/{path.stem}" if shipped else path.stem


@dataclass(frozen=True)
class ConfigKey:
    """A key that a configuration may have.

    Attributes:
        name: with dots for nested keys, e.g. ``lora.rank``.
        kind: its type, for people.
        default: as YAML; None if it has to be given.
        meaning: one line.
    """

    name: str
    kind: str
    default: str | None
    meaning: str


def config_keys(model: type[BaseModel], prefix: str = "") -> list[ConfigKey]:
    """All keys of a configuration in their order, nested ones with dots."""
    told = _attributes(model.__doc__ or "")
    found = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += config_keys(inner, f"{prefix}{name}.")
            continue
        kind = inner.__name__ if isinstance(inner, type) and not get_args(inner) else str(inner)
        kind = re.sub(r"(?:\w+\.)+(?=\w)", "", kind)
        default = None if field.is_required() else _yaml(field.get_default(call_default_factory=True))
        found.append(ConfigKey(prefix + name, kind, default, field.description or told.get(name, "")))
    return found


def _yaml(value: object) -> str:
    """A value as YAML on one line."""
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


def _attributes(docstring: str) -> dict[str, str]:
    """The part ``Attributes:`` of a docstring: name and meaning."""
    _, _, part = docstring.partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in part.splitlines():
        if match := re.match(r" {8}(\w+): (.*)", line):
            name, found[match[1]] = match[1], match[2]
        elif name and line.startswith(" " * 12):
            found[name] += " " + line.strip()
    return found


def starting_text(path: Path, model: type[BaseModel]) -> str:
    """A configuration to begin with: a shipped one, then every other key as a comment, with its default and meaning.

    Args:
        path: the shipped file.
        model: what it fits.
    """
    text = path.read_text(encoding="utf-8").rstrip("\n")
    given = set(_names(parse_yaml(text, str(path))))
    rest = [key for key in config_keys(model) if key.name not in given and key.default is not None]
    lines = [f"#   {key.name}: {key.default}" + (f"  # {key.meaning}" if key.meaning else "") for key in rest]
    head = "# Other keys, with what holds without them. A dot stands for a nested key: a.b: 1 is a: {b: 1}"
    return "\n".join([text, "", head, *lines, ""])


def _names(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield prefix + name
        if isinstance(value, Mapping):
            yield from _names(value, f"{prefix}{name}.")


def load_config(model: type[C], path: Path, overrides: Sequence[str] = (), **options: object) -> C:
    """The configuration in a YAML file, changed by ``key=value`` overrides and then by options.

    Args:
        model: what the file must fit.
        path: the YAML file.
        overrides: ``key=value`` with dots for nested keys; values are read as YAML.
        options: values from the command line; None means not given.

    Raises:
        UsageError: unreadable YAML, an empty file, an unknown key (with the nearest known one) or a bad value.
    """
    try:
        values: Any = read_yaml(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except DocumentError as error:
        raise UsageError(str(error)) from error
    if values is None:
        raise UsageError(f"{path}: is empty, expected keys with values.")
    if not isinstance(values, dict):
        raise UsageError(f"{path}: got {type(values).__name__}, expected keys with values.")
    for item in overrides:
        key, separator, text = item.partition("=")
        if not separator:
            raise UsageError(f"--set {item!r}: expected key=value.")
        place = values
        *parents, last = key.split(".")
        try:
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = parse_yaml(text, f"--set {key}")
        except (TypeError, AttributeError, DocumentError) as error:
            why = f" ({error.reason})" if isinstance(error, DocumentError) else ""
            raise UsageError(
                f"--set {shown(item)}: cannot be set{why}.", "Expected key=value with a value in YAML."
            ) from error
    values.update({key: value for key, value in options.items() if value is not None})
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{path}: {_first_problem(model, error)}") from error


def _first_problem(model: type[BaseModel], error: ValidationError) -> str:
    problem = error.errors()[0]
    where = printable(".".join(str(part) for part in problem["loc"]))
    if problem["type"] == "missing":
        return f"the key {where!r} is missing."
    if not where:  # keys that do not go together
        return f"{problem['msg'].removeprefix('Value error, ')}."
    if problem["type"] != "extra_forbidden":
        return f"{where}: got {shown(problem['input'])}, {problem['msg'][0].lower()}{problem['msg'][1:]}."
    known = list(_keys(model))
    close = difflib.get_close_matches(where, known, n=1, cutoff=0.4)
    return f"unknown key {where[:60]!r}. " + (
        f"Did you mean {close[0]!r}?" if close else f"Known keys: {', '.join(known)}."
    )


def _keys(model: type[BaseModel], prefix: str = "") -> Mapping[str, None]:
    keys: dict[str, None] = {}
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys.update(_keys(inner, f"{prefix}{name}."))
        else:
            keys[f"{prefix}{name}"] = None
    return keys
