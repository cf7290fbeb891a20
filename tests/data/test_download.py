import hashlib
import json
import multiprocessing
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from local_server import served

from defectgen import web
from defectgen.data import download, object_store
from defectgen.data.asset_cards import Card, Citation, FromFolder, FromStore, StoredObject, get_card
from defectgen.data.assets import asset_dir, asset_path, asset_state, cache_dir, locked, read_manifest, staging_dir
from defectgen.data.download import fetch_asset
from defectgen.errors import DefectgenError, UsageError

FILES = {"a/table.csv": b"x,y\n" + b"1,2\n" * 5000, "a/cells/X.cif": b"data_X\n" * 300}
TARGETS = bytes(range(256)) * 40


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Store:
    """A content-addressed store on this machine that can misbehave."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.cut: dict[str, list[int]] = {}
        self.status: dict[str, list[int]] = {}
        self.ignore_range = False
        self.requests: list[tuple[str, str | None]] = []

    def add(self, content: bytes, suffix: str = "") -> str:
        name = md5(content) + suffix
        self.objects[name] = content
        return name

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        name = handler.path.lstrip("/").replace("/", "", 1)
        asked = handler.headers.get("Range")
        self.requests.append((name, asked))
        status = self.status[name].pop(0) if self.status.get(name) else 200
        content = self.objects.get(name)
        if content is None or status >= 400:
            handler.send_error(404 if content is None else status)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and not self.ignore_range else 0
        if start and start >= len(content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        length = self.cut[name].pop(0) if self.cut.get(name) else len(content)
        handler.wfile.write(content[start : start + length])


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    content = Store()
    with served(content.answer) as url:
        monkeypatch.setenv("DEFECTGEN_TEST_URL", url + "/")
        yield content


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEFECTGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(web, "BACKOFF_S", 0.0)
    return tmp_path / "cache"


def make_card(get: FromStore | FromFolder, *files: str) -> Card:
    citation = Citation(text="A work", doi="10.1000/182")
    return Card(
        name="small", kind="dataset", title="t", licence="MIT", citations=(citation,), source="s", files=files, get=get
    )


def store_card(store: Store, listing: list[dict[str, object]] | None = None) -> Card:
    if listing is None:
        listing = [{"md5": store.add(content), "relpath": path.removeprefix("a/")} for path, content in FILES.items()]
    objects = (
        StoredObject(path="a", md5=store.add(json.dumps(listing).encode(), ".dir")),
        StoredObject(path="b/targets.csv.gz", md5=store.add(TARGETS)),
    )
    get = FromStore(how="store", url="http://store.invalid/dvc", url_variable="DEFECTGEN_TEST_URL", objects=objects)
    return make_card(get, "a/table.csv", "a/cells/*.cif", "b/targets.csv.gz")


@contextmanager
def quiet(title: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    assert title
    assert unit == "files"
    assert total == 3
    yield lambda _: None


def fetch(card: Card, origin: Path | None = None, **options: object) -> object:
    settings = {"say": lambda _: None, "progress": quiet, "converters": {}} | options
    return fetch_asset(card, origin, **settings)


def contents() -> dict[str, bytes]:
    folder = asset_dir("small")
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.name != "manifest.json" and p.is_file()
    }


def test_a_store_is_laid_out_as_its_listings_say(store: Store, cache: Path) -> None:
    assert asset_state("small") == "not fetched"
    fetch(store_card(store))
    assert contents() == FILES | {"b/targets.csv.gz": TARGETS}
    manifest = read_manifest("small")
    assert manifest is not None
    assert {file.path: file.sha256 for file in manifest.files} == {
        path: sha256(content) for path, content in (FILES | {"b/targets.csv.gz": TARGETS}).items()
    }
    assert asset_state("small") == "present"
    assert [path for path in (cache / "downloads").iterdir() if path.is_dir()] == []


def test_a_cut_connection_continues_where_it_stopped(store: Store) -> None:
    card = store_card(store)
    store.cut[md5(TARGETS)] = [1000, 500]
    fetch(card)
    assert [asked for name, asked in store.requests if name == md5(TARGETS)] == [None, "bytes=1000-", "bytes=1500-"]
    assert contents()["b/targets.csv.gz"] == TARGETS


def test_a_fetch_that_was_cut_off_says_so_and_the_next_one_continues(store: Store) -> None:
    card = store_card(store)
    store.cut[md5(TARGETS)] = [100] * web.ATTEMPTS
    with pytest.raises(DefectgenError) as error:
        fetch(card)
    assert re.search(
        r"^b/targets\.csv\.gz from http\S+: got 400 bytes, then .*Run the same command again", str(error.value)
    )
    assert "\n" not in str(error.value)
    assert asset_state("small") == "incomplete"
    assert not asset_dir("small").exists()
    store.requests.clear()
    fetch(card)
    assert store.requests == [(md5(TARGETS), "bytes=400-")]
    assert contents() == FILES | {"b/targets.csv.gz": TARGETS}


def test_an_interrupt_keeps_what_was_downloaded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    card = store_card(store)
    attempt = object_store.Store._attempt

    def interrupted(self: object, url: str, part: Path, limit: int) -> str:
        if part.name == "targets.csv.gz.part":
            raise KeyboardInterrupt
        return attempt(self, url, part, limit)

    monkeypatch.setattr(object_store.Store, "_attempt", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(card)
    monkeypatch.setattr(object_store.Store, "_attempt", attempt)
    store.requests.clear()
    fetch(card)
    assert store.requests == [(md5(TARGETS), None)]
    assert asset_state("small") == "present"


def test_a_complete_part_is_checked_and_not_downloaded_again(store: Store) -> None:
    card = store_card(store)
    part = staging_dir("small") / "store/content/b/targets.csv.gz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(TARGETS)
    fetch(card)
    assert [asked for name, asked in store.requests if name == md5(TARGETS)] == [f"bytes={len(TARGETS)}-"]
    assert contents()["b/targets.csv.gz"] == TARGETS


def test_a_server_without_ranges_starts_the_file_anew(store: Store) -> None:
    card = store_card(store)
    store.cut[md5(TARGETS)] = [1000]
    store.ignore_range = True
    fetch(card)
    assert contents()["b/targets.csv.gz"] == TARGETS


def test_a_wrong_checksum_is_one_line_and_leaves_nothing_in_place(store: Store) -> None:
    card = store_card(store)
    wrong = TARGETS[:-1] + b"?"
    store.objects[md5(TARGETS)] = wrong
    with pytest.raises(DefectgenError) as error:
        fetch(card)
    line = str(error.value)
    assert line.startswith("b/targets.csv.gz from http")
    assert f"got md5 {md5(wrong)}, expected {md5(TARGETS)}." in line
    assert "DEFECTGEN_TEST_URL" in line
    assert "\n" not in line
    assert not asset_dir("small").exists()
    assert not list(staging_dir("small").rglob("targets*"))


def test_a_wrong_size_is_refused(store: Store) -> None:
    listing = [
        {"md5": store.add(content), "relpath": path.removeprefix("a/"), "size": len(content) + 1}
        for path, content in FILES.items()
    ]
    n = len(FILES["a/table.csv"])
    with pytest.raises(DefectgenError, match=rf"^a/table\.csv from \S+: got {n} bytes, expected {n + 1}\."):
        fetch(store_card(store, listing))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_gets_another_attempt(store: Store, status: int) -> None:
    card = store_card(store)
    store.status[md5(TARGETS)] = [status]
    fetch(card)
    assert asset_state("small") == "present"


def test_a_missing_object_is_not_asked_for_twice(store: Store) -> None:
    card = store_card(store)
    del store.objects[md5(TARGETS)]
    with pytest.raises(DefectgenError, match=r"got status 404, expected the file\. Set DEFECTGEN_TEST_URL"):
        fetch(card)
    assert [name for name, _ in store.requests].count(md5(TARGETS)) == 1


@pytest.mark.parametrize("relpath", ["../../outside.csv", "/tmp/outside.csv", "cells\\..\\x"])
def test_a_listing_that_leaves_the_folder_is_refused(store: Store, relpath: str) -> None:
    with pytest.raises(DefectgenError, match=r"the listing of a in .* is not valid: .*expected a relative one"):
        fetch(store_card(store, [{"md5": store.add(b"x"), "relpath": relpath}]))
    assert not asset_dir("small").exists()


def test_a_listing_without_an_expected_file_stops_before_the_download(store: Store) -> None:
    listing = [{"md5": store.add(FILES["a/table.csv"]), "relpath": "table.csv"}]
    with pytest.raises(DefectgenError, match=r"1 of 3 expected files are missing, the first is a/cells/\*\.cif"):
        fetch(store_card(store, listing))
    assert len(store.requests) == 1


def test_no_server_is_one_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    card = store_card(store)
    monkeypatch.setenv("DEFECTGEN_TEST_URL", "http://127.0.0.1:9")
    with pytest.raises(DefectgenError, match=r"got nothing in 4 attempts \(.*\)\. Check the network\.") as error:
        fetch(card)
    assert "\n" not in str(error.value)
    monkeypatch.setenv("DEFECTGEN_TEST_URL", "example")
    with pytest.raises(UsageError, match="got DEFECTGEN_TEST_URL='example', expected an address"):
        fetch(card)


def _hold_lock(started: object, end: object) -> None:
    with locked("small", print):
        started.set()
        end.wait(20)


def test_a_second_fetch_waits_and_then_finds_the_work_done(store: Store) -> None:
    card = store_card(store)
    context = multiprocessing.get_context("spawn")
    started, end = context.Event(), context.Event()
    other = context.Process(target=_hold_lock, args=(started, end))
    other.start()
    assert started.wait(20)
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        end.set()

    assert fetch(card, say=say, is_wanted=lambda: False) is None
    other.join()
    assert said == ["another process is fetching small; waiting for it to end"]
    assert store.requests == []


def test_a_folder_is_copied_without_what_does_not_belong(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for path, content in (FILES | {"b/targets.csv.gz": TARGETS, "notes.txt": b"mine"}).items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(content)
    card = make_card(FromFolder(how="folder", advice="Ask."), "a/table.csv", "a/cells/*.cif", "b/targets.csv.gz")
    fetch(card, source)
    assert contents() == FILES | {"b/targets.csv.gz": TARGETS}
    (source / "b/targets.csv.gz").unlink()
    with pytest.raises(DefectgenError, match=r"1 of 3 expected files are missing, the first is b/targets\.csv\.gz"):
        fetch(card, source)
    (source / "b/targets.csv.gz").touch()
    with pytest.raises(DefectgenError, match=r"b/targets\.csv\.gz from .* is empty"):
        fetch(card, source)
    assert contents() == FILES | {"b/targets.csv.gz": TARGETS}, "the complete one stays when a new fetch fails"


def test_a_folder_asset_needs_a_folder_that_exists(tmp_path: Path) -> None:
    card = make_card(FromFolder(how="folder", advice="Ask the authors."), "a.csv")
    with pytest.raises(UsageError, match=r"Ask the authors\. Run: defectgen fetch small --from PATH"):
        fetch(card)
    with pytest.raises(UsageError, match="does not exist"):
        fetch(card, tmp_path / "nothing")


def test_what_is_missing_or_damaged_is_told_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(DefectgenError) as error:
        asset_path("2dmd")
    assert str(error.value) == f"data set 2dmd is not in the cache ({cache_dir() / '2dmd'}). Run: defectgen fetch 2dmd"
    source = tmp_path / "2dmd"
    for pattern in get_card("2dmd").expected_files():
        path = source / pattern.replace("*", "X")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    fetch(get_card("2dmd"), source)
    assert asset_path("2dmd") == cache_dir() / "2dmd"
    (cache_dir() / "2dmd/csv_cif/low_density_defects/MoS2/initial.tar.gz").write_bytes(b"")
    with pytest.raises(DefectgenError, match="2dmd is not complete in the cache"):
        asset_path("2dmd")


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DEFECTGEN_CACHE", str(tmp_path / "file"))
    (tmp_path / "a.csv").write_text("x")
    card = make_card(FromFolder(how="folder", advice="Ask."), "a.csv")
    with pytest.raises(DefectgenError, match="Set DEFECTGEN_CACHE to a folder with room and write access"):
        fetch(card, tmp_path)


@pytest.mark.parametrize("known", [True, False])
def test_a_download_stops_at_the_size_that_is_expected(
    store: Store, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = store_card(store)
    endless = TARGETS * 5000
    store.objects[md5(TARGETS)] = endless
    objects = tuple(
        StoredObject(path=e.path, md5=e.md5, size_bytes=len(TARGETS) if known and not e.is_folder else None)
        for e in card.get.objects  # type: ignore[union-attr]
    )
    monkeypatch.setattr(object_store, "LARGEST_OBJECT", 30_000)
    card = card.model_copy(update={"get": card.get.model_copy(update={"objects": objects})})
    limit = len(TARGETS) if known else 30_000
    with pytest.raises(DefectgenError, match=rf"^targets\.csv\.gz from \S+: got more than the {limit} bytes expected"):
        fetch(card)
    assert not list(staging_dir("small").rglob("targets*"))


def test_pip_cannot_write_more_than_the_package_is_large(tmp_path: Path) -> None:
    code = "import sys; f = open(sys.argv[1], 'wb'); f.write(b'0' * int(sys.argv[2])); f.flush()"
    for size, expected in ((9_000_000, 0), (12_000_000, 1)):
        call = [sys.executable, "-c", code, str(tmp_path / "x"), str(size)]
        done = subprocess.run(call, preexec_fn=download._cap(1_000_000), capture_output=True, text=True, check=False)
        assert done.returncode == expected, done.stderr
    assert "File too large" in done.stderr
