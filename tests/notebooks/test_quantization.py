"""Notebook 09: its tables, figures, explorer, exercises and verdicts."""

import math

import pytest
import torch

from efflab import lab, points
from efflab.bench import Comparison
from efflab.compression.engines import Engine, fp32
from efflab.estimate import Estimate
from efflab.experiments import int8_ranges as ranges
from efflab_rooms.quantization import engines, forms, grids, integers, operators, slower


def test_one_number_lands_on_the_nearest_level():
    rows = grids.one_number(bits=4)
    affine_step, symmetric_step = (1.0 + 0.62) / 15, 1 / 7
    for row in rows:
        assert abs(row["back, symmetric"] - row["value"]) <= symmetric_step / 2 + 1e-4
        # the zero point is rounded as well, so that the ends may be cut by half a step
        assert abs(row["back, affine"] - row["value"]) <= affine_step + 1e-4
    zero = next(row for row in rows if row["value"] == 0)
    assert zero["back, symmetric"] == zero["back, affine"] == zero["code, symmetric"] == 0


def test_errors_follow_the_formula_and_more_scales_are_finer():
    weight = points.language_model().get_parameter(grids.SHOWN).detach()
    rows = grids.error_rows(weight, bits=(8,))
    assert [r["ratio"] for r in rows] == pytest.approx([1] * 4, abs=0.05)
    errors = [r["error, measured"] for r in rows]
    assert errors == sorted(errors, reverse=True)
    assert rows[-1]["bits a weight"] == 9


def test_parts_and_files_of_minilm():
    model, _ = points.encoder()
    counts = grids.parts(model)
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters())
    rows = {r["stored"]: r for r in grids.file_rows(model)}
    for row in list(rows.values())[1:]:
        assert row["file (MB)"] == pytest.approx(row["formula (MB)"], rel=0.001)
    assert rows["linear maps, per channel"]["smaller by (%)"] == pytest.approx(35, abs=1)
    assert 74 < rows["linear maps and tables, per channel"]["smaller by (%)"] < 75
    fig = grids.parts_figure(model)
    assert len(fig.data) == 3


def test_the_explorers_quality_and_size_move_with_the_bits():
    metas = {b: dict(grids.bit_width(b).layout.meta) for b in (2, 8)}
    assert metas[2]["bits per byte"] > metas[8]["bits per byte"] + 0.2
    assert metas[8]["more than fp32's"] == pytest.approx(0, abs=0.02)
    assert metas[2]["size over fp32"] < metas[8]["size over fp32"] < 0.27
    assert metas[2]["from"] < metas[2]["more than fp32's"] < metas[2]["to"]
    coarse = grids.bit_width(4, "per tensor").layout.meta["layer error (%)"]
    assert grids.bit_width(4, "groups of 32").layout.meta["layer error (%)"] < coarse


def test_a_rounded_point_is_small_and_good():
    point = grids.rounded_point(8, axis=0)
    assert point["bytes"] < 0.27 * 4 * sum(p.numel() for p in points.language_model().parameters())
    assert point["time"].mean > 0
    assert abs(point["quality"].mean - points.shipped_quality()) < 0.02


def test_our_layer_is_torchs():
    gap = integers.torch_gap()
    assert gap["largest gap"] < 1e-5 * gap["largest"]


def test_the_listing_as_printed_never_calibrates():
    printed, meant, bare = integers.listing_rows()
    assert not printed["observers saw data"]
    assert meant["observers saw data"]
    assert printed["output's error (%)"] > 50 > 5 > meant["output's error (%)"]
    assert (printed["runs"], meant["runs"], bare["runs"]) == (True, True, False)


def test_outliers_of_minilm():
    rows = {r["input of"]: r for r in integers.outlier_rows()}
    assert rows["ffn.body.up"]["ratio"] > 8
    assert rows["ffn.body.up"]["ratio, smoothed"] < rows["ffn.body.up"]["ratio"] / 2
    meta = list(integers.outlier_figure().layout.meta.values())
    assert meta[1] < meta[0] / 2


def test_recorded_forms_are_all_there_and_paired():
    found = forms.recorded_forms()
    assert list(found) == list(ranges.FORMS)
    for row in found.values():
        assert row["mrr less fp32 low"] <= row["mrr less fp32"] <= row["mrr less fp32 high"]
        assert row["mrr"] - row["mrr fp32"] == pytest.approx(row["mrr less fp32"], abs=2e-4)
    p5 = {form: row["cosine p5"] for form, row in found.items()}
    assert p5[ranges.SMOOTHED] > p5[ranges.MINMAX] > p5["static, 99.9th percentile"]
    assert p5[ranges.DYNAMIC] > max(p5[ranges.SEVEN], p5[ranges.ONE_SCALE])
    assert p5[ranges.CONTROL] == min(p5.values())
    assert len(forms.form_rows()) == len(found)
    assert len(forms.form_figure().data) == 2


def test_a_form_made_here_is_near_its_record_and_another_is_not():
    rows = forms.live_rows(8, 4, (ranges.DYNAMIC,))
    assert rows[0]["interval, low"] <= rows[0]["cosine, p5"] <= rows[0]["interval, high"]
    assert forms.agree(rows)
    rows[0]["cosine, mean"] -= 1.1 * forms.recorded_forms()[ranges.DYNAMIC]["cosine sd"]
    assert not forms.agree(rows)


def test_slower_has_a_row_for_each_form():
    rows = slower.slower_rows(repeats=2)
    assert len(rows) == 6
    ratios = {r["form"]: r["time over fp32"] for r in rows}
    assert ratios["dynamic INT8, 4 tokens, 64 x 64"] > 1
    assert ratios["fake quantization: rounded, then fp32"] > 1
    fig = slower.slower_figure(rows)
    assert list(fig.layout.meta.values()) == list(ratios.values())
    assert sum(len(trace.x) for trace in fig.data) == 6
    assert len(slower.cpu_rows()) == 5


