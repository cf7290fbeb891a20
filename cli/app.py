"""The program `defectgen`: its commands, and what an error looks like."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from defectgen import __version__
from defectgen.errors import DefectgenError, UsageError
from defectgen_cli import calls, campaign, data_commands, evaluate, surrogate
from defectgen_cli.build_data import build_data
from defectgen_cli.compute import compute
from defectgen_cli.design import design
from defectgen_cli.doctor import doctor
from defectgen_cli.enumerate import enumerate_
from defectgen_cli.evaluate_bulk import bulk
from defectgen_cli.evaluate_ipt import ipt
from defectgen_cli.export import export
from defectgen_cli.feedback import feedback
from defectgen_cli.fetch import fetch
from defectgen_cli.finetune import finetune
from defectgen_cli.generate import generate
from defectgen_cli.generate_search import search
from defectgen_cli.generate_sweep import sweep
from defectgen_cli.hosts import hosts
from defectgen_cli.init import init
from defectgen_cli.inputs import inputs
from defectgen_cli.options import DebugOption
from defectgen_cli.output import EXIT_INTERRUPTED, say
from defectgen_cli.results import results
from defectgen_cli.score import score
from defectgen_cli.shrink import shrink
from defectgen_cli.slices import slices
from defectgen_cli.stability import stability, template

app = typer.Typer(
    name="defectgen",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)

# One line a command, in the order of the help. A command's module imports typer and its own
# options only; whatever is heavy is imported inside the function.
app.command("design")(design)
app.command("enumerate")(enumerate_)
app.command("hosts")(hosts)
app.command("doctor")(doctor)
app.command("fetch")(fetch)
app.command("build-data")(build_data)
app.command("init")(init)
app.command("finetune")(finetune)
app.command("feedback")(feedback)
app.command("generate")(generate)
app.command("search")(search)
app.command("sweep")(sweep)
app.command("score")(score)
app.command("inputs")(inputs)
app.command("compute")(compute)
app.command("results")(results)
app.command("export")(export)
app.command("shrink")(shrink)
app.command("slices")(slices)
app.command("stability")(stability)
app.command("template")(template)
app.add_typer(campaign.app, name="campaign")
app.add_typer(data_commands.app, name="data")
evaluate.app.command("bulk")(bulk)
evaluate.app.command("ipt")(ipt)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(surrogate.app, name="surrogate")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"defectgen {__version__}")
        raise typer.Exit


@app.callback()
def defectgen(
    debug: DebugOption = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Defect structures of 2D materials: wanted levels in, DFT-ready cells out."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: the words after the program's name; those of the process by default.

    Returns:
        The exit code: 0 done, 1 failure, 2 wrong call, 3 less than was asked for, 130 interrupted.
    """
    for name in ("stdout", "stderr"):  # None where the caller has closed it: nothing is said then
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - until the process ends
    given = list(sys.argv[1:] if arguments is None else arguments)
    words = [word for word in given if word != "--debug"]
    debug = len(words) < len(given)
    if not debug:  # deprecations inside libraries are no news to a user
        warnings.simplefilter("ignore")
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # kernels that it would like to have
    try:
        with _terminable():
            done = _program()(args=words, prog_name="defectgen", standalone_mode=False)
        code = done if isinstance(done, int) else 0  # typer hands on the code of its Exit
    except SystemExit as stop:  # how completion ends
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except calls.WrongCall as error:
        if calls.shows_help(error):
            error.show()  # type: ignore[attr-defined]
        else:
            say(f"error: {calls.one_line(error, _program(), words)}")
        return UsageError.exit_code
    except Exception as error:
        if isinstance(error, typer.Abort) and isinstance(error.__cause__, Exception):
            error = error.__cause__  # typer takes the end of a damaged archive for that of the keyboard's input
        if debug:
            traceback.print_exc()
        if isinstance(error, OSError) and error.strerror is not None:
            say(f"error: {'' if error.filename is None else f'{error.filename}: '}{error.strerror}.")
            return 2 if error.errno == errno.ENAMETOOLONG else 1  # no such file can be: a wrong call
        if isinstance(error, DefectgenError):
            say(f"error: {error}")
            return error.exit_code
        advice = "" if debug else " (run again with --debug for the traceback)"
        say(f"error: {type(error).__name__}: {' '.join(str(error).split())}{advice}")
        return 1
    if code == EXIT_INTERRUPTED:
        say("interrupted")
    return code


@cache
def _program() -> Callable[..., object]:
    """All commands with their options: made once, since that takes longer than a short command."""
    program = typer.main.get_command(app)
    calls.refuse_repeats(program)
    calls.name_values(program)
    return program


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, sent by a queue or a closing machine, ends a command as Ctrl-C does; a second one ends it at once."""
    own = os.getpid()

    def interrupt(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != own:  # a child that inherited this
            os.kill(os.getpid(), number)
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
