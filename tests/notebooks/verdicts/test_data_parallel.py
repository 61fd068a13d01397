"""Notebook 12's verdicts: each part in the outcomes that other numbers give."""

import pytest

from efflab.distributed.zero import RankState
from efflab.lab import by_id
from efflab_rooms.data_parallel import verdicts as v
from efflab_rooms.data_parallel.measure import Comparison

METHODS = ("ddp", "by hand", "none")
BREAKS = {"uneven shares": 0.2, "batch norm over a rank's own rows": 0.3}


def equal(gradients=1e-7, weights=1e-7, apart=0.4, sent=1.0006):
    comparisons = {
        (n, method): Comparison(
            gradients=apart if method == "none" else gradients,
            weights=weights,
            between_ranks=0.0,
            sent=1e6 * sent,
            formula=1e6,
        )
        for n in (2, 4)
        for method in METHODS
    }
    return "ddp-equal", v.equal_evidence(comparisons, BREAKS)


def held(weights=4, gradients=4, optimizer=8, gathered=0, step=4, sent=6):
    """A rank's bytes in units of one number a parameter."""
    return [RankState(weights, gradients, optimizer, gathered, step, sent, [])]


STAGES = {
    0: held(400, 400, 800),
    1: held(400, 400, 208),
    2: held(100, 100, 200, 400),
    3: held(100, 100, 200),
}


def zero(stages=None, step=400, cut=400):
    """`step`: of DDP beyond the state, in the smallest batch; `cut`: of ZeRO-3."""
    by_ranks = {n: STAGES | (stages or {}) for n in (2, 4)}
    by_batch = {
        batch: {
            0: held(400, 400, 800, step=step * batch // 4),
            3: held(100, 100, 200, step=cut * batch // 4, sent=12),
        }
        for batch in (4, 16, 64)
    }
    return "zero-memory", v.zero_evidence(by_ranks, by_batch)


def drives():
    """(claim, evidence) from numbers that a run may yield."""
    yield equal()
    yield equal(weights=1e-3, sent=1.2)
    yield equal(apart=1e-5)
    yield zero()
    yield zero({2: held(400, 100, 200, 400)}, step=4000, cut=4000)


def outcomes(drive):
    claim, evidence = drive
    outcome = getattr(v, claim.replace("-", "_"))(evidence)
    return [part.outcome for part in outcome.parts]


@pytest.mark.parametrize(
    ("drive", "words"),
    [
        (equal(), ["holds", "holds"]),
        (equal(gradients=1e-5), ["holds", "holds"]),
        (equal(gradients=1.1e-5), ["does not hold", "holds"]),
        (equal(weights=1.1e-5), ["does not hold", "holds"]),
        (equal(apart=9e-4), ["undecided", "holds"]),
        (equal(sent=1.011), ["holds", "does not hold"]),
        (equal(sent=0.989), ["holds", "does not hold"]),
        (zero(), ["holds", "holds"]),
        (zero({2: held(400, 100, 200, 400)}), ["does not hold", "holds"]),
        (zero({3: held(100, 100, 200, 400)}), ["does not hold", "holds"]),
        (zero(step=4000, cut=4000), ["holds", "does not hold"]),
        (zero(cut=480), ["holds", "does not hold"]),
    ],
)
def test_each_part_follows_its_numbers(drive, words):
    assert outcomes(drive) == words


def test_a_stage_is_weighed_against_the_one_before_it():
    value = {key: item.value for key, item in by_id(zero()[1]).items()}
    assert value["state-1"] == pytest.approx(100 * 1008 / 1600)
    assert value["state-2"] == pytest.approx(100 * 800 / 1008)
    assert [value[f"formula-{s}"] for s in (1, 2, 3)] == [62.5, 70, pytest.approx(400 / 7)]
    assert value["step-4"] == 40
    assert value["activations-4"] == 20
    assert value["sent"] == 2


def test_where_the_saving_fades():
    """1,200 of 24,000 are 5 %: beside a state of 1,600, activations of 22,400 for 224 sequences."""
    value = by_id(zero()[1])["fades"].value
    assert value == pytest.approx(224)
