"""Download the files of an asset from a content-addressed store: a file lies at its md5, a folder is a list of files.

That is the layout of a DVC remote: https://dvc.org/doc/user-guide/project-structure/internal-files.
"""

from __future__ import annotations

import os
from pathlib import Path

import httpx
from pydantic import ValidationError

from defectgen.data.asset_cards import Card, FromStore, StoredObject
from defectgen.data.assets import require_files
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.documents import read_json
from defectgen.io.files import file_hash, write_resumed
from defectgen.watch import Watch
from defectgen.web import ATTEMPTS, TRANSIENT_STATUS, wait_before

TIMEOUT_S = 30.0
"""Longest wait for a connection, or for more of an answer."""

LARGEST_LISTING = 100_000_000
LARGEST_OBJECT = 20_000_000_000
"""Bytes at which a download is stopped where neither card nor listing states its size."""


def download_objects(card: Card, get: FromStore, folder: Path, progress: Watch) -> tuple[Path, str]:
    """Bring the files of an asset together from a store; what an interrupted download left is gone on with.

    Args:
        card: of the asset.
        get: where its files lie.
        folder: for listings and files, the same each time.
        progress: shows how many files are there.

    Returns:
        The folder of the asset's files, and where they are from.

    Raises:
        UsageError: an address that is none.
        DefectgenError: a file that cannot be had, or is not what card and listing say.
    """
    base = os.environ.get(get.url_variable, get.url).rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise UsageError(f"got {get.url_variable}={base!r}, expected an address that starts with http:// or https://.")
    content = folder / "content"
    advice = f"Set {get.url_variable} to a mirror, or use --from DIR."
    with httpx.Client(timeout=TIMEOUT_S, follow_redirects=True, headers={"Accept-Encoding": "identity"}) as client:
        store = Store(client, base, advice)
        objects = [entry for item in get.objects for entry in _listed(store, item, folder / "listings")]
        paths = [entry.path for entry in objects]
        require_files(card, paths, base)
        if len(set(paths)) != len(paths):
            raise DefectgenError(f"the listings of {base} name a file twice.", advice)
        with progress(card.name, len(objects), "files") as advance:
            for entry in objects:
                store.get(entry, content / entry.path)
                advance(1)
    for stale in [path for path in content.rglob("*") if path.is_file()]:
        if stale.relative_to(content).as_posix() not in paths:
            stale.unlink()  # of an interrupted fetch by an older card
    return content, f"store {base}"


def _listed(store: Store, item: StoredObject, folder: Path) -> list[StoredObject]:
    """The files of an object: itself, or those of the folder that it lists."""
    if not item.is_folder:
        return [item]
    listing = folder / item.md5
    store.get(item, listing)
    try:
        return [
            StoredObject(path=f"{item.path}/{entry['relpath']}", md5=entry["md5"], size_bytes=entry.get("size"))
            for entry in read_json(listing)
        ]
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else f"{type(error).__name__} {error}"
        raise DefectgenError(
            f"the listing of {item.path} in {store.base} is not valid: {what}.", store.advice
        ) from error


class Store:
    """Downloads objects by their md5; an interrupted one continues where it stopped."""

    def __init__(self, client: httpx.Client, base: str, advice: str) -> None:
        self.client, self.base, self.advice = client, base, advice

    def get(self, entry: StoredObject, target: Path) -> None:
        """Download one object, unless it is there already, check it, and give it its name.

        Raises:
            DefectgenError: it cannot be had, or its size or checksum is not the expected one.
        """
        md5 = entry.md5.removesuffix(".dir")
        if target.is_file() and file_hash(target, "md5") == md5:
            return
        write_resumed(target, lambda part: self._complete(entry, md5, part))

    def _complete(self, entry: StoredObject, md5: str, part: Path) -> None:
        """Bring what there is of an object to its full length and check it; what is not the object is removed."""
        url = f"{self.base}/{entry.md5[:2]}/{entry.md5[2:]}"
        unknown = LARGEST_LISTING if entry.is_folder else LARGEST_OBJECT
        self._download(url, entry, part, unknown if entry.size_bytes is None else entry.size_bytes)
        size = part.stat().st_size
        again = f"The download is removed: run the same command again. {self.advice}"
        if entry.size_bytes not in (None, size):
            part.unlink()
            raise DefectgenError(f"{entry.path} from {url}: got {size} bytes, expected {entry.size_bytes}.", again)
        got = file_hash(part, "md5")
        if got != md5:
            part.unlink()
            raise DefectgenError(f"{entry.path} from {url}: got md5 {got}, expected {md5}.", again)

    def _download(self, url: str, entry: StoredObject, part: Path, limit: int) -> None:
        """Bring a partial file to its full length, at most `limit` bytes, with a few attempts."""
        problem = ""
        for attempt in range(ATTEMPTS):
            wait_before(attempt)
            try:
                problem = self._attempt(url, part, limit)
            except (httpx.TransportError, httpx.TooManyRedirects) as error:
                problem = str(error) or type(error).__name__
            except httpx.InvalidURL as error:
                raise DefectgenError(f"{url} is not a valid address: {error}.", self.advice) from error
            if not problem:
                return
        have = part.stat().st_size if part.exists() else 0
        if have:
            expected = f" of {entry.size_bytes}" if entry.size_bytes is not None else ""
            raise DefectgenError(
                f"{entry.path} from {url}: got {have}{expected} bytes, then {problem}.",
                "Run the same command again: it continues from there.",
            )
        raise DefectgenError(
            f"{entry.path} from {url}: got nothing in {ATTEMPTS} attempts ({problem}).",
            f"Check the network. {self.advice}",
        )

    def _attempt(self, url: str, part: Path, limit: int) -> str:
        """One request; what is worth another attempt comes back as text.

        Raises:
            DefectgenError: the store does not have the object, or sends more than it is large.
        """
        have = part.stat().st_size if part.exists() else 0
        with self.client.stream("GET", url, headers={"Range": f"bytes={have}-"} if have else {}) as response:
            if response.status_code in TRANSIENT_STATUS:
                return f"status {response.status_code}"
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                if response.headers.get("Content-Range") == f"bytes */{have}":
                    return ""  # it was complete; only the check was missing
                part.unlink()
                return "status 416"
            if not response.is_success:
                raise DefectgenError(f"{url}: got status {response.status_code}, expected the file.", self.advice)
            continues = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if response.status_code == httpx.codes.PARTIAL_CONTENT and not continues:
                part.unlink(missing_ok=True)
                return "another part of the file than was asked for"
            with part.open("ab" if response.status_code == httpx.codes.PARTIAL_CONTENT else "wb") as file:
                for chunk in response.iter_raw():  # in pieces as they come, so that none is lost when it breaks off
                    if file.tell() + len(chunk) > limit:
                        break
                    file.write(chunk)
                else:
                    return ""
            part.unlink()
            name = part.name.removesuffix(".part")
            raise DefectgenError(f"{name} from {url}: got more than the {limit} bytes expected.", self.advice)
