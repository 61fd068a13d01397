"""Predictions beside measurements, on a record made up here, whose answers are known."""

import pytest

from efflab.advice import predictions
from efflab.advice.case import CPUS
from efflab.config import PRESETS
from efflab.cost import forward_flops, num_params
from efflab.estimate import Estimate
from efflab.experiments import case_study_latency as timed
from efflab.experiments import openvino_graphs
from efflab.experiments.language_engines import PLAIN as PLAIN_SHAPE
from efflab.experiments.language_engines import WINDOWS as WINDOWS_SHAPE
from efflab.experiments.record import read_record

VNNI = next(iter(CPUS))
CONFIG = PRESETS["stdlib-gpt"]
ALL = num_params(CONFIG)
PARAMS = dict(zip(timed.STAGES, (ALL, ALL - 300_000, ALL - 450_000, ALL - 700_000), strict=True))
WINDOWS = predictions.stage_windows(timed.read_recipe().windows)
PLAIN = forward_flops(CONFIG, 512)
FLOPS = dict(zip(timed.STAGES, (1.0, 0.7, 0.9, 0.6), strict=True))


def around(x):
    return Estimate(x, 0.99 * x, 1.01 * x)


FACTORS = {
    (shape, engine): [around(1.0)] * 2 if i == 0 else [around(more * x**i) for x in (0.8, 0.85)]
    for i, engine in enumerate(timed.ENGINES)
    for shape, more in ((PLAIN_SHAPE, 1.0), (WINDOWS_SHAPE, 1.1))
}


def nbytes(stage, engine):
    return predictions.bytes_of(engine, PARAMS[stage], WINDOWS[stage])


def measured(factor=lambda stage, engine: 1.0, width=0.001):
    """Rows whose times and bytes are the predicted ones times `factor`."""
    rows = {}
    for stage in timed.STAGES:
        for engine in timed.ENGINES:
            flops = round(FLOPS[stage] * PLAIN)
            rows[stage, engine] = dict(flops=flops, ratio=1.0, low=1.0, high=1.0)
            rows[stage, engine] |= dict(nbytes=nbytes(stage, engine))
    for row in predictions.latency(rows, WINDOWS, FACTORS):
        ratio = row["predicted"] * factor(row["stage"], row["engine"])
        ends = dict(low=ratio - width, high=ratio + width)
        rows[row["stage"], row["engine"]] |= dict(ratio=ratio) | ends
    return rows


def predicted(**options):
    return predictions.latency(measured(**options), WINDOWS, FACTORS)


def test_without_a_record_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(predictions, "EXPERIMENTS", tmp_path)
    with pytest.raises(ValueError, match=r"case-study-latency.*no record yet"):
        predictions.predictions()


def test_what_is_as_predicted_has_no_error_and_no_pair_out_of_order():
    rows = predicted()
    assert len(rows) == 4 * 7
    assert max(abs(row["error"]) for row in rows) < 1e-9
    (found,) = predictions.summary(rows)
    assert found["wrong"] == 0
    assert found["right"] > 100
    assert found["right"] + found["untold"] == found["pairs"]


def test_a_measured_surprise_is_an_error_and_turns_pairs():
    rows = predicted(factor=lambda stage, engine: 10.0 if engine == timed.INT8 else 1.0)
    (found,) = predictions.summary(rows)
    assert found["wrong"] > 20
    assert found["largest_error"] == pytest.approx(2.302585, abs=1e-6)  # ln 10
    assert found["median_error"] < 1e-9


def test_the_largest_error_is_of_the_one_that_is_furthest_off():
    alone = timed.STAGES[-1], timed.INT8
    for factor in (10.0, 0.1):
        rows = predicted(factor=lambda *row, factor=factor: factor if row == alone else 1.0)
        (found,) = predictions.summary(rows)
        assert found["largest_error"] == pytest.approx(2.302585, abs=1e-6)  # ln 10
        assert found["median_error"] < 1e-9


