"""Notebook 05's verdict: every outcome that it can come to."""

import pytest

from efflab.estimate import Estimate
from efflab_rooms.dynamic_attention import verdicts

FIGURES = dict(
    dynamic=Estimate(0.25, 0.23, 0.27),
    attention=Estimate(0.24, 0.23, 0.25),
    fixed=Estimate(0.0, 0.0, 0.0),
    reach=0,
)


def test_the_figures_are_shares_in_per_cent():
    figures = verdicts.dynamic_evidence(**FIGURES | dict(reach=3))
    ids = ["range-dynamic", "range-attention", "range-fixed", "reach-difference"]
    assert [f.id for f in figures] == ids
    ends = [(f.value, f.low, f.high) for f in figures[:3]]
    assert ends == [pytest.approx(e) for e in ((25, 23, 27), (24, 23, 25), (0, 0, 0))]
    assert [f.unit for f in figures] == ["%", "%", "%", "tokens"]
    assert figures[3].value == 3


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, "holds if"),
        (dict(reach=1), "holds"),
        (dict(dynamic=Estimate(0.05, 0.04, 0.11)), "does not hold"),
        (dict(dynamic=Estimate(0.12, 0.11, 0.13)), "undecided"),
        (dict(dynamic=Estimate(0.11, 0.1, 0.12)), "undecided"),
        (dict(dynamic=Estimate(0.13, 0.12, 0.14)), "holds if"),
        (dict(attention=Estimate(0.05, 0.049, 0.06)), "undecided"),
        (dict(attention=Estimate(0.06, 0.0501, 0.07)), "holds if"),
    ],
)
def test_the_verdict_can_come_to_each_outcome(change, word):
    figures = verdicts.dynamic_evidence(**FIGURES | change)
    assert verdicts.dynamic_attention(figures).word == word
