import errno
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer

from defectgen import __version__
from defectgen.errors import DefectgenError, UsageError
from defectgen_cli import app as app_module
from defectgen_cli import output
from defectgen_cli.app import main

HEAVY = ("torch", "transformers", "peft", "polars", "pymatgen", "catboost", "vllm", "tensorflow", "pydantic", "rich")
HELP = """
import resource, sys
from defectgen_cli.app import main
code = main(["--help"])
used = resource.getrusage(resource.RUSAGE_SELF)
heavy = [name for name in sys.argv[1].split(",") if name in sys.modules]
print(code, used.ru_utime + used.ru_stime, ",".join(heavy), file=sys.stderr)
"""


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """The error that the program meets."""
    errors: list[BaseException] = []

    def run(**_: object) -> None:
        raise errors[0]

    monkeypatch.setattr(app_module, "_program", lambda: run)
    return errors


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", HELP, ",".join(HEAVY)], capture_output=True, text=True, check=True)
    code, cpu_s, *heavy = done.stderr.split()
    assert (code, heavy) == ("0", [])
    assert float(cpu_s) < 0.5
    assert "fetch" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_caller_that_closed_the_streams_and_a_terminal_without_a_size(tmp_path: Path) -> None:
    words = ["design", "--host", "MoS2", "--homo", "0.1", "--max-defects", "1", "-n", "1", "-o"]
    shell = [sys.executable, "-c", "import sys; from defectgen_cli.app import main; sys.exit(main(sys.argv[1:]))"]
    closed = f"{shlex.join([*shell, *words, str(tmp_path / 'closed')])} >&- 2>&-"
    assert subprocess.run(["bash", "-c", closed], check=False).returncode == 0
    assert (tmp_path / "closed" / "report.html").is_file()
    sized = {**os.environ, "COLUMNS": "0"}
    done = subprocess.run(
        [*shell, *words, str(tmp_path / "sized")], capture_output=True, text=True, check=True, env=sized
    )
    assert "v_S       0.059  1.204  1.145   2.646" in done.stdout


def listed(command: Any) -> dict[str, Any]:
    """The commands of a group; nothing for a command. Typer brings click's classes or copies of them."""
    found: dict[str, Any] = getattr(command, "commands", {})
    return found


def commands(group: Any, *before: str) -> list[tuple[str, ...]]:
    """Every command of the program, groups and their commands too, as the words that call it."""
    return [before, *(words for name, command in listed(group).items() for words in commands(command, *before, name))]


PROGRAM = typer.main.get_group(app_module.app)


