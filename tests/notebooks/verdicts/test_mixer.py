"""Notebook 02's verdict: every outcome that its parts can come to."""

import pytest

from efflab import lab
from efflab.estimate import Estimate
from efflab.experiments import mixer_digits
from efflab_rooms.mixer import measure, verdicts

FAST = Estimate(0.7, 0.6, 0.8)
INPUTS = dict(
    flops={224: 0.72, 448: 0.64, 672: 0.54, 896: 0.45},
    times=dict.fromkeys((112, 224, 448, 896), FAST),
    equal={224: 1.04, 448: 0.85, 672: 0.63, 896: 0.46},
    digits_flops=1.07,
    weights=4.0,
    accuracy=dict(mixer=[0.98, 0.97, 0.98], vit=[0.95, 0.93, 0.90]),
)
WIDER = dict(flops=INPUTS["flops"] | {224: 1.0}, digits_flops=0.9)
"""With a token mixing wide enough to cost as much as attention."""


def drives():
    yield "mixer-simpler", verdicts.mixer_evidence(**INPUTS)
    yield "mixer-simpler", verdicts.mixer_evidence(**INPUTS | WIDER)
    yield "mixer-simpler", with_time(Estimate(1.2, 1.06, 1.3))
    narrow = dict(digits_flops=0.9, equal=INPUTS["flops"])
    yield "mixer-simpler", verdicts.mixer_evidence(**INPUTS | narrow)


def with_time(smallest):
    return verdicts.mixer_evidence(**INPUTS | dict(times=INPUTS["times"] | {112: smallest}))


def outcomes(evidence):
    return {part.id: part.outcome for part in verdicts.mixer_simpler(evidence).parts}


def test_the_flops_are_lower_at_every_size_and_at_equal_parameters_at_three_of_five():
    found = outcomes(
        verdicts.mixer_evidence(
            **INPUTS
            | dict(flops={side: measure.flop_ratio(side) for side in measure.SIDES})
            | dict(equal={side: measure.equal_flop_ratio(side) for side in measure.SIDES})
        )
    )
    assert (found["flops"], found["equal-parameters"]) == ("holds", "does not hold")
    ratios = [measure.equal_flop_ratio(side) for side in measure.SIDES]
    assert ratios == pytest.approx([1.04, 0.85, 0.63, 0.46], abs=0.005)


@pytest.mark.parametrize(("ratio", "word"), [(0.999, "holds"), (1.0, "does not hold")])
def test_equal_flops_are_not_fewer(ratio, word):
    flops = INPUTS["flops"] | {224: ratio}
    assert outcomes(verdicts.mixer_evidence(**INPUTS | dict(flops=flops)))["flops"] == word
    equal = dict(equal=INPUTS["flops"], digits_flops=ratio)
    assert outcomes(verdicts.mixer_evidence(**INPUTS | equal))["equal-parameters"] == word


@pytest.mark.parametrize(
    ("time", "word"),
    [
        (Estimate(0.9, 0.8, 0.94), "holds"),
        (Estimate(0.9, 0.8, 0.95), "undecided"),
        (Estimate(1.2, 0.94, 1.3), "undecided"),
        (Estimate(1.2, 0.95, 1.3), "does not hold"),
    ],
)
def test_one_slow_size_is_enough(time, word):
    assert outcomes(with_time(time))["time"] == word


def test_noise_widens_the_interval_of_a_time():
    noisy = FAST.with_noise(0.25)
    assert outcomes(with_time(FAST))["time"] == "holds"
    assert outcomes(with_time(noisy))["time"] == "undecided"


def test_the_sizes_are_named_smallest_first():
    found = lab.by_id(with_time(Estimate(0.5, 0.4, 0.6)))
    sides = [found[f"time-{size}"].values["side"] for size in verdicts.SIZES]
    assert sides == [112, 224, 448, 896]
    assert found["time-eighth"].value == 0.5


def test_accuracy_is_compared_seed_by_seed():
    runs = [
        dict(n_images=1437, seed=s, mixer=m, vit=v)
        for s, m, v in ((1, 0.97, 0.93), (0, 0.98, 0.95))
    ]
    assert mixer_digits.by_seed(runs) == dict(mixer=[0.98, 0.97], vit=[0.95, 0.93])
    points = lab.by_id(verdicts.mixer_evidence(**INPUTS))["digits"]
    assert points.value == pytest.approx(5)
    assert points.low < points.value < points.high


def test_imagenet_alone_is_against_mixer_by_the_papers_figures():
    figure = lab.by_id(verdicts.mixer_evidence(**INPUTS))["imagenet"]
    assert (figure.value, figure.kind) == (pytest.approx(-3.23), "published")
