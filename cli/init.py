"""`defectgen init`: a configuration to begin with."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import wrap
from typing import Annotated

import typer

from defectgen_cli.options import JsonOption, OverwriteOption
from defectgen_cli.output import emit, say

USED_BY = {
    "defect": "defectgen finetune FILE --data RECORDS",
    "bulk": "defectgen finetune FILE --data RECORDS",
    "dft": "defectgen inputs RUN --settings FILE",
    "executors": "defectgen campaign run DIR --executor FILE",
}
"""The command that takes a configuration, by group."""


def init(
    name: Annotated[
        str | None, typer.Argument(help="E.g. smollm2-cpu or dft/lcao; without a name all are listed.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.yaml", help="File to write [NAME.yaml].")
    ] = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a configuration to begin with.

    The file holds the values of a shipped configuration, and every other key as a comment with its default
    and meaning. `finetune` takes it for training, `inputs --settings` for DFT, `campaign run --executor` for
    a cluster.
    """
    from defectgen.config import StageConfig, find_config, package_folder, starting_text
    from defectgen.dft.settings import DftSettings
    from defectgen.errors import UsageError
    from defectgen.execution.clusters import ClusterConfig
    from defectgen.io.files import refuse_existing, write_text
    from defectgen.llm.train.finetune_config import FinetuneConfig

    if name is None:
        if output is not None:
            raise UsageError(f"got -o {output} without a configuration.", "Name one; without -o all are listed.")
        files = package_folder("defectgen_configs").glob("*/*.yaml")
        rows = sorted((f"{path.parent.name}/{path.stem}", _first_comment(path)) for path in files)
        indent = " " * (max(len(title) for title, _ in rows) + 2)
        lines = [wrap(title.ljust(len(indent)) + text, 80, subsequent_indent=indent) for title, text in rows]
        emit({"configurations": dict(rows)}, as_json, "\n".join(line for parts in lines for line in parts))
        return
    path = find_config(name, "defect")
    group = path.parent.name if path.parent.name in USED_BY else "defect"
    target = output or Path(f"{path.stem}.yaml")
    refuse_existing(target, overwrite)
    models: dict[str, type[StageConfig]] = {"dft": DftSettings, "executors": ClusterConfig}
    write_text(target, starting_text(path, models.get(group, FinetuneConfig)))
    emit({"output": target, "from": f"{group}/{path.stem}"}, as_json)
    say(f"{target} written; next: {USED_BY[group].replace('FILE', str(target))}")


def _first_comment(path: Path) -> str:
    """What a shipped configuration says of itself."""
    first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ").removeprefix("description: ")
    return re.split(r"[,:;(]", first)[0].strip()
