"""One way into every JSON file: what Python's own reader lets through is refused, and named."""

import ast
import json

import pytest
from code_files import code_files

from efflab.base.json_files import DEEPEST, MAX_BYTES, parse_json, read_json


def nested(depth):
    return "[" * depth + "]" * depth


REFUSED = {
    '{"a": NaN}': "number='NaN': expected a finite number",
    '{"a": -Infinity}': "number='-Infinity': expected a finite number",
    '{"a": 1e400}': "number='1e400': expected a finite number",
    '{"a": 1' + "0" * 400 + "}": "number='1000.*expected one that a float can hold",
    '{"a": 1' + "0" * 9000 + "}": "number='1000.*expected one that a float can hold",
    '{"a": 1, "b": 2, "a": 3}': "key='a': expected no key twice",
    '{"b": {"a": 1, "a": 1}}': "key='a': expected no key twice",
    f'{{"a": {nested(DEEPEST + 1)}}}': f"depth={DEEPEST + 1}: expected at most {DEEPEST}",
    f'{{"a": {nested(100_000)}}}': "content=.*: expected a depth of at most 40",
    "": "content=.*: expected JSON in UTF-8",
    "{": "content=.*: expected JSON in UTF-8",
    "{'a': 1}": "content=.*: expected JSON in UTF-8",
    "\ufeff{}": "content=.*: expected JSON in UTF-8",
    '{"a": ' + "-" * 5000 + "1}": "content=.*: expected JSON in UTF-8",
    b"\xff\xfe{}": "content=.*: expected JSON in UTF-8",
    "null": "content=None: expected an object",
    "[]": r"content=\[\]: expected an object",
}


@pytest.mark.parametrize("content", REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_strict_json_is_refused_and_the_file_named(content, tmp_path):
    with pytest.raises(ValueError, match=f"^{REFUSED[content]}") as refusal:
        parse_json(content)
    assert len(str(refusal.value)) < 250
    path = tmp_path / "some.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    match = f"^some.json is damaged .*{REFUSED[content]}.*; make it anew$"
    with pytest.raises(ValueError, match=match):
        read_json(path, remedy="make it anew")


@pytest.mark.parametrize("value", [{}, {"a": [1, -2.5e-7, None, True, "é", {"b": []}]}])
def test_what_was_written_is_read(value, tmp_path):
    path = tmp_path / "some.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    assert read_json(path) == parse_json(path.read_bytes()) == value
    assert parse_json(json.dumps([value]), list) == [value]
    deepest = nested(DEEPEST + 1)
    assert json.dumps(parse_json(deepest, list)) == deepest


def test_what_a_check_refuses_is_the_files_fault(tmp_path):
    def check(value):
        raise TypeError("steps=None: expected an int")

    path = tmp_path / "some.json"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"some.json is damaged .steps=None: expected an int.; rest"
    ):
        read_json(path, check=check)
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ValueError, match=f"bytes={MAX_BYTES + 1}: expected at most"):
        read_json(path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


# --- One reader ------------------------------------------------------------------------------

OWN = {
    "base/json_files.py": "this is the reader",
    "lab/figures.py": "a cache's key, written two lines above",
}


def readers(path):
    """The lines on which a file reads JSON by itself."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        attribute = isinstance(node, ast.Attribute) and ast.unparse(node.value) == "json"
        if (attribute and node.attr in ("load", "loads", "JSONDecoder")) or (
            isinstance(node, ast.ImportFrom) and node.module == "json"
        ):
            yield node.lineno


def test_nothing_else_in_the_package_reads_json():
    found = {name for name, path in code_files().items() if any(readers(path))}
    assert found == set(OWN)
