"""What an installation has and lacks: packages, models, data, devices, programs, each with the way to get it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from defectgen import __version__
from defectgen.data.assets import cache_dir, known_assets
from defectgen.errors import DefectgenError
from defectgen.models import (
    SHIPPED_ADAPTER,
    SHIPPED_BULK_ADAPTER,
    SHIPPED_CROWDED_ADAPTER,
    SHIPPED_SLICES,
    SHIPPED_SURROGATE,
    shipped,
)

State = Literal["ok", "missing", "broken"]

PYTHON = (3, 11)
"""Version of Python that the lock is for."""

REQUIRED = ("ase", "catboost", "numpy", "peft", "polars", "pymatgen", "safetensors", "spglib", "torch", "transformers")
EXTRAS = {
    "m3gnet": "matgl",
    "chgnet": "chgnet",
    "bulk": "matminer",
    "scale": "parsl",
    "exports": "doped",
    "tensorboard": "tensorboard",
    "vllm": "vllm",
    "gpu": "bitsandbytes",
}
"""Extra and the package that it brings."""

PURPOSES = {
    "m3gnet": "relaxation and stability with M3GNet",
    "chgnet": "relaxation with CHGNet",
    "bulk": "compositional validity and coverage of bulk crystals",
    "scale": "campaigns on a cluster, with Parsl",
    "exports": "exports for doped, pymatgen-analysis-defects, jobflow and OPTIMADE",
    "vllm": "decoding with vLLM",
    "gpu": "base models in four bits on an NVIDIA GPU",
    "tensorboard": "training curves in TensorBoard",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        group: what it belongs to, e.g. ``packages``.
        name: of the thing.
        state: whether it is there and usable.
        text: version, place or reason.
        advice: how to get or mend it; empty where nothing is to be done.
        needed: whether the main commands need it.
    """

    group: str
    name: str
    state: State
    text: str
    advice: str = ""
    needed: bool = False


def examine() -> Iterator[Finding]:
    """Look for everything that a command may need, in the order of a report."""
    for look in (_system, _packages, _extras, _models, _assets, _data, _devices, _programs):
        yield from look()


def _system() -> Iterator[Finding]:
    yield Finding("system", "defectgen", "ok", __version__)
    got = ".".join(platform.python_version_tuple()[:2])
    right = tuple(int(x) for x in platform.python_version_tuple()[:2]) == PYTHON
    wanted = ".".join(map(str, PYTHON))
    advice = "" if right else f"constraints.txt locks packages for Python {wanted}"
    yield Finding("system", "Python", "ok" if right else "broken", f"{got}, {platform.machine()}", advice, needed=True)
    yield Finding("system", "CPU cores", "ok", str(os.cpu_count() or 1))
    cache = cache_dir()
    place = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free_gib = shutil.disk_usage(place).free / 2**30
    if os.access(place, os.W_OK):
        yield Finding("system", "cache", "ok", f"{cache}, {free_gib:.0f} GiB free", needed=True)
    else:
        yield Finding(
            "system", "cache", "broken", f"{cache} cannot be written", "set DEFECTGEN_CACHE to a folder of yours", True
        )


def _packages() -> Iterator[Finding]:
    for name in REQUIRED:
        found = _installed(name)
        advice = "" if found else "pip install -c constraints.txt ."
        yield Finding("packages", name, "ok" if found else "missing", found or "not installed", advice, needed=True)


def _extras() -> Iterator[Finding]:
    for extra, package in EXTRAS.items():
        found = _installed(package)
        lock = "" if extra == "vllm" else "-c constraints.txt "  # which has torch and transformers of its own
        advice = "" if found else f"pip install {lock}'.[{extra}]': {PURPOSES[extra]}"
        yield Finding("extras", extra, "ok" if found else "missing", found or "not installed", advice)


def _models() -> Iterator[Finding]:
    from defectgen.core.hosts import common_name
    from defectgen.llm.adapter import read_adapter
    from defectgen.score.slices_catboost import SlicesCatBoost
    from defectgen.score.surrogate import Surrogate

    def surrogate(folder: Path) -> str:
        return ", ".join(map(common_name, Surrogate.load(folder).hosts))

    def adapter(folder: Path) -> str:
        return ", ".join(map(common_name, read_adapter(folder).hosts))

    def bulk(folder: Path) -> str:
        return f"bulk crystals of {len(read_adapter(folder).data['elements'])} elements"

    def slices(folder: Path) -> str:
        return ", ".join(dict.fromkeys(common_name(part.host) for part in SlicesCatBoost.load(folder).parts))

    readers: tuple[tuple[str, Callable[[Path], str]], ...] = (
        (SHIPPED_SURROGATE, surrogate),
        (SHIPPED_ADAPTER, adapter),
        (SHIPPED_CROWDED_ADAPTER, adapter),
        (SHIPPED_BULK_ADAPTER, bulk),
        (SHIPPED_SLICES, slices),
    )
    for name, read in readers:
        try:
            yield Finding("models", name, "ok", read(shipped(name)), needed=True)
        except DefectgenError as error:
            yield Finding("models", name, "broken", str(error), "install defectgen again", True)


def _assets() -> Iterator[Finding]:
    for asset in known_assets():
        name, there = str(asset["name"]), asset["state"] == "present"
        advice = "" if there else f"defectgen fetch {name}: {asset['title']}"
        state: State = "ok" if there else "missing"
        group = "base models" if asset["kind"] == "model" else "data sets"
        yield Finding(group, name, state, str(asset["path"]) if there else str(asset["state"]), advice)


def _data() -> Iterator[Finding]:
    for variable in ("DEFECTGEN_2DMD", "DEFECTGEN_MP20", "DEFECTGEN_M3GNET"):
        value = os.environ.get(variable)
        if value is None:
            continue
        path = Path(value).expanduser()
        named = variable == "DEFECTGEN_M3GNET" and not path.exists() and "/" not in value  # a name on the hub
        there = named or (path.exists() if variable == "DEFECTGEN_MP20" else path.is_dir())
        what = "file or folder" if variable == "DEFECTGEN_MP20" else "folder"
        advice = "" if there else f"point {variable} to a {what} that exists, or unset it"
        yield Finding("folders that variables name", variable, "ok" if there else "broken", value, advice)


def _devices() -> Iterator[Finding]:
    if not _installed("torch"):
        return
    import torch

    if not torch.cuda.is_available():
        yield Finding("devices", "GPU", "missing", "none that torch can use", "everything runs without one, slower")
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        text = f"{torch.cuda.get_device_name(index)}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
        yield Finding("devices", f"GPU {index}", "ok", text)


def _programs() -> Iterator[Finding]:
    from defectgen.dft.codes import CODES, EngineOptions

    for code in CODES.values():
        try:
            words = code.command(EngineOptions())
        except DefectgenError as error:
            yield Finding("DFT codes", code.title, "missing", str(error.args[0]).rstrip("."), error.hint)
        else:
            yield Finding("DFT codes", code.title, "ok", shutil.which(words[0]) or words[0])


def _installed(package: str) -> str:
    """The version of a package, empty if it is not installed or not to be found by an import."""
    try:
        found = version(package)
    except PackageNotFoundError:
        return ""
    return found if importlib.util.find_spec(package) is not None else ""
