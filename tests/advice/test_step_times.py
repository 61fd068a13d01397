"""Predicted times: what is fitted, what an interval holds, and that a freeze comes first."""

import json
from itertools import product

import numpy as np
import pytest

from efflab.advice import frozen, step_times
from efflab.advice.step_times import Constants, fit, predict, rate, work
from efflab.base.git import ask_git
from efflab.base.places import ROOT
from efflab.compression.decoders import weight_bytes
from efflab.cost import kv_cache_bytes
from efflab.estimate import Estimate
from efflab.experiments import decoder_cases
from efflab.experiments.decoder_steps import DECODE, PREFILL, SHAPES, STEPS, Step
from efflab.experiments.record import read_record
from efflab.inference import decode_flops, prefill_flops

COSTS = (0.2, 5e-8, 1e-8, 2e-7)


def runs_by(costs, noise: float, seed: int = 0, format: str = "OpenVINO fp32") -> list[dict]:
    rng = np.random.default_rng(seed)
    runs = []
    for model, step in product(SHAPES, STEPS):
        ms = float(np.dot(costs, work(SHAPES[model], format, step)) * np.exp(rng.normal(0, noise)))
        runs.append(dict(model=model, format=format, **step._asdict(), ms=ms))
    return runs


def test_work_is_counted_by_the_formulas():
    config = SHAPES["narrow"]
    n_layers, n_weights, n_flops, n_cache = work(config, "OpenVINO fp32", Step(DECODE, 100, 2))
    assert (n_layers, n_weights) == (12, weight_bytes(config, "OpenVINO fp32"))
    assert n_flops == decode_flops(config, 100, 2)
    assert n_cache == kv_cache_bytes(config, 100, 2, value_bytes=4)
    assert work(config, "OpenVINO bf16", Step(PREFILL, 100))[2:] == (
        prefill_flops(config, 100),
        kv_cache_bytes(config, 100, value_bytes=2),
    )


def test_torch_reads_a_copy_of_the_keys_for_each_query_head():
    config = SHAPES["wide"]  # 12 heads of queries, 4 of keys
    in_torch, in_openvino = (
        work(config, f"{e} fp32", Step(DECODE, 64))[3] for e in ("torch", "OpenVINO")
    )
    assert in_torch == 3 * in_openvino


def test_costs_are_found_again_where_there_is_no_noise():
    constants = fit(runs_by(COSTS, 0))["OpenVINO fp32"]
    assert constants.costs == pytest.approx(COSTS, rel=0.01)
    assert constants.spread == pytest.approx(1, abs=0.01)


def test_the_interval_holds_nine_tenths_of_new_noise():
    noise = 0.15
    constants = fit(runs_by(COSTS, noise))["OpenVINO fp32"]
    new = runs_by(COSTS, noise, seed=1)
    told = [predict(constants, step_times.work_of(run, SHAPES)) for run in new]
    inside = [p.low <= run["ms"] <= p.high for p, run in zip(told, new, strict=True)]
    assert 0.8 <= np.mean(inside) <= 1
    assert 1.2 < constants.spread < 1.5


def test_models_that_differ_from_the_formula_widen_the_interval():
    runs = runs_by(COSTS, 0)
    wrong = [run | dict(ms=run["ms"] * (3 if run["model"] == "wide" else 1)) for run in runs]
    assert fit(wrong)["OpenVINO fp32"].spread > 1.5 > fit(runs)["OpenVINO fp32"].spread


def test_a_prediction_is_the_sum_of_its_terms():
    estimate = predict(Constants((1.0, 2.0, 3.0, 4.0), 1.5), (1, 1, 1, 1))
    assert (estimate.low, estimate.mean, estimate.high) == pytest.approx((10 / 1.5, 10, 15))


def test_predictions_are_rated():
    told = [Estimate(2, 1, 4), Estimate(20, 16, 32)]
    good = rate(told, [3, 30])
    assert (good.coverage, good.width, good.wrong_orders, good.n_orders) == (1, 3, 0, 1)
    assert good.score == 1.5
    # one octave above the interval costs 20
    assert rate(told, [8, 30]).score == pytest.approx(1.5 + 10)
    assert rate(told, [3, 2]).wrong_orders == 1
    with pytest.raises(ValueError, match="times=1: expected 2"):
        rate(told, [3])


# --- What is frozen --------------------------------------------------------------------------


@pytest.mark.parametrize("number", decoder_cases.NEW)
def test_a_freeze_was_committed_before_its_times_were_measured(number):
    """The commit that the record names has the frozen file, with the same predictions."""
    name = f"data/predicted/decoder-{number}.json"
    record = read_record(decoder_cases.NAME)
    entries = {run["made"] for run in record["runs"] if run["seed"] == number}
    assert len(entries) == 1
    commit = record["provenance"][entries.pop()]["commit"]
    assert not commit.endswith("+")
    stored = ask_git(ROOT, "show", f"{commit}:{name}")
    if stored is None:
        pytest.skip("a clone without history")
    assert json.loads(stored) == json.loads((ROOT / name).read_text("utf-8"))
    before = ask_git(ROOT, "show", f"{commit}:data/experiments/decoder-cases.json")
    earlier = json.loads(before)["machines"] if before else []
    assert all(run["seed"] != number for block in earlier for run in block["runs"])


@pytest.mark.parametrize("number", decoder_cases.NEW)
def test_a_freeze_has_forty_cases_of_models_that_were_not_fitted_to(number):
    cases = frozen.rows(decoder_cases.frozen()[number - 1])
    assert len(cases) == 40
    assert all("measured" in case for case in cases)
    earlier = [m for n, models in decoder_cases.NEW.items() if n < number for m in models]
    assert not {case["model"] for case in cases} & {*SHAPES, *earlier}
    drawn = [(c["model"], c["format"], *list(c.values())[2:5]) for c in cases]
    assert drawn == [
        tuple(c[k] for k in c if k != "seed") for c in decoder_cases.draw_cases(number)
    ]


def test_the_first_freeze_failed_and_the_second_did_not():
    scores = [frozen.score(frozen.rows(path)) for path in decoder_cases.frozen()[:2]]
    assert [frozen.holds(score) for score in scores] == [False, True]
    assert [round(40 * score.coverage) for score in scores] == [32, 37]


def test_a_freeze_is_written_with_what_was_fitted(tmp_path):
    for number in (1,):
        (tmp_path / f"decoder-{number}.json").write_text("{}")
    content = json.loads(frozen.freeze(tmp_path).read_text("utf-8"))
    assert content["machine"] == read_record("decoder-steps")["machine"]
    assert all(case["low"] < case["ms"] < case["high"] for case in content["cases"])
    with pytest.raises(ValueError, match="number=3: expected one of 1, 2"):
        frozen.freeze(tmp_path)
