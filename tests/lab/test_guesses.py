"""A reader's guesses: kept once, read back, and calibrated."""

import errno
import json
import math
import subprocess
import sys

import pytest

from efflab import lab
from efflab.lab import guesses, notebook, text
from efflab.lab.guesses import calibration, keep, read_guesses


@pytest.fixture(autouse=True)
def _nothing_said_yet():
    guesses._say.cache_clear()


def test_a_guess_is_kept_once_a_question(tmp_path):
    path = tmp_path / "runs" / "predictions.json"
    path.parent.mkdir()
    assert read_guesses(path) == []
    keep("03", "How many?", 2.0, 8.0, path)
    keep("03", "How many?", 8.0, 8.0, path)  # seen it by now
    keep("04", "How many?", 5.0, 4.0, path)
    assert [row["guess"] for row in read_guesses(path)] == [2.0, 5.0]
    assert read_guesses(path)[0] == dict(
        notebook="03", question="How many?", guess=2.0, measured=8.0
    )


ROW = dict(notebook="03", question="How many?", guess=2.0, measured=8.0)
GOOD = json.dumps([ROW]).encode()
DAMAGED = [
    b"",
    b"{",
    b"null",
    b"3",
    b"[1]",
    b"[null]",
    b'{"a": 1}',
    b'[{"notebook": "03"}]',
    b"\xff\xfe",
    b"[" * 100_000,
    GOOD.replace(b"2.0", b"NaN"),
    GOOD.replace(b"2.0", b"1e999"),
    GOOD.replace(b"2.0", b"true"),
    GOOD.replace(b"2.0", b"null"),
    GOOD.replace(b'"03"', b"3"),
    GOOD.replace(b"2.0", b"1" + b"0" * 400),
    GOOD[:-5],
    GOOD[1:-1],
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_counts_as_none_and_is_put_aside(tmp_path, content, capsys):
    path = tmp_path / "predictions.json"
    path.write_bytes(content)
    assert read_guesses(path) == read_guesses(path) == []
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "predictions.json cannot be read" in said
    keep(**ROW, path=path)
    keep(**ROW | dict(notebook="04"), path=path)
    assert capsys.readouterr().out.count("\n") == 1
    assert [row["notebook"] for row in read_guesses(path)] == ["03", "04"]
    assert (tmp_path / "predictions.damaged.json").read_bytes() == content


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_guess_that_cannot_be_kept_stops_no_cell(shown, monkeypatch, capsys, code, language):
    def fail(path, change):
        raise OSError(code, "no room")

    lab.use_language(language)
    monkeypatch.setattr(guesses, "update", fail)
    monkeypatch.setattr(notebook, "shell", object)
    for _ in range(2):
        lab.predict("多少？", guess=2.0).reveal(8.0)
    assert len(shown) == 4
    assert capsys.readouterr().out.count("\n") == 1
    assert text.missing == set()


def test_a_folder_that_is_none_stops_no_cell(tmp_path, capsys):
    (tmp_path / "runs").write_text("a file")
    keep(**ROW, path=tmp_path / "runs" / "predictions.json")
    assert "not kept" in capsys.readouterr().out
    assert read_guesses(tmp_path / "runs" / "predictions.json") == []


def test_two_kernels_lose_no_guess(tmp_path):
    path, n = tmp_path / "predictions.json", 30
    code = "import sys; from pathlib import Path; from efflab.lab.guesses import keep\n"
    code += f"for i in range({n}): keep(sys.argv[1], str(i), 1.0, 2.0, Path(sys.argv[2]))"
    writers = [subprocess.Popen([sys.executable, "-c", code, name, path]) for name in ("03", "04")]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    assert len({(row["notebook"], row["question"]) for row in read_guesses(path)}) == 2 * n


def rows(*pairs):
    return [dict(guess=g, measured=m) for g, m in pairs]


def test_calibration_counts_what_was_close_and_which_way_it_was_off():
    found = calibration(rows((1.0, 1.0), (2.0, 1.0), (1.0, 4.0), (30.0, 10.0)))
    assert found == dict(guesses=4, within_2=0.5, typical=2.5, too_high=2 / 3)
    assert calibration(rows((1.0, 1.0)))["too_high"] is None
    assert calibration(rows((0.0, 0.0)))["typical"] == 1
    for pair in ((2.0, 8.0), (-8.0, -2.0)):
        assert calibration(rows(pair))["typical"] == 4
    for pair in ((-1.0, 1.0), (0.0, 1.0), (1.0, 0.0)):  # signs that do not agree
        assert calibration(rows(pair))["typical"] == math.inf
    with pytest.raises(ValueError, match="rows"):
        calibration([])


def test_revealing_keeps_the_guess_of_a_reader_alone(tmp_path, monkeypatch):
    kept_calls = []
    monkeypatch.setattr(guesses, "keep", lambda *row: kept_calls.append(row))
    monkeypatch.setattr(notebook.current, "name", "03_sparse_attention")
    lab.predict("How many?", guess=2.0).reveal(8.0)
    assert kept_calls == []  # no kernel: nobody's guess
    monkeypatch.setattr(notebook, "shell", object)
    lab.predict("How many?").reveal(8.0)
    assert kept_calls == []
    lab.predict("How many?", guess=2.0).reveal(8.0)
    assert kept_calls == [("03", "How many?", 2.0, 8.0)]


def test_a_test_is_no_kernel():
    assert notebook.shell() is None
