"""`defectgen fetch`: list the data sets and models, or put one of them into the cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from defectgen_cli.options import ForceOption, JsonOption
from defectgen_cli.output import emit, progress, say, size_text

if TYPE_CHECKING:
    from defectgen.data.asset_cards import Card
    from defectgen.data.assets import Manifest


def fetch(
    name: Annotated[str | None, typer.Argument(help="Data set or base model; without it all are listed.")] = None,
    origin: Annotated[
        Path | None,
        typer.Option("--from", metavar="PATH", help="Take it from this file or folder instead of downloading it."),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch a data set or base model, or list them."""
    from defectgen.data.asset_cards import get_card
    from defectgen.data.assets import asset_state, discard_leftovers, read_manifest
    from defectgen.data.download import fetch_asset
    from defectgen.errors import UsageError

    if name is None:
        if origin is not None or force:
            raise UsageError("--from and --force need the NAME of what to fetch.", "Run: defectgen fetch")
        _list(as_json)
        return
    card = get_card(name)
    manifest = None
    if force or asset_state(name) != "present":
        manifest = fetch_asset(
            card,
            origin,
            say=say,
            progress=progress,
            converters={"gguf": _convert_gguf},
            is_wanted=lambda: force or asset_state(name) != "present",
        )
    state = "fetched"
    if manifest is None:
        state, manifest = "present", read_manifest(name)
        discard_leftovers(name)
        if manifest is not None and origin is not None and not manifest.came_from(origin):
            raise UsageError(f"the cache holds {name} from {manifest.origin}.", "Add --force to replace it.")
    if manifest is None:
        raise UsageError(f"{name} was removed from the cache just now.", "Run the same command again.")
    emit(_result(card, manifest, state), as_json, _text(card, manifest, state))


def _convert_gguf(source: Path, target: Path) -> None:
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when the libraries below are first imported
    from defectgen.llm.base import convert_gguf

    convert_gguf(source, target)


def _list(as_json: bool) -> None:
    from defectgen.data.assets import known_assets

    assets = known_assets()
    rows = [("NAME", "LICENCE", "SIZE", "STATE")]
    for asset in assets:
        size = size_text(asset["size_bytes"]) if asset["size_bytes"] else "-"
        rows.append((asset["name"], asset["licence"], size, asset["state"]))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip() for row in rows]
    cache = Path(assets[0]["path"]).parent
    emit({"assets": assets}, as_json, "\n".join([*lines, "", f"each in {cache / 'NAME'}"]))


def _result(card: Card, manifest: Manifest, state: str) -> dict[str, Any]:
    from defectgen.data.assets import asset_dir

    return {
        "name": card.name,
        "state": state,
        "path": asset_dir(card.name),
        "n_files": len(manifest.files),
        "size_bytes": manifest.size_bytes,
        "licence": card.licence,
        "origin": manifest.origin,
        "citations": [citation.model_dump() for citation in card.citations],
    }


def _text(card: Card, manifest: Manifest, state: str) -> str:
    from defectgen.data.assets import asset_dir

    did = "fetched" if state == "fetched" else "already in the cache, nothing to do (--force fetches it again)"
    lines = [
        f"{card.name}: {did}",
        f"  path     {asset_dir(card.name)}",
        f"  holds    {len(manifest.files)} files, {size_text(manifest.size_bytes)}, from {manifest.origin}",
        f"  licence  {card.licence}",
        *(f"  cite     {citation.text}, doi:{citation.doi}" for citation in card.citations),
    ]
    return "\n".join(lines)
