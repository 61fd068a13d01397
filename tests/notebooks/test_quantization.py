"""Notebook 09: its tables, figures, explorer, exercises and verdicts."""

import math

import pytest
import torch

from efflab import lab, points
from efflab.compression.engines import Engine, fp32
from efflab.notebooks.quantization import engines, grids, integers


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
    assert metas[8]["bits per byte"] == pytest.approx(metas[8]["fp32: bits per byte"], abs=0.02)
    assert metas[2]["size over fp32"] < metas[8]["size over fp32"] < 0.27
    assert metas[8]["from"] < metas[8]["bits per byte"] < metas[8]["to"]
    coarse = grids.bit_width(4, "per tensor").layout.meta["layer error (%)"]
    assert grids.bit_width(4, "groups of 32").layout.meta["layer error (%)"] < coarse


def test_board_point_is_small_and_good():
    point = grids.board_point(8, axis=0)
    assert point["bytes"] < 0.27 * 4 * sum(p.numel() for p in points.language_model().parameters())
    assert point["milliseconds"] > 0


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


@pytest.fixture(scope="module")
def accuracy():
    return integers.accuracy_rows(n=16)


def test_accuracy_by_the_place_of_the_scales(accuracy):
    p5 = {r["INT8 linear layers"]: r["cosine, p5"] for r in accuracy}
    assert p5["static, smoothed"] > p5["static, min and max"] > p5["static, 99.9th percentile"]
    assert p5["dynamic"] > p5["dynamic, 7-bit inputs"]
    assert p5["dynamic"] > p5["dynamic, weights per tensor"]
    assert p5["static, smoothed"] > 0.99


def test_slower_has_a_row_for_each_cause():
    rows = integers.slower_rows(repeats=2)
    assert len(rows) == 6
    ratios = {r["cause"]: r["time over fp32"] for r in rows}
    assert ratios["too little work: 4 tokens, 64 x 64"] > 1
    assert ratios["fake quantization: rounded, then fp32"] > 1
    fig = integers.slower_figure(rows)
    assert list(fig.layout.meta.values()) == list(ratios.values())
    assert len(integers.cpu_rows()) == 5


def test_recorded_engines():
    rows = engines.recorded_rows()
    assert rows[0]["engine"] == "fp32 eager"
    assert {row["kind"] for row in rows} == {"recorded"}
    fig = engines.figure()
    assert len(fig.data) == 2 + len(engines.machines())
    assert all(len(trace.x) == len(rows) for trace in fig.data)
    with pytest.raises(ValueError, match="engine='TensorRT'"):
        engines.row_of("TensorRT")


def test_machines_stand_side_by_side_and_are_told_apart():
    without, has = ([engines.kept(m)["features"]["vnni"] is v for m in engines.machines()]
                    for v in (False, True))  # fmt: skip
    assert any(without)
    assert any(has)
    plain, new = (engines.machines()[which.index(True)] for which in (without, has))
    name = "OpenVINO INT8"
    assert engines.row_of(name, plain)["16x128"] == 1.1561
    assert engines.row_of(name, new)["16x128"] < 0.5
    row = next(r for r in engines.machine_rows() if r["engine"] == name)
    assert row[plain] == 1.1561
    assert row[new] == engines.row_of(name, new)["16x128"]
    with pytest.raises(ValueError, match="machine='mine'"):
        engines.row_of(name, "mine")


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
    rows = engines.live_rows(4, 2, repeats=1)
    assert [r["kind"] for r in rows] == ["recorded", "measured"] * 3
    assert all(r["cosine, min"] > 0.9999 for r in rows[1::2])
    ranks = engines.ranks(4, 2)
    assert ranks["same code found first (%)"] == 100
    assert ranks["MRR, fp32"] == ranks["MRR, INT8"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: grids.bit_width(1), "bits=1"),
        (lambda: grids.bit_width(17), "bits=17"),
        (lambda: grids.bit_width(4, "per row"), "scales='per row'"),
        (lambda: engines.made(151), "n_calibration=151"),
        (lambda: engines.live_rows(0, 1), "n_docstrings=0"),
        (lambda: integers.slower_rows(0), "repeats=0"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_verdicts(accuracy, both_languages):
    sizes = engines.size_verdict(grids.file_rows(points.encoder()[0]))
    assert sizes["figures"]["linear maps alone: smaller by (%)"] < 40
    lab.verdict("int8-size", **sizes)
    found = engines.accuracy_verdict(accuracy)
    assert all(math.isfinite(v) for v in found["figures"].values())
    lab.verdict("int8-accuracy", **found)


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
