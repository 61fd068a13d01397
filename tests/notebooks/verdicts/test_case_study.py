"""Notebook 14's verdicts in every outcome that their rules allow."""

import pytest

from efflab.lab import Evidence
from efflab_rooms.case_study import verdicts
from efflab_rooms.case_study.verdicts import ENCODER, TIMES


def around(name, value, half):
    return Figure(name, value, "", "recorded", value - half, value + half)


def dynamic(tuned=0.02, half=0.01, gone=31.0, alone=24.0):
    figures = [around("tuned", tuned, half), Evidence("gone", "x", gone)]
    figures += [Evidence("windows-alone", "x", alone), Evidence("visible", "x", 22)]
    return verdicts.ernie_dynamic(figures)


def test_lighter_attention_holds_by_quality_and_by_what_windows_remove():
    assert dynamic(alone=30).word == "holds"
    assert dynamic().word == "holds if"
    assert "24" in dynamic().values["alone"]
    assert dynamic(tuned=0.04, half=0.02).word == "undecided"
    assert dynamic(tuned=0.0501, half=0.0).word == "does not hold"
    assert dynamic(tuned=0.05, half=0.0).word == "holds if"  # the margin itself is within
    assert dynamic(gone=29.9, tuned=0).word == "does not hold"


TIMED = (0.3, 0.35, 0.7, 0.9)


def int8(times=TIMED, half=0.01, files=70.0, large=74.1, encoder=()):
    figures = [around(n, t, half) for n, t in zip(TIMES.values(), times, strict=False)]
    figures += [Figure(n, t) for n, t in zip(ENCODER.values(), encoder, strict=False)]
    figures += [Evidence("files", "x", files), Evidence("weights", "x", files + 1)]
    return verdicts.ernie_int8([*figures, Evidence("bert-weights", "x", large)])


def test_a_quarter_and_sixty_per_cent():
    assert int8((0.3,) * 4, files=74).word == "holds"
    assert int8().word == "holds if"
    assert (int8().values["n"], int8().values["all"]) == (2, 4)
    assert int8((0.3, 0.35)).values == dict(n=2, all=2, encoder=0)  # without the older half
    assert int8((0.3,) * 4).word == "holds if"  # its files are too large
    assert int8(large=73.9).word == "does not hold"
    assert int8((0.5, 0.6, 0.7, 0.9)).word == "does not hold"
    assert "0.50" in int8((0.5, 0.6, 0.7, 0.9)).values["best"]
    assert int8((0.395, 0.6, 0.7, 0.9)).word == "undecided"


def test_an_encoder_s_times_count_as_well():
    slow = (0.5, 0.6, 0.7, 0.9)
    assert int8(slow, encoder=(0.41, 1.1)).word == "does not hold"
    assert "0.41" in int8(slow, encoder=(0.41, 1.1)).values["best"]
    assert int8(slow, encoder=(0.4, 1.1)).word == "holds if"
    assert int8(slow, encoder=(0.4, 1.1)).values == dict(n=1, all=6, encoder=1)
    assert int8((0.3,) * 4, files=74, encoder=(0.4, 0.41)).word == "holds if"
    assert int8((0.3,) * 4, files=74, encoder=(0.4, 0.4)).word == "holds"


def recipe(quality=0.1, half=0.2, step=0.6, h100=(0.5, 1.2), times=TIMED, encoder=()):
    figures = [around("quality", quality, half), around("step-cpu", step, 0.05)]
    figures += [Evidence("step-h100-32", "x", h100[0]), Evidence("step-h100-4", "x", h100[1])]
    figures += [around(n, t, 0.01) for n, t in zip(TIMES.values(), times, strict=True)]
    figures += [Figure(n, t) for n, t in zip(ENCODER.values(), encoder, strict=False)]
    return verdicts.fp16_int8(figures)


def test_the_recipe_has_to_keep_quality_and_to_pay():
    assert recipe(h100=(0.5, 0.9)).word == "holds"
    assert recipe().word == "holds if"
    assert recipe().values == dict(train=2, trains=3, serve=4, serves=4)
    assert recipe(times=(0.3, 0.35, 1.1, 1.2)).values["serve"] == 2
    served = recipe(h100=(0.5, 0.9), encoder=(0.99, 1.0))
    assert (served.word, served.values["serve"], served.values["serves"]) == ("holds if", 5, 6)
    assert recipe(quality=2).word == "does not hold"
    assert recipe(quality=0.9).word == "undecided"
    assert recipe(step=0.96, h100=(1.0, 1.2)).word == "does not hold"  # 1.01 at most: no gain
    assert recipe(times=(1.0, 1.1, 1.2, 1.3)).word == "does not hold"
    assert recipe(quality=0.9, times=(1.0, 1.1, 1.2, 1.3)).word == "does not hold"


@pytest.mark.parametrize(
    ("tokens", "word"),
    [(300, "holds"), (299, "holds if"), (100, "holds if"), (99, "does not hold")],
)
def test_seventy_two_hours_are_a_matter_of_tokens(tokens, word):
    names = (verdicts.DEVICES, verdicts.LARGEST, verdicts.BEST, verdicts.SHORTEST)
    figures = [Evidence("tokens", "x", tokens), *(Figure(name, 48.4) for name in names)]
    outcome = verdicts.ernie_72h([*figures, Evidence("without-tensor", "x", 0.5)])
    assert outcome.word == word
    if outcome.condition:
        assert outcome.values == dict(tokens=str(tokens), n="48", u="48")
