"""Notebook 05's verdict: every outcome that it can come to."""

import pytest

from efflab.estimate import Estimate
from efflab.notebooks.dynamic_attention import verdicts

FIGURES = dict(
    moved=Estimate(0.25, 0.23, 0.27),
    control=Estimate(0.24, 0.23, 0.25),
    fixed=Estimate(0.0, 0.0, 0.0),
    reach=0,
)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, "holds if"),
        (dict(reach=1), "holds"),
        (dict(moved=Estimate(0.05, 0.04, 0.11)), "does not hold"),
        (dict(moved=Estimate(0.12, 0.11, 0.13)), "undecided"),
        (dict(moved=Estimate(0.13, 0.12, 0.14)), "holds if"),
        (dict(control=Estimate(0.05, 0.049, 0.06)), "undecided"),
    ],
)
def test_the_verdict_can_come_to_each_outcome(change, word):
    figures = verdicts.dynamic_figures(**FIGURES | change)
    assert verdicts.dynamic_attention(figures).word == word
