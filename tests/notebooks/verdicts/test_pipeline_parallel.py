"""Notebook 13's verdicts in every outcome that their rules allow."""

import pytest

from efflab.distributed.schedules import SCHEDULES
from efflab.lab import Evidence
from efflab_rooms.pipeline_parallel import verdicts as v


def evidence(values):
    return [Evidence(key, "x", value) for key, value in values.items()]


def model(between=1e-7, busy=25.0):
    figures = [
        Evidence("between", "x", between),
        Evidence("inside", "x", 1e-7),
        Evidence("busy", "x", busy, "%"),
    ]
    return v.model_parallel([*figures, Evidence("fullest", "x", 45), Evidence("even", "x", 40)])


def test_layers_on_several_devices():
    assert model(busy=50).word == "holds"
    assert model(1e-5, 49.9).word == "holds if"
    assert model().values == dict(busy="25")
    assert model(between=1.1e-5).word == "does not hold"


def gpipe(inside=5, rows=11, least=4):
    values = {"rows-within": inside, "rows": rows, "lowest": 1.2, "highest": 6.3}
    values |= {"fewest-stages": least, "ideal": 6.56}
    return v.gpipe_throughput(evidence(values))


@pytest.mark.parametrize(
    ("inside", "word"), [(11, "holds"), (10, "holds if"), (1, "holds if"), (0, "does not hold")]
)
def test_three_to_five_times(inside, word):
    assert gpipe(inside).word == word
    if word != "holds":
        assert (gpipe(inside).values["low"], gpipe(inside).values["high"]) == ("1.2", "6.3")


def balance(ratios=(1.2, 1.13, 1.17, 1.25, 1.06), real=1.2):
    ids = [f"slow-{name}" for name in SCHEDULES]
    values = dict(zip(ids, ratios, strict=True)) | {"slow-real": real, "split": 1.2}
    return v.pipe_balance(evidence(values))


def test_balance_costs_by_schedule():
    assert balance((1.10,) * 5, 1.1).word == "holds"
    assert balance().word == "holds if"
    assert balance().values == dict(names="gpipe, 1f1b, interleaved, zero-bubble")
    assert balance((1.09,) * 5, 1.09).word == "does not hold"
    assert balance(real=1.26).word == "undecided"
    assert balance(real=1.249).word == "holds if"
    assert balance(real=1.14).word == "undecided"


def bubble(apart=0.01, few=0.43, many=0.16, gpipe=16, other=4):
    values = {"bubble-16": many, "bubble-4": few, "difference": apart}
    values |= {"held-gpipe": gpipe, "held-1f1b": other}
    return v.microbatch_bubble(evidence(values))


def test_microbatches_fill_the_bubble():
    assert bubble(gpipe=4).word == "holds"
    assert bubble().word == "holds if"
    assert bubble().values == dict(gpipe="16", other="4", many="16")
    assert bubble(apart=0.05).word == "holds if"
    assert bubble(apart=0.051).word == "undecided"
    assert bubble(many=0.21).word == "does not hold"
    assert bubble(many=0.2, few=0.2).word == "does not hold"
