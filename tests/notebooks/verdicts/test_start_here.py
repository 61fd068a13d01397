"""Notebook 00's verdict: its figures, and every outcome that it can come to."""

from dataclasses import replace

import pytest

from efflab.estimate import Estimate
from efflab.lab import by_id
from efflab_rooms.start_here import verdicts

ONE = Estimate(1.0, 0.9, 1.1)


def changed(*ids, **values):
    """The verdict's evidence with some of it changed."""
    found = by_id(verdicts.attention_evidence(ONE, ONE))
    return list((found | {key: replace(found[key], **values) for key in ids}).values())


@pytest.mark.parametrize(("share", "word"), [(50, "holds if"), (50.1, "holds")])
def test_the_bottleneck_is_over_half_of_the_work_of_both_models(share, word):
    evidence = changed("bert-share", "gpt3-share", value=share)
    assert verdicts.attention_quadratic(evidence).word == word


def test_figures_of_the_verdict_are_the_closed_forms():
    values = [f.value for f in verdicts.attention_evidence(ONE, Estimate(0.5, 0.4, 0.6))]
    assert values == pytest.approx([4608, 73728, 10, 2.7027, 131072, 1.0, 0.5], abs=1e-3)


def test_the_verdict_can_come_to_each_outcome():
    judge_claim = verdicts.attention_quadratic
    assert judge_claim(verdicts.attention_evidence(ONE, ONE)).word == "holds if"
    assert judge_claim(changed("long-context", value=4608)).word == "does not hold"
    assert judge_claim(changed("long-context", value=4609)).word == "holds if"
    assert judge_claim(changed("fused-clock", value=2.5, low=2.1, high=3.0)).word == "undecided"
    assert judge_claim(changed("fused-clock", value=0.4, low=0.3, high=0.49)).word == "undecided"
    # its noise reaches into what still tells the time
    assert judge_claim(changed("fused-clock", value=2.5, low=2.0, high=3.0)).word == "holds if"
    assert judge_claim(changed("fused-clock", value=0.4, low=0.3, high=0.5)).word == "holds if"
