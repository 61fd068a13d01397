"""Notebook 00: its numbers against papers and closed forms, its pictures, explorer, exercises."""

from dataclasses import replace

import pytest
import torch

from efflab import cost, inference
from efflab.bench import Timing
from efflab.config import PRESETS, ModelConfig
from efflab.devices import DEVICES, Device
from efflab.lab.check import judge
from efflab.model import Transformer
from efflab.profile import Operator, profile
from efflab_rooms.start_here import exercises, figures, measure

MACHINE = Device("a test machine", {"fp32": 100e9}, 10e9, 8e9, "assumed")


def test_computed_training_flops_agree_with_the_published():
    """Within 3 %, but for the first Transformer, whose paper counts the GPUs' time instead."""
    published = {r["model"]: r for r in measure.growth_rows() if r["published_flops"]}
    assert len(published) == 6
    for name, row in published.items():
        ratio = row["flops"] / float(row["published_flops"])
        if name == "Transformer (big)":
            assert 1 / 3 < ratio < 1
        else:
            assert ratio == pytest.approx(1, abs=0.03), name


def test_growth_rows_are_in_order_and_sourced():
    rows = measure.growth_rows()
    years = [row["year"] for row in rows]
    assert years == sorted(years)
    assert all(row["source"] and row["params"] > 1e8 for row in rows)
    assert all((row["flops"] is None) == (row["tokens"] is None) for row in rows)


def test_what_the_text_says_of_growth():
    """A thousandfold in three and a half years; then sizes stood still and compute did not."""
    rows = {row["model"]: row for row in measure.growth_rows()}
    bert, palm, llama = rows["BERT-large"], rows["PaLM"], rows["Llama 3.1 405B"]
    assert 1000 < palm["params"] / bert["params"] < 2000
    assert palm["year"] - bert["year"] == pytest.approx(3.5)
    assert llama["params"] < palm["params"]
    assert llama["flops"] / palm["flops"] == pytest.approx(15, abs=0.1)
    assert measure.doubling_months(bert, palm) == pytest.approx(3.95, abs=0.01)


def test_growth_figure_shows_every_row(both_languages):
    fig = figures.growth()
    rows = measure.growth_rows()
    assert len(fig.data[0].x) == len(rows)
    assert len(fig.data[1].x) == sum(row["flops"] is not None for row in rows)


def test_parts_add_up_to_the_flops_when_arithmetic_limits():
    """On a device with endless bandwidth the least time is FLOPs over peak."""
    config, device = PRESETS["bert-base"], Device("d", {"fp32": 1e12}, 1e30, None, "assumed")
    total = sum(measure.part_seconds(config, 512, device).values())
    assert total == pytest.approx(cost.forward_flops(config, 512) / 1e12)


def test_fusing_attention_saves_bytes_of_the_scores_alone():
    config = PRESETS["bert-base"]
    fused, unfused = (measure.part_bytes(config, 512, 2, f) for f in (True, False))
    assert unfused["scores"] - fused["scores"] == 12 * 4 * 12 * 512 * 512 * 2
    assert {k: v for k, v in fused.items() if k != "scores"} == {
        k: v for k, v in unfused.items() if k != "scores"
    }


def test_weights_are_most_of_the_bytes_of_one_token():
    config = PRESETS["gpt2"]
    n_bytes = sum(measure.part_bytes(config, 1, 2, True).values())
    assert n_bytes == pytest.approx(2 * cost.num_params(config), rel=0.02)


def test_shared_keys_and_gates_have_their_own_bytes():
    """A layer of Qwen3-8B: Q, K, V and output, then three maps, each with what it reads, writes."""
    config = replace(PRESETS["qwen3-8b"], n_layer=1)
    n_bytes = measure.part_bytes(config, 2, 1, fused=True)
    assert n_bytes["scores"] == 2 * (32 + 8 + 8 + 32) * 128
    weights = 4096 * (32 + 8 + 8 + 32) * 128
    assert n_bytes["projections"] == weights + 2 * (4096 + 48 * 128 + 32 * 128 + 4096)
    assert n_bytes["ffn"] == 3 * (4096 * 12288 + 2 * (4096 + 12288))
    one = sum(measure.part_bytes(PRESETS["qwen3-8b"], 1, 2, True).values())
    assert one == pytest.approx(inference.decode_bytes(PRESETS["qwen3-8b"], 0), rel=0.01)


CROSSINGS = {"qwen3-8b": 5 * 1024 + 18_432}  # 1.25 C + 1.5 F


