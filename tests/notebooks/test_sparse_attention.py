"""Notebook 03's lab side: numbers behind its pictures, explorers over their controls, exercises."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from efflab.experiments import attention_bench
from efflab.experiments.record import read_record
from efflab.lab import text, use_language
from efflab.lab.check import judge
from efflab.structure.bigbird import block_sparse_attention
from efflab.structure.window import sliding_window_attention, visible_pairs, window_mask
from efflab_rooms.sparse_attention import exercises, figures, measure, verdicts


@pytest.fixture(autouse=True)
def _english():
    yield
    use_language("en")


def values_of(control) -> list:
    """Minimum, default, maximum, and a value off the grid where the control has one."""
    values = list(control.values())
    picked = [values[0], control.value, values[-1]]
    off_grid = values[0] + 1
    return picked + ([off_grid] if hasattr(control, "step") and off_grid not in values else [])


@pytest.mark.parametrize("name", ["window_size", "seq_len", "causal"])
def test_window_explorer_over_its_controls(name):
    for value in values_of(figures.window_cost.controls[name]):
        arguments = dict(window_size=128, seq_len=4096, causal=False) | {name: value}
        fig = figures.window_cost(**arguments)
        n, w = arguments["seq_len"], arguments["window_size"]
        pairs = visible_pairs(n, w, arguments["causal"])
        meta = fig.layout.meta
        assert meta["pairs"] == pairs
        assert meta["fewer"] == pytest.approx(n**2 / pairs)
        assert meta["gflops"] == pytest.approx(4 * 256 * pairs / 1e9)
        picture = np.asarray(fig.data[0].z)
        assert picture.mean() == pytest.approx(pairs / n**2, abs=0.02)


@pytest.mark.parametrize("name", ["n_global", "n_window", "n_random"])
def test_bigbird_explorer_over_its_controls(name):
    for value in figures.bigbird_cost.controls[name].values():
        counts = dict(n_global=1, n_window=3, n_random=1) | {name: value}
        meta = figures.bigbird_cost(**counts).layout.meta
        assert 0 < meta["share"] <= 1
        if counts["n_global"]:
            assert meta["unreached"] == 0
            assert meta["furthest"] == 2
    with pytest.raises(ValueError, match="n_window=4"):
        figures.bigbird_cost(1, 4, 1)


def test_a_window_of_blocks_alone_needs_one_hop_a_block():
    assert figures.bigbird_cost(0, 3, 0).layout.meta["furthest"] == 63
    assert figures.bigbird_cost(0, 1, 0).layout.meta["unreached"] == 64 * 63


def test_mask_picture_counts_its_pairs():
    meta = figures.mask_picture(24, 3).layout.meta
    assert list(meta.values()) == [576, visible_pairs(24, 3), visible_pairs(24, 3, True)]


def test_coarse_mask_equals_the_mask_at_full_resolution():
    for causal in (False, True):
        fine = window_mask(256, 40, causal).float().view(64, 4, 64, 4).mean((1, 3))
        np.testing.assert_allclose(figures.coarse_mask(256, 40, causal), fine, atol=0.2)


def test_reach_is_layers_times_window():
    seen = figures.reach(window_size=3, n_layer=4)
    assert seen.sum(1).tolist() == [2 * 3 * depth + 1 for depth in (1, 2, 3, 4)]
    causal = figures.reach(window_size=3, n_layer=4, causal=True)
    assert causal.sum(1).tolist() == [3 * depth + 1 for depth in (1, 2, 3, 4)]
    assert set(figures.reach_picture(4, 3).layout.meta.values()) == {12}


def window_of_32(q, k, v):
    return sliding_window_attention(q, k, v, 32)


def test_growth_of_time_and_memory():
    ways = {measure.WINDOW: window_of_32, measure.FULL: F.scaled_dot_product_attention}
    costs = measure.growth(ways, measure.lengths_up_to(2048), repeats=1)
    lengths = [c.seq_len for c in costs]
    assert lengths == [256, 512, 1024, 2048]
    assert all(set(c.times) == set(c.mib) == set(ways) for c in costs)
    written = [measure.written_out_mib(n) for n in lengths]
    assert measure.exponent(lengths, written).mean == pytest.approx(2, abs=0.2)
    by_arithmetic = 2 * 4 * 4 * 4097**2 / 2**20
    assert measure.written_out_mib(4097) == pytest.approx(by_arithmetic)
    assert measure.written_out_mib(4096) == pytest.approx(by_arithmetic, rel=0.1)
    assert figures.growth_figure(costs, written).layout.meta
    assert measure.lengths_up_to(8192, 2) == [1024, 1280, 2048, 2816, 4096, 5632, 8192]
    assert measure.lengths_up_to(2048, 2) == [256, 512, 1024, 1280, 2048]
    with pytest.raises(ValueError, match="max_len"):
        measure.lengths_up_to(100)


def test_an_image_of_many_pixels_is_nearly_square():
    shapes = [measure.image_shape(n) for n in (256, 1024, 1280, 2816, 8192)]
    assert shapes == [(16, 16), (32, 32), (16, 80), (16, 176), (64, 128)]
    for n in (0, 255, 320):
        with pytest.raises(ValueError, match=f"seq_len={n}: expected a multiple of 256"):
            measure.image_shape(n)


def test_exponent_of_an_exact_power():
    lengths, values = [10, 20, 40], [3 * n**1.5 for n in (10, 20, 40)]
    power = measure.exponent(lengths, values)
    assert (power.mean, power.low, power.high) == pytest.approx((1.5, 1.5, 1.5))
    values[1] *= 1.3  # scatter widens the interval
    power = measure.exponent(lengths, values)
    assert power.high - power.low > 1
    with pytest.raises(ValueError, match=r"lengths=\[10, 20\]: expected three lengths or more"):
        measure.exponent(lengths[:2], values[:2])  # a line through any two points, without a doubt


def test_blocks_of_a_long_text_grow_linearly():
    def attend(q, k, v):
        layout = measure.long_layout(q.shape[2])
        return block_sparse_attention(q, k, v, layout, attention_bench.BLOCK)

    lengths = measure.lengths_up_to(2048)
    shares = [measure.long_layout(n).float().mean() for n in lengths]
    assert shares[0] > shares[-1]
    *_, half, whole = measure.growth({"blocks": attend}, lengths, repeats=1)
    assert whole.mib["blocks"] < 1.3 * 2 * half.mib["blocks"]


def test_recorded_benchmark_meets_its_targets():
    """The figures kept in data/; a slower version could not be recorded without this failing."""
    record = read_record(attention_bench.NAME)
    assert record["command"].startswith("efflab experiment attention-bench")
    rows = {(row["seq_len"], row["name"]): row for row in attention_bench.rows_of(record)}
    assert {n for n, _ in rows} == set(attention_bench.LENGTHS)
    ours = {n: rows[n, attention_bench.OURS] for n in attention_bench.LENGTHS}
    assert ours[8192]["over_flex"] <= 0.85
    assert ours[16384]["over_flex"] <= 1
    assert ours[16384]["over_full"] <= 0.1
    assert ours[16384]["mib"] <= 8**1.15 * ours[2048]["mib"]
    assert rows[8192, attention_bench.BIGBIRD]["over_full"] <= 0.35
    assert len([n for n, _ in rows if n == 8192]) == 5


@torch.no_grad()
def test_the_package_sees_the_same_window():
    """At a multiple of its window: it pads other lengths with zero keys that it then attends to."""
    q, k, v = (x[:, :2, :, :8] for x in attention_bench.heads(320))
    ours = sliding_window_attention(q, k, v, 64)
    theirs = attention_bench.package(q.contiguous(), k.contiguous(), v.contiguous(), 64)()
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)


def test_swin_equals_transformers():
    assert max(measure.transformers_gap().values()) < 1e-4


def test_windows_talk_only_when_they_shift():
    heard = {name: int(n) for name, n in figures.talk_picture().layout.meta.items()}
    assert heard["one layer"] == heard["three layers, never shifted"] == 16
    assert heard["second of three shifted"] == 64


def test_layouts_predict_who_recalls():
    needed = {name: measure.hops_needed(measure.layout_of(name)) for name in measure.LAYOUTS}
    assert needed["full"] == 1
    assert needed["window"] > measure.N_LAYER
    assert needed["window + global"] == needed["BigBird: all three"] == 2


def test_recall_ends_where_the_reach_of_the_windows_ends():
    full = measure.recall(torch.ones(20, 20, dtype=torch.bool), [2, 12, 13, 19])
    assert min(full.values()) > 0.95
    windows = measure.recall(window_mask(20, 4), [4, 8, 12, 13, 19])
    assert min(windows[d] for d in (4, 8, 12)) > 0.95
    assert max(windows[d] for d in (13, 19)) < 0.2


def test_expected_accuracy_follows_the_hops():
    assert measure.expected_accuracy(measure.layout_of("full")) == 1
    window = measure.layout_of("window")
    assert measure.expected_accuracy(window, [4, 40]) == (1 + 1 / 8) / 2
    nothing = torch.eye(12, dtype=torch.bool)  # each block sees itself: the last, 3 tokens back
    assert measure.expected_accuracy(nothing, [3, 4]) == (1 + 1 / 8) / 2


def test_accuracies_have_the_wider_interval():
    one = verdicts.of_accuracies([1.0])
    assert (one.mean, one.high) == (1, 1)
    assert one.low == pytest.approx(0.025 ** (1 / 512))  # Clopper and Pearson, no failure in 512
    same, scattered = verdicts.of_accuracies([0.5, 0.5]), verdicts.of_accuracies([0.2, 0.8])
    assert same.high - same.low == pytest.approx(2 * 1.96 * (0.25 / 1024) ** 0.5, rel=0.05)
    assert (scattered.low, scattered.high) == (0, 1)


def test_the_same_seed_trains_the_same_model():
    mask = window_mask(24, 4)
    assert measure.recall(mask, [6], n_steps=5) == measure.recall(mask, [6], n_steps=5)
    assert measure.corner_accuracy((0,), n_steps=3) == measure.corner_accuracy((0,), n_steps=3)


def masked(q, k, v, w):
    mask = window_mask(q.shape[2], w)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("03-1", lambda n, w: visible_pairs(n, w, True), lambda n, w: n * (w + 1)),
        ("03-2", 64, 8191 / 128),
        (
            "03-3",
            lambda n, w, g: (
                window_mask(n, w) | (torch.arange(n) < g) | (torch.arange(n) < g)[:, None]
            ),
            lambda n, w, g: window_mask(n, w),
        ),
        ("03-4", sliding_window_attention, masked),  # equal, and as slow as full attention
        ("03-4", sliding_window_attention, lambda q, k, v, w: v),
    ],
)
def test_exercises_judge(name, right, wrong):
    exercise = exercises.EXERCISES[name]
    assert judge(exercise, ...)[0] == "not attempted"
    assert judge(exercise, right)[0] == "correct"
    assert judge(exercise, wrong)[0] == "not quite"


def test_pictures_have_their_chinese():
    text.missing.clear()
    use_language("zh")
    for draw in (
        figures.mask_picture,
        figures.window_cost,
        figures.reach_picture,
        figures.bias_picture,
    ):
        assert text.has_chinese(draw().layout.title.text)
    for draw in (figures.talk_picture, figures.bigbird_cost):
        assert text.has_chinese(draw().layout.title.text)
    accuracies = {4: verdicts.of_accuracies([1.0, 0.9]), 40: verdicts.of_accuracies([0.1, 0.2])}
    fig = figures.recall_figure(accuracies, {4: 1.0, 40: 1.0}, reach=24)
    assert list(fig.layout.meta.values()) == [0.95, 0.15]
    assert not text.missing
