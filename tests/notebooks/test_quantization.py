"""Notebook 09: its tables, figures, explorer, exercises and verdicts."""

import math
import re

import pytest
import torch

from efflab import cost, data, evaluate, inference, lab, points, pretrained
from efflab.bench import Comparison
from efflab.compression import affine, int8
from efflab.compression.engines import Engine, fp32
from efflab.config import PRESETS
from efflab.devices import GIB
from efflab.estimate import Estimate
from efflab.experiments import int8_engines as experiment
from efflab.experiments import int8_ranges as ranges
from efflab.experiments.record import read_record
from efflab.publishing.catalog import NOTEBOOKS
from efflab_rooms.quantization import exercises, figures, measure, verdicts


def test_parts_and_files_of_minilm():
    model, _ = points.encoder()
    counts = verdicts.parts(model)
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters())
    rows = {r["stored"]: r for r in verdicts.file_rows(model)}
    for row in list(rows.values())[1:]:
        assert row["file (MB)"] == pytest.approx(row["formula (MB)"], rel=0.001)
    assert rows["linear layers, per channel"]["smaller by (%)"] == pytest.approx(35, abs=1)
    assert 74 < rows["linear layers and embeddings, per channel"]["smaller by (%)"] < 75
    fig = figures.parts(model)
    assert len(fig.data) == 3


def test_what_the_text_says_of_qwen3():
    """Bytes of weights and of a token's reading, and the cache that 24 GB hold beside them."""
    qwen, room = PRESETS["qwen3-8b"], {}
    for name, size, read in (("bf16", 16.4, 15.1), ("int8", 8.19, 7.57), ("int4", 4.22, 3.9)):
        n_bytes = cost.weight_bytes(qwen, name)
        read_bytes = inference.decode_bytes(qwen, 0, format=name)
        assert (n_bytes / 1e9, read_bytes / 1e9) == pytest.approx((size, read), rel=5e-3)
        room[name] = (24 * GIB - n_bytes) // (2 * 36 * 8 * 128 * 2)
    assert room == {"bf16": 63_668, "int8": 119_215, "int4": 146_121}


def test_the_explorers_quality_and_size_move_with_the_bits():
    metas = {b: dict(figures.bit_width(b).layout.meta) for b in (2, 8)}
    assert metas[2]["bits per byte"] > metas[8]["bits per byte"] + 0.2
    assert metas[8]["above fp32"] == pytest.approx(0, abs=0.02)
    assert metas[2]["size / fp32"] < metas[8]["size / fp32"] < 0.27
    assert metas[2]["from"] < metas[2]["above fp32"] < metas[2]["to"]
    coarse = figures.bit_width(4, "per tensor").layout.meta["layer error (%)"]
    assert figures.bit_width(4, "groups of 32").layout.meta["layer error (%)"] < coarse


def test_a_rounded_point_is_small_and_good():
    point = measure.rounded_point(8, axis=0)
    assert point["bytes"] < 0.27 * 4 * sum(p.numel() for p in points.language_model().parameters())
    assert point["time"].mean > 0
    assert abs(point["quality"].mean - points.shipped_quality()) < 0.02


def test_outliers_of_minilm():
    name = "layers.0.ffn.body.up"
    ratio = int8.outlier_ratio(measure.channel_peaks()[name])
    assert ratio > 8
    assert int8.outlier_ratio(measure.smoothed_peaks(name)) < ratio / 2
    meta = list(figures.outliers().layout.meta.values())
    assert meta[1] < meta[0] / 2


def test_recorded_forms_are_all_there_and_paired():
    found = verdicts.recorded_forms()
    assert list(found) == list(ranges.FORMS)
    for row in found.values():
        assert row["mrr less fp32 low"] <= row["mrr less fp32"] <= row["mrr less fp32 high"]
        assert row["mrr"] - row["mrr fp32"] == pytest.approx(row["mrr less fp32"], abs=2e-4)
    p5 = {form: row["cosine p5"] for form, row in found.items()}
    assert p5[ranges.SMOOTHED] > p5[ranges.MINMAX] > p5["static, 99.9th percentile"]
    assert p5[ranges.DYNAMIC] > max(p5[ranges.SEVEN], p5[ranges.ONE_SCALE])
    assert p5[ranges.CONTROL] == min(p5.values())
    assert len(measure.form_rows()) == len(found)


def test_the_ways_near_fp32_span_the_panel_and_far_ones_are_written():
    """So that nine intervals around 0 can be told apart."""
    fig = figures.forms()
    low, high = fig.layout.xaxis2.range
    near = [r for r in verdicts.recorded_forms().values() if r["mrr less fp32"] > figures.FAR]
    assert low < min(row["mrr less fp32 low"] for row in near) < -0.02
    assert high < 0.03
    written = [a.y for a in fig.layout.annotations if a.text.startswith("←")]
    assert written == [ranges.CONTROL, "static, 99.9th percentile"]


