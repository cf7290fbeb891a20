"""Sparse MEGNet (Kazeev et al., npj Comput Mater 9, 113 (2023)) trained here, on the split of our surrogate.

    PYTHONPATH=MEGNETSPARSE python benchmarks/megnet_sparse.py 2DMD --sets MoS2_500,GaSe_spin_500 -o FILE.json

MEGNETSPARSE is the unpacked wheel MEGNetSparse 0.0.10; it needs torch_geometric (the extra m3gnet) and joblib. Its
authors' example configuration is used. 60 % of a set train, the epoch is chosen on 20 %, and the error is that on the
other 20 % (by symmetry class, seed 42). An interrupted run goes on after the last finished model.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from defectgen.core import VACANCY, Configuration
from defectgen.data.splits import split_by_class
from defectgen.data.twodmd import read_2dmd
from defectgen.io.host_tables import host_of

TARGETS = ("formation_energy_per_site_ev", "band_gap_ev")
CONFIG: dict[str, dict[str, Any]] = {
    "model": {
        "train_batch_size": 50,
        "test_batch_size": 50,
        "add_z_bond_coord": True,
        "atom_features": "werespecies",
        "state_input_shape": 2,
        "cutoff": 10,
        "edge_embed_size": 10,
        "vertex_aggregation": "mean",
        "global_aggregation": "mean",
        "embedding_size": 32,
        "nblocks": 3,
    },
    "optim": {
        "factor": 0.5,
        "patience": 30,
        "threshold": 5e-2,
        "min_lr": 1e-5,
        "lr_initial": 1e-3,
        "scheduler": "ReduceLROnPlateau",
    },
}


def sparse(item: Configuration) -> Any:
    """The defect sites only, as `MEGNetSparse.convert_to_sparse_representation` gives them."""
    from pymatgen.core import DummySpecies, Element, PeriodicSite, Structure
    from pymatgen.core.lattice import Lattice

    host = item.host
    lattice = Lattice(host.supercell_lattice)
    sites = [
        PeriodicSite(
            DummySpecies() if species == VACANCY else species,
            host.site_frac_coords[site],
            lattice,
            properties={"was": Element(host.site_element(site)).Z},
        )
        for site, species in item.edits
    ]
    structure = Structure.from_sites(sites)
    structure.state = [sorted({Element(e).Z for e in host.elements})]
    return structure


def keep_old_keyword() -> None:
    """The package passes `verbose`, which torch no longer knows."""
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau

    class Plateau(plateau):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, verbose: bool = False, **options: Any) -> None:  # noqa: ARG002
            super().__init__(*args, **options)

    torch.optim.lr_scheduler.ReduceLROnPlateau = Plateau  # type: ignore[misc]


def train(frame: pl.DataFrame, column: str, epochs: int, seed: int) -> dict[str, Any]:
    """Train one model; errors in meV."""
    from MEGNetSparse import MEGNetTrainer

    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - what the package draws from
    host = host_of(frame)
    parts, values = {}, {}
    for name in ("train", "validation", "test"):
        rows = frame.filter(split=name)
        parts[name] = [sparse(Configuration.from_key(host, key)) for key in rows["configuration"]]
        values[name] = torch.tensor(rows[column].to_numpy()).float()
    trainer = MEGNetTrainer(CONFIG, "cpu")
    start = time.monotonic()
    best: tuple[float, int, float] | None = None
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        both = parts["validation"] + parts["test"]
        trainer.prepare_data(
            parts["train"], values["train"], both, torch.cat([values["validation"], values["test"]]), column
        )
        n = len(parts["validation"])
        for epoch in range(epochs):
            trainer.train_one_epoch()
            _, predicted = trainer.evaluate_on_test(return_predictions=True)
            errors = (predicted.ravel() - torch.cat([values["validation"], values["test"]])).abs()
            found = float(errors[:n].mean()), epoch, float(errors[n:].mean())
            best = found if best is None or found < best else best
    assert best is not None
    return {
        "validation_mev": 1e3 * best[0],
        "epoch": best[1],
        "test_mev": 1e3 * best[2],
        "epochs": epochs,
        "seed": seed,
        "n_train": len(parts["train"]),
        "n_test": len(parts["test"]),
        "seconds": time.monotonic() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", default="MoS2_500,GaSe_spin_500")
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_old_keyword()
    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    for name in options.sets.split(","):
        frame = split_by_class(read_2dmd(options.data, [name]), (0.6, 0.2, 0.2), 42)
        for column in TARGETS:
            key = f"{name}/{column}"
            if key not in results:
                results[key] = train(frame, column, options.epochs, options.seed)
                options.output.write_text(json.dumps(results, indent=1) + "\n")
            print(key, {k: round(v, 1) for k, v in results[key].items()}, flush=True)


if __name__ == "__main__":
    main()
