"""Things of one kind by their short names: built in, added by other packages, or by a script."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from defectgen.errors import DefectgenError, UsageError

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """A mapping from short name to thing, in the order in which they were added.

    Other packages add to it by `register`, or by an entry point of the group ``defectgen.<plural>`` whose name is the
    short name and whose object is the thing; entry points are read when a name is first looked up.
    """

    def __init__(self, kind: str, plural: str, check: Callable[[str, T], None]) -> None:
        """An empty registry.

        Args:
            kind: what one of them is called in messages, e.g. ``encoding``.
            plural: e.g. ``encodings``; the end of the entry points' group.
            check: raises `UsageError` for a thing that breaks the protocol, see `breaks`.
        """
        self.kind, self.plural, self.check = kind, plural, check
        self._items: dict[str, T] = {}
        self._unread = True

    def register(self, name: str, item: T) -> T:
        """Add a thing.

        Raises:
            UsageError: the name is taken or no short name, or the thing breaks its protocol.
        """
        self._read_entry_points()
        return self._add(name, item)

    def built_in(self, items: Mapping[str, T]) -> None:
        """Add what comes with the package, which the tests hold to the protocol."""
        self._items.update(items)

    def unregister(self, name: str) -> None:
        """Take a thing out again; one that is not there is no error."""
        self._items.pop(name, None)

    def find(self, name: str) -> T:
        """The thing of this name.

        Raises:
            UsageError: there is none; names the nearest and lists all.
        """
        if name not in self:
            close = difflib.get_close_matches(name, list(self), n=1, cutoff=0.5)
            meant = f"Did you mean {close[0]}? " if close else ""
            several = re.sub("y$", "ie", self.kind) + "s"
            raise UsageError(f"unknown {self.kind} {name!r}.", f"{meant}Known {several}: {', '.join(self)}.")
        return self[name]

    def _add(self, name: str, item: T) -> T:
        if not name or not name.isprintable() or set(name) & set(" ,:/"):
            raise UsageError(f"got {name!r} as the name of a {self.kind}, expected one word such as my-{self.kind}.")
        if name in self._items:
            raise UsageError(f"the {self.kind} {name!r} is there already.", "Choose another name for the new one.")
        self.check(name, item)
        self._items[name] = item
        return item

    def _read_entry_points(self) -> None:
        if self._unread:
            self._unread, before = False, dict(self._items)  # what an entry point imports may look here
            try:
                for point in sorted(entry_points(group=f"defectgen.{self.plural}"), key=lambda point: point.name):
                    self._add(point.name, self._load(point))
            except BaseException:
                self._items, self._unread = before, True  # the next look-up says the same
                raise

    def _load(self, point: EntryPoint) -> T:
        try:
            loaded: T = point.load()
        except Exception as error:  # whatever a plugin does, the user learns which one it was
            raise DefectgenError(
                f"the {self.kind} {point.name!r} of the plugin {point.value} cannot be loaded "
                f"({type(error).__name__}: {error}).",
                "Mend or uninstall the package that brings it.",
            ) from error
        return loaded

    def __getitem__(self, name: str) -> T:
        self._read_entry_points()
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        self._read_entry_points()
        return iter(tuple(self._items))

    def __len__(self) -> int:
        self._read_entry_points()
        return len(self._items)

    def __repr__(self) -> str:
        return f"Registry({self.plural}: {', '.join(self._items)})"


def breaks(kind: str, name: str, what: str) -> UsageError:
    """The error of a thing that breaks its protocol."""
    return UsageError(f"the {kind} {name!r} breaks its protocol: {what}.")


def require_members(kind: str, name: str, item: object, protocol: type) -> None:
    """Compare a thing with a protocol: each attribute is there, each method takes the protocol's arguments.

    Raises:
        UsageError: the first member that is missing or takes other arguments.
    """
    for member in getattr(protocol, "__annotations__", {}):
        if not hasattr(item, member):
            raise breaks(kind, name, f"it has no {member}")
    for member, model in vars(protocol).items():
        if member.startswith("_"):
            continue
        if isinstance(model, property):
            if not hasattr(item, member):
                raise breaks(kind, name, f"it has no {member}")
        elif inspect.isfunction(model):
            method = getattr(item, member, None)
            if not callable(method):
                raise breaks(kind, name, f"it has no method {member}{_arguments(model)}")
            if not _accepts(method, model):
                raise breaks(kind, name, f"{member} must take {_arguments(model)}")


def require_type(kind: str, name: str, item: object, expected: type[Any]) -> None:
    """Make sure that a thing is of a class.

    Raises:
        UsageError: it is of another one.
    """
    if not isinstance(item, expected):
        raise breaks(kind, name, f"got a {type(item).__name__}, expected a {expected.__name__}")


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return [p for p in inspect.signature(function).parameters.values() if p.name != "self"]


def _arguments(model: Callable[..., Any]) -> str:
    return f"({', '.join(parameter.name for parameter in _parameters(model))})"


def _accepts(method: Callable[..., Any], model: Callable[..., Any]) -> bool:
    """Whether a method can be called as the protocol's is, without and with its optional arguments."""
    wanted = _parameters(model)
    for some in ([p for p in wanted if p.default is p.empty], wanted):
        named = {p.name: None for p in some if p.kind is p.KEYWORD_ONLY}
        try:
            inspect.signature(method).bind(*(None for p in some if p.kind is not p.KEYWORD_ONLY), **named)
        except TypeError:
            return False
        except ValueError:  # a method of a compiled class without a signature
            return True
    return True