@pytest.mark.parametrize("model", figures.MODELS)
@pytest.mark.parametrize("device", ["V100 SXM2", "A100 80GB SXM", "H100 SXM"])
def test_explorer_at_every_corner(model, device):
    config = PRESETS[model]
    for seq_len in (128, 3072, 2**17):
        fig = figures.where_it_goes(seq_len, model, device, fused=seq_len != 128)
        meta = fig.layout.meta
        assert meta["share"] == cost.attention_share(config, seq_len)
        assert meta["crossing"] == CROSSINGS.get(model, 2 * config.d_model + config.d_ff)
        assert sum(fig.data[0].x) == pytest.approx(100)
        assert fig.data[2].y[0] == pytest.approx(100 * meta["share"])
        (diamond,) = fig.select_traces({"marker.symbol": "diamond"})
        assert (diamond.x[0], diamond.y[0]) == (meta["crossing"], 50)
        assert cost.attention_share(config, diamond.x[0]) == pytest.approx(0.5)
        flops = cost.forward_flops(config, seq_len)
        assert meta["milliseconds"] >= 0.999e3 * flops / DEVICES[device].peak("fp16")


def test_explorer_speaks_both_languages(both_languages):
    fig = figures.where_it_goes(512, "gpt3-175b", "A100 80GB SXM", True)
    assert ("不下" in fig.layout.title.text) == (both_languages == "zh")
    assert figures.where_it_goes().layout.meta["seq_len"] == 512


def test_explorer_on_this_computer(monkeypatch):
    monkeypatch.setattr(measure, "machine", lambda: MACHINE)
    meta = figures.where_it_goes(512, "stdlib-gpt", figures.THIS).layout.meta
    least = cost.forward_flops(PRESETS["stdlib-gpt"], 512) / 100e9
    assert meta["milliseconds"] == pytest.approx(1e3 * least)


