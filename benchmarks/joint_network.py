"""The joint network on the test part, beside the shipped surrogate and the mean of both.

    python benchmarks/joint_network.py NETWORK.safetensors --data 2DMD

NETWORK: `shipped.safetensors` of the step `networks` of benchmarks/gpu, which has seen training and validation part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from defectgen.core import Configuration
from defectgen.data.splits import split_rows
from defectgen.data.twodmd import read_2dmd
from defectgen.io.host_tables import host_of
from defectgen.score.network.ensemble import Network
from defectgen.score.surrogate import Surrogate

COLUMNS = ("formation_energy_ev", "band_gap_ev", "homo_ev", "lumo_ev")


def main(
    network: Annotated[Path, typer.Argument(help="A file of networks.")],
    data: Annotated[Path, typer.Option(help="Folder with 2DMD in its published layout.")],
) -> None:
    """Mean absolute errors in meV: formation energy per site / gap / HOMO / LUMO."""
    joint, surrogate = Network.load(network), Surrogate.load()
    tested = split_rows(read_2dmd(data)).filter(split="test")
    found: dict[str, list[list[float]]] = {"network": [], "surrogate": [], "both": []}
    print(f"{'set':<16}" + "".join(f"{name:>34}" for name in found))
    for name in tested["set"].unique(maintain_order=True):
        rows = tested.filter(set=name)
        host = host_of(rows)
        cells = [Configuration.from_key(host, key) for key in rows["configuration"]]
        first, second = joint.score(host, [cell.edits for cell in cells]), surrogate.score(cells)
        line = f"{name:<16}"
        for kind, share in (("network", 1.0), ("surrogate", 0.0), ("both", 0.5)):
            errors = []
            for column in COLUMNS:
                value = share * first[column] + (1 - share) * second[column].to_numpy()
                off = np.abs(value - rows[column].cast(float).to_numpy())
                per_site = rows["n_defects"].to_numpy() if column == COLUMNS[0] else 1
                errors.append(1e3 * float(np.nanmean(off / per_site)))
            found[kind].append(errors)
            line += f"{' / '.join(f'{error:.1f}' for error in errors):>34}"
        print(line)
    means = (np.mean(errors, axis=0) for errors in found.values())
    print(f"{'mean':<16}" + "".join(f"{' / '.join(f'{error:.1f}' for error in mean):>34}" for mean in means))


if __name__ == "__main__":
    typer.run(main)