@pytest.mark.parametrize("words", commands(PROGRAM), ids=" ".join)
def test_help_fits_80_columns_and_cuts_no_name(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert not re.search(r"<\w[^>]*>", out), "values have names, not the types of a programming language"
    command = PROGRAM
    for word in words:
        command = listed(command)[word]
    for name in listed(command):
        assert re.search(rf"^  {name}  .*[^.]\.$", out, re.MULTILINE), f"the summary of {name} is not whole"
    options = [option for item in command.params for option in item.opts if option.startswith("-")]
    for option in options:
        assert re.search(rf"{option}\b", out)


def test_every_group_is_looked_into() -> None:
    found = commands(PROGRAM)
    assert {(), ("surrogate", "train"), ("campaign", "propose"), ("evaluate", "bulk")} <= set(found)
    assert len(found) > 35


def test_completion_names_commands_and_options() -> None:
    def completed(words: str, place: int) -> list[str]:
        asked = {"_DEFECTGEN_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(place)}
        call = [sys.executable, "-m", "defectgen_cli.app"]
        return subprocess.run(
            call, env={**os.environ, **asked}, capture_output=True, text=True, check=True
        ).stdout.splitlines()

    assert completed("defectgen ho", 1) == ["hosts"]
    assert completed("defectgen surrogate tr", 2) == ["train"]
    assert completed("defectgen hosts --su", 2) == ["--supercell"]


def test_version_is_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"defectgen {__version__}\n"


@pytest.mark.parametrize(("kind", "code"), [(DefectgenError, 1), (UsageError, 2)])
def test_an_error_of_the_user_is_one_line(
    kind: type[DefectgenError], code: int, failing: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    failing.append(kind("got 1, expected 2.", "Give 2."))
    assert main(["fetch"]) == code
    assert capsys.readouterr() == ("", "error: got 1, expected 2. Give 2.\n")


LONG = "a" * 300


@pytest.mark.parametrize(
    "call",
    [
        ["inputs", "cells", "-o", LONG],
        ["design", "--host", "MoS2", "--homo", "0.1", "-o", LONG],
        ["template", "crystals", "-o", LONG],
        ["compute", LONG],
        ["results", LONG],
        ["hosts", LONG],
    ],
    ids=lambda call: call[0],
)
def test_a_name_that_is_too_long_is_a_wrong_call(call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(call) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "File name too long" in err


def test_another_error_of_the_system_is_a_failure(
    failing: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    failing.append(PermissionError(errno.EACCES, "Permission denied", "cells"))
    assert main(["fetch"]) == 1
    assert capsys.readouterr().err == "error: cells: Permission denied.\n"


def test_sigterm_ends_a_command_as_ctrl_c_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_back = []

    def work(**_: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            put_back.append(1)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(app_module, "_program", lambda: work)
    assert main(["fetch"]) == 130
    assert put_back == [1]
    assert capsys.readouterr() == ("", "interrupted\n")
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_unexpected_error_is_one_line_and_debug_shows_more(
    failing: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    failing.append(RuntimeError("broken\nin two lines"))
    assert main(["fetch"]) == 1
    line = "error: RuntimeError: broken in two lines"
    assert capsys.readouterr().err == f"{line} (run again with --debug for the traceback)\n"
    assert main(["fetch", "--debug"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith(f"{line}\n")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(130)])
def test_an_interrupt_is_one_line(
    error: BaseException, failing: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    failing.append(error)
    assert main(["fetch"]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_a_result_is_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    result = {"n": np.int64(2), "gap_ev": float("nan"), "levels": np.array([0.5]), "ok": True, "path": output.__file__}
    output.emit(result, as_json=True, text="for people")
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"n": 2, "gap_ev": None, "levels": [0.5], "ok": True, "path": output.__file__}
    output.emit(result, as_json=False, text="for people")
    assert capsys.readouterr().out == "for people\n"


def test_progress_without_a_terminal_is_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "PLAIN_INTERVAL_S", 0.0)
    with output.progress("scoring", 3, "structures") as advance:
        advance(1)
        advance(2)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "scoring: 1 of 3 structures",
        "scoring: 3 of 3 structures",
        "scoring: 3 of 3 structures",
    ]
    assert lines[1].endswith(", 0 s left")
    assert lines[-1] == "scoring: 3 of 3 structures", "no rate is known in the first second"


def test_progress_that_has_hardly_begun_foretells_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "PLAIN_INTERVAL_S", 0.0)
    lines = output._Lines("drawing", 200, "crystals")
    for n in (0, 1, 199):
        lines.advance(n)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "drawing: 0 of 200 crystals"
    assert [line.endswith(" left") for line in said] == [False, False, True]


def test_the_clock_begins_after_what_is_prepared(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: now[0])
    with output.progress("computing", 8, "structures") as advance:
        for seconds, n in ((60.0, 0), (12.0, 1), (12.0, 1)):
            now[0] += seconds
            advance(n)
    assert capsys.readouterr().err.splitlines()[-1] == "computing: 2 of 8 structures, 12 s each"
    with output.progress("learning", None, "properties") as advance:
        advance(1)
    assert capsys.readouterr().err == "learning: 1 property\n"


@pytest.mark.parametrize(
    ("done", "seconds", "text"),
    [
        (0, 50.0, ""),
        (40, 0.5, ""),
        (12356, 20.6, "600 structures/s"),
        (3, 2.0, "1.5 structures/s"),
        (1, 12.0, ""),
        (2, 2400.0, "20 min each"),
    ],
)
def test_a_rate_is_for_people(done: int, seconds: float, text: str) -> None:
    assert output.rate_text(done, seconds, "structures") == text


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (119, "119 s"), (2411, "40 min"), (76424, "21.2 h")])
def test_times_to_wait_are_for_people(seconds: float, text: str) -> None:
    assert output.span(seconds) == text


@pytest.mark.parametrize(("n", "text"), [(0, "0 B"), (999, "999 B"), (92871040, "92.9 MB"), (5 * 10**12, "5000.0 GB")])
def test_sizes_are_for_people(n: int, text: str) -> None:
    assert output.size_text(n) == text


def test_a_bar_without_a_total_counts_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for total, shown in ((None, "5,933 structures"), (6000, "5933/6000")):
        monkeypatch.setattr("sys.stderr", terminal := Terminal())
        with output.progress("looking", total, "structures") as advance:
            advance(5933)
        assert shown in terminal.getvalue()
        assert "/?" not in terminal.getvalue()


def test_an_interrupt_while_commands_are_imported_is_one() -> None:
    """As Ctrl-C in the first moments: no traceback, and the exit code of every other interrupt."""
    code = (
        "import sys\n"
        "class Pressed:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Pressed())\n"
        "from defectgen_cli.start import main\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
