"""Notebook 11's verdicts: what evidence says, and every outcome that its parts can come to."""

import pytest

from efflab.estimate import Estimate
from efflab_rooms.pruning import verdicts

SHARES = (0.5, 0.8, 0.9)


def record(one_shot=0.5, gradual=0.5, control=0.0, drops=(1.4, 0.9), spread=0.001):
    """Runs that end so many bits above a dense model of 1.0; `drops`: one-shot's and gradual's."""
    rows = []
    for seed in range(3):
        noise = spread * seed
        end = [dict(removed=0.0, before=1.0, after=1 + control + noise)] * 3
        rows.append(dict(schedule="one-shot", ratio=0.0, seed=seed, rounds=end))
        for ratio in SHARES:
            ends = zip(("one-shot", "gradual"), (one_shot, gradual), drops, strict=True)
            for name, last, drop in ends:
                row = dict(removed=ratio, before=1 + drop + noise, after=1 + last + 2 * noise)
                rows.append(dict(schedule=name, ratio=ratio, seed=seed, rounds=[row]))
    return dict(settings=dict(dense=1.0), runs=rows)


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
RECOVERY = {
    "near dense": (record(0.04), "holds"),
    "near a control that got worse": (record(0.08, control=0.04), "undecided"),
    "far": (record(0.5), "does not hold"),
    "at the margin": (record(0.05, spread=0.01), "undecided"),
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
    yield from (("prune-gradual", verdicts.gradual_evidence(r)) for r, *_ in GRADUAL.values())
    yield from (("prune-finetune", verdicts.finetune_evidence(r)) for r, _ in RECOVERY.values())
    yield from (("prune-compute", evidence) for evidence, *_ in COMPUTE.values())


def words(outcome):
    return [part.outcome for part in outcome.parts]


@pytest.mark.parametrize("name", GRADUAL)
def test_gradual_is_judged_by_its_drops_and_by_its_ends(name):
    runs, *expected = GRADUAL[name]
    assert words(verdicts.prune_gradual(verdicts.gradual_evidence(runs))) == expected


@pytest.mark.parametrize("name", RECOVERY)
def test_recovery_is_judged_against_a_control_trained_as_long(name):
    runs, expected = RECOVERY[name]
    assert words(verdicts.prune_finetune(verdicts.finetune_evidence(runs))) == [expected]


@pytest.mark.parametrize("name", COMPUTE)
def test_computation_is_judged_by_time_beyond_the_noise_and_by_flops(name):
    evidence, *expected = COMPUTE[name]
    assert words(verdicts.prune_compute(evidence)) == expected


def test_the_largest_drop_is_from_what_training_had_mended():
    rounds = [dict(before=1.5, after=1.1), dict(before=1.9, after=1.3), dict(before=2.0, after=1.6)]
    assert verdicts.largest_drop(rounds, 1.0) == pytest.approx(0.8)  # 1.1 to 1.9


def test_differences_are_paired_by_seed_whatever_the_order_of_the_runs():
    runs = record(0.5, 0.6)
    runs["runs"].reverse()
    assert verdicts.differences(runs, "end", 80) == pytest.approx([0.1] * 3)
    assert verdicts.differences(runs, "drop", 80) == pytest.approx([-0.5] * 3)


def test_the_control_is_subtracted_seed_by_seed():
    items = {e.id: e for e in verdicts.finetune_evidence(record(0.3, control=0.1))}
    assert items["above-dense-80"].value == pytest.approx(0.302)
    assert items["above-control-80"].value == pytest.approx(0.201)
    assert items["control"].value == pytest.approx(0.101)


def test_times_are_widened_by_the_noise_and_flops_are_not():
    items = {e.id: e for e in compute(band=0.1)}
    assert (items["time-heads-75"].low, items["time-heads-75"].high) == pytest.approx(
        (0.612, 0.792)
    )
    assert items["time-heads-75"].value == 0.7
    assert items["flops-heads-75"].low is None
