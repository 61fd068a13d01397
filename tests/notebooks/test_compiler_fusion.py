"""Notebook 07's room: its graphs, its measurements' shape, its explorer, its verdict, exercises."""

import dataclasses
import math
from itertools import pairwise

import pytest
import torch

from efflab.acceleration.fusion import LaunchModel
from efflab.acceleration.graph import fuse_report
from efflab.lab import Evidence, text, use_language
from efflab.lab.check import judge
from efflab_rooms.compiler_fusion import (
    attention,
    compilers,
    exercises,
    gpu,
    launches,
    paying,
    pictures,
    verdicts,
)


@pytest.fixture(autouse=True)
def _english():
    yield
    use_language("en")


@pytest.fixture(scope="module")
def made():
    return compilers.make_block(64, 16)


@pytest.fixture(scope="module")
def reports(made):
    return compilers.reports_of(made)


@pytest.fixture(scope="module")
def times(made, reports):
    return compilers.block_times(made, repeats=3)


def test_the_three_forms_agree(made):
    assert max(compilers.gaps(made).values()) < 1e-5
    with pytest.raises(ValueError, match="d_model=66"):
        compilers.make_block(66, 16)
    with pytest.raises(ValueError, match="seq_len=8"):
        compilers.make_block(64, 8)


def test_reports_of_the_three_forms(reports):
    counts = {name: report.n_ops for name, report in reports.items()}
    assert list(counts.values()) == [46, 43, 10]
    rows = compilers.xla_rows(reports["written out, XLA"])
    assert rows[0]["mb_after"] == pytest.approx(rows[1]["mb_after"], rel=1e-3)
    assert rows[1]["mb_before"] > rows[0]["mb_before"]
    assert rows[2]["n_kernels"] == 18


def test_graphs_show_every_operation_and_kernel(reports):
    for report in (*reports.values(), fuse_report(reports["written out, XLA"].ops)):
        fig = pictures.graph_figure(report, "a graph")
        shown = [len(t.x) for t in fig.data if t.mode == "markers" and t.xaxis in (None, "x")]
        assert sum(shown[: len(pictures.KINDS)]) == report.n_ops
        assert len(fig.layout.shapes) == report.n_kernels
        assert list(fig.layout.meta.values())[:2] == [report.n_ops, report.n_kernels]


def test_no_two_nodes_share_a_place(reports):
    report = reports["written out, XLA"]
    nodes = pictures.layered(report.kernels, lambda kernel: kernel.ops)
    spans = sorted((n.row, n.column, n.column + n.width) for n in nodes)
    for (row, _, end), (next_row, start, _) in pairwise(spans):
        assert row < next_row or start >= end
    ops = pictures.layered(report.ops, lambda op: (op.opcode,))
    assert len({(node.row, node.column) for node in ops}) == 46
    written = reports["written out, Inductor"]
    assert pictures.rows_of(written.ops)[-1] == pictures.rows_of(written.kernels)[-1] == 6


def test_times_are_compared_within_a_framework(times):
    rows = compilers.time_rows(times)
    assert [row["framework"] for row in rows] == ["JAX"] * 2 + ["torch"] * 4
    for row in rows:
        assert row["low"] <= row["ratio"] <= row["high"]
        assert row["ms"] > 0


def test_pay_rows_say_never_where_nothing_is_saved(reports, times):
    rows = {row["form"]: row for row in paying.pay_rows(reports, times)}
    assert len(rows) == 3
    for row in rows.values():
        assert (row["calls"] == "never") == (row["saved"] <= 0)


def test_compilations_are_counted():
    rows = paying.compilations((24, 40, 48, 24))
    assert [row["xla"] for row in rows] == [1, 2, 3, 3]
    assert [row["padded"] for row in rows] == [1, 2, 2, 2]
    assert [row["static"] for row in rows] == [1, 2, 3, 3]
    assert [row["automatic"] for row in rows] == [1, 2, 2, 2]
    assert [paying.power_of_two(n) for n in (1, 2, 3, 64, 65)] == [1, 2, 4, 64, 128]


