import gzip
import json
import sys
from pathlib import Path

import pytest
import typer

from defectgen_cli import app as app_module
from defectgen_cli import calls
from defectgen_cli.app import main

WRONG = (
    ("bogus", "no such command 'bogus'. See defectgen --help."),
    ("finetun --seed 2", "no such command 'finetun'. Did you mean 'finetune'?"),
    ("campaign nw", "no such command 'nw'. Did you mean 'new'?"),
    ("--bogus", "defectgen has no option --bogus. Options of a command stand after its name."),
    ("fetch --bogus", "defectgen fetch has no option --bogus. See defectgen fetch --help."),
    ("design --hots MoS2", "defectgen design has no option --hots. Did you mean --host?"),
    ("campaign new x --supercel 3x3", "defectgen campaign new has no option --supercel. Did you mean --supercell?"),
    ("design --host MoS2 -n", "-n got no value, expected: candidates to return for each target. See defectgen design "),
    ("design --host --homo 0.1", "--host got no value: the option --homo follows. See defectgen design --help."),
    ("hosts --json=3", "--json takes no value. Leave out '=' and what follows."),
    ("design -n many", "got -n 'many', expected a whole number. See defectgen design --help."),
    ("design -n 0", "got -n '0', expected a number of at least 1. See"),
    ("design --least-distance near", "got --least-distance 'near', expected a number. See"),
    ("enumerate --concentration 2", "got --concentration '2', expected a number of at most 1. See"),
    ("results", "defectgen results got no DIRS, expected: folders of calculations, or files of results. See "),
    (
        "score",
        "defectgen score got no FILES, expected: CIF, POSCAR or extended XYZ files, folders of them, or a table of ",
    ),
    ("inputs cells", "defectgen inputs got no -o DIR, expected: new folder for the inputs. See defectgen inputs "),
    ("fetch 2dmd more", "got 'more', which defectgen fetch does not take. See defectgen fetch --help."),
    ("design --homo 0.2 --homo 0.3", "got --homo twice (0.2 and 0.3), expected one value. Leave out all but one."),
    ("design -n 2 --n 3", "got -n twice (2 and 3), expected one value."),
    (
        "hosts --supercell 2x2 --supercell 3x3 --supercell 4x4",
        "got --supercell 3 times (2x2 and 3x3 and 4x4), ",
    ),
    ("design --only v_S --only v_Mo", "got --only twice (v_S and v_Mo), expected one value. Join them with a comma."),
    ("design --all --diversity", "got --diversity and --all, expected one of them. Leave one out."),
)


@pytest.mark.parametrize(("call", "said"), WRONG, ids=[call for call, _ in WRONG])
@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_a_wrong_call_is_one_line(
    call: str, said: str, terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: terminal)
    assert main(call.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1
    assert err.isascii(), "no boxes"


def test_what_came_stays_on_one_line_and_short(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["fetch", "2dmd", "a\nb"], ["design", "-n", "1\n2"], ["design", "-n", "9" * 500 + "x"], ["a\nb"]):
        assert main(words) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert len(err) < 200


def test_a_group_without_a_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["campaign"]):
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert "Commands:" in out + err
        assert "error:" not in out + err


def options(command: typer.core.TyperCommand) -> list[typer.core.TyperOption]:
    """Every option of a command and of those below it."""
    own = [param for param in command.params if param.param_type_name == "option"]
    return own + [option for below in getattr(command, "commands", {}).values() for option in options(below)]


def test_every_option_of_one_value_refuses_a_second() -> None:
    """By what each would do with two values, in all commands."""
    calls.refuse_repeats(program := typer.main.get_command(app_module.app))
    one = [option for option in options(program) if not option.is_flag and not option.multiple]
    assert len(one) > 200
    assert {type(option).__name__ for option in one} == {"_OneValue"}
    several = {option.opts[0] for option in options(program) if option.multiple}
    assert {"--set", "--allow"} <= several


def test_options_that_may_be_repeated_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    call = ["enumerate", "--host", "MoS2", "--max-defects", "1", "--count", "--json"]
    assert main([*call, "--allow", "Mo:W", "--allow", "S:VAC", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted(found) == ["W_Mo", "v_S"]


def test_a_value_of_the_environment_beside_one_of_the_call_is_not_twice(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEFECTGEN_2DMD", str(tmp_path / "from-environment"))
    assert main(["data", "summary"]) == 2
    assert "from-environment" in capsys.readouterr().err
    assert main(["data", "summary", "--data", str(tmp_path / "given")]) == 2
    assert f"{tmp_path / 'given'} is not a folder" in capsys.readouterr().err


def test_the_end_of_a_damaged_archive_is_told_as_that(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Typer takes an EOFError for the end of what a person types, and says "Aborted!"."""
    part = gzip.compress(bytes(range(256)) * 9)[:-12]
    group = typer.Typer()

    @group.command()
    def read() -> None:
        gzip.decompress(part)

    monkeypatch.setattr("defectgen_cli.app._program", lambda: typer.main.get_command(group))
    assert main([]) == 1
    assert capsys.readouterr().err.lstrip("\n").startswith("error: EOFError: Compressed file ended before")
