"""Notebook 01's verdicts: every outcome that each can come to."""

from dataclasses import replace

import pytest

from efflab import lab
from efflab.estimate import Estimate
from efflab_rooms.parameter_sharing import measure, verdicts

TIME = Estimate(0.9, 0.85, 0.95)


def changed(evidence, **values):
    """The evidence with the value of some replaced, by id."""
    items = lab.by_id(evidence)
    new = {key: replace(items[key], value=v, low=None, high=None) for key, v in values.items()}
    return list((items | new).values())


def test_albert_evidence_is_the_closed_forms():
    items = lab.by_id(verdicts.albert_evidence(0.712, 0.391, TIME, 0.03))
    assert items["flops"].value == 1
    assert items["layers-needed"].value == pytest.approx(65.45, abs=0.01)
    assert items["time"].high == 0.95
    shares = [items[key].value for key in ("bert-removed", "minilm-removed", "band")]
    assert shares == pytest.approx([71.2, 39.1, 3])


@pytest.mark.parametrize(
    ("bert", "minilm", "flops", "word"),
    [
        (0.712, 0.391, 1, "holds if"),
        (0.712, 0.391, 0.5, "holds if"),
        (0.712, 0.61, 1, "holds if"),
        (0.712, 0.61, 0.5, "holds"),
        (0.712, 0.61, 1.1, "holds if"),
        (0.6, 0.391, 1, "does not hold"),
    ],
)
def test_albert_params(bert, minilm, flops, word):
    evidence = changed(verdicts.albert_evidence(bert, minilm, TIME, 0.03), flops=flops)
    assert verdicts.albert_params(evidence).word == word


def test_the_condition_says_that_computation_stays_only_where_it_does():
    evidence = verdicts.albert_evidence(0.712, 0.391, TIME, 0.03)
    assert "computation stays" in verdicts.albert_params(evidence).condition
    less = verdicts.albert_params(changed(evidence, flops=0.9))
    assert less.word == "holds if"
    assert "computation" not in less.condition


def qkv(past, half=0.0, control=-0.1, noise=0.001):
    """A record whose step past half costs `past`, and a control, three seeds a little apart."""
    runs = [
        dict(n_shared=n, seed=s, loss=5 + base + s * 0.1 + noise * s * n)
        for s in range(3)
        for n, base in ((1, 0.0), (3, half), (6, half + past))
    ]
    losses = {s: 5.0 + 0.1 * s for s in range(3)}
    convolution = {s: v - control + 0.001 * s for s, v in losses.items()}
    record = dict(settings=dict(n_layer=6), runs=runs)
    return verdicts.qkv_evidence(record, dict(attention=losses, convolution=convolution))


@pytest.mark.parametrize(
    ("evidence", "word"),
    [
        (qkv(0.1), "holds"),
        (qkv(0.1, control=0.1), "holds"),
        (qkv(0.005), "does not hold"),
        (qkv(0.005, control=0.1), "undecided"),  # attention itself is not worth having yet
        (qkv(0.02), "undecided"),
    ],
)
def test_qkv_share_half(evidence, word):
    assert verdicts.qkv_share_half(evidence).word == word


def test_qkv_evidence_pairs_the_seeds():
    items = lab.by_id(qkv(0.1, half=0.05, noise=0.0))
    assert items["half-to-all"].value == pytest.approx(0.1)
    assert items["half-to-all"].high - items["half-to-all"].low < 1e-9  # seeds' own level cancels
    assert items["none-to-half"].value == pytest.approx(0.05)
    assert items["control"].value == pytest.approx(-0.101)
    assert items["none-to-all"].value == pytest.approx(0.15)
    assert (items["albert-score"].value, items["albert-score"].kind) == (0.7, "published")


def test_the_recorded_control_has_attentions_seeds():
    control = measure.attention_control()
    assert control["attention"].keys() == control["convolution"].keys()
    assert len(control["attention"]) >= 3


def reuse(takes, package=0.0, returns=0.0, n=10**6, memory=3.0):
    lost = dict(takes=takes, package=package, returns=returns)
    accuracy = {task: (0.8 - points, 0.8) for task, points in lost.items()}
    return verdicts.reuse_evidence(accuracy, n, memory, Estimate(2.8, 2.7, 2.9))


@pytest.mark.parametrize(
    ("evidence", "word"),
    [
        (reuse(0.03), "holds"),
        (reuse(0.3), "does not hold"),
        (reuse(0.03, memory=1.0), "does not hold"),
        (reuse(0.05), "holds if"),
        (reuse(0.04, 0.04, 0.04, n=240), "undecided"),
    ],
)
def test_encoder_reuse(evidence, word):
    assert verdicts.encoder_reuse(evidence).word == word


def test_the_interval_of_lost_points_is_that_of_two_proportions():
    lost = lab.by_id(reuse(0.04, n=240))["lost-takes"]
    half = 1.96 * ((0.76 * 0.24 + 0.8 * 0.2) / 240) ** 0.5
    assert (lost.value, lost.high - lost.value) == pytest.approx((4, 100 * half))
    assert lost.value - lost.low == pytest.approx(100 * half)
