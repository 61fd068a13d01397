"""Notebook 07's room: its graphs, its measurements' shape, its explorer, its verdict, exercises."""

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch._dynamo.eval_frame import OptimizedModule

from efflab import lab
from efflab.acceleration import xla
from efflab.acceleration.fusion import LaunchModel, attention_bytes
from efflab.acceleration.graph import fuse, fuse_report
from efflab.acceleration.inductor import inductor_report
from efflab.experiments import gpu_bench
from efflab.lab import text, use_language
from efflab.lab.check import judge
from efflab.lab.tables import table_forms
from efflab_rooms.compiler_fusion import exercises, figures, measure, verdicts


@pytest.fixture(autouse=True)
def _english():
    yield
    use_language("en")


@pytest.fixture(scope="module")
def forms():
    return measure.make_block(64, 16)


@pytest.fixture(scope="module")
def reports(forms):
    return measure.block_reports(forms)


@pytest.fixture(scope="module")
def times(forms, reports):
    return measure.block_times(forms, repeats=3)


@pytest.fixture(scope="module")
def small():
    """Rows of two small shapes."""
    return measure.small_rows(n_tokens=(2, 8), d_ff=64)


def test_the_three_forms_agree(forms):
    expected = forms.layer(forms.x)
    in_jax = np.array(xla.compile_call(forms.in_jax, *forms.jax_arrays)())
    assert torch.allclose(forms.in_torch(forms.x), expected, rtol=0, atol=1e-5)
    assert torch.allclose(torch.from_numpy(in_jax), expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="d_model=66"):
        measure.make_block(66, 16)
    with pytest.raises(ValueError, match="seq_len=8"):
        measure.make_block(64, 8)


def test_reports_of_the_three_forms(reports):
    counts = {name: report.n_ops for name, report in reports.items()}
    assert list(counts.values()) == [46, 43, 10]
    report = reports["written out, XLA"]
    before, after = report.compiler_bytes
    assert report.bytes_after == pytest.approx(after, rel=1e-3)
    assert before > report.bytes_before
    assert fuse_report(report.ops).n_kernels == 18
    row = measure.report_row("written out", "XLA", report)
    assert row["after / before"] == pytest.approx(row["MB after"] / row["MB before"])


def test_graphs_show_every_operation_and_kernel(reports):
    for report in (*reports.values(), fuse_report(reports["written out, XLA"].ops)):
        fig = figures.graph_figure(report, "a graph")
        shown = [len(t.x) for t in fig.data if t.mode == "markers" and t.xaxis in (None, "x")]
        assert sum(shown[: len(figures.KINDS)]) == report.n_ops
        assert len(fig.layout.shapes) == report.n_kernels
        assert list(fig.layout.meta.values())[:2] == [report.n_ops, report.n_kernels]


def test_no_two_nodes_share_a_place(reports):
    report = reports["written out, XLA"]
    spans = sorted((n.row, n.column, n.end) for n in figures.place_nodes(report.kernels))
    for (row, _, end), (next_row, start, _) in pairwise(spans):
        assert row < next_row or start >= end
    ops = figures.place_nodes(report.ops)
    assert len({(node.row, node.column) for node in ops}) == 46
    written = reports["written out, Inductor"]
    assert figures.rows_of(written.ops)[-1] == figures.rows_of(written.kernels)[-1] == 6


def fusion_figures(reports, times):
    small = measure.attention_report(16, 16, 4), measure.gelu_report(16, 256)
    programs = dict(zip(("attention", "gelu"), small, strict=True), block=reports[measure.WITH_XLA])
    return verdicts.fusion_evidence(programs, reports, times)


def test_the_plan_computes_the_block_in_its_kernels(forms, reports):
    plan = measure.compile_plan(forms.in_torch, forms.x)
    assert torch.allclose(plan(forms.x), forms.layer(forms.x), rtol=0, atol=1e-5)
    groups = fuse(reports[measure.WITH_INDUCTOR].ops)
    parts = dict(plan.named_children())
    assert len(parts) == len(groups) == 19
    loops = [i for i, group in enumerate(groups) if len(group) > 1]
    assert [isinstance(parts[f"submod_{i}"], OptimizedModule) for i in range(19)] == [
        i in loops for i in range(19)
    ]
    assert len(loops) == 9  # as the text says


def test_a_loop_of_the_plan_is_one_kernel():
    """The hardest: a reduction ends it."""
    x, means = torch.ones(8, 8), torch.ones(8, 1)
    report = inductor_report(lambda x, means: (x - means).square().mean(-1), x, means)
    assert (report.n_ops, report.n_kernels) == (3, 1)


def test_evidence_of_the_verdict(reports, times):
    figures = {item.id: item for item in fusion_figures(reports, times)}
    assert figures["torch-kernels"].value == 10
    assert figures["plan-kernels"].value == 19
    assert figures["kernels-gelu"].value == pytest.approx(1 / 6)
    assert figures["kernels-block"].value == pytest.approx(
        figures["kernels"].value / figures["ops"].value
    )


def test_times_are_compared_within_a_framework(times):
    rows = measure.time_rows(times)
    assert [row["framework"] for row in rows] == ["JAX"] * 2 + ["torch"] * 5
    for row in rows:
        assert row["from"] <= row["time / single operations"] <= row["to"]
        assert row["time (ms)"] > 0


