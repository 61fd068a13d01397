"""The arithmetic of large runs against the papers' own figures and against runs that were made."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from efflab.data import read_published
from efflab.devices import DEVICES
from efflab_rooms.case_study.measure import (
    TrainingRun,
    devices_needed,
    published_runs,
    run_days,
    tokens_possible,
)

A100 = DEVICES["A100 80GB SXM"].peak("fp16")
V100 = DEVICES["V100 SXM2"].peak("fp16")
"""FLOP/s of a device in 16 bits."""
RUNS = {run.name: run for run in published_runs()}


@pytest.mark.parametrize(
    ("n_params", "peak", "expected"),
    [(100e9, V100, 11_111), (100e9, A100, 4_452), (260e9, V100, 28_889)],
)
def test_devices_for_72_hours(n_params, peak, expected):
    """300 billion tokens at half of the peak (papers.md, section 15)."""
    assert round(devices_needed(n_params, 300e9, 3, peak, 0.5)) == expected


def test_days_that_the_papers_state():
    """GPT-3 on 2,048 V100 at 50 %: 28 days (ERNIE 3.0 Titan); ERNIE 3.0's 10 billion on 384."""
    assert run_days(174.6e9, 300e9, 2048, V100, 0.5) == pytest.approx(28.4, abs=0.05)
    assert run_days(10e9, 375e9, 384, V100, 1.0) == pytest.approx(5.4, abs=0.05)
    assert run_days(10e9, 375e9, 384, V100, 0.5) == pytest.approx(10.9, abs=0.05)


positive = st.floats(1e-3, 1e12)


@given(P=positive, D=positive, days=positive, n=positive, u=st.floats(1e-3, 1))
def test_each_figure_is_the_others_inverse(P, D, days, n, u):
    needed = devices_needed(P, D, days, A100, u)
    assert run_days(P, D, needed, A100, u) == pytest.approx(days)
    assert tokens_possible(P, days, needed, A100, u) == pytest.approx(D)
    run = TrainingRun("run", 2020, P, D, "A100", A100, None, 24 * days * needed, None)
    assert run.utilization == pytest.approx(u)
    # twice the days, the devices or the utilization: twice the tokens
    for twice in ((2 * days, n, u), (days, 2 * n, u), (days, n / 2, u)):
        factor = twice[0] * twice[1] / (days * n)
        grown = tokens_possible(P, *twice[:2], A100, u) / tokens_possible(P, days, n, A100, u)
        assert grown == pytest.approx(factor)


def test_the_runs_are_those_of_the_table():
    assert [(r["model"], r["tokens_billions"] * 1e9) for r in read_published("runs")] == [
        (run.name, run.n_tokens) for run in RUNS.values()
    ]
    days = {name: run.days for name, run in RUNS.items()}
    assert days["GPT-3 175B (estimate)"] == 34
    assert days["Llama 2 70B"] is None
    assert days["LLaMA 65B"] == pytest.approx(1022362 / 2048 / 24)


@pytest.mark.parametrize("name", ["GPT-3 175B (estimate)", "GPT 1T (estimate)"])
def test_utilization_agrees_with_the_rate_that_the_source_gives(name):
    """Its TFLOP/s count recomputed activations: 8 FLOPs where the model's own are 6."""
    run = RUNS[name]
    (source,) = [row["source"] for row in read_published("runs") if row["model"] == name]
    rate = float(re.search(r"\((\d+) TFLOP/s a GPU\)", source).group(1)) * 1e12
    assert run.utilization * 8 / 6 == pytest.approx(rate / A100, rel=0.015)


def test_megatrons_largest_rates_bound_the_runs_of_its_time():
    """Table 1: 44 to 52 % of peak with recomputation, so at most 39 % of the model's own."""
    best = max(row["percent_of_peak"] for row in read_published("megatron")) / 100 * 6 / 8
    for name in ("GPT-3 175B (estimate)", "GPT 1T (estimate)", "BLOOM"):
        assert 0.3 < RUNS[name].utilization < best


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_utilization_is_one_that_is_published_elsewhere(run):
    """PaLM's Table 3 begins at 21.3 %, Korthikanti et al.'s Table 5 ends at 56.3 %."""
    assert 0.213 < run.utilization < 0.563
    assert run_days(run.n_params, run.n_tokens, 1, run.peak, run.utilization) == pytest.approx(
        run.device_hours / 24
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (dict(n_params=0), "n_params=0"),
        (dict(n_tokens=-1), "n_tokens=-1"),
        (dict(days=0), "days=0"),
        (dict(utilization=0), "utilization=0"),
        (dict(utilization=1.01), r"utilization=1\.01"),
    ],
)
def test_refuses_bad_arguments(change, named):
    good = dict(n_params=1e9, n_tokens=1e9, days=3, peak=V100, utilization=0.5)
    with pytest.raises(ValueError, match=named):
        devices_needed(**good | change)


def test_refuses_no_devices_and_no_days():
    with pytest.raises(ValueError, match="n_devices=0"):
        tokens_possible(1e9, 3, 0, V100, 0.5)
    with pytest.raises(ValueError, match="days=0"):
        tokens_possible(1e9, 0, 1, V100, 0.5)
