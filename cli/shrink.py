"""`defectgen shrink`: an adapter in fewer numbers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from defectgen_cli.options import JsonOption
from defectgen_cli.output import emit


def shrink(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Trained adapter: folder or shipped name.")],
    rank: Annotated[int, typer.Option(min=1, help="Rank of the smaller adapter.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for it.")],
    as_json: JsonOption = False,
) -> None:
    """Write a trained adapter with a lower rank.

    It is as near to the adapter as that rank allows.
    Each update is replaced by its truncated singular value decomposition. Measure what that costs with
    `defectgen evaluate defect --model`.
    """
    from defectgen.llm.rank_reduction import shrink_adapter
    from defectgen.models import adapter_folder

    result = shrink_adapter(adapter_folder(adapter), output, rank)
    emit(
        {"output": output, **asdict(result)},
        as_json,
        f"adapter of rank {rank} in {output}: {result.mean_kept:.1%} of the updates' squared norm kept "
        f"({result.least_kept:.1%} in the worst matrix)",
    )
