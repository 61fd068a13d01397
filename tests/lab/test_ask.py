"""Predictions and exercises: what a reader may answer, and what is said then."""

import numpy as np
import pytest

from efflab import lab
from efflab.lab import check as judge_and_show
from efflab.lab import page, text
from efflab.lab.check import judge, same
from efflab.lab.predict import comparison

# --- predict


def test_the_reveal_compares_in_both_languages():
    assert comparison(2, 24, "x") == "You said 2x, it is 24x: 12 times your number."
    assert comparison(24, 2, "x") == "You said 24x, it is 2x: your number is 12 times too high."
    assert comparison(23, 24, "x") == "You said 23x, it is 24x: well predicted."
    assert comparison(0, 24, "x") == "You said 0x, it is 24x."
    assert comparison(None, 24, "x").startswith("It is 24x.")
    lab.use_language("zh")
    assert comparison(2, 24, "x") == "你预测 2 倍，实际是 24 倍：是你所估的 12 倍。"
    assert text.missing == set()


def said(prediction):
    """What the line beside the field says."""
    return prediction.widget.answer.value


def test_a_prediction_says_what_it_understood_and_takes_one_correction(shown):
    prediction = lab.predict("How many times slower?", unit="x")
    assert page.WIDGET in shown[0]
    entry, onward = prediction.widget.entry, prediction.widget.onward
    entry.value = "lots"
    assert prediction.guess is None
    assert "not a number" in said(prediction)
    entry.value = "4"
    assert (prediction.guess, entry.disabled) == (4.0, False)
    assert said(prediction).startswith("Understood: 4x.")
    assert "once" in said(prediction)
    entry.value = "4.0"  # the same is no correction
    assert not entry.disabled
    entry.value = "4k"
    assert (prediction.guess, entry.disabled) == (4000.0, True)
    assert said(prediction) == "Understood: 4,000x. Now measure."
    assert onward.taken == 3
    prediction.commit(24)
    assert prediction.guess == 4000.0


def test_the_answer_ends_the_guessing(shown):
    prediction = lab.predict("How many times slower?", unit="x")
    prediction.widget.entry.value = "2x"
    prediction.reveal(24.0)
    assert shown[1]["text/plain"] == "You said 2x, it is 24x: 12 times your number."
    assert prediction.widget.entry.disabled
    prediction.commit(24)
    assert prediction.guess == 2.0


def test_whoever_has_not_guessed_may_do_so_after_the_answer(shown):
    prediction = lab.predict("How many times slower?", unit="x")
    prediction.reveal(24.0)
    prediction.widget.entry.value = "20"
    assert prediction.guess == 20.0


def test_the_field_speaks_chinese(shown):
    lab.use_language("zh")
    prediction = lab.predict("多少个？", unit="tokens")
    prediction.widget.entry.value = "3 只"
    assert "读不成一个数" in said(prediction)
    prediction.widget.entry.value = "0.4 万"
    assert said(prediction).startswith("读作 4,000 个 token。")
    assert text.missing == set()


def test_a_prediction_needs_no_front_end(shown, monkeypatch):
    monkeypatch.setitem(page._build, "widgets", False)
    lab.predict("How many?").reveal(3)
    assert page.WIDGET not in shown[0]
    assert shown[1]["text/plain"].startswith("It is 3.")
    with pytest.raises(ValueError, match="measured"):
        lab.predict("How many?").reveal(float("nan"))


# --- check


def half_of(answer):
    for n in (2, 10):
        yield f"half({n})", n / 2, answer(n)


EXERCISES = {
    "03-1": lab.Exercise(half_of, hint="Hint: {hint}"),
    "03-2": lab.Exercise(np.arange(6.0)),
}


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (..., "not attempted"), (lambda n: None, "not attempted"), (lambda n: n // 2, "correct"),
        (lambda n: 1, "not quite"), (lambda: 1, "not quite"), (3, "not quite"),
    ],
)  # fmt: skip
def test_an_answer_is_judged(answer, status):
    assert judge(EXERCISES["03-1"], answer)[0] == status


def test_the_first_mismatch_and_the_hint_are_shown(shown):
    lab.check("03-1", lambda n: 1, exercises=EXERCISES)
    assert shown[0]["text/plain"].splitlines()[:4] == [
        "✗ Exercise 03-1: not quite", "  half(10)", "  expected: 5", "  yours: 1",
    ]  # fmt: skip
    lab.check("03-1", lambda n: n / 0, exercises=EXERCISES)
    assert "ZeroDivisionError" in shown[1]["text/plain"]
    lab.use_language("zh")
    lab.check("03-1", lambda n: n / 2, exercises=EXERCISES)
    assert shown[2]["text/plain"] == "✓ 练习 03-1：正确"


def test_a_wrong_array_is_drawn(shown):
    lab.check("03-2", np.arange(6) + 1, exercises=EXERCISES)
    assert shown[1][page.PLOTLY]["data"][1]["y"] == [1, 2, 3, 4, 5, 6]


def test_strict_mode_raises_unless_correct(shown):
    judge_and_show.strict(True)
    lab.check("03-2", np.arange(6), exercises=EXERCISES)
    for wrong in (..., np.arange(5)):
        with pytest.raises(AssertionError, match="03-2"):
            lab.check("03-2", wrong, exercises=EXERCISES)


def test_an_unknown_exercise_is_refused():
    with pytest.raises(ValueError, match=r"name='03-9'.*'03-1'"):
        lab.check("03-9", 1, exercises=EXERCISES)


def test_sameness_is_relative_and_minds_shapes():
    import torch

    assert same(1.0, 1.0005)
    assert same(torch.ones(3), [1, 1, 1])
    assert same([True, False], np.array([True, False]))
    assert same("a", "a")
    assert same([1e6, 0.0], [1e6, 1e-3])
    assert not same(1.0, 1.01)
    assert not same([1, 1], [1, 1, 1])
    assert not same("a", "b")
    assert not same(1, "b")
    assert not same([1.0, 0.0], [1.0, 0.1])
