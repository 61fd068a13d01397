"""Predictions beside measurements, on a record made up here, whose answers are known."""

import pytest

from efflab.advice import predictions
from efflab.advice.case import CPUS
from efflab.advice.recorded import engine_row
from efflab.experiments import case_study_latency as timed

VNNI = next(iter(CPUS))
FLOPS = dict(zip(timed.STAGES, (100, 70, 90, 60), strict=True))
BYTES = dict(zip(timed.STAGES, (1000, 900, 850, 750), strict=True))
PARAMS = dict(zip(timed.STAGES, (100, 90, 85, 75), strict=True))


def measured(factor=lambda stage, engine: 1.0, width=0.01):
    """Rows whose times and bytes are the predicted ones times `factor`."""
    rows = {}
    for stage in timed.STAGES:
        for engine in timed.ENGINES:
            like = predictions.LIKE.get(engine, "fp32 eager")
            ratio = FLOPS[stage] / 100 * engine_row(like, VNNI)["4x64"] * factor(stage, engine)
            nbytes = predictions.bytes_a_parameter(engine) / 4 * BYTES[stage]
            row = dict(ratio=ratio, low=ratio - width, high=ratio + width)
            rows[stage, engine] = row | dict(flops=FLOPS[stage], nbytes=nbytes)
    return rows


def test_without_a_record_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(predictions, "EXPERIMENTS", tmp_path)
    with pytest.raises(ValueError, match=r"case-study-latency.*no record yet"):
        predictions.predictions()


def test_what_is_as_predicted_has_no_error_and_its_pairs_in_order():
    rows = predictions.latency(measured(), VNNI)
    assert len(rows) == 4 * 6  # OpenVINO in bf16 is not predicted
    assert max(abs(row["error"]) for row in rows) < 1e-9
    judged = list(predictions.pairs(rows))
    assert len(judged) > 50
    assert all(pair["is_right"] for pair in judged)


def test_a_measured_surprise_is_an_error_and_turns_pairs():
    def slow(stage, engine):
        return 10.0 if engine == timed.INT8 else 1.0

    rows = predictions.latency(measured(slow), VNNI)
    (summary,) = predictions.summary(rows)
    assert summary["right"] < summary["pairs"]
    assert summary["largest_error"] == pytest.approx(2.302585, abs=1e-6)  # ln 10
    assert summary["median_error"] < 1e-9


def test_a_band_hides_pairs_that_noise_could_turn():
    narrow = list(predictions.pairs(predictions.latency(measured(), VNNI)))
    wide = list(predictions.pairs(predictions.latency(measured(), VNNI, band=0.2)))
    assert 0 < len(wide) < len(narrow)


def test_eight_texts_are_predicted_by_the_larger_batch():
    one, eight = (predictions.latency(measured(), VNNI, n) for n in (1, 8))
    assert one[1]["predicted"] != eight[1]["predicted"]
    like = engine_row("bf16 eager", VNNI)["16x128"]
    assert eight[1]["predicted"] == pytest.approx(like)


def test_sizes_by_formula():
    rows = predictions.size(measured(), PARAMS)
    assert max(abs(row["error"]) for row in rows) < 1e-9
    shares = {row["engine"]: row["predicted"] for row in rows if row["stage"] == timed.SHIPPED}
    assert shares[timed.FP32] == shares[timed.OPENVINO] == 1
    assert shares[timed.BF16] == shares[timed.FP16] == 0.5
    assert 0.25 < shares[timed.INT8] < shares[timed.DYNAMIC] < 0.5
    tied = [p for p in predictions.pairs(rows) if p["predicted"] == pytest.approx(1)]
    assert not tied


def test_quality_by_another_models_losses():
    engines = [
        dict(engine=name, bits=bits, low=bits - 0.001, high=bits + 0.001)
        for name, bits in ((timed.INT8, 1.001), (timed.DYNAMIC, 1.02), (timed.OPENVINO, 1.0))
    ]
    rows = predictions.quality(engines, 1.0, VNNI)
    assert [row["engine"] for row in rows] == [timed.INT8, timed.DYNAMIC]
    (pair,) = predictions.pairs(rows)
    assert pair["is_right"]


def test_pairs_of_different_quantities_are_not_compared():
    rows = predictions.latency(measured(), VNNI)[:1] + predictions.size(measured(), PARAMS)[-1:]
    assert not list(predictions.pairs(rows))


def test_stages_have_the_parameters_of_their_steps():
    def run(path, *counts):
        rows = [dict(n_params=n) for n in counts]
        return dict(part="path", path=path, seed=0, precision="bf16 autocast", rows=rows)

    study = dict(runs=[run("lighten, prune", 90, 90, 75, 75), run("prune, lighten", 85, 85, 75)])
    found = predictions.stage_params(study)
    assert found == PARAMS | {timed.SHIPPED: 3161088}
