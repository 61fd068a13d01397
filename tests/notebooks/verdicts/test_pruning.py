"""Notebook 11's verdicts: what evidence says, and every outcome that its parts can come to."""

from itertools import product

import pytest

from efflab.estimate import Estimate
from efflab.experiments import pruning_recovery as experiment
from efflab_rooms.pruning import verdicts

SHARES = (0.5, 0.8, 0.9)


def record(one_shot=0.5, gradual=0.5, control=0.0, drops=(1.4, 0.9), spread=0.001, easy=0.0):
    """Runs that end so many bits above a dense model of 1.0; `drops`: one-shot's and gradual's.

    `one_shot`: at every share, or {share: bits}; at 20 % it is `easy` above the control.
    """
    ends = one_shot if isinstance(one_shot, dict) else dict.fromkeys(SHARES, one_shot)
    ends = {0.0: control, 0.2: control + easy, **ends}
    runs = []
    for seed, (schedule, ratio) in product(experiment.SEEDS, experiment.POINTS):
        is_gradual, noise = schedule == "gradual", spread * (seed - experiment.SEEDS[0])
        end = 1 + (gradual if is_gradual else ends[ratio]) + noise * (1 + (ratio > 0.2))
        drop = drops[is_gradual] + noise if ratio else 0.0
        values = dict(dense=1.0, drop=drop, end=end)
        runs.append(dict(schedule=schedule, ratio=ratio, seed=seed) | values)
    return runs


def judge_gradual(runs):
    return verdicts.prune_gradual(verdicts.gradual_evidence(experiment.cases(runs)))


def judge_recovery(runs):
    return verdicts.prune_finetune(verdicts.finetune_evidence(experiment.cases(runs)))


def compute(heads=(0.9, 0.8, 0.7), masked=1.0, flops=(0.9, 0.8, 0.7), band=0.01, half=0.02):
    """Times and FLOPs over the whole model's, heads 25, 50 and 75 % removed."""

    def around(value):
        return Estimate(value, value - half, value + half)

    by_share = dict(zip((25, 50, 75), heads, strict=True))
    return verdicts.compute_evidence(
        heads={n: around(value) for n, value in by_share.items()},
        masked=around(masked),
        band=band,
        heads_flops=dict(zip(by_share, flops, strict=True)),
        masked_flops=1.0,
        csr={n: around(time) for n, time in ((50, 4.0), (80, 1.5), (90, 0.7), (99, 0.1))},
    )


GRADUAL = {
    "smaller drops, equal ends": (record(), "holds", "holds"),
    "larger drops, worse ends": (
        record(0.5, 0.6, drops=(0.9, 1.4)),
        "does not hold",
        "does not hold",
    ),
    "the same drops": (record(drops=(0.9, 0.9)), "does not hold", "holds"),
    "ends within the margin": (record(0.5, 0.519), "holds", "holds"),
    "a control that got worse": (record(control=0.04), "undecided", "undecided"),
}
FAR = 0.5
RECOVERY = {
    "up to 80%": (record({0.5: 0.02, 0.8: 0.04, 0.9: FAR}), "holds"),
    "up to 50%": (record({0.5: 0.02, 0.8: FAR, 0.9: FAR}), "does not hold"),
    "near a control that got worse": (
        record({0.5: 0.06, 0.8: 0.08, 0.9: FAR}, control=0.04),
        "undecided",
    ),
    "far": (record(FAR), "does not hold"),
    "not even the easy one recovers": (record(FAR, easy=0.1), "undecided"),
    "even the hardest recovers": (record(0.04), "undecided"),
    "at the margin": (record({0.5: 0.02, 0.8: 0.05, 0.9: FAR}, spread=0.003), "undecided"),
}
COMPUTE = {
    "heads alone": (compute(), "holds", "does not hold", "holds"),
    "all": (compute((0.9, 0.8, 0.7), 0.6, half=0.01), "holds", "holds", "holds"),
    "noise": (compute(band=0.3), "undecided", "undecided", "holds"),
    "slower": (
        compute((1.1, 0.8, 0.7), flops=(1.0, 0.9, 0.8)),
        "does not hold",
        "does not hold",
        "does not hold",
    ),
}


def drives():
    gradual = (experiment.cases(runs) for runs, *_ in GRADUAL.values())
    yield from (("prune-gradual", verdicts.gradual_evidence(cases)) for cases in gradual)
    recovery = (experiment.cases(runs) for runs, _ in RECOVERY.values())
    yield from (("prune-finetune", verdicts.finetune_evidence(cases)) for cases in recovery)
    yield from (("prune-compute", evidence) for evidence, *_ in COMPUTE.values())


def words(outcome):
    return [part.outcome for part in outcome.parts]


@pytest.mark.parametrize("name", GRADUAL)
def test_gradual_is_judged_by_its_drops_and_by_its_ends(name):
    runs, *expected = GRADUAL[name]
    assert words(judge_gradual(runs)) == expected


@pytest.mark.parametrize("name", RECOVERY)
def test_recovery_is_judged_against_a_control_trained_as_long(name):
    runs, expected = RECOVERY[name]
    assert words(judge_recovery(runs)) == [expected]


@pytest.mark.parametrize("name", COMPUTE)
def test_computation_is_judged_by_time_beyond_the_noise_and_by_flops(name):
    evidence, *expected = COMPUTE[name]
    assert words(verdicts.prune_compute(evidence)) == expected


def test_differences_are_paired_by_seed_whatever_the_order_of_the_runs():
    runs = record(0.5, 0.6)[::-1]
    assert verdicts.differences(runs, "end", 80) == pytest.approx([0.1] * 5)
    assert verdicts.differences(runs, "drop", 80) == pytest.approx([-0.5] * 5)


def test_times_are_widened_by_the_noise_and_flops_are_not():
    items = {e.id: e for e in compute(band=0.1)}
    assert (items["time-heads-75"].low, items["time-heads-75"].high) == pytest.approx(
        (0.612, 0.792)
    )
    assert items["time-heads-75"].value == 0.7
    assert items["flops-heads-75"].low is None
