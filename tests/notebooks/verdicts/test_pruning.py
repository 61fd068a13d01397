"""Notebook 11's verdicts: every outcome that each can come to."""

import pytest

from efflab.estimate import Estimate
from efflab_rooms.pruning import verdicts


def runs(one_shot, gradual, control=0.0, drop=(1.4, 0.9)):
    """A record whose runs end so many bits above a dense model of 1.0, seeds 0.001 apart."""
    rows = []
    for seed in range(3):
        noise = 0.001 * seed
        end = [dict(removed=0.0, before=1.0, after=1 + control + noise)] * 3
        rows.append(dict(schedule="one-shot", ratio=0.0, seed=seed, rounds=end))
        for ratio in (0.5, 0.8, 0.9):
            for name, last, fall in (
                ("one-shot", one_shot, drop[0]),
                ("gradual", gradual, drop[1]),
            ):
                row = dict(removed=ratio, before=1 + fall + noise, after=1 + last + 2 * noise)
                rows.append(dict(schedule=name, ratio=ratio, seed=seed, rounds=[row]))
    return dict(settings=dict(dense=1.0), runs=rows)


@pytest.mark.parametrize(
    ("record", "word"),
    [
        (dict(one_shot=0.5, gradual=0.6), "holds if"),  # the drop is smaller, the end worse
        (dict(one_shot=0.5, gradual=0.4), "holds"),
        (dict(one_shot=0.5, gradual=0.6, drop=(0.9, 1.4)), "does not hold"),
        (dict(one_shot=0.5, gradual=0.6, drop=(0.9, 0.9)), "undecided"),
    ],
)
def test_the_verdict_on_gradual_follows_drops_and_ends(record, word):
    figures = verdicts.gradual_evidence(runs(**record))
    assert verdicts.prune_gradual(figures).word == word


def test_the_largest_drop_is_from_what_training_had_mended():
    rounds = [dict(before=1.5, after=1.1), dict(before=1.9, after=1.3), dict(before=2.0, after=1.6)]
    assert verdicts.largest_drop(rounds, 1.0) == pytest.approx(0.8)  # 1.1 to 1.9


@pytest.mark.parametrize(
    ("one_shot", "control", "word"),
    [
        (0.02, 0.0, "holds"),
        (0.5, 0.0, "does not hold"),
        (0.08, 0.04, "undecided"),  # near a control that the training worsened
        (0.08, 0.0, "does not hold"),
    ],
)
def test_the_verdict_on_finetuning_asks_for_the_dense_model(one_shot, control, word):
    figures = verdicts.finetune_evidence(runs(one_shot, 0.5, control))
    assert verdicts.prune_finetune(figures).word == word


def test_recovery_at_some_ratios_is_a_condition():
    record = runs(0.5, 0.5)
    for run in record["runs"]:
        if run["ratio"] == 0.5:
            run["rounds"] = [dict(removed=0.5, before=1.5, after=1.01 + 0.001 * run["seed"])]
    outcome = verdicts.prune_finetune(verdicts.finetune_evidence(record))
    assert outcome.word == "holds if"
    assert outcome.values == dict(n="50%")


def times(masked, removed, band=0.05, csr=None):
    named = dict(masked=masked, removed=removed, heads=removed)
    spread = {k: Estimate(v, v - 0.02, v + 0.02) for k, v in named.items()}
    csr = {n: Estimate(v, v - 0.02, v + 0.02) for n, v in (csr or {}).items()}
    return verdicts.compute_evidence(**spread, flops=0.62, band=band, csr=csr)


@pytest.mark.parametrize(
    ("figures", "word"),
    [
        (times(1.0, 0.7), "holds if"),
        (times(0.7, 0.7), "holds"),
        (times(1.0, 1.0), "undecided"),
        (times(1.0, 1.2), "does not hold"),
        (times(1.0, 0.94), "undecided"),  # within the band
    ],
)
def test_the_verdict_on_computation_needs_time_outside_the_band(figures, word):
    assert verdicts.prune_compute(figures).word == word


def test_evidence_of_the_computation_stands_under_its_ids():
    values = {f.id: f.value for f in times(1.0, 0.7, csr={50: 4.0, 99: 0.05})}
    assert values == {
        "time-both": 0.7,
        "time-masked": 1.0,
        "time-heads": 0.7,
        "flops": 0.62,
        "band": pytest.approx(5),
        "csr-50": 4.0,
        "csr-99": 0.05,
        "two-four": 2,
    }


def test_a_sparse_kernel_enters_the_condition_from_where_it_pays():
    outcome = verdicts.prune_compute(times(1.0, 0.7, csr={50: 4.0, 80: 1.5, 90: 0.7, 99: 0.05}))
    assert outcome.values == dict(n=90)
    assert "sparse kernel" in outcome.condition