def test_a_form_differs_only_outside_of_the_band():
    timings, band = {}, Estimate(1.0, 0.9, 1.1)
    ratios = {"a": Estimate(0.5, 0.4, 0.6), "b": Estimate(2, 1.9, 2.1), "c": Estimate(1, 0.8, 1.2)}
    found = Comparison(timings, ratios, band)
    words = [slower._word(found, name) for name in ratios]
    assert words == ["faster", "slower", "within the noise"]


def test_operators_are_grouped_and_their_shares_add_up():
    profile = {
        "a": ("FullyConnected_x", 0.004), "aten::div_1": ("Eltwise", 0.002),
        "b": ("MatMul", 0.001), "c": ("Reorder", 0.001),
    }  # fmt: skip
    rows = operators.rows(profile)
    assert [row["share (%)"] for row in rows] == pytest.approx([50, 25, 12.5, 12.5])
    assert [row["operators"] for row in rows] == [1, 1, 1, 1]


def test_recorded_engines():
    rows = engines.recorded_rows()
    assert rows[0]["engine"] == "fp32 eager"
    assert {row["kind"] for row in rows} == {"recorded"}
    fig = engines.figure()
    assert all(len(trace.x) == len(rows) for trace in fig.data)
    with pytest.raises(ValueError, match="engine='TensorRT'"):
        engines.row_of("TensorRT")


def test_machines_stand_side_by_side_and_are_told_apart():
    name, plain, new = "OpenVINO INT8", engines.with_vnni(False), engines.with_vnni(True)
    assert plain != new
    assert {plain, new} <= set(engines.machines())
    assert engines.row_of(name, plain)["16x128"] == 1.1561
    assert engines.row_of(name, new)["16x128"] < 0.5
    row = next(r for r in engines.recorded_rows() if r["engine"] == name)
    assert row["CPU without VNNI (recorded)"].startswith("1.16")
    assert row["CPU with VNNI (recorded)"].startswith("0.33")
    with pytest.raises(ValueError, match="machine='mine'"):
        engines.row_of(name, "mine")


def test_the_fastest_that_keeps_the_quality_is_named_for_each_cpu():
    rows = engines.fastest_rows()
    assert [r["fastest"] for r in rows] == ["of all", "of those at 99% of fp32's MRR"] * 2
    for row in rows[1::2]:
        kept = engines.row_of(row["engine"], engines.with_vnni("without" not in row["CPU"]))
        assert engines.keeps(kept)
    assert not engines.keeps({"mrr": 0.98, "mrr fp32": 1.0})


def test_live_rows_agree_only_if_they_do():
    def rows():
        for name in engines.AGAIN:
            old = engines.row_of(name, engines.like_here())
            row = {"engine": name, "size over fp32": old["size"]}
            yield from (row | {"cosine, mean": old["cosine mean"]} for _ in range(2))

    assert engines.agrees(list(rows()))
    other = list(rows())
    other[-1]["cosine, mean"] -= 1.1 * engines.texts_deviation(engines.AGAIN[-1])
    assert not engines.agrees(other)
    larger = list(rows())
    larger[1]["size over fp32"] += 0.001
    assert not engines.agrees(larger)


def test_the_deviation_over_texts_is_kept_or_read_from_the_percentile(monkeypatch):
    row = {"cosine mean": 0.99, "cosine p5": 0.99 - 0.1645}
    monkeypatch.setattr(engines, "row_of", lambda *_: row)
    assert engines.texts_deviation("x") == pytest.approx(0.1)
    row["cosine sd"] = 0.2
    assert engines.texts_deviation("x") == 0.2


def test_live_engines_with_stand_ins(monkeypatch):
    exact = fp32(points.encoder()[0])
    stand_ins = {n: Engine(n, exact.embed, exact.nbytes) for n in engines.AGAIN}
    monkeypatch.setattr(engines, "made", lambda n: stand_ins)
    rows = engines.quality_rows(4, 2)
    assert [r["kind"] for r in rows] == ["recorded", "measured"] * 3
    assert all(r["cosine, min"] > 0.9999 for r in rows[1::2])
    ranks = engines.ranks(4, 2)
    assert ranks["same code found first (%)"].mean == 100
    assert ranks["MRR, fp32"] == ranks["MRR, INT8"]
    assert ranks["MRR, INT8 less fp32, text by text"] == Estimate(0.0, 0.0, 0.0)
    engines.timed.cache_clear()
    times = engines.time_rows(2, repeats=1)
    assert times[0]["engine"] == "fp32 eager, again (A/A)"
    assert len(times) == 3
    engines.timed.cache_clear()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: grids.bit_width(1), "bits=1"),
        (lambda: grids.bit_width(17), "bits=17"),
        (lambda: grids.bit_width(4, "per row"), "scales='per row'"),
        (lambda: engines.made(151), "n_calibration=151"),
        (lambda: engines.quality_rows(0, 1), "n_docstrings=0"),
        (lambda: slower.slower_rows(0), "repeats=0"),
        (lambda: forms.live_rows(1, 1), "n_docstrings=1"),
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
    "09-3": (lambda x, w, a: x**a / w ** (1 - a), lambda x, w, a: x**a * torch.ones_like(w)),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_exercises_take_right_answers_and_refuse_wrong_ones(name, strict):
    right, wrong = ANSWERS[name]
    lab.check(name, right)
    with pytest.raises(AssertionError):
        lab.check(name, wrong)
