"""The design to come of FP16's training steps: what is run and timed, and what it comes to."""

import json
from math import log

import pytest
import torch

from efflab.experiments import fp16_steps as experiment
from efflab.experiments.gpu_bench import Sizes, make_model, random_ids
from efflab.experiments.registration import every_rule, rule_hash
from efflab.lab.judge import evidence_ids, read_rules

SMALL = Sizes(model=(1, 64, 16))
RULES = [
    rule
    for _, rule in every_rule(read_rules())
    if rule.get("source", {}).get("record") == experiment.NAME
]


@pytest.fixture
def gpu(monkeypatch):
    """A GPU to name, where nothing is run."""

    class Properties:
        name = "H200"

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)


def trainer(recipe, n=2):
    torch.manual_seed(0)
    model = make_model(SMALL)
    return experiment.Trainer(model, recipe, random_ids(model, n))


def test_the_runs_are_those_that_the_rule_registers(gpu, monkeypatch):
    calls = []
    monkeypatch.setattr(experiment, "run_cases", lambda *a, **options: calls.append((a, options)))
    experiment.run()
    ((name, cases, run_one), options) = calls[0]
    (rule,) = RULES
    assert (name, run_one) == (experiment.NAME, experiment.run_one)
    assert options["rules"] == [rule_hash(rule)]
    assert rule["source"]["settings"].items() <= options["settings"].items()
    assert sorted({case["seed"] for case in cases}) == rule["source"]["seeds"]
    assert sorted({case["n"] for case in cases}) == [4, 32]
    assert len(cases) == 10
    assert options["settings"]["gpu"] == "H200"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_nothing_begins():
    with pytest.raises(ValueError, match="device='none'"):
        experiment.run()


def test_a_case_runs_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setattr(experiment, "run_isolated", lambda *task, timeout: dict(task=task))
    name = "efflab.experiments.fp16_steps:measure"
    assert experiment.run_one(4, 100)["task"] == (name, dict(n=4, seed=100))


def test_recipes_train_alike():
    losses = {}
    for recipe in ("tf32", "fp32", "bf16", "fp16"):
        one = trainer(recipe)
        for _ in range(20):
            one.step()
        losses[recipe] = one.loss.item()
    assert losses["tf32"] == losses["fp32"] < log(8192) - 0.1
    for recipe in ("bf16", "fp16"):
        assert losses[recipe] == pytest.approx(losses["fp32"], abs=0.02)


def test_gradients_that_overflow_change_no_weight():
    one = trainer("fp16")
    one.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = one.model.embedding.token.weight.clone()
    one.step()
    assert torch.equal(one.model.embedding.token.weight, before)
    assert one.scaler.get_scale() == 2.0**39


def test_tf32_is_on_during_its_own_steps_alone(monkeypatch):
    flags = []
    one = trainer("tf32")
    monkeypatch.setattr(one, "_step", lambda: flags.append(torch.backends.cuda.matmul.allow_tf32))
    one.step()
    assert flags == [True]
    assert not torch.backends.cuda.matmul.allow_tf32


def test_a_row_has_every_recipe_over_tf32_and_counts_what_was_skipped(monkeypatch):
    options = dict(device="cpu", sizes=SMALL, warmup=1, repeats=2)
    row = experiment.measure(2, 100, **options)
    recipes = ["tf32", "fp32", "bf16", "fp16"]
    shown = ["milliseconds", "kernel_milliseconds", "losses"]
    assert list(row) == [*recipes[1:], "again", *shown, "n_skipped"]
    assert all(list(row[key]) == recipes for key in shown)
    assert all(value > 0 for value in row["milliseconds"].values())
    assert row["losses"]["tf32"] == row["losses"]["fp32"]  # after as many steps
    assert row["n_skipped"] == 0
    assert json.loads(json.dumps(row)) == row
    scaler = torch.amp.GradScaler

    def large(device, enabled):
        return scaler(device, enabled=enabled, init_scale=2.0**40)

    monkeypatch.setattr(torch.amp, "GradScaler", large)
    assert experiment.measure(2, 100, **options)["n_skipped"] == 2


def test_cases_are_those_of_the_rule_widened_by_the_noise():
    runs = [
        dict(n=n, seed=seed, fp16=0.8 + 0.001 * (seed - 102), bf16=0.7, again=1 + noise)
        for n in (4, 32)
        for seed, noise in zip(experiment.SEEDS, (-0.02, -0.01, 0, 0.01, 0.02), strict=True)
    ]
    cases = experiment.cases(runs)
    assert set(cases) == set(evidence_ids(RULES[0]))
    assert cases["step-fp16-4"].mean == pytest.approx(0.8)
    assert cases["step-fp16-4"].high > 0.8 * 1.019
    assert experiment.cases(runs, "bf16")["step-bf16-32"].mean == pytest.approx(0.7)