def test_an_mrr_belongs_to_its_number_of_functions():
    """fp32's, as the notebook's text says them: here, on the board, in 10, and here twice."""
    forty, (model, tokenizer) = experiment.functions()[1][:40], points.encoder()
    texts = [f.query for f in forty], [f.code for f in forty]
    vectors = [pretrained.embed(model, tokenizer, t, max_len=experiment.MAX_LEN) for t in texts]
    found = {
        40: evaluate.retrieval_mrr(*vectors).mean,
        60: next(p["quality"] for p in lab.board.recorded("MiniLM-L6")),
        120: read_record("gptq-quality")["runs"][0]["mrr"],
        300: measure.recorded_engines()["fp32 eager"]["mrr"],
        931: verdicts.recorded_forms()[ranges.CONTROL]["mrr fp32"],
    }
    text = (NOTEBOOKS / "src" / "09_quantization.py").read_text(encoding="utf-8")
    said = text[text.index("The more functions compete") :].replace("\n# ", " ")
    numbers = re.findall(r"0\.\d\d", said)[:5]
    assert [float(n) for n in numbers] == [pytest.approx(v, abs=0.0051) for v in found.values()]
    assert read_record(ranges.NAME)["settings"]["n_test"] == 931


def test_the_papers_speeds_are_drawn_by_width():
    fig = figures.published_speeds()
    rows = data.read_published("llm_int8")
    assert [list(trace.y) for trace in fig.data] == [[r[k] for r in rows] for k in figures.SPEEDS]
    assert list(fig.layout.meta.values()) == [0.99, 0.43, 0.14]


def test_a_form_made_here_is_near_its_record_and_another_is_not():
    cosines = measure.form_cosines(8, 4, (ranges.DYNAMIC,))
    assert verdicts.cosines_agree(cosines)
    recorded, here = verdicts.recorded_forms()[ranges.DYNAMIC], cosines[ranges.DYNAMIC]
    off = recorded["cosine mean"] - 1.1 * recorded["cosine sd"] - here.mean()
    assert not verdicts.cosines_agree({ranges.DYNAMIC: here + off})


RATIOS = {"a": Estimate(0.5, 0.4, 0.6), "b": Estimate(2, 1.9, 2.1), "c": Estimate(1, 0.8, 1.2)}
TIMES = dict.fromkeys(RATIOS, Comparison({}, RATIOS, again=Estimate(1.0, 0.9, 1.1)))


def test_a_form_differs_only_outside_of_the_band():
    words = [measure.difference(times, form) for form, times in TIMES.items()]
    assert words == ["faster", "slower", "within the noise"]


def test_forms_of_a_layer_are_shown_with_their_ratio():
    rows = measure.linear_rows(TIMES)
    assert [(r["time / fp32"], r["interval, low"]) for r in rows] == [
        (0.5, 0.4),
        (2, 1.9),
        (1, 0.8),
    ]
    fig = figures.linear_forms(TIMES)
    assert fig.layout.meta == {"a": 0.5, "b": 2, "c": 1}
    assert [list(trace.y) for trace in fig.data] == [["a"], ["b"], ["c"]]


def test_operators_are_grouped_and_their_shares_add_up():
    profile = {
        ("a", "FullyConnected_x"): 0.004,
        ("aten::div_1", "Eltwise"): 0.002,
        ("b", "MatMul"): 0.001,
        ("c", "Reorder"): 0.001,
    }
    rows = measure.operator_rows(profile)
    assert [row["share (%)"] for row in rows] == pytest.approx([50, 25, 12.5, 12.5])
    assert [row["operators"] for row in rows] == [1, 1, 1, 1]


def test_recorded_engines():
    rows = measure.engine_rows()
    assert rows[0]["engine"] == "fp32 eager"
    assert all(len(trace.x) == len(rows) for trace in figures.engines().data)


def test_machines_stand_side_by_side_and_are_told_apart():
    name, plain, new = "OpenVINO INT8", measure.record(vnni=False), measure.record(vnni=True)
    assert plain["machine"] != new["machine"]
    assert (plain["features"]["vnni"], new["features"]["vnni"]) == (False, True)
    assert measure.recorded_engines(vnni=False)[name]["16x128"] == 1.1561
    assert measure.recorded_engines(vnni=True)[name]["16x128"] < 0.5
    row = next(r for r in measure.engine_rows() if r["engine"] == name)
    assert row["time / fp32, CPU without VNNI (recorded)"].startswith("1.16")
    assert row["time / fp32, CPU with VNNI (recorded)"].startswith("0.33")


def test_an_interval_stands_where_the_record_keeps_one():
    assert measure.interval_text({"x": 0.333}, "x") == "0.33"
    row = {"x": 0.333, "x low": 0.31, "x high": 0.352}
    assert measure.interval_text(row, "x") == "0.33 (0.31 to 0.35)"


