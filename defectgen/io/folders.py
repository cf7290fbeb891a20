"""Folders that one run at a time writes to, and whose files change from those of one run to those of the next at once.

While a run has a folder, the subfolder `WORKPLACE` in it holds its lock and what it is making. New files are moved in
when all are there, the manifest last. If the process is killed while they are moved, the next run moves the rest.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from defectgen.errors import DefectgenError, UsageError
from defectgen.io.documents import read_object
from defectgen.io.files import file_hash, write_problem
from defectgen.io.locks import LOCK, WORKPLACE, Held, Workplace, held, holding, remove_empty
from defectgen.one_line import shown

MANIFEST = "manifest.json"
ROOM_BYTES = 200
"""What the system must allow for the path of a file after that of the folder."""

_NEW, _OLD, _PLAN = "new", "old", "plan.json"
"""In the workplace: files to be moved in, files that they replace, and, once the former are complete, what to do."""


class FolderInUseError(DefectgenError):
    """Another run has the folder."""


@contextmanager
def claimed(folder: Path, parts: Path | None = None) -> Iterator[Held]:
    """Keep other runs out of a folder as long as this one works in it; the folder is made.

    What a killed run left is put in order first: files that it was moving in are moved in, others of its own are
    removed. Within the same thread a folder can be claimed again. A folder that was made and is empty in the end is
    removed.

    Args:
        folder: to write to.
        parts: where `move_folder` moves files from, if it does.

    Raises:
        UsageError: it is a file, or cannot be written.
        FolderInUseError: another run has it.
        DefectgenError: its file system has no locks.
    """
    place = folder.resolve()
    known = held(place)
    if known is not None:
        yield known
        return
    made: list[Path] = []
    try:
        if place.exists() and not place.is_dir():
            raise UsageError(f"{folder} is a file, expected a folder.", "Name another one.")
        made = [path for path in (place, *place.parents) if not path.exists()]
        with suppress(FileNotFoundError):
            (place / WORKPLACE / _NEW / ("x" * ROOM_BYTES)).lstat()  # a path that is too long shows here
        place.mkdir(parents=True, exist_ok=True)
        workplace = Workplace.take(place / WORKPLACE)
    except OSError as error:
        remove_empty(made)
        raise UsageError(f"{folder} cannot be written: {error.strerror}.", "Name another folder.") from error
    if workplace is None:
        raise FolderInUseError(f"another run is writing to {folder}.", "Wait for it to end, or name another folder.")
    try:
        continued = _tidy(place, workplace.path, parts)
    except BaseException as error:
        workplace.lock.close()  # what is left is kept for another attempt
        if isinstance(error, OSError):
            raise DefectgenError(f"{folder} cannot be written: {error.strerror}.", "Name another folder.") from error
        raise
    try:
        with holding(place, workplace, continued) as found:
            yield found
    finally:
        if (workplace.path / _PLAN).exists():
            workplace.lock.close()  # files could be moved neither in nor back: the next run tries again
        else:
            workplace.remove()
            remove_empty(made)


def contents(folder: Path) -> list[Path]:
    """What is in a folder besides the workplace of a run, sorted; nothing if there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name != WORKPLACE)


def listing(folder: Path) -> dict[str, dict[str, Any]]:
    """``bytes`` and ``sha256`` of every file below a folder by its path, for a manifest."""
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": file_hash(folder / name)} for name in _files(folder)
    }