@pytest.mark.parametrize(
    "bad", [dict(seq_len=0), dict(model="gpt9"), dict(device="a toaster"), dict(seq_len=-5)]
)
def test_explorer_refuses_nonsense(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        figures.where_it_goes(**bad)


def test_attention_shares_mark_the_crossings(both_languages):
    meta = figures.attention_shares().layout.meta
    assert meta["bert-base: ffn"] == 3072
    assert meta["bert-base: linear"] == 4608
    assert meta["gpt3-175b: ffn"] == 49152
    assert meta["gpt3-175b: linear"] == 73728
    assert meta["qwen3-8b: linear"] == 23552


def test_the_text_says_where_the_scores_take_over():
    """10 % and 3 % at the models' own longest input; 435 tokens for the stored scores."""
    bert, gpt3 = PRESETS["bert-base"], PRESETS["gpt3-175b"]
    own = [cost.attention_share(config, config.max_len) for config in (bert, gpt3)]
    assert own == pytest.approx([0.10, 0.03], abs=0.005)
    long = [cost.attention_share(config, 2**17) for config in (gpt3, bert)]
    assert long == pytest.approx([0.64, 0.966], abs=0.001)
    stored = cost.activation_bytes(bert, 435, 1)
    without_scores = cost.activation_bytes(bert, 435, 1, recompute="selective")
    assert stored / without_scores == pytest.approx(2, rel=0.01)
    assert round(34 * bert.head_dim / 5) == 435


def test_what_the_text_says_of_qwen3():
    """It crosses within its context; 15.1 GB and 147 kB a token are equal at 102,700 tokens."""
    config = PRESETS["qwen3-8b"]
    assert cost.crossing_length(config, "linear") == 23_552 < config.max_len == 40_960
    weights, cache = inference.decode_bytes(config, 0), cost.kv_cache_bytes(config, 1)
    assert (weights / 1e9, cache / 1e3) == pytest.approx((15.1, 147), rel=5e-3)
    assert weights / cache == pytest.approx(102_700, abs=50)
    stored = [cost.activation_bytes(config, 2528, 1, dropout=False, fused_attention=False)]
    stored.append(cost.activation_bytes(config, 2528, 1, dropout=False, recompute="selective"))
    assert stored[0] == 2 * stored[1]


SMALL = ModelConfig(2, 4, 64, 256, 512, 128, causal=True)


@pytest.fixture(scope="module")
def small_profile():
    torch.manual_seed(0)
    model = Transformer(SMALL).eval()
    ids = torch.randint(0, 512, (1, 64))
    with torch.no_grad():
        model(ids)
        return profile(lambda: model(ids), measure.model_parts(model))


def test_every_operator_has_a_group_and_a_part(small_profile):
    groups = {measure.group(op.name) for op in small_profile.operators}
    assert groups == set(measure.GROUPS.values())
    assert set(small_profile.part_seconds()) == {"embedding", "attention", "feed-forward", "other"}


def test_operators_have_their_calls_and_products(small_profile):
    operators = {measure.short_name(op.name): op for op in small_profile.operators}
    assert operators["mm"].flops == 2 * 64 * 64 * 512  # the logits
    assert operators["addmm"].calls == 8


def test_timeline_holds_every_span(small_profile, both_languages):
    fig = figures.timeline(small_profile)
    assert sum(len(trace.x) for trace in fig.data) == len(small_profile.spans)
    assert sum(fig.layout.meta.values()) == pytest.approx(100)


def test_roofline_points(small_profile):
    fig = figures.roofline(MACHINE, small_profile.operators, small_profile.operators[:1])
    products = [op for op in small_profile.operators if op.flops]
    again = [op for op in small_profile.operators[:1] if op.flops]
    assert len(fig.data) == 1 + len(products) + len(again)
    assert max(fig.data[0].y) == pytest.approx(100)  # GFLOP/s, the peak
    for trace, op in zip(fig.data[1:], products, strict=False):
        assert trace.x[0] == pytest.approx(op.intensity)
        assert trace.y[0] == pytest.approx(op.flops / op.seconds / 1e9)
    assert min(fig.data[0].x) < min(op.intensity for op in products)  # the roof spans all points


def test_a_point_is_compared_with_the_roof_above_it():
    """At 2 FLOP/byte the memory's 20 GFLOP/s bound it, not the peak of 100; one token is hollow."""
    op = Operator("aten::mm", 1, seconds=1e-3, flops=10**7, bytes=5 * 10**6)
    fig = figures.roofline(MACHINE, [op], [op])
    assert fig.layout.meta["mm: logits (% of its roof)"] == pytest.approx(50)
    whole, one_token = fig.data[1:]
    assert one_token.marker.symbol == f"{whole.marker.symbol}-open"
    assert one_token.marker.color == whole.marker.color


def power_law(lengths, exact):
    """Timings whose n² parts meet the linear one exactly at `exact`."""
    return {
        n: dict(
            linear=Timing((n / 1e6,)),
            fused=Timing((n * n / exact / 1e6,)),
            unfused=Timing((2 * n * n / exact / 1e6,)),
        )
        for n in lengths
    }


@pytest.mark.parametrize("exact", [300, 768, 1000, 4096])
def test_crossing_is_found_inside_and_beyond_the_measured(exact):
    times = power_law((256, 512, 1024, 2048), exact)
    assert measure.crossing(times, "fused").mean == pytest.approx(exact)
    assert measure.crossing(times, "unfused").mean == pytest.approx(exact / 2)
    half = 2 * SMALL.d_model + SMALL.d_ff
    meta = figures.layer_times(SMALL, times).layout.meta
    assert list(meta.values()) == pytest.approx([half, exact, exact / 2])
    over = measure.crossing(times, "fused", unit=half)
    assert over.mean == pytest.approx(exact / half)


def test_a_crossing_has_the_interval_of_its_repeats():
    times = power_law((256, 512, 1024), 500)
    for n, parts in times.items():  # the crossings of three repeats: 500, 1,000 and 250
        seconds = parts["fused"].seconds[0]
        parts["linear"] = Timing((n / 1e6,) * 3)
        parts["fused"] = Timing((seconds, seconds / 2, seconds * 2))
    length = measure.crossing(times, "fused")
    assert (length.mean, length.low, length.high) == pytest.approx((500, 250, 1000))


def test_a_layer_is_timed_in_parts_that_are_its_own():
    layer = Transformer(SMALL).layers[0]
    times = measure.time_layer(layer, (8, 16), unfused=True)
    assert list(times) == [8, 16]
    assert all(set(parts) == {"linear", "fused", "unfused"} for parts in times.values())
    assert set(measure.time_layer(layer, (8,))[8]) == {"linear", "fused"}
    assert len(times[8]["fused"].seconds) == 7


def test_the_gap_adds_up_to_the_pass(small_profile):
    rows = measure.gap_rows(small_profile, MACHINE)
    assert [row["work"] for row in rows] == [*measure.GROUPS.values(), measure.BETWEEN]
    taken = sum(row["measured (ms)"] for row in rows)
    assert taken == pytest.approx(1e3 * small_profile.seconds)
    products = next(row for row in rows if row["work"] == "matrix products")
    ops = [op for op in small_profile.operators if measure.group(op.name) == "matrix products"]
    least = 1e3 * sum(max(op.flops / 100e9, op.bytes / 10e9) for op in ops)
    assert products["roofline minimum (ms, computed)"] == pytest.approx(least)
    gap = (products["measured (ms)"] - least) / 1e3 / small_profile.seconds
    assert products["excess, % of the pass"] == f"{100 * gap:.0f}%"


RIGHT = {
    "00-1": 16512,
    "00-2": lambda n, d_model, n_layer: 4 * n_layer * n * n * d_model,
    "00-3": lambda share, factor: 1 / (1 - share + share / factor),
}
WRONG = {
    "00-1": 11008,  # two matrices
    "00-2": lambda n, d_model, n_layer: 2 * n_layer * n * n * d_model,  # multiply-accumulates
    "00-3": lambda share, factor: share * factor,
}


@pytest.mark.parametrize("name", exercises.EXERCISES)
def test_exercises_judge_right_wrong_and_untouched(name):
    exercise = exercises.EXERCISES[name]
    assert judge(exercise, RIGHT[name])[0] == "correct"
    assert judge(exercise, WRONG[name])[0] == "not quite"
    assert judge(exercise, ...)[0] == "not attempted"
    if callable(RIGHT[name]):
        assert judge(exercise, lambda *args: ...)[0] == "not attempted"
