"""Notebook 11's recorded design: what it trains, what it shares, how its rate is chosen."""

import pytest
import torch

from efflab import data
from efflab.experiments import pruning_recovery as recovery
from efflab.experiments import pruning_recovery_pilot as pilot
from efflab.experiments.record import run_cases
from efflab.experiments.registration import rule_hash
from efflab.lab.judge import evidence_ids, read_rules

RULES = [
    rule for claim in ("prune-gradual", "prune-finetune") for rule in read_rules()[claim].values()
]


@pytest.fixture
def small(monkeypatch):
    """The whole design with parts of one step on few texts."""
    monkeypatch.setattr(recovery, "N_WINDOWS", 2)
    monkeypatch.setattr(recovery, "BATCH_SIZE", 2)
    monkeypatch.setattr(recovery, "SEQ_LEN", 32)
    monkeypatch.setattr(recovery, "STEPS_PER_ROUND", 5)
    monkeypatch.setattr(recovery, "STEPS_PER_INCREMENT", 1)
    recovery.train_parts.cache_clear()
    yield
    recovery.train_parts.cache_clear()


def test_the_runs_are_those_that_the_rules_register(monkeypatch):
    calls = []
    monkeypatch.setattr(recovery, "run_cases", lambda *a, **options: calls.append((a, options)))
    monkeypatch.setattr(recovery, "read_record", lambda name: dict(runs=pilot_runs(6e-5)))
    recovery.run()
    ((_, cases, _), options) = calls[0]
    assert len(RULES) == 3
    assert options["rules"] == sorted(map(rule_hash, RULES))
    for rule in RULES:
        own = {**options["settings"], "rates": list(recovery.RATES)}
        own["pilot_seeds"] = list(recovery.PILOT_SEEDS)
        assert rule["source"]["settings"].items() <= own.items()
        assert sorted({case["seed"] for case in cases}) == rule["source"]["seeds"]
        assert recovery.MARGIN == rule["controls"][0]["margin"]
    assert options["settings"]["lr"] == 6e-5
    assert len(cases) == 5 * 8


def test_every_schedule_has_as_many_steps_and_ends_alike():
    for schedule, ratio in recovery.POINTS:
        parts = recovery.parts(schedule, ratio)
        assert sum(n for _, n in parts) == 600
        assert parts[-1] == (ratio, 200)
    gradual = [removed for removed, _ in recovery.parts("gradual", 0.9)]
    assert gradual[0] == recovery.INITIAL
    assert gradual == sorted(gradual)
    assert len(gradual) == 11


def test_what_begins_alike_is_trained_once(small, monkeypatch):
    trained = []
    fit = recovery.train.fit

    def count(model, batch, n_steps, **options):
        trained.append(n_steps)
        return fit(model, batch, n_steps, **options)

    monkeypatch.setattr(recovery.train, "fit", count)
    first = recovery.run_one("gradual", 0.5, 100, 2e-4)
    assert len(trained) == 11
    recovery.run_one("gradual", 0.8, 100, 2e-4)
    second = recovery.run_one("gradual", 0.9, 100, 2e-4)
    assert len(trained) == 31
    assert first["parts"][:2] == second["parts"][:2]
    recovery.run_one("gradual", 0.9, 101, 2e-4)
    assert len(trained) == 42  # another seed has other batches
    recovery.train_parts.cache_clear()
    assert recovery.run_one("gradual", 0.9, 100, 2e-4) == second


def test_batches_follow_one_another_and_are_those_of_the_seed(small, monkeypatch):
    drawn = []
    windows = data.random_windows

    def note(stream, n, length, seed):
        drawn.append(seed)
        return windows(stream, n, length, seed)

    monkeypatch.setattr(data, "random_windows", note)
    for schedule in ("one-shot", "gradual"):
        recovery.run_one(schedule, 0.5, 100, 2e-4)
    assert drawn == 2 * [100 * 10**6 + step for step in range(15)]


def test_what_is_removed_stays_away(small):
    model, rows = recovery.train_parts(recovery.parts("gradual", 0.8), 100, 2e-4)
    weight = model.layers[0].ffn.body.up.weight
    assert (weight == 0).float().mean().item() == pytest.approx(0.8, abs=1e-4)
    assert [row["steps"] for row in rows] == [0, *[1] * 10, 5]
    assert rows[-1]["before"] == rows[-2]["after"]  # nothing more is removed in the tail
    dense = recovery.load_stdlib_gpt()
    assert torch.equal(
        recovery.train_parts((), 0, 0.1)[0].embedding.token.weight, dense.embedding.token.weight
    )


