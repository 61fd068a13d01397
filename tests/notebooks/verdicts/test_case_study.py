"""Notebook 14's verdicts in every outcome that their rules allow."""

import pytest

from efflab.lab import Evidence
from efflab_rooms.case_study import verdicts
from efflab_rooms.case_study.verdicts import ENCODER, TIMES


def around(key, value, half):
    return Evidence(key, "x", value, "", "recorded", value - half, value + half)


def exact(values):
    return [Evidence(key, "x", value) for key, value in values.items()]


def dynamic(tuned=0.02, half=0.01, gone=31.0, alone=24.0):
    values = {"gone": gone, "windows-alone": alone, "visible": 22}
    return verdicts.ernie_dynamic([around("tuned", tuned, half), *exact(values)])


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
    here = [around(key, t, half) for key, t in zip(TIMES, times, strict=False)]
    values = dict(zip(ENCODER, encoder, strict=False))
    values |= {"files": files, "weights": files + 1, "bert-weights": large}
    return verdicts.ernie_int8([*here, *exact(values)])


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
    trained = [around("quality", quality, half), around("step-cpu", step, 0.05)]
    served = [around(key, t, 0.01) for key, t in zip(TIMES, times, strict=True)]
    values = dict(zip(("step-h100-32", "step-h100-4"), h100, strict=True))
    values |= dict(zip(ENCODER, encoder, strict=False))
    return verdicts.fp16_int8([*trained, *served, *exact(values)])


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
    values = dict.fromkeys(("a100s", "largest-run", "utilization", "shortest-days"), 48.4)
    outcome = verdicts.ernie_72h(exact({"tokens": tokens} | values | {"without-tensor": 0.5}))
    assert outcome.word == word
    if outcome.condition:
        assert outcome.values == dict(tokens=str(tokens), n="48", u="48")
