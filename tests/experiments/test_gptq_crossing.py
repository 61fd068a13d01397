"""The registered experiment of notebook 10: its errors are notebook 10's, map by map."""

import numpy as np
import pytest

from efflab.compression.calibration import layers_error, quantize_by
from efflab.experiments import gptq_crossing as crossing
from efflab.experiments.gptq_quality import language_model
from efflab.experiments.record import read_record
from efflab.experiments.registration import every_rule, rule_hash, rules_for
from efflab.lab.judge import read_rules

RULE = next(
    rule
    for _, rule in every_rule(read_rules())
    if rule.get("source", {}).get("record") == crossing.NAME
)


def test_the_runs_are_those_that_the_rule_registers(monkeypatch):
    calls = []
    monkeypatch.setattr(crossing, "run_cases", lambda *a, **options: calls.append((a, options)))
    crossing.run()
    ((_, cases, _), options) = calls[0]
    assert options["rules"] == rules_for(crossing.NAME) == [rule_hash(RULE)]
    assert RULE["source"]["settings"].items() <= options["settings"].items()
    assert sorted({case["seed"] for case in cases}) == RULE["source"]["seeds"]
    assert len(cases) == 6 * 5
    assert len(options["settings"]["maps"]) == 24


def test_errors_are_those_of_gptq_quality_map_by_map():
    model, held_out = language_model()
    nearest = quantize_by("rtn", model, crossing.BITS, None)
    assert crossing.nearest_errors().mean() == layers_error(model, nearest, held_out)
    recorded = [
        run["layer_error"]
        for run in read_record("gptq-quality")["runs"]
        if run["part"] == "language" and (run["bits"], run["method"]) == (3, "rtn")
    ]
    assert recorded[0] == pytest.approx(crossing.nearest_errors().mean(), rel=0.02)


def test_a_run_has_both_methods_and_every_map(monkeypatch):
    model = language_model()[0]
    better = quantize_by("rtn", model, 4, None)
    monkeypatch.setattr(crossing, "quantize_by", lambda *_: better)
    nearest = crossing.nearest_errors()
    run = crossing.run_one(128, 100)
    assert run["nearest"] == nearest.mean()
    assert run["ratio"] == run["gptq"] / run["nearest"] < 0.5
    assert run["maps"] == (crossing.map_errors(better) / nearest).round(4).tolist()
    assert len(run["maps"]) == len(language_model()[1])


def test_cases_are_means_over_seeds():
    runs = [
        dict(n_tokens=n, seed=seed, ratio=n / 128 + 0.01 * (seed - 102))
        for seed in crossing.SEEDS
        for n in crossing.TOKENS
    ]
    estimates = crossing.cases(runs)
    assert set(RULE["cases"]) <= set(estimates)
    assert set(estimates) == {f"tokens-{n}" for n in crossing.TOKENS}
    half = 2.776 * np.std([-0.02, -0.01, 0, 0.01, 0.02], ddof=1) / 5**0.5
    assert estimates["tokens-512"].mean == pytest.approx(4)
    assert estimates["tokens-512"].high == pytest.approx(4 + half, abs=1e-5)
