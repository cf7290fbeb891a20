"""Groups of options: what the command line shows, and what the command is called with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from defectgen_cli.option_groups import expand_groups


@dataclass(frozen=True)
class Draw:
    model: Annotated[str, typer.Option("--model", help="What draws.")]
    warmth: Annotated[float, typer.Option(min=0.0, help="How freely.")] = 0.5
    kinds: Annotated[list[str] | None, typer.Option("--kind")] = None


HOT = Draw("none", warmth=0.8)


def run(command: Any, *words: str) -> Any:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(words))


def test_a_group_arrives_whole_and_its_fields_are_options() -> None:
    seen: list[object] = []

    @expand_groups
    def make(name: Annotated[str, typer.Argument()], draw: Draw, n: Annotated[int, typer.Option("-n")] = 3) -> None:
        """Make something."""
        seen.append((name, draw, n))

    shown = run(make, "--help").output
    for text in ("--model", "--warmth", "--kind", "What draws.", "Make something.", "{name}"):
        assert text in shown
    done = run(make, "first", "--model", "m", "--kind", "a", "--kind", "b", "-n", "7")
    assert done.exit_code == 0, done.output
    assert seen == [("first", Draw("m", 0.5, ["a", "b"]), 7)]


def test_a_required_field_stays_required_and_limits_hold() -> None:
    @expand_groups
    def make(draw: Draw) -> None: ...

    assert run(make).exit_code == 2
    assert run(make, "--model", "m", "--warmth", "-1").exit_code == 2
    assert run(make, "--model", "m").exit_code == 0


def test_a_command_may_have_defaults_of_its_own() -> None:
    seen: list[Draw] = []

    @expand_groups
    def make(draw: Draw = HOT) -> None:
        seen.append(draw)

    assert run(make).exit_code == 0
    assert run(make, "--warmth", "0.1").exit_code == 0
    assert seen == [Draw("none", 0.8), Draw("none", 0.1)]


def test_two_options_of_one_name_are_refused() -> None:
    def make(draw: Draw, warmth: Annotated[float, typer.Option()] = 1.0) -> None: ...

    with pytest.raises(TypeError, match="'warmth' occurs twice"):
        expand_groups(make)