def test_small_shapes_have_their_ratios():
    rows = paying.small_shapes(n_tokens=(2, 8), d_ff=64)
    assert [row["n_values"] for row in rows] == [128, 512]
    assert all(row["low"] <= row["over_library"] <= row["high"] for row in rows)


def test_derivation_adds_up_to_the_formula():
    rows = attention.derivation_rows(4, 2)
    assert sum(row["values_read"] + row["values_written"] for row in rows) == 240
    letters = dict(T=4, D=2)

    def value(formula):
        terms = formula.replace("T²", "T * T").replace("2 T D", "2 * T * D").replace(" T D", " T*D")
        return eval(terms.replace("T D", "T*D"), {}, letters)

    for row in rows:
        assert value(row["reads"]) == row["values_read"]
        assert value(row["writes"]) == row["values_written"]


def test_what_compilers_count_is_the_formula():
    eight, three, one = attention.bytes_rows(32, head_dim=16, n_head=2)
    assert eight["ratio"] == one["ratio"] == 1
    assert three["measured"] is None
    assert attention.recognized(32, 16, 2).n_kernels == 1


def test_launches_are_measured_and_fitted():
    rows = launches.measure(lengths=(1, 8), sizes=(64, 2**16), repeats=2)
    assert len(rows) == 8
    single = [row for row in rows if not row["fused"]]
    assert {row["bytes"] for row in single} == {512, 8 * 512, 2**19, 2**22}
    assert {row["n_kernels"] for row in rows if row["fused"]} == {1}
    model = launches.fit(rows)
    assert model.overhead > 0
    table = launches.fit_rows(rows, model)
    assert [row["n_ops"] for row in table] == [1, 1]
    assert [row["n_values"] for row in launches.fused_rows(rows, 8)] == [64, 2**16]


def test_the_explorer_follows_the_model():
    model = LaunchModel(overhead=2e-6, bandwidth=1e10, rate=1e10)
    points = [dict(n_ops=16, n_values=256, fused=f, seconds=1e-5) for f in (False, True)]
    explorer = launches.fitted(model, points)
    meta = list(explorer(n_ops=16, n_values=2**20).layout.meta.values())
    one = 8 * 2**20
    single = 16 * 2e-6 + 16 * one / 1e10
    fused = 2e-6 + 16 * 2**20 / 1e10  # its arithmetic takes longer than its bytes
    assert meta[:2] == [16 * one / 1e6, one / 1e6]
    assert meta[2:] == pytest.approx([1e6 * single, 1e6 * fused, single / fused])
    elsewhere = explorer(n_ops=16, device="H100 SXM").layout.meta
    assert list(elsewhere.values())[2] == pytest.approx(1e6 * 16 * 2e-6)  # launches run ahead
    dots = [t for t in explorer().data if t.type == "scatter" and "open" in str(t.marker.symbol)]
    assert [len(t.x) for t in dots] == [1, 1]
    with pytest.raises(ValueError, match="device='A200'"):
        launches.fusion_cost(device="A200")


def test_recorded_gpus_have_rows_for_the_block_and_for_attention():
    block_rows, attention_rows = gpu.block_rows(), gpu.attention_rows()
    assert block_rows[0]["ratio"] == 1
    assert {row["form"] for row in block_rows} == {
        "written out, single operations",
        "written out, compiled",
        "torch's own",
        "torch's own, compiled",
    }
    ratio = {row["form"]: row["ratio"] for row in block_rows}
    assert ratio["torch's own"] < ratio["written out, compiled"] < 1  # as the notebook says
    mb = {(row["seq_len"], row["kernel"]): row["mb"] for row in attention_rows}
    assert mb[8192, "cuDNN"] / mb[2048, "cuDNN"] < 5 < mb[8192, "math"] / mb[2048, "math"]
    fused = [row for row in attention_rows if row["kernel"] == "flash"]
    assert fused[0]["ratio"] > fused[1]["ratio"] > fused[2]["ratio"]


