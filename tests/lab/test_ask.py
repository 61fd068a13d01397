"""Predictions and exercises: what a reader may answer, and what is said then."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from efflab import lab
from efflab.lab import check as judge_and_show
from efflab.lab import page, text
from efflab.lab.check import brief, direction, judge, same
from efflab.lab.predict import comparison


@pytest.fixture(params=["en", "zh"])
def language(request):
    lab.use_language(request.param)
    return request.param


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
    assert prediction.widget.entry.description == "token"
    prediction.widget.entry.value = "3 只"
    assert "读不成一个数" in said(prediction)
    assert "“token”" in said(prediction)
    prediction.widget.entry.value = "0.4 万"
    assert said(prediction).startswith("读作 4,000 个 token。")
    assert text.missing == set()


def test_a_prediction_needs_no_front_end(shown, monkeypatch):
    monkeypatch.setitem(page._build, "widgets", False)
    lab.predict("How many?").reveal(3)
    assert page.WIDGET not in shown[0]
    with pytest.raises(ValueError, match="measured"):
        lab.predict("How many?").reveal(float("nan"))


def test_what_is_stored_folds_the_answer_away(shown, monkeypatch, language):
    monkeypatch.setitem(page._build, "widgets", False)
    lab.predict("How many?" if language == "en" else "多少？", "tokens").reveal(4608)
    html, plain = shown[1]["text/html"], shown[1]["text/plain"]
    summary, rest = html.split("</summary>")
    assert summary.startswith("<details style=")
    assert "4,608" in rest
    assert "4,608" not in summary + plain
    assert text.missing == set()


def test_live_only_who_has_guessed_sees_the_answer_at_once(shown):
    lab.predict("How many?").reveal(3)
    assert shown[1]["text/html"].startswith("<details")
    assert shown[1]["text/plain"] == "It is 3."  # where nothing can be folded
    lab.predict("How many?", guess=2).reveal(3)
    assert "<details" not in shown[3]["text/html"]


def test_a_figure_does_not_say_what_is_asked(shown):
    lab.use_notebook("03_toy", {}, {})
    figure = lab.blank("Share", meta={"crossing": 4608, "share": 0.1})
    prediction = lab.predict("Where do they cross?", secret="crossing")
    assert page.figure_text(figure) == "[Share]\n  share: 0.1"
    prediction.reveal(4608)
    assert "crossing: 4,608" in page.figure_text(figure)
    lab.predict("Where do they cross?", secret="crossing")
    lab.use_notebook("03_toy", {}, {})  # the next run begins anew
    assert "crossing: 4,608" in page.figure_text(figure)


# --- check


def half_of(answer):
    for n in (2, 10):
        yield f"half({n})", n / 2, answer(n)


EXERCISES = {
    "03-1": lab.Exercise(half_of, hint="Hint: {hint}"),
    "03-2": lab.Exercise(np.arange(6.0)),
}


@pytest.fixture
def toy_exercises(monkeypatch):
    """A notebook with these exercises."""
    monkeypatch.setattr(lab.notebook.current, "exercises", EXERCISES)
    lab.notebook.current.tries.clear()


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (..., "not attempted"),
        (lambda n: None, "not attempted"),
        (lambda n: n // 2, "correct"),
        (lambda n: 1, "not quite"),
        (lambda: 1, "not quite"),
        (3, "not quite"),
    ],
)
def test_an_answer_is_judged(answer, status):
    assert judge(EXERCISES["03-1"], answer)[0] == status


def said_of(shown, name, answer):
    """The lines about one more answer, their title apart."""
    shown.clear()
    lab.check(name, answer)
    return [line.strip() for line in shown[0]["text/plain"].splitlines()[1:]]


def test_help_comes_in_steps(shown, toy_exercises):
    far, near = "yours is about 5 times too small", "yours is too small"
    outlook = "Another answer brings the {}.".format
    first = ["half(10)", "yours: 1", far, outlook("hint")]
    assert said_of(shown, "03-1", lambda n: 1) == first
    assert said_of(shown, "03-1", lambda n: 1.0) == first  # the same result is no further try
    hint = "Hint: Hint: {hint}"
    second = ["half(2)", "yours: 0.9", near, hint, outlook("value")]
    assert said_of(shown, "03-1", lambda n: 0.9) == second
    third = ["half(10)", "expected: 5", "yours: 1", far, hint]
    assert said_of(shown, "03-1", lambda n: n / 0)[-1] == hint
    assert said_of(shown, "03-1", lambda n: 1) == third


def test_each_exercise_has_its_own_steps_until_it_is_correct(shown, toy_exercises):
    said_of(shown, "03-1", lambda n: 0)
    said_of(shown, "03-1", lambda n: 2)
    assert said_of(shown, "03-2", np.arange(6) + 1)[-1] == "Another answer brings the value."
    assert said_of(shown, "03-1", lambda n: n / 2) == []
    assert said_of(shown, "03-1", lambda n: 0)[-1] == "Another answer brings the hint."
    said_of(shown, "03-1", ...)
    assert len(lab.notebook.current.tries["03-1"]) == 1


def test_an_error_of_the_learners_code_is_shown_at_once(shown, toy_exercises):
    lines = said_of(shown, "03-1", lambda n: n / 0)
    assert lines[0] == "Your code raised ZeroDivisionError: division by zero"
    lab.use_language("zh")
    assert said_of(shown, "03-1", lambda n: n / 2) == []
    assert shown[0]["text/plain"] == "✓ 练习 03-1：正确"


def test_a_wrong_array_is_drawn_with_the_value(shown, toy_exercises):
    for step in (1, 2, 3):
        said_of(shown, "03-2", np.arange(6) + step)
        assert len(shown) == (2 if step == 3 else 1)
    assert shown[1][page.PLOTLY]["data"][1]["y"] == [3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("expected", "actual", "said"),
    [
        (100, 104, "yours is too large"),
        (-100, -104, "yours is too small"),
        (100, 1, "yours is about 100 times too small"),
        (8, 64, "yours is about 8 times too large"),
        (-1, -30, "yours is about 30 times too large"),
        (1, -1, "yours has the other sign"),
        (0, 2, "yours is too large"),
        (3, 0, "yours is too small"),
        (1, float("inf"), "yours is too large"),
        (1, float("nan"), "yours is not a number"),
        ([1, 2, 3], [1, 2], "another shape is asked than yours, (2,)"),
        (
            np.eye(2),
            [[1, 3], [5, 1]],
            "2 of 4 entries differ, the first at [0, 1]: yours is too large",
        ),
        (True, False, ""),
        ("row", "column", ""),
        (1, "many", ""),
        ([1], [[1], 2], ""),
    ],
)
def test_a_wrong_result_is_told_its_direction(expected, actual, said):
    assert direction(expected, actual) == said


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.sampled_from(["en", "zh"]))
def test_every_number_has_a_direction_in_both_languages(expected, actual, language):
    lab.use_language(language)
    assert direction(expected, actual)
    lab.use_language("en")
    assert text.missing == set()


def test_strict_mode_raises_unless_correct(shown, toy_exercises):
    judge_and_show.strict(True)
    lab.check("03-2", np.arange(6))
    for wrong in (..., np.arange(5)):
        with pytest.raises(AssertionError, match="03-2"):
            lab.check("03-2", wrong)


def test_an_unknown_exercise_is_refused(toy_exercises):
    with pytest.raises(ValueError, match=r"name='03-9'.*'03-1'"):
        lab.check("03-9", 1)


def test_hints_come_from_the_catalog_in_both_languages(shown):
    with_hints = lab.notebook.with_hints(EXERCISES, {"03-2": dict(en="Count.", zh="数一数。")})
    assert [exercise.hint for exercise in with_hints.values()] == ["Hint: {hint}", "Count."]
    lab.use_notebook("03_toy", {"03-1": lab.Exercise(6)}, {})  # 03's own hints
    lab.use_language("zh")
    for wrong in (4, 5):
        shown.clear()
        lab.check("03-1", wrong)
    assert text.missing == set()
    assert text.has_chinese(shown[0]["text/plain"].partition("提示：")[2])
    lab.use_notebook("03_toy", {}, {})


def test_sameness_is_relative_and_minds_shapes():
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
    infinite = [1, 2, -np.inf]
    assert same(infinite, infinite)
    assert not same(infinite, [500, -7, -np.inf])
    assert same([1, np.nan, 1e6, 0], [1, np.nan, 1e6, 1e-3])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: torch.arange(4.0, requires_grad=True), "[0, 1, 2, 3] of shape (4,)"),
        (lambda: torch.arange(4).bfloat16(), "[0, 1, 2, 3] of shape (4,)"),
        (lambda: np.array([None, 1, "a", 3]), "[None, 1, a, 3] of shape (4,)"),
        (lambda: np.array([1j, 0, 0, 0]), "[1j, 0j, 0j, 0j] of shape (4,)"),
    ],
)
def test_arrays_of_every_kind_are_compared_and_shown(make, said, shown):
    answer = make()
    lab.use_notebook("03_toy", {"03-1": lab.Exercise(lambda a: [("x", [9, 8, 7, 6], a)])}, {})
    assert brief(answer) == said
    for more in (0, 1, 2):
        lab.check("03-1", answer if more == 0 or answer.dtype == object else answer + more)
    if isinstance(answer, torch.Tensor):
        assert same([0, 1, 2, 3], answer)
        assert same(answer, [0, 1.0005, 2, 3])
        assert direction([0, 1, 2, 6], answer).startswith("1 of 4 entries differ")
