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
    system: Annotated[
        str | None,
        typer.Option(metavar="A-B", help="With materials-project: only the energies of these elements, e.g. Li-Fe-O."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="CSV", help="With --system: file for the energies.")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch a data set or base model, or list them.

    With --system the corrected energies of all compounds of some elements come from the Materials Project, by the
    key in MP_API_KEY, into a table that `--hull` reads.
    """
    from defectgen.data.asset_cards import get_card
    from defectgen.data.assets import asset_state, discard_leftovers, read_manifest
    from defectgen.data.download import fetch_asset
    from defectgen.errors import UsageError

    if system is not None or output is not None:
        if name is not None and name != "materials-project":
            what = "--system" if system is not None else "-o"
            raise UsageError(
                f"got {what} for {name}, which is fetched into the cache as a whole.",
                f"Leave {what} out; it is of materials-project.",
            )
        if name is None or system is None or output is None or origin is not None:
            raise UsageError(
                "--system and -o go together, with materials-project and without --from.",
                "E.g. defectgen fetch materials-project --system Li-Fe-O -o hull.csv",
            )
        _fetch_system(system, output, force, as_json)
        return
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


def _fetch_system(system: str, output: Path, force: bool, as_json: bool) -> None:
    from defectgen.errors import UsageError
    from defectgen.stability.hull import save_hull, system_hull
    from defectgen.web import MaterialsProject

    if output.suffix.lower() != ".csv":
        raise UsageError(f"got -o {output}, expected a name that ends with .csv.")
    if output.exists() and not force:
        raise UsageError(f"{output} exists.", "Choose another name or add --force.")
    hull = system_hull(MaterialsProject.from_environment(), system)
    save_hull(hull, output)
    result = {"system": system, "source": hull.source, "formulas": len(hull.points), "output": output}
    emit(result, as_json, f"{system}: lowest energies of {len(hull.points)} formulas in {output}")


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