def test_torchs_compilations_are_counted():
    assert measure.torch_compilations((24, 40, 48, 24), dynamic=False) == [1, 2, 3, 3]
    assert measure.torch_compilations((24, 40, 48, 24), dynamic=None) == [1, 2, 2, 2]


def test_small_shapes_have_their_ratios(small):
    assert [row["values"] for row in small] == [128, 512]
    assert all(row["from"] <= row["time / torch's two kernels"] <= row["to"] for row in small)


def test_derivation_adds_up_to_the_formula():
    ops = measure.attention_report(4, 2).ops
    assert sum(op.bytes for op in ops) == 240 * measure.VALUE_BYTES
    letters = dict(T=4, D=2)

    def n_bytes(formula):
        terms = formula.replace("T²", "T * T").replace("2 T D", "2 * T * D").replace(" T D", " T*D")
        return measure.VALUE_BYTES * eval(terms.replace("T D", "T*D"), {}, letters)

    for (reads, writes), op in zip(figures.OPERATIONS.values(), ops, strict=True):
        assert n_bytes(reads) == sum(op.reads.values())
        assert n_bytes(writes) == op.nbytes


def test_what_compilers_count_is_the_formula():
    size = 32, 16, 2
    assert measure.attention_report(*size).bytes_before == attention_bytes(*size)
    pattern = measure.pattern_report(*size)
    assert pattern.bytes_after == attention_bytes(*size, fused="all")
    assert pattern.n_kernels == 1


def test_launches_are_measured_and_fitted():
    chains = measure.time_chains(lengths=(1, 16), sizes=(64, 2**16), repeats=2)
    assert len(chains) == 8
    single = [chain for chain in chains if not chain["fused"]]
    assert {chain["bytes"] for chain in single} == {512, 16 * 512, 2**19, 2**23}
    assert {chain["n_kernels"] for chain in chains if chain["fused"]} == {1}
    model = measure.fit_chains(chains)
    assert model.overhead > 0
    rows = measure.fit_rows(chains, model)
    assert [row["kernels in a row"] for row in rows] == [1, 16, 1, 16]
    assert [row["values"] for row in measure.fused_rows(chains)] == [64, 2**16]


def test_the_explorer_follows_the_model():
    model = LaunchModel(overhead=2e-6, bandwidth=1e10, rate=1e10)
    points = [dict(n_ops=16, n_values=256, fused=f, seconds=1e-5) for f in (False, True)]
    explorer = figures.fusion_cost_here(model, points)
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
        figures.fusion_cost(device="A200")


def test_recorded_gpus_are_as_the_notebook_says():
    (compiled,) = gpu_bench.read_part(gpu_bench.COMPILED).values()
    (attention,) = gpu_bench.read_part(gpu_bench.ATTENTION).values()
    ratio = {row["form"]: row["ratio"] for row in compiled["rows"]}
    assert ratio.keys() == {"written out, compiled", "torch's own", "torch's own, compiled"}
    assert ratio["torch's own"] < ratio["written out, compiled"] < 1
    mb = {(row["seq_len"], row["kernel"]): row["mb"] for row in attention["rows"]}
    assert mb[8192, "cuDNN"] / mb[2048, "cuDNN"] < 5 < mb[8192, "math"] / mb[2048, "math"]
    fused = [row for row in attention["rows"] if row["kernel"] == "flash"]
    assert fused[0]["ratio"] > fused[1]["ratio"] > fused[2]["ratio"]


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


def test_torchs_own_fused_attention_is_no_fusing_by_hand():
    answer = torch.nn.functional.scaled_dot_product_attention
    status, mismatch, _ = judge(exercises.EXERCISES["07-3"], answer)
    assert status == "not quite"
    assert "scaled_dot_product_attention" in mismatch.what


def test_the_blank_by_hand():
    chain = ["dot", "add", "reduce", "exp", "dot"]
    assert exercises.kernels_of(chain) == [["dot"], ["add", "reduce"], ["exp"], ["dot"]]


def test_everything_shown_has_its_chinese(reports, times, small, both_languages):
    model = LaunchModel(1e-6, 1e9)
    report = reports["written out, XLA"]
    rows = [measure.report_row("written out", "XLA", report), *measure.time_rows(times)]
    rows += [*figures.constant_rows(model), *small]
    chain = dict(n_ops=16, n_values=256, n_kernels=16, bytes=2**15, seconds=1e-5)
    chains = [chain | dict(fused=fused) for fused in (False, True)]
    rows += [*measure.fit_rows(chains, model), *measure.fused_rows(chains)]
    for row in rows:
        table_forms([row])
    for report in reports.values():
        figures.graph_figure(report, text.tr("One block before and after XLA"))
    figures.fusion_cost()
    with text.speaking("zh"):
        lab.verdict("xla-fusion", verdicts.xla_fusion(fusion_figures(reports, times)))


def test_a_model_without_a_rate_never_computes():
    model = LaunchModel(1e-6, 1e9)
    assert math.isinf(model.rate)
    assert model.seconds(3, 1e6, flops=1e15) == pytest.approx(3e-6 + 1e-3)
    assert dataclasses.replace(model, rate=1e12).seconds(1, 0, 1e12) == pytest.approx(1 + 1e-6)
