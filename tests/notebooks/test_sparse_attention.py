"""Notebook 03's lab side: numbers behind its pictures, explorers over their controls, exercises."""

import numpy as np
import pytest
import torch

from efflab.experiments import attention_bench
from efflab.lab import text, use_language
from efflab.lab.check import judge
from efflab.structure.window import visible_pairs, window_mask
from efflab_rooms.sparse_attention import blocks, exercises, growth, images, windows


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
    for value in values_of(windows.window_cost.controls[name]):
        arguments = dict(window_size=128, seq_len=4096, causal=False) | {name: value}
        fig = windows.window_cost(**arguments)
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
    for value in blocks.bigbird_cost.controls[name].values():
        counts = dict(n_global=1, n_window=3, n_random=1) | {name: value}
        meta = blocks.bigbird_cost(**counts).layout.meta
        assert 0 < meta["share"] <= 1
        if counts["n_global"]:
            assert meta["unreached"] == 0
            assert meta["furthest"] == 2
    with pytest.raises(ValueError, match="n_window=4"):
        blocks.bigbird_cost(1, 4, 1)


def test_a_window_of_blocks_alone_needs_one_hop_a_block():
    assert blocks.bigbird_cost(0, 3, 0).layout.meta["furthest"] == 63
    assert blocks.bigbird_cost(0, 1, 0).layout.meta["unreached"] == 64 * 63


def test_mask_picture_counts_its_pairs():
    meta = windows.mask_picture(24, 3).layout.meta
    assert list(meta.values()) == [576, visible_pairs(24, 3), visible_pairs(24, 3, True)]


def test_coarse_mask_equals_the_mask_at_full_resolution():
    for causal in (False, True):
        fine = window_mask(256, 40, causal).float().view(64, 4, 64, 4).mean((1, 3))
        np.testing.assert_allclose(windows.coarse_mask(256, 40, causal), fine, atol=0.2)


def test_reach_is_layers_times_window():
    seen = windows.reach(window_size=3, n_layer=4)
    assert seen.sum(1).tolist() == [2 * 3 * depth + 1 for depth in (1, 2, 3, 4)]
    causal = windows.reach(window_size=3, n_layer=4, causal=True)
    assert causal.sum(1).tolist() == [3 * depth + 1 for depth in (1, 2, 3, 4)]
    assert set(windows.reach_picture(4, 3).layout.meta.values()) == {12}


def test_measured_growth_has_its_computed_columns():
    rows = growth.measure_growth(1024, 32, repeats=1)
    assert [row["seq_len"] for row in rows] == [128, 256, 512, 1024]
    assert rows[-1]["predicted"] == 1024**2 / visible_pairs(1024, 32)
    assert growth.exponent(rows, "written_mib").mean == pytest.approx(2, abs=0.2)
    assert growth.growth_figure(rows).layout.meta
    with pytest.raises(ValueError, match="max_len"):
        growth.measure_growth(100, 32)


def test_exponent_of_an_exact_power():
    rows = [dict(seq_len=n, y=3 * n**1.5) for n in (10, 20, 40)]
    found = growth.exponent(rows, "y")
    assert (found.mean, found.low, found.high) == pytest.approx((1.5, 1.5, 1.5))
    rows[1]["y"] *= 1.3  # scatter widens the interval
    found = growth.exponent(rows, "y")
    assert found.high - found.low > 1
    with pytest.raises(ValueError, match="rows=2: expected three lengths or more"):
        growth.exponent(rows[:2], "y")  # a line through any two points, without a doubt
    assert growth.pairs_exponent(8192, 128) == pytest.approx(1.01, abs=0.01)


def test_block_growth_has_its_shares():
    rows = growth.block_growth(2048, repeats=1)
    assert rows[0]["share"] > rows[-1]["share"]
    assert rows[-1]["block_mib"] < 1.3 * 2 * rows[-2]["block_mib"]


def test_recorded_benchmark_meets_its_targets():
    """The figures kept in data/; a slower version could not be recorded without this failing."""
    record = growth.recorded_bench()
    assert record["command"].startswith("efflab experiment attention-bench")
    rows = {(row["seq_len"], row["name"]): row for row in record["rows"]}
    assert {n for n, _ in rows} == set(attention_bench.LENGTHS)
    ours = {n: rows[n, attention_bench.OURS] for n in attention_bench.LENGTHS}
    assert ours[8192]["over_flex"] <= 0.85
    assert ours[16384]["over_flex"] <= 1
    assert ours[16384]["over_full"] <= 0.1
    assert ours[16384]["mib"] <= 8**1.15 * ours[2048]["mib"]
    assert rows[8192, attention_bench.BIGBIRD]["over_full"] <= 0.35
    assert [row["kind"] for row in growth.library_rows(8192)] == ["recorded"] * 5


@torch.no_grad()
def test_the_package_sees_the_same_window():
    """At a multiple of its window: it pads other lengths with zero keys that it then attends to."""
    q, k, v = (x[:, :2, :, :8] for x in attention_bench.heads(320))
    ours = growth.sliding_window_attention(q, k, v, 64)
    theirs = attention_bench.package(q.contiguous(), k.contiguous(), v.contiguous(), 64)()
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)


def test_swin_equals_transformers_and_the_paper():
    assert max(images.transformers_gap().values()) < 1e-4
    rows = images.count_rows()
    for ours, published in zip(rows[::2], rows[1::2], strict=True):
        assert abs(ours["params"] - published["params"]) < 1e6  # the paper rounds to millions
        assert round(ours["gmacs"], 1) == published["gmacs"]


def test_windows_talk_only_when_they_shift():
    heard = {name: int(n) for name, n in images.talk_picture().layout.meta.items()}
    assert heard["one layer"] == heard["three layers, never shifted"] == 16
    assert heard["second of three shifted"] == 64


def test_layouts_predict_who_recalls():
    needed = {name: blocks.hops_needed(blocks.layout_of(name)) for name in blocks.LAYOUTS}
    assert needed["full"] == 1
    assert needed["window"] > blocks.N_LAYER
    assert needed["window + global"] == needed["BigBird: all three"] == 2


def test_recall_is_chance_beyond_reach_and_learned_within():
    full = torch.ones(24, 24, dtype=torch.bool)
    assert blocks.recall(full, 16) > 0.9
    assert blocks.recall(window_mask(24, 4), 16, n_steps=30) < 0.3


def test_the_same_seed_trains_the_same_model():
    mask = window_mask(24, 4)
    assert blocks.recall(mask, 6, n_steps=5) == blocks.recall(mask, 6, n_steps=5)
    assert images.corner_accuracy((0,), n_steps=3) == images.corner_accuracy((0,), n_steps=3)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("03-1", lambda n, w: visible_pairs(n, w, True), lambda n, w: n * (w + 1)),
        ("03-2", 64, 63),
        (
            "03-3",
            lambda n, w, g: (
                window_mask(n, w) | (torch.arange(n) < g) | (torch.arange(n) < g)[:, None]
            ),
            lambda n, w, g: window_mask(n, w),
        ),
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
        windows.mask_picture,
        windows.window_cost,
        windows.reach_picture,
        images.bias_picture,
    ):
        assert text.has_chinese(draw().layout.title.text)
    for draw in (images.talk_picture, blocks.bigbird_cost):
        assert text.has_chinese(draw().layout.title.text)
    for exercise in exercises.EXERCISES.values():
        text.tr(exercise.hint)
    assert not text.missing