def own_files(folder: Path, manifest: str = MANIFEST) -> dict[str, str]:
    """Path -> sha256 of the files that the manifest in a folder lists; none if there is no manifest.

    The manifest's ``files`` map a path to its checksum, or to something with a ``sha256``.
    """
    try:
        files = read_object(folder / manifest)["files"]
        found = {str(name): entry if isinstance(entry, str) else str(entry["sha256"]) for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {name: digest for name, digest in found.items() if _is_inside(name)}


def is_unchanged(path: Path, sha256: str | None) -> bool:
    """Whether a path is a file with this checksum, and not a link to one."""
    return sha256 is not None and not path.is_symlink() and path.is_file() and file_hash(path) == sha256


def write_folder(
    folder: Path,
    fill: Callable[[Path], object],
    manifest: str = MANIFEST,
    *,
    unlisted: Iterable[str] = (),
    keep: Iterable[str] = (),
) -> None:
    """Write the files of a run into a folder, in place of those that an earlier run left there.

    They are made in a folder of their own and moved in together, the manifest last; if that fails they are moved
    back. Of the earlier run the files go that its manifest lists and nobody has edited; all else stays, under a new
    name if its own is taken.

    Args:
        folder: to write to; whether it may be is for the caller to say.
        fill: writes files, `manifest` among them, into the empty folder that it is given.
        manifest: name of the file that is written last and lists the files, see `own_files`.
        unlisted: files that belong to a run though its manifest does not list them, by their paths.
        keep: files of the earlier run that stay, by their paths.

    Raises:
        UsageError: see `claimed`.
        DefectgenError: the folder cannot be written, or another run has it.
    """
    with _changing(folder) as (place, work):
        new = work / _NEW
        new.mkdir()
        fill(new)
        earlier: dict[str, str | None] = {**own_files(place, manifest)}
        if (place / manifest).is_file():
            earlier |= {name: file_hash(place / name) for name in unlisted if (place / name).is_file()}
        for name in keep:
            earlier.pop(name, None)
        _carry_out(_Plan(manifest, _others(new, manifest), earlier), place, work, new)


def move_folder(parts: Path, name: str, folder: Path, manifest: str = MANIFEST) -> None:
    """Put a folder that lies complete elsewhere on the same disk in place of all that is in another one.

    For what is put together over several runs, as a download is: it is neither copied nor lost if a process is killed
    or the move fails.

    Args:
        parts: folder elsewhere; who claims the other one next must know it, see `claimed`.
        name: path of the complete folder in it; its empty folders stay behind.
        folder: where to; see `write_folder`, but all that was there goes.
        manifest: file that is moved last.

    Raises:
        UsageError: see `claimed`.
        DefectgenError: the folder cannot be written, or another run has it.
    """
    with _changing(folder, parts) as (place, work):
        earlier = dict.fromkeys(_others(place, manifest))
        _carry_out(_Plan(manifest, _others(parts / name, manifest), earlier, name), place, work, parts / name)


def is_changing(folder: Path) -> bool:
    """Whether files are moved into a folder, or a process that did so was killed: its manifest is not true."""
    return (folder / WORKPLACE / _PLAN).exists()


@contextmanager
def _changing(folder: Path, parts: Path | None = None) -> Iterator[tuple[Path, Path]]:
    """Claim a folder to change what is in it: its real path and that of its workplace."""
    with claimed(folder, parts) as claim:
        work = claim.workplace.path
        try:
            yield folder.resolve(), work
        except Exception as error:
            reason = write_problem(error)
            if reason is None:
                raise
            raise DefectgenError(f"{folder} cannot be written: {reason}.", "Nothing was changed there.") from error
        finally:
            if not (work / _PLAN).exists():
                _discard(work)


@dataclass(frozen=True)
class _Plan:
    """What moving in means.

    Attributes:
        manifest: moved in last.
        new: paths of the other files.
        old: path -> sha256 of files that go if they have it still, None for those that go in any case.
        part: of the folder elsewhere that the files are moved from, its path there; empty if they are in the workplace.
    """

    manifest: str
    new: tuple[str, ...]
    old: Mapping[str, str | None]
    part: str = ""

    def text(self) -> str:
        return json.dumps({**vars(self), "old": dict(self.old)})

    @classmethod
    def read(cls, path: Path) -> _Plan:
        """A plan that was written down.

        Raises:
            DefectgenError: it is of another form, or names files elsewhere.
        """
        found = read_object(path, {"manifest": str, "new": list, "old": dict, "part": str})
        names = [found["manifest"], *found["new"], *found["old"], *([found["part"]] if found["part"] else [])]
        if wrong := [name for name in names if not isinstance(name, str) or not _is_inside(name)]:
            raise DefectgenError(f"{path} names {shown(wrong[0])}, expected files of its folder.", "Remove it.")
        return cls(found["manifest"], tuple(found["new"]), found["old"], found["part"])

    def removes(self, name: str, path: Path) -> bool:
        """Whether the file that lies there under this name goes."""
        return name in self.old and (self.old[name] is None or is_unchanged(path, self.old[name]))


def _others(folder: Path, manifest: str) -> tuple[str, ...]:
    """Paths of all files below a folder but the manifest and those of its workplace, sorted."""
    return tuple(name for name in _files(folder) if name != manifest and _is_inside(name))


def _carry_out(plan: _Plan, place: Path, work: Path, source: Path) -> None:
    """Write the plan down, which decides that the files will be moved, and move them."""
    part = work / f"{_PLAN}.part"
    part.write_text(plan.text(), encoding="utf-8")
    part.rename(work / _PLAN)
    _move_in(place, work, plan, source)


def _tidy(folder: Path, work: Path, parts: Path | None) -> bool:
    """Put in order what a killed run left; whether it was moving files in."""
    moving = (work / _PLAN).is_file()
    if moving:
        plan = _Plan.read(work / _PLAN)
        if plan.part and parts is None:
            raise DefectgenError(f"{folder} waits for files from elsewhere.", "Fetch it again.")
        _move_in(folder, work, plan, parts / plan.part if plan.part and parts else work / _NEW)
    _discard(work)
    return moving


def _discard(work: Path) -> None:
    """Empty a workplace."""
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK:
            path.unlink()


def _move_in(folder: Path, work: Path, plan: _Plan, new: Path) -> None:
    """Move the files in, or leave all as it was; goes on where another process was killed.

    The plan is there as long as files are neither here nor there.
    """
    moves: list[tuple[Path, Path]] = []
    try:
        _move_all(folder, work / _OLD, plan, new, moves)
    except BaseException:
        for source, target in reversed(moves):
            _move_back(target, source)
        _remove_empty_parents(folder, plan.new)
        if not _files(work / _OLD):  # else a process before this one was killed: its files must not be lost
            (work / _PLAN).unlink()
        raise
    (work / _PLAN).unlink()
    _remove_empty_parents(folder, [*plan.old, *plan.new])


def _move_all(folder: Path, old: Path, plan: _Plan, new: Path, moves: list[tuple[Path, Path]]) -> None:
    """Move the files in; every move is noted before it is done."""

    def move(source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        moves.append((source, target))
        source.rename(target)

    for path in sorted(path for path in new.rglob("*") if path.is_dir()):
        (folder / path.relative_to(new)).mkdir(parents=True, exist_ok=True)
    for name in plan.new:
        source, target = new / name, folder / name
        if not os.path.lexists(source):
            continue
        if os.path.lexists(target):
            move(target, old / name if plan.removes(name, target) else _free_name(target))
        move(source, target)
    for name in plan.old:
        if name not in plan.new and plan.removes(name, folder / name) and os.path.lexists(folder / name):
            move(folder / name, old / name)
    if os.path.lexists(new / plan.manifest):
        (new / plan.manifest).replace(folder / plan.manifest)


def _remove_empty_parents(folder: Path, names: Iterable[str]) -> None:
    """Remove the folders between `folder` and files of these paths where nothing is left in them."""
    parents = {parent for name in names for parent in PurePosixPath(name).parents if parent.name}
    for parent in sorted(parents, key=lambda path: -len(path.parts)):
        remove_empty([folder / parent])


def _move_back(target: Path, source: Path) -> None:
    if not os.path.lexists(source) and os.path.lexists(target):
        target.rename(source)


def _free_name(path: Path) -> Path:
    """A name beside `path` that nothing has: ``report.html`` -> ``report.html.kept-1``."""
    number = 1
    while os.path.lexists(path.with_name(f"{path.name}.kept-{number}")):
        number += 1
    return path.with_name(f"{path.name}.kept-{number}")


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.name) and not path.is_absolute() and ".." not in path.parts and path.parts[0] != WORKPLACE
