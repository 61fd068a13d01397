"""Engines timed on models of other widths: tiny ones here, and the record's form."""

from dataclasses import astuple

import pytest

from efflab.config import PRESETS
from efflab.estimate import Estimate
from efflab.experiments import case_study, language_engines, lighten
from efflab.experiments import case_study_latency as timed
from efflab.experiments.language_engines import PLAIN, WINDOWS
from efflab.experiments.record import read_record


def test_another_width_has_the_same_layers_and_heads_as_wide():
    model = language_engines.other(128, [None, 64])
    assert [w for _, w in lighten.attentions(model)] == [None, 64]
    assert {a.head_dim for a, _ in lighten.attentions(model)} == {32}
    assert model.config.d_ff == 4 * model.config.d_model == 512


def test_every_engine_is_timed_with_and_without_windows(monkeypatch):
    monkeypatch.setattr(case_study, "N_CALIBRATION", 2)
    case_study.calibration.cache_clear()
    found = language_engines.times(32, [64, None], 0, 2)
    case_study.calibration.cache_clear()
    rows = {(row["stage"], row["engine"]): row for row in found["rows"]}
    assert set(rows) == {(shape, e) for shape in (PLAIN, WINDOWS) for e in timed.ENGINES}
    assert rows[WINDOWS, timed.INT8]["flops"] < rows[PLAIN, timed.INT8]["flops"]
    assert rows[WINDOWS, timed.OPENVINO]["error"] < 1e-4 < rows[WINDOWS, timed.INT8]["error"]


def test_a_factor_is_time_over_flops():
    rows = [
        dict(stage=PLAIN, engine=timed.FP32, flops=100, ratio=1.0, low=0.5, high=2.0),
        dict(stage=WINDOWS, engine=timed.FP32, flops=80, ratio=0.9, low=0.8, high=1.0),
    ]
    runs = [dict(width=w, isa=None, rows=rows) for w in (1, 2)]
    runs.append(dict(width=1, isa=timed.OLDER, rows=[rows[0] | dict(ratio=1.5)]))
    found = language_engines.factors(dict(runs=runs))
    assert found[PLAIN, timed.FP32] == [Estimate(1.0, 0.5, 2.0)] * 2
    windowed = found[WINDOWS, timed.FP32]
    assert len(windowed) == 2
    assert astuple(windowed[0]) == pytest.approx((1.125, 1.0, 1.25))
    found = language_engines.factors(dict(runs=runs), timed.OLDER)
    assert found == {(PLAIN, timed.FP32): [Estimate(1.5, 0.5, 2.0)]}


def test_the_record_has_widths_on_both_sides():
    kept = read_record(language_engines.NAME)
    widths = {run["width"] for run in kept["runs"] if run["isa"] is None}
    assert widths == set(language_engines.WIDTHS)
    assert min(widths) < PRESETS["stdlib-gpt"].d_model < max(widths)
    for run in kept["runs"]:
        assert {(row["stage"], row["engine"]) for row in run["rows"]} == {
            (shape, engine) for shape in (PLAIN, WINDOWS) for engine in timed.ENGINES
        }
