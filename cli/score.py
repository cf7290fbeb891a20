"""`defectgen score`: what structure files are, and what the surrogate predicts for them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated

import typer

from defectgen_cli.options import JsonOption
from defectgen_cli.output import emit


def score(
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="CIF or POSCAR files, or folders of them.")],
    host: Annotated[
        str | None, typer.Option("--host", metavar="NAME", help="Host [found from the first file].")
    ] = None,
    surrogate: Annotated[
        Path | None, typer.Option("--surrogate", metavar="DIR", help="Surrogate [the shipped one].")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.csv", help="Write a CSV table.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what defects structure files hold and predict their properties.

    Each file is matched to the host's pristine supercell with the same axes; it may be relaxed,
    shifted or have another vacuum. All files must have one host. Levels are in eV relative to the
    valence band maximum of the pristine host.
    """
    import polars as pl

    from defectgen.core import get_host, host_names
    from defectgen.core.matching import (
        NotADecorationError,
        configuration_from_structure,
        read_configuration,
        read_structure,
    )
    from defectgen.core.properties import PROPERTIES
    from defectgen.errors import DefectgenError, UsageError
    from defectgen.llm.adapter import training_configurations
    from defectgen.score.surrogate import Surrogate
    from defectgen_cli.engine import SHIPPED_ADAPTER, SHIPPED_SURROGATE, shipped

    if output is not None and output.exists():
        raise UsageError(f"{output} exists already.", "Choose another file.")
    paths = [path for given in files for path in (_structures(given) if given.is_dir() else [given])]
    if not paths:
        raise UsageError("the folders hold no structures.", "Expected *.cif, *.vasp or POSCAR files.")
    names = [get_host(host).name] if host else list(host_names())
    configurations = []
    for path in paths:
        if len(names) == 1:
            configurations.append(read_configuration(get_host(names[0]), path))
            continue
        structure = read_structure(path)
        for name in names:
            with contextlib.suppress(NotADecorationError):
                configurations.append(configuration_from_structure(get_host(name), structure))
                names = [name]
                break
        else:
            raise DefectgenError(
                f"{path} is no decoration of {', '.join(names)}.", "Name the host with --host to see why."
            )
    scores = Surrogate.load(surrogate or shipped(SHIPPED_SURROGATE)).score(configurations)
    known = training_configurations(shipped(SHIPPED_ADAPTER))
    facts = pl.DataFrame(
        [
            {
                "file": os.fspath(path),
                "host": c.host.name,
                "label": c.label,
                "n_defects": c.n_defects,
                "configuration": c.canonical().key,
                "novel": c.canonical().key not in known.get(f"{c.host.name} {c.host.size}", frozenset()),
            }
            for path, c in zip(paths, configurations, strict=True)
        ]
    )
    table = pl.concat([facts, scores], how="horizontal")
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        table.write_csv(output, float_precision=4)
    lines = []
    for row in table.iter_rows(named=True):
        values = [f"{p.title} {row[p.column]:.3f}" for p in PROPERTIES if row.get(p.column) is not None]
        lines.append(f"{row['file']}: {row['label']} in {row['host']}; {', '.join(values)} eV")
    emit({"structures": table.to_dicts(), "output": output}, as_json, "\n".join(lines))


def _structures(folder: Path) -> list[Path]:
    """Structure files in a folder, sorted by name."""
    return sorted(
        p for p in folder.iterdir() if p.suffix.lower() in (".cif", ".vasp", ".poscar") or p.name.startswith("POSCAR")
    )