def test_quality_is_kept_from_99_per_cent_on():
    assert verdicts.keeps_quality({"mrr": 0.99, "mrr fp32": 1.0})
    assert not verdicts.keeps_quality({"mrr": 0.98, "mrr fp32": 1.0})


LIVE = ("fp32 eager", "torch dynamic INT8", "OpenVINO INT8")


def test_live_rows_agree_only_if_they_do():
    old = measure.recorded_engines()

    def agree(name=LIVE[0], **changed):
        qualities = {name: (old[name], dict(old[name])) for name in LIVE}
        qualities[name][1].update(changed)
        return verdicts.qualities_agree(qualities)

    assert agree()
    row = old[LIVE[-1]]
    too_low = row["cosine mean"] - 1.1 * verdicts.texts_deviation(row)
    assert not agree(LIVE[-1], **{"cosine mean": too_low})
    assert not agree(size=old[LIVE[0]]["size"] + 0.001)


def test_the_deviation_over_texts_is_kept_or_read_from_the_percentile():
    row = {"cosine mean": 0.99, "cosine p5": 0.99 - 0.1645}
    assert verdicts.texts_deviation(row) == pytest.approx(0.1)
    assert verdicts.texts_deviation(row | {"cosine sd": 0.2}) == 0.2


def test_live_engines_with_stand_ins():
    exact = fp32(points.encoder()[0])
    live = {name: Engine(name, exact.embed, exact.nbytes) for name in LIVE}
    rows = measure.quality_rows(measure.compare_quality(live, 4))
    assert [r["kind"] for r in rows] == ["recorded", "measured"] * 3
    assert all(r["cosine, minimum"] > 0.9999 for r in rows[1::2])
    ranks = measure.compare_ranks(live[LIVE[1]], 4)
    assert ranks["same top result (%)"].mean == 100
    assert ranks["MRR, fp32"] == ranks["MRR, INT8"]
    assert ranks["MRR, INT8 minus fp32 (paired by text)"] == Estimate(0.0, 0.0, 0.0)
    times = measure.time_rows(live, repeats=1)
    assert times[0]["engine"] == "fp32 eager, again (A/A)"
    assert len(times) == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: figures.bit_width(1), "bits=1"),
        (lambda: figures.bit_width(17), "bits=17"),
        (lambda: figures.bit_width(4, "per row"), "scales='per row'"),
        (lambda: measure.build_engines(151), "n_calibration=151"),
        (lambda: measure.compare_quality({}, 0), "n_docstrings=0"),
        (lambda: measure.form_cosines(1, 1), "n_docstrings=1"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def _grid(low, high, bits):
    low, high = min(low, 0), max(high, 0)
    scale = (high - low) / (2**bits - 1)
    return scale, round(-low / scale)


ANSWERS = {
    "09-1": (_grid, lambda low, high, bits: ((high - low) / 2**bits, 0)),
    "09-2": (
        lambda n, bits, group: math.ceil(n * bits / 8) + 4 * math.ceil(n / group),
        lambda n, bits, group: n * bits / 8 + 4 * n / group,
    ),
    "09-3": (lambda x, w: (x / (2 * x.median())).clamp(min=1), int8.smoothing),
}


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 1.0])
def test_no_alpha_reaches_the_target_of_09_3(alpha):
    peaks = measure.channel_peaks()[exercises.OUTLIERS]
    weight = points.encoder()[0].get_submodule(exercises.OUTLIERS).weight.detach()
    plain = exercises.int8_error(torch.ones_like(peaks))
    error = exercises.int8_error(int8.smoothing(peaks, weight, alpha))
    assert error > (plain if alpha == 0.8 else 0.7 * plain)  # the notebook says so of 0.8


def test_the_error_by_hand_is_the_grids():
    """What section 2 says of its five values on the symmetric grid of 4 bits."""
    values = torch.tensor([-0.62, 0.0, 0.11, 0.37, 1.0])
    q = affine.quantize(values, 4, symmetric=True)
    errors = (q.dequantize() - values).abs()
    assert errors.tolist() == pytest.approx([0.049, 0, 0.033, 0.059, 0], abs=5e-4)
    assert errors.square().mean().sqrt().item() == pytest.approx(0.037, abs=5e-4)
    assert q.scale.item() / math.sqrt(12) == pytest.approx(0.041, abs=5e-4)


def test_09_1_refuses_a_zero_point_that_is_rounded_up(strict):
    def rounded_up(low, high, bits):
        scale = (max(high, 0) - min(low, 0)) / (2**bits - 1)
        return scale, math.ceil(-min(low, 0) / scale)

    with pytest.raises(AssertionError):
        lab.check("09-1", rounded_up)


@pytest.mark.parametrize("name", ANSWERS)
def test_exercises_take_right_answers_and_refuse_wrong_ones(name, strict):
    right, wrong = ANSWERS[name]
    lab.check(name, right)
    with pytest.raises(AssertionError):
        lab.check(name, wrong)