def test_a_time_is_flops_times_what_the_engine_takes_for_one():
    rows = {(row["stage"], row["engine"]): row for row in predicted()}
    for stage, shape in ((timed.PRUNED, PLAIN_SHAPE), (timed.BOTH, WINDOWS_SHAPE)):
        row, (a, b) = rows[stage, timed.INT8], FACTORS[shape, timed.INT8]
        assert row["predicted"] == pytest.approx(FLOPS[stage] * (a.mean * b.mean) ** 0.5)
        ends = [(FLOPS[stage] * f.low, FLOPS[stage] * f.high) for f in (a, b)]
        assert row["each"] == [pytest.approx(end) for end in ends]
        assert row["least"] == pytest.approx(FLOPS[stage] * a.low)
        assert row["most"] == pytest.approx(FLOPS[stage] * b.high)
    assert rows[timed.SHIPPED, timed.FP32]["predicted"] == pytest.approx(1)


def row(engine, *each, at=1.0, **more):
    value = dict(what="latency", stage="as shipped", engine=engine, speed=engine, each=list(each))
    return value | dict(predicted=at, measured=at, low=at, high=at, error=0.0) | more


@pytest.mark.parametrize(
    ("a", "b", "order"),
    [
        (row(timed.INT8, (1, 2), (3, 4)), row(timed.BF16, (5, 6), (7, 8)), -1),
        (row(timed.BF16, (5, 6), (7, 8)), row(timed.INT8, (1, 2), (3, 4)), 1),
        (row(timed.INT8, (1, 2), (5, 6)), row(timed.BF16, (3, 4), (7, 8)), -1),  # each by its own
        (row(timed.INT8, (1, 2), (7, 8)), row(timed.BF16, (3, 4), (5, 6)), 0),  # they disagree
        (row(timed.INT8, (1, 2), (3, 5)), row(timed.BF16, (5, 6), (4, 8)), 0),  # noise in one
        (row(timed.OPENVINO, (1, 2), (1, 2)), row(timed.FP16, (1, 2), (1, 2)), 0),
        (row(timed.INT8, (1, 5), at=3.0), row(timed.INT8, (2, 6), at=4.0), -1),  # it cancels
        (row(timed.INT8, (1, 2), at=1.0), row(timed.INT8, (1, 2), at=1.0), 0),
        (row(timed.INT8, (1, 5), speed=1), row(timed.INT8, (2, 6), at=4.0, speed=2), 0),
    ],
)
def test_an_order_is_told_where_every_model_tells_it_or_the_speed_cancels(a, b, order):
    assert predictions.predicted_order(a, b) == order


def test_an_order_needs_every_model_in_both():
    with pytest.raises(ValueError, match="shorter"):
        predictions.predicted_order(row(timed.INT8, (1, 2), (1, 2)), row(timed.BF16, (5, 6)))


@pytest.mark.parametrize("measured", [(1.0, 2.0), (2.0, 1.0)])
def test_a_pair_is_right_in_the_order_that_was_measured(measured):
    x, y = ({"measured": m, "low": m, "high": m} for m in measured)
    rows = [row(timed.INT8, (5, 6), at=5.5) | x, row(timed.BF16, (3, 4), at=3.5) | y]
    for asked in (rows, rows[::-1]):
        (pair,) = predictions.pairs(asked)
        assert pair["is_right"] is (measured == (2.0, 1.0))
        (found,) = predictions.summary(asked)
        assert found["middle"] == (measured == (2.0, 1.0))


def test_a_pair_that_is_not_told_is_neither_right_nor_wrong():
    rows = [row(timed.INT8, (0.1, 0.35), at=0.2), row(timed.BF16, (0.3, 0.4), at=0.3)]
    (pair,) = predictions.pairs(rows)
    assert pair["is_right"] is None
    (found,) = predictions.summary(rows)
    assert (found["right"], found["wrong"], found["untold"]) == (0, 0, 1)
    assert found["middle"] == 1


