"""Notebook 00's verdict: its figures, and every outcome that it can come to."""

import pytest

from efflab.estimate import Estimate
from efflab.lab import Figure
from efflab_rooms.start_here import verdicts

ONE = Estimate(1.0, 0.9, 1.1)


def changed(name, value, low=None, high=None):
    """The verdict's figures with one of them changed."""
    figures = verdicts.attention_figures(ONE, ONE)
    return [
        Figure(name, value, f.unit, f.kind, low, high) if f.name == name else f for f in figures
    ]


@pytest.mark.parametrize(("share", "word"), [(50, "holds if"), (50.1, "holds")])
def test_the_bottleneck_is_over_half_of_the_work_of_both_models(share, word):
    figures = [
        Figure(f.name, share, f.unit, f.kind) if f.name in verdicts.SHARES.values() else f
        for f in verdicts.attention_figures(ONE, ONE)
    ]
    assert verdicts.attention_quadratic(figures).word == word


def test_figures_of_the_verdict_are_the_closed_forms():
    values = [f.value for f in verdicts.attention_figures(ONE, Estimate(0.5, 0.4, 0.6))]
    assert values == pytest.approx([4608, 73728, 10, 2.7027, 131072, 1.0, 0.5], abs=1e-3)


def test_the_verdict_can_come_to_each_outcome():
    judge_claim = verdicts.attention_quadratic
    assert judge_claim(verdicts.attention_figures(ONE, ONE)).word == "holds if"
    assert judge_claim(changed(verdicts.CONTEXT, 4608)).word == "does not hold"
    assert judge_claim(changed(verdicts.CONTEXT, 4609)).word == "holds if"
    assert judge_claim(changed(verdicts.CLOCK, 2.5, 2.1, 3.0)).word == "undecided"
    assert judge_claim(changed(verdicts.CLOCK, 0.4, 0.3, 0.49)).word == "undecided"
    assert judge_claim(changed(verdicts.CLOCK, 2.5, 2.0, 3.0)).word == "holds if"  # its noise
    assert judge_claim(changed(verdicts.CLOCK, 0.4, 0.3, 0.5)).word == "holds if"
