"""The registered experiment of notebook 09: its functions, its draws, and what it comes to."""

import numpy as np
import pytest

from efflab import data, evaluate, points
from efflab.experiments import int8_ranges as ranges
from efflab.experiments import int8_ranges_2 as ranges_2
from efflab.experiments.registration import every_rule, rule_hash
from efflab.lab.judge import read_rules

RULE = next(
    rule
    for _, rule in every_rule(read_rules())
    if rule.get("source", {}).get("record") == ranges_2.NAME
)


def test_the_runs_are_those_that_the_rule_registers(monkeypatch):
    calls = []
    monkeypatch.setattr(ranges_2, "run_cases", lambda *a, **options: calls.append((a, options)))
    ranges_2.run()
    ((_, cases, _), options) = calls[0]
    assert options["rules"] == [rule_hash(RULE)]
    assert RULE["source"]["settings"].items() <= options["settings"].items()
    smoothed = [case["seed"] for case in cases if case["form"] == "smoothed"]
    assert sorted(smoothed) == RULE["source"]["seeds"]
    assert [case["form"] for case in cases].count("control") == 1


def test_functions_are_enough_and_none_calibrates_and_is_judged():
    test, others = ranges_2.functions()
    assert len(test) == 3000
    assert len(others) >= ranges_2.N_TEXTS
    queries = [f.query for f in (*test, *others)]
    assert len(set(queries)) == len(queries)
    assert {f.query for f in data.documented_functions()} <= set(queries)
    assert ranges_2.functions() == (test, others)


def test_a_run_is_the_ranks_of_its_form(monkeypatch):
    test, others = ranges_2.functions()
    monkeypatch.setattr(ranges_2, "functions", lambda: (test[:12], others))
    monkeypatch.setattr(ranges_2, "N_TEXTS", 2)
    drawn = []
    make = ranges.make_encoder
    monkeypatch.setattr(
        ranges, "make_encoder", lambda f, m, batches: drawn.append(batches) or make(f, m, batches)
    )
    exact = ranges_2.run_one("fp32", 100)["ranks"].split()
    expected = evaluate.reciprocal_ranks(*ranges.vectors(points.encoder()[0], test[:12]))
    assert [1 / int(rank) for rank in exact] == pytest.approx(expected.tolist())
    assert drawn == []
    for seed in (100, 101, 100):
        ranges_2.run_one("smoothed", seed)
    first, second, again = ([ids.tolist() for ids, _ in batches] for batches in drawn)
    assert first == again != second
    with pytest.raises(ValueError, match="form='int4'"):
        ranges_2.run_one("int4", 100)


def test_cases_pair_by_function_and_draws_of_one_function_stay_together():
    def runs(*smoothed):
        yield dict(form="fp32", seed=100, ranks="1 2 1 2")
        yield dict(form="control", seed=100, ranks="4 4 4 4")
        yield from (dict(form="smoothed", seed=s, ranks=r) for s, r in smoothed)

    estimates = ranges_2.cases(runs((100, "1 2 1 2"), (101, "2 2 1 2")))
    assert set(estimates) == {*RULE["cases"], *(control["case"] for control in RULE["controls"])}
    assert estimates["control-3000"].mean == pytest.approx(100 * (1 - 3) / 3)
    assert estimates["smoothed-3000"].mean == pytest.approx(-100 * 0.25 / 3)
    once = ranges_2.cases(runs((100, "2 2 1 2")))
    assert ranges_2.cases(runs((100, "2 2 1 2"), (101, "2 2 1 2"))) == once
    assert once["smoothed-3000"].low < once["smoothed-3000"].mean < 0
    assert np.isclose(once["smoothed-3000"].high, 0)