def test_sizes_by_formula():
    rows = predictions.size(measured(), PARAMS, WINDOWS)
    assert max(abs(row["error"]) for row in rows) < 1e-9
    shares = {row["engine"]: row["predicted"] for row in rows if row["stage"] == timed.SHIPPED}
    assert shares[timed.FP32] == 1 < shares[timed.OPENVINO] < 1.02
    assert shares[timed.BF16] == 0.5 < shares[timed.FP16] < 0.52
    assert 0.25 < shares[timed.INT8] < shares[timed.DYNAMIC] < 0.5
    fewer = [predictions.int8_bytes(timed.INT8, n) for n in (ALL, ALL - 1000)]
    assert fewer[0] - fewer[1] == 1000


@pytest.mark.parametrize(
    ("engine", "windows"),
    [(timed.OPENVINO, [None]), (timed.FP16, [256]), (timed.INT8, [256])],
)
def test_a_graph_does_not_grow_with_the_width(engine, windows, monkeypatch):
    narrow = openvino_graphs.run_one(engine, windows, 0)
    assert narrow["text"] > 10_000
    assert (narrow["masks"] > 80_000) == (windows[0] is not None)
    monkeypatch.setattr(openvino_graphs, "WIDTH", 16)
    wide = openvino_graphs.run_one(engine, windows, 0)
    assert wide["text"] == pytest.approx(narrow["text"], rel=0.01)
    assert wide["masks"] == pytest.approx(narrow["masks"], abs=1000)


def test_the_recorded_graphs_are_those_of_the_code():
    runs = read_record(openvino_graphs.NAME)["runs"]
    cases = [{key: run[key] for key in ("engine", "windows", "seed")} for run in runs]
    assert cases == openvino_graphs.cases()
    light = next(r for r in runs if r["engine"] == timed.FP16 and r["windows"][0] is not None)
    found = openvino_graphs.run_one(light["engine"], light["windows"], light["seed"])
    assert found == pytest.approx({key: light[key] for key in found}, rel=0.01)


def test_a_graph_that_was_not_recorded_is_refused():
    with pytest.raises(ValueError, match=r"windows=\(7, 7\): expected one of"):
        predictions.graph_bytes(timed.INT8, (7, 7))


def test_every_size_of_the_case_study_is_in_order():
    n_params = predictions.stage_params(read_record("case-study"))
    (found,) = predictions.summary(predictions.size(predictions.latency_rows(), n_params, WINDOWS))
    assert (found["wrong"], found["untold"]) == (0, 0)
    assert found["right"] > 200
    assert found["largest_error"] < 0.02


def test_quality_by_another_models_losses():
    engines = [
        dict(engine=name, bits=bits, low=bits - 0.001, high=bits + 0.001)
        for name, bits in ((timed.INT8, 1.001), (timed.DYNAMIC, 1.02), (timed.OPENVINO, 1.0))
    ]
    rows = predictions.quality(engines, 1.0, VNNI)
    assert [row["engine"] for row in rows] == [timed.INT8, timed.DYNAMIC]
    (pair,) = predictions.pairs(rows)
    assert pair["is_right"] is True


def test_pairs_of_different_quantities_are_not_compared():
    rows = predicted()[:1] + predictions.size(measured(), PARAMS, WINDOWS)[-1:]
    assert not list(predictions.pairs(rows))


def test_stages_have_the_parameters_of_their_steps():
    def run(path, *counts):
        rows = [dict(n_params=n) for n in counts]
        return dict(part="path", path=path, seed=0, precision="bf16 autocast", rows=rows)

    study = dict(runs=[run("lighten, prune", 90, 90, 80, 75), run("prune, lighten", 85, 85, 75)])
    assert list(predictions.stage_params(study).values()) == [ALL, 90, 85, 75]
