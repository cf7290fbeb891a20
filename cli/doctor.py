"""`defectgen doctor`: what this installation has, what it lacks, and the command for it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from defectgen_cli.options import JsonOption
from defectgen_cli.output import emit, wrapped

if TYPE_CHECKING:
    from defectgen.installation import Finding

MARKS = {"ok": "ok", "missing": "-", "broken": "BAD"}


def doctor(as_json: JsonOption = False) -> None:
    """Say what is installed, what is missing, and how to get it.

    Extras, models, data, GPU and DFT codes. Returns 1 if something that the main commands need is missing or broken.
    """
    from defectgen.installation import examine

    findings = list(examine())
    bad = [item for item in findings if item.needed and item.state != "ok"]
    summary = f"{len(bad)} of what is needed: missing or broken" if bad else "Everything that is needed is there."
    emit({"findings": [asdict(item) for item in findings], "healthy": not bad}, as_json, _text(findings, summary))
    if bad:
        raise typer.Exit(1)


def _text(findings: list[Finding], summary: str) -> str:
    """A line a finding; what to do stands below it."""
    lines: list[str] = []
    group = ""
    width = max(len(item.name) for item in findings)
    for item in findings:
        if item.group != group:
            group = item.group
            lines += ["", group] if lines else [group]
        start = f"  {MARKS[item.state]:<3} {item.name:<{width}}  "
        lines += wrapped(item.text, start)
        if item.advice:
            lines += wrapped(item.advice, " " * 6)
    return "\n".join([*lines, "", summary])