def outcome(n_ops=46, n_kernels=28, byte_ratio=0.6, by_hand=10):
    figures = [
        Evidence("ops-per-kernel", "x", n_ops / n_kernels),
        Evidence("bytes", "x", byte_ratio),
        Evidence("ops", "x", n_ops),
        Evidence("kernels", "x", n_kernels),
        Evidence("torch-kernels", "x", by_hand),
    ]
    return verdicts.xla_fusion(figures)


def test_the_verdict_can_come_to_everything():
    assert outcome().word == "holds if"
    assert outcome(by_hand=28).word == "holds if"
    assert outcome(by_hand=29).word == "holds"
    assert outcome(n_ops=2, n_kernels=1, by_hand=2).word == "holds"
    assert outcome(n_kernels=46).word == "does not hold"
    assert "46 kernels for 46" in outcome(n_kernels=46).record("xla-fusion")["reason"]
    assert outcome(byte_ratio=1.0).word == "does not hold"
    assert outcome(n_ops=1, n_kernels=1).word == "undecided"


def test_the_verdict_follows_from_its_record(reports, times):
    record = verdicts.xla_fusion(compilers.fusion_evidence(reports, times)).record("xla-fusion")
    assert verdicts.xla_fusion(record["figures"]).record("xla-fusion") == record
    assert record["figures"][0]["id"] == "ops-per-kernel"
    assert record["figures"][4]["value"] == 10


def by_blocks(q, k, v, size=64):
    parts = [(some @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v for some in q.split(size, 2)]
    return torch.cat(parts, 2)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("07-1", exercises.kernels_of, lambda chain: [chain]),
        ("07-2", lambda T, D: 3 * T / D + 1 + 1 / D, lambda T, D: 3 * T / D),
        ("07-3", by_blocks, exercises.written_out),
    ],
)
def test_exercises_judge(name, right, wrong):
    exercise = exercises.EXERCISES[name]
    assert judge(exercise, lambda *a: ...)[0] == "not attempted"
    assert judge(exercise, right)[0] == "correct"
    status, mismatch, _ = judge(exercise, wrong)
    assert status == "not quite"
    assert name != "07-3" or "MiB" in mismatch.what


def test_the_blank_by_hand():
    chain = ["dot", "add", "reduce", "exp", "dot"]
    assert exercises.kernels_of(chain) == [["dot"], ["add", "reduce"], ["exp"], ["dot"]]


def test_everything_shown_has_its_chinese(reports, times, both_languages):
    for report in reports.values():
        pictures.graph_figure(report, text.tr("XLA: one block before and after"))
    launches.fusion_cost()
    for columns in (
        compilers.REPORT_COLUMNS,
        compilers.TIME_COLUMNS,
        paying.SMALL_COLUMNS,
        paying.COMPILATION_COLUMNS,
        paying.PAY_COLUMNS,
        attention.DERIVATION_COLUMNS,
        attention.BYTES_COLUMNS,
        launches.FIT_COLUMNS,
        launches.FUSED_COLUMNS,
    ):
        for header in columns.values():
            text.tr(header)
    for exercise in exercises.EXERCISES.values():
        text.tr(exercise.hint)
    found = verdicts.xla_fusion(compilers.fusion_evidence(reports, times))
    for item in found.evidence:
        text.tr(item.name)
    text.tr(found.condition, **found.values)


def test_a_model_without_a_rate_never_computes():
    model = LaunchModel(1e-6, 1e9)
    assert math.isinf(model.rate)
    assert model.seconds(3, 1e6, flops=1e15) == pytest.approx(3e-6 + 1e-3)
    assert dataclasses.replace(model, rate=1e12).seconds(1, 0, 1e12) == pytest.approx(1 + 1e-6)
