"""A reader's guesses: kept once, read back, and calibrated."""

import math

import pytest

from efflab import lab
from efflab.lab import guesses, notebook
from efflab.lab.guesses import calibration, factor, keep, kept


def test_a_guess_is_kept_once_a_question(tmp_path):
    path = tmp_path / "runs" / "predictions.json"
    path.parent.mkdir()
    assert kept(path) == []
    keep("03", "How many?", 2.0, 8.0, path)
    keep("03", "How many?", 8.0, 8.0, path)  # seen it by now
    keep("04", "How many?", 5.0, 4.0, path)
    assert [row["guess"] for row in kept(path)] == [2.0, 5.0]
    assert kept(path)[0] == dict(notebook="03", question="How many?", guess=2.0, measured=8.0)


@pytest.mark.parametrize("text", ["{", "[1]", '[{"notebook": "03"}]', '{"a": 1}'])
def test_a_damaged_file_says_so(tmp_path, text):
    path = tmp_path / "predictions.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"predictions.json is damaged"):
        kept(path)


def test_factors_have_a_sign_to_agree_on():
    assert factor(2.0, 8.0) == 0.25
    assert factor(-8.0, -2.0) == 4
    assert factor(-1.0, 1.0) is factor(0.0, 1.0) is factor(1.0, 0.0) is None


def rows(*pairs):
    return [dict(guess=g, measured=m) for g, m in pairs]


def test_calibration_counts_what_was_close_and_which_way_it_was_off():
    found = calibration(rows((1.0, 1.0), (2.0, 1.0), (1.0, 4.0), (30.0, 10.0)))
    assert found == dict(guesses=4, within_2=0.5, typical=2.5, too_high=2 / 3)
    assert calibration(rows((1.0, 1.0)))["too_high"] is None
    assert calibration(rows((-1.0, 1.0)))["typical"] == math.inf
    with pytest.raises(ValueError, match="rows"):
        calibration([])


def test_revealing_keeps_the_guess_of_a_reader_alone(tmp_path, monkeypatch):
    kept_calls = []
    monkeypatch.setattr(guesses, "keep", lambda *row: kept_calls.append(row))
    monkeypatch.setattr(notebook.current, "name", "03_sparse_attention")
    lab.predict("How many?", guess=2.0).reveal(8.0)
    assert kept_calls == []  # no kernel: nobody's guess
    monkeypatch.setattr(guesses, "in_kernel", lambda: True)
    lab.predict("How many?").reveal(8.0)
    assert kept_calls == []
    lab.predict("How many?", guess=2.0).reveal(8.0)
    assert kept_calls == [("03", "How many?", 2.0, 8.0)]


def test_a_test_is_no_kernel():
    assert not guesses.in_kernel()
