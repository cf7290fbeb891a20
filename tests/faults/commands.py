"""The commands that write folders, with tiny inputs, and what must be the same after a kill and a rerun."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from children import Ended, Fault, run_child

from defectgen.io.folders import is_unchanged, own_files

if TYPE_CHECKING:
    from defectgen.core import Host
    from defectgen.score.network.network_file import NetworkFile

VOLATILE = re.compile(
    r'"(seconds|generation_seconds|created_utc|crystals_per_second|draws_per_second|sha256|bytes)": [^,}\n]+'
    r"|\(\d+ s\)|\d{4}-\d\d-\d\d[T ][\d:+.]+"
)
"""What differs from run to run: times, and in manifests the checksums of files that hold them."""


SMALL = ("--host", "MoS2", "--supercell", "2x2")
SPRINGS = {
    "ase": {"calculator": "ase.calculators.lj:LennardJones", "arguments": {"sigma": 2.1, "epsilon": 0.3}},
    "force_ev_angstrom": 0.05,
}
"""Settings of calculations that take a moment."""


@dataclass(frozen=True)
class Command:
    """A command that writes below a folder.

    Attributes:
        name: of the command.
        words: the call, for the folder.
        rerun: what is added to the call where the documented rerun needs it.
        done: how a rerun refuses a folder that the killed run had finished; empty if it does not.
        patch: what is replaced in the child so that the command is quick: potentials, cards, the fit.
        uncompared: names of files whose contents are not compared: what holds times, or is only there to go on from.
        given: puts into the folder what the command needs there.
        reduced: what of a file's content (its name, its text) must be the same.
        ends: exit codes besides 0 where the fault met another process than the command's own.
    """

    name: str
    words: Callable[[Path], list[str]]
    rerun: tuple[str, ...] = ()
    done: str = ""
    patch: Callable[[], None] = lambda: None
    uncompared: tuple[str, ...] = ()
    given: Callable[[Path], None] = lambda _: None
    reduced: Callable[[str, str], str] = lambda _, text: text
    ends: tuple[int, ...] = ()

    def run(self, root: Path, fault: Fault | None = None, again: bool = False) -> Ended:
        """Run the command in a child."""
        if not again:
            self.given(root)

        def work() -> int:
            from defectgen_cli.app import main

            self.patch()
            return main([*self.words(root), *(self.rerun if again else ())])

        return run_child(work, root, fault)

    def state(self, root: Path) -> dict[str, str]:
        """What is below a folder: path -> checksum without what is volatile; own workplaces of ended runs count."""
        found = {}
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root).as_posix()
            if not path.is_file() or name.startswith(("cache/", "tensorboard/")) or "/tensorboard/" in name:
                continue
            if any(re.search(pattern, name) for pattern in self.uncompared):
                found[name] = "there"
                continue
            content = path.read_bytes()
            with suppress(UnicodeDecodeError):
                content = VOLATILE.sub("", self.reduced(name, content.decode())).encode()
            found[name] = hashlib.sha256(content).hexdigest()
            if path.name == "manifest.json":
                listed = own_files(path.parent).items()
                wrong = [file for file, digest in listed if not is_unchanged(path.parent / file, digest)]
                found[f"{name}: files that it does not have right"] = ", ".join(wrong)
        return found


def inputs(folder: Path, *, trained: bool = True) -> None:
    """Data sets and structure files; if `trained`, a tiny model, records and an adapter too; each made in a child."""
    from synthetic import distinct_configurations, write_set

    from defectgen.core import Configuration, get_host
    from defectgen.io.writers import cif_text

    mos2 = get_host("MoS2")
    write_set(folder / "2dmd", "MoS2", distinct_configurations(mos2, 40, 1, (1, 2, 3)))
    (folder / "files").mkdir()
    for site in (64, 70, 0):
        item = Configuration.of(mos2, {site: "VAC" if site == 64 else "W" if site == 0 else "Se"})
        (folder / "files" / f"s{site}.cif").write_text(cif_text(item))

    small = get_host("MoS2", "2x2")
    (folder / "small").mkdir()
    for key in ("VAC@B00", "Se@B00"):
        (folder / "small" / f"{key.split('@')[0]}.cif").write_text(cif_text(Configuration.from_key(small, key)))
    (folder / "spring.yaml").write_text(json.dumps(SPRINGS))

    def crystals() -> int:
        import polars as pl
        from fake_crystal_potential import element_cell, rocksalt

        (folder / "crystals").mkdir()
        for name, cell in (("salt", rocksalt("Na", "Cl")), ("sodium", element_cell("Na"))):
            cell.to(filename=str(folder / "crystals" / f"{name}.cif"))
        rows = [
            {"pretty_formula": f, "formation_energy_per_atom": e, "e_above_hull": 0.0, "cif": cell.to(fmt="cif")}
            for f, cell, e in (("NaCl", rocksalt("Na", "Cl"), -1.0), ("Na", element_cell("Na"), 0.0))
        ]
        pl.DataFrame(rows).write_csv(folder / "labels.csv")
        return 0

    def model() -> int:
        from tiny_model import save_tiny_llama, tiny_tokenizer
        from training_runs import config

        place = save_tiny_llama(tiny_tokenizer(), folder / "model")
        settings = config(place, max_steps=3, eval_steps=2, save_steps=1, batch_size=4).model_dump()
        (folder / "tiny.yaml").write_text(json.dumps(settings))
        return 0

    def call(*words: object) -> Callable[[], int]:
        def work() -> int:
            from defectgen_cli.app import main

            return main([str(word) for word in words])

        return work

    steps = [
        crystals,
        call(
            "inputs",
            folder / "small",
            *SMALL,
            "--code",
            "ase",
            "--settings",
            folder / "spring.yaml",
            "--no-references",
            "-o",
            folder / "dft",
        ),
        model,
        call("build-data", "--data", folder / "2dmd", "-o", folder / "records", "--sets", "MoS2", "--seed", 3),
        call("finetune", folder / "tiny.yaml", "--data", folder / "records", "-o", folder / "adapter"),
    ]
    for step in steps if trained else steps[:2]:
        ended = run_child(step, folder)
        if ended.code:
            raise RuntimeError(f"the inputs cannot be made ({ended.code}): {ended.said[-800:]}")


def small_network(host: Host) -> NetworkFile:
    """A network of random weights, so that its file is among those of a surrogate."""
    import numpy as np

    from defectgen.score.network.network_file import NetworkFile, weight_shapes
    from defectgen.score.network.pair_geometry import HostGeometry

    shape, rng = {"width": 4, "rounds": 1, "heads": 1}, np.random.default_rng(1)
    weights = {name: rng.normal(size=n).astype(np.float32) for name, n in weight_shapes(1, 1, shape).items()}
    return NetworkFile((HostGeometry.of(host),), (False,), shape, weights, np.ones((1, len(host.rules))), {})


def commands(folder: Path, fits: Path) -> list[Command]:
    """All of them, on inputs that `inputs` has made in a folder; `fits` keeps the trees that are fitted once."""

    def stable() -> None:
        from fake_crystal_potential import CrystalPotential

        from defectgen.stability import study

        study.open_potential = lambda *_: CrystalPotential()  # type: ignore[assignment]

    def fitted_once() -> None:
        from defectgen.score.surrogate import training
        from defectgen.score.trees import TreeSettings

        fit = training.fit_surrogate

        def fit_once(*arguments: Any, **options: Any) -> Any:
            if fits.is_file():
                return pickle.loads(fits.read_bytes())
            found = fit(*arguments, **options | {"low_trees": TreeSettings(10, 2, 0.2)})
            host = found.parts[0].core_host
            found = replace(found, networks={host.name: small_network(host)})
            fits.write_bytes(pickle.dumps(found))
            return found

        training.fit_surrogate = fit_once

    def cards() -> None:
        from test_download import store_card

        from defectgen.data import asset_cards as cards

        class Names:
            """A store that only names its objects."""

            add = staticmethod(
                lambda content, suffix="": hashlib.md5(content, usedforsecurity=False).hexdigest() + suffix
            )

        card = store_card(Names())  # type: ignore[arg-type]
        cards.load_cards = lambda: {card.name: card}

    def forked() -> None:
        from children import ForkedDriver

        from defectgen.dft import compute

        compute.subprocess.Popen = ForkedDriver  # type: ignore[assignment, misc]

    def computed(name: str, text: str) -> str:
        """Of a calculation that went on where it was: how it ended, and its energy to the second digit."""
        if name.endswith("state.json"):
            return str(json.loads(text)["status"])
        if name.endswith("ase-results.json"):
            found = json.loads(text)
            return f"{found['energy_ev']:.2f} {found['ionic_converged']} {found['symbols']}"
        return text

    def fetch(root: Path) -> list[str]:
        os.environ["DEFECTGEN_CACHE"] = str(root)
        return ["fetch", "small"]

    design = [
        "design",
        "--host",
        "MoS2",
        "--homo",
        "0.1",
        "--lumo",
        "1.1",
        "-n",
        "2",
        "--proposer",
        "random",
        "--samples",
        "16",
        "--max-defects",
        "2",
    ]
    generate = ["generate", "--model", str(folder / "model"), "-n", "2", "--formula", "NaCl", "--max-atoms", "2"]
    feedback = ["--model", str(folder / "adapter"), "--targets", "4", "-n", "4", "--temperature", "1.5"]
    return [
        Command("design", lambda root: [*design, "-o", str(root / "run")], ("--overwrite",)),
        Command(
            "build-data",
            lambda root: ["build-data", "--data", str(folder / "2dmd"), "--sets", "MoS2", "-o", str(root / "records")],
        ),
        Command(
            "enumerate",
            lambda root: ["enumerate", "2v_S", "--cif-dir", str(root / "cif"), "-o", str(root / "table.csv")],
            ("--overwrite",),
        ),
        Command("fetch", fetch, patch=cards),
        Command(
            "score",
            lambda root: ["score", str(folder / "files"), "-o", str(root / "scores.csv")],
            done="exists already",
        ),
        Command(
            "surrogate train",
            lambda root: [
                "surrogate",
                "train",
                "--data",
                str(folder / "2dmd"),
                "--sets",
                "MoS2",
                "-o",
                str(root / "m"),
            ],
            done="already holds a surrogate",
            patch=fitted_once,
        ),
        Command(
            "finetune",
            lambda root: [
                "finetune",
                str(folder / "tiny.yaml"),
                "--data",
                str(folder / "records"),
                "-o",
                str(root / "a"),
            ],
            done="already holds a trained adapter",
            uncompared=("checkpoints/", r"events\.out"),
        ),
        Command(
            "feedback",
            lambda root: ["feedback", "--data", str(folder / "records"), "-o", str(root / "pairs"), *feedback],
        ),
        Command("generate", lambda root: [*generate, "-o", str(root / "crystals")], done="is not empty"),
        Command(
            "stability",
            lambda root: [
                "stability",
                str(folder / "crystals"),
                "--hull",
                str(folder / "labels.csv"),
                "-o",
                str(root / "s"),
            ],
            patch=stable,
            uncompared=(r"stability\.csv", r"relaxations\.jsonl", r"manifest\.json"),
        ),
        Command(
            "inputs",
            lambda root: ["inputs", str(folder / "small"), *SMALL, "-o", str(root / "dft")],
            done="is not an empty folder",
        ),
        Command(
            "compute",
            lambda root: ["compute", str(root / "dft")],
            ("--retry-failed",),
            patch=forked,
            uncompared=(r"run\.log", r"relax\.traj", r"relaxed\.cif"),
            given=lambda root: shutil.copytree(folder / "dft", root / "dft") and None,
            reduced=computed,
            ends=(1, 3),
        ),
    ]


@contextmanager
def store() -> Iterator[None]:
    """The store that `fetch` asks, on this machine."""
    from local_server import served
    from test_download import Store, store_card

    from defectgen import web

    content = Store()
    store_card(content)
    web.BACKOFF_S = 0.0
    with served(content.answer) as url:
        os.environ["DEFECTGEN_TEST_URL"] = url
        yield
