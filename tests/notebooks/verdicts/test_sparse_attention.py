"""Notebook 03's verdict: what its evidence says, and the outcomes that its parts can come to."""

import pytest

from efflab.estimate import Estimate
from efflab.lab import by_id
from efflab_rooms.sparse_attention import measure, verdicts

LENGTHS = measure.lengths_up_to(8192, 2)
SHARES = {
    "recall-within": (24, verdicts.of_accuracies([1.0, 1.0, 1.0])),
    "recall-beyond": (25, verdicts.of_accuracies([0.12, 0.13, 0.11])),
    "recall-full": (25, verdicts.of_accuracies([1.0])),
    "recall-global": (40, verdicts.of_accuracies([0.99])),
}


def powers(window=1.0, swin=1.0, bigbird=1.1, full=1.9, noise=1.0) -> dict[str, Estimate]:
    """Exponents as fitted to times that follow a power, every other one off by `noise`."""
    given = {measure.WINDOW: window, measure.SWIN: swin}
    given |= {measure.BIGBIRD: bigbird, measure.FULL: full}
    times = {
        name: [1e-6 * n**power * noise ** (i % 2) for i, n in enumerate(LENGTHS)]
        for name, power in given.items()
    }
    return {name: measure.exponent(LENGTHS, values) for name, values in times.items()}


def evidence(max_len=8192, window_size=128, shares=SHARES, **given) -> list:
    found = verdicts.time_evidence(powers(**given)) + verdicts.recall_evidence(shares)
    return found + verdicts.pairs_evidence(max_len, window_size)


def drives():
    for given in (
        {},
        dict(window=2.0),
        dict(swin=0.5),
        dict(noise=2.0),
        dict(max_len=2048, window_size=2048),
    ):
        yield "sparse-linear", evidence(**given)


@pytest.mark.parametrize(
    ("given", "time", "pairs"),
    [
        ({}, "holds", "holds"),
        (dict(window=2.0), "does not hold", "holds"),
        (dict(bigbird=1.3), "does not hold", "holds"),
        # too good to be O(n) is not O(n) either
        (dict(swin=0.7), "does not hold", "holds"),
        (dict(noise=2.0), "undecided", "holds"),
        # the control does not show
        (dict(full=1.4), "undecided", "holds"),
        (dict(max_len=2048, window_size=2048), "holds", "does not hold"),
        (dict(max_len=32768, window_size=512), "holds", "holds"),
    ],
)
def test_sparse_linear(given, time, pairs):
    outcome = verdicts.sparse_linear(evidence(**given))
    assert [part.outcome for part in outcome.parts] == [time, pairs]


def test_pairs_are_those_that_the_layouts_compute():
    found = by_id(verdicts.pairs_evidence(8192, 128))
    assert found["swin-pairs"].value == 1
    assert found["full-pairs"].value == 2
    assert 1 < found["window-pairs"].value < found["bigbird-pairs"].value < 1.03


def test_the_price_is_said_in_numbers():
    remark = verdicts.sparse_linear(evidence()).parts[0].record()["remark"]
    for words in ("100% at 24 tokens", "12% at 25", "full attention has 100%", "99% at 40"):
        assert words in remark


@pytest.mark.parametrize(
    ("ends", "untrained", "expected"),
    [
        ((0.0, 0.04), 0.4, "holds"),
        ((0.06, 0.1), 0.4, "does not hold"),
        ((0.04, 0.06), 0.4, "undecided"),
        ((0.0, 0.04), 0.2, "undecided"),  # a window that costs little untrained shows nothing
    ],
)
def test_a_window_trained_for_is_held_against_the_model_as_shipped(ends, untrained, expected):
    low, high = ends
    costs = dict.fromkeys(verdicts.TRAINED, Estimate(0.5, 0.4, 0.6))
    costs["window-trained"] = Estimate((low + high) / 2, low, high)
    costs["window-untrained"] = Estimate(untrained, untrained - 0.01, untrained + 0.01)
    (part,) = verdicts.window_tuned(verdicts.trained_evidence(costs)).parts
    assert part.outcome == expected
