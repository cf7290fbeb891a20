"""Documents that may come from anywhere: what is read, and the one line that says why something is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from defectgen.io.documents import DEPTH, DocumentError, json_lines, parse_json, read_json, read_object, require_object
from defectgen.io.yaml_documents import parse_yaml, read_yaml
from defectgen.one_line import printable, shown

BOMB = "\n".join(
    [f"a0: &a0 [{','.join('1' * 10)}]", *(f"a{k}: &a{k} [{','.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 9))]
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"r": 1e309}', "got 1e309, expected finite numbers"),
        ('{"r": NaN}', "got NaN"),
        ('{"r": -Infinity}', "got -Infinity"),
        ('{"a": 1, "b": {"a": 1, "a": 2}}', "the key 'a' occurs twice"),
        ("[" * 100_000, "nested deeper"),
        ("[" * (DEPTH + 1) + "]" * (DEPTH + 1), "nested deeper"),
        ('{"a": ' + "9" * 5000 + "}", "whole number of 5000 digits"),
        ('{"a": 1', "cannot be read as JSON"),
        ("", "cannot be read as JSON"),
    ],
)
def test_json_that_breaks_a_rule_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(DocumentError, match=reason) as error:
        parse_json(text, "card.json")
    assert str(error.value).startswith("card.json: ")
    assert "\n" not in str(error.value)


def test_json_within_the_rules_is_what_the_parser_gives() -> None:
    text = json.dumps({"a": [1, 2.5, None, True, "ä\n"], "b": {"c": -1e300}})
    assert parse_json(text, "x") == json.loads(text)
    assert len(parse_json("[" * DEPTH + "]" * DEPTH, "x")) == 1
    assert parse_json("[NaN]", "x", finite=False)[0] != 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: .inf", "got inf, expected finite numbers"),
        ("a: {b: [.nan]}", "got nan"),
        ("a: 1\nb: 2\na: 3", r"the key 'a' occurs twice \(line 3\)"),
        ("a: " + "[" * 3000, "nested deeper"),
        ("a: &x [*x]", "nested deeper"),
        (BOMB, "aliases written out"),
        ("a: !!python/object/apply:os.system [ls]", "cannot be read as YAML"),
        ("a: 2001-99-99", "cannot be read as YAML"),
        ("a: !!binary x", "cannot be read as YAML"),
        ("a: 0x" + "f" * 5000, "more than 40 digits"),
        ("? [1]\n: 2", "cannot be read as YAML"),
        ("{a: {1: 2}}", "the key 1, expected a text"),
        ("a: \x07", "cannot be read as YAML"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_yaml_that_breaks_a_rule_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(DocumentError, match=reason) as error:
        parse_yaml(text, "run.yaml")
    assert str(error.value).startswith("run.yaml: ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_yaml_within_the_rules_is_read_with_anchors_and_merges() -> None:
    assert parse_yaml("base: &b {x: 1}\nmore: {<<: *b, y: 2.5}", "x") == {"base": {"x": 1}, "more": {"x": 1, "y": 2.5}}
    assert parse_yaml("", "x") is None


def test_a_file_that_is_not_utf8_or_too_large_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b'{"a": "caf\xe9"}')
    with pytest.raises(DocumentError, match=r"a\.json: byte 11 is 0xe9, which is not UTF-8"):
        read_json(file)
    file.write_text("[1, 2, 3]")
    with pytest.raises(DocumentError, match="larger than 5 bytes"):
        read_json(file, 5)
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(file) == {"a": 1}
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


@pytest.mark.parametrize("value", ["[]", "1", "null", '"text"'])
def test_another_value_than_an_object_is_refused(value: str, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(value)
    with pytest.raises(DocumentError, match="expected keys with values"):
        read_object(tmp_path / "m.json")


def test_keys_are_required_with_their_types() -> None:
    good = {"n": 1, "x": 0.5, "name": "a"}
    assert require_object(good, "m", {"n": int, "x": (int, float), "name": str}) is good
    for key, value, reason in [("n", True, "expected a whole number"), ("name", [1], "expected a text")]:
        with pytest.raises(DocumentError, match=reason):
            require_object({**good, key: value}, "m", {"n": int, "name": str})
    with pytest.raises(DocumentError, match="the key 'y' is missing"):
        require_object(good, "m", {"y": str})


def test_lines_are_objects_and_a_bad_one_is_named_with_its_number(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"a": 1}\n{"a": 2}\n')
    assert list(json_lines(file)) == [(1, {"a": 1}), (2, {"a": 2})]
    for line in ("[1]", "{", '{"a": NaN}', ""):
        file.write_text(f'{{"a": 1}}\n{line}\n')
        with pytest.raises(DocumentError, match="line 2: "):
            list(json_lines(file))


def test_nothing_that_steers_a_terminal_is_shown() -> None:
    assert printable("a\x1b[31mb\x07\rc\td\n\u202ee\x9b") == "a[31mbc\td\ne"
    assert shown("x" * 100) == "'" + "x" * 56 + "..."
    assert "\x1b" not in shown({"a\x1b": ["\x1b[2J\n"]})