def test_a_run_has_its_largest_drop_and_its_end(small):
    control = recovery.run_one(*recovery.CONTROL, 100, 2e-4)
    assert control["drop"] == 0
    assert len(control["texts"]) == 2
    assert min(control["texts"]) <= control["end"] <= max(control["texts"])
    pruned = recovery.run_one("one-shot", 0.9, 100, 2e-4)
    first = pruned["parts"][1]
    assert pruned["drop"] == pytest.approx(first["before"] - pruned["dense"], abs=1e-5)
    gradual = recovery.run_one("gradual", 0.9, 100, 2e-4)
    assert 0 < gradual["drop"] < pruned["drop"]
    assert gradual["end"] > control["end"]


def runs(seeds=(100, 101, 102)):
    """Ends and drops of all points, with a level of its own a seed."""
    ends = {0.0: 1.0, 0.2: 1.01, 0.5: 1.1, 0.8: 1.3, 0.9: 1.6}
    for seed in seeds:
        for schedule, ratio in recovery.POINTS:
            level = 0.01 * (seed - 101) - 0.05 * (schedule == "gradual")
            values = dict(dense=0.99, end=ends[ratio] + level, drop=2 * ratio + level)
            yield dict(schedule=schedule, ratio=ratio, seed=seed) | values


def test_cases_are_those_of_the_rules_paired_by_seed():
    estimates = recovery.cases(runs())
    assert {key for rule in RULES for key in evidence_ids(rule)} == set(estimates)
    values = {key: estimate.mean for key, estimate in estimates.items()}
    assert values == pytest.approx(
        {"control": 0.01}
        | {f"above-control-{n}": v for n, v in ((20, 0.01), (50, 0.1), (80, 0.3), (90, 0.6))}
        | {f"{key}-{n}": -0.05 for key in ("drop", "end") for n in (50, 80, 90)}
    )
    for key, estimate in estimates.items():
        width = estimate.high - estimate.low
        assert width > 0.04 if key == "control" else width < 1e-9


def test_a_seed_that_lacks_a_run_does_not_count():
    some = [r for r in runs() if r["seed"] < 102 or r["ratio"] < 0.9]
    assert recovery.cases(some) == recovery.cases(runs((100, 101)))


# --- The rate --------------------------------------------------------------------------------


def pilot_runs(lr, seeds=(90, 91, 92)):
    """Larger rates are out with the first seed; `lr` stays with the seeds."""
    larger = [dict(lr=rate, seed=90, increases=[0.02]) for rate in recovery.RATES if rate > lr]
    return larger + [dict(lr=lr, seed=s, increases=[0.004, -0.01, 0.01]) for s in seeds]


@pytest.mark.parametrize("lr", recovery.RATES)
def test_the_largest_rate_that_stays_is_chosen(lr):
    assert recovery.choose_rate(pilot_runs(lr)) == lr


@pytest.mark.parametrize(
    "given", [[], pilot_runs(2e-5)[:-1], pilot_runs(2e-5)[:3], pilot_runs(6e-5, (90, 91))]
)
def test_without_such_a_rate_nothing_begins(given):
    with pytest.raises(ValueError, match="no rate keeps the control within"):
        recovery.choose_rate(given)


def test_a_control_may_not_leave_and_come_back():
    assert recovery.stays([0.01, -0.01])
    assert not recovery.stays([0.011, 0.0])
    assert not recovery.stays([0.0, -0.011])


@pytest.fixture
def pilot_folder(monkeypatch, tmp_path):
    """The pilot's record in a temporary folder."""

    def run_there(*args, **options):
        return run_cases(*args, folder=tmp_path, say=lambda line: None, **options)

    monkeypatch.setattr(pilot, "run_cases", run_there)
    return tmp_path


def test_the_pilot_goes_down_to_the_first_rate_that_stays(pilot_folder, monkeypatch):
    def run_one(lr, seed):
        leaves = lr > 2e-4 or (lr == 2e-4 and seed == 91)
        return dict(increases=[0.02] if leaves else [0.0, 0.001, 0.002])

    monkeypatch.setattr(pilot, "run_one", run_one)
    for _ in range(2):  # the second time all of it is recorded
        record = pilot.run()
        made = [(run["lr"], run["seed"]) for run in record["runs"]]
        assert made == [(6e-4, 90), (2e-4, 90), (2e-4, 91), (6e-5, 90), (6e-5, 91), (6e-5, 92)]
        assert recovery.choose_rate(record["runs"]) == 6e-5


def test_where_no_rate_stays_the_pilot_ends(pilot_folder, monkeypatch):
    monkeypatch.setattr(pilot, "run_one", lambda lr, seed: dict(increases=[0.02]))
    assert [run["lr"] for run in pilot.run()["runs"]] == list(recovery.RATES)


def test_a_pilots_run_ends_with_the_first_round_too_far(small, monkeypatch):
    assert len(pilot.run_one(0.0, 90)["increases"]) == 3
    assert pilot.run_one(0.0, 90)["increases"][-1] == 0.0
    assert len(pilot.run_one(0.3, 90)["increases"]) == 1
