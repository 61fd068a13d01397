"""Notebook 05: its experiment, record, pictures, explorer, exercises."""

import math
import re
from itertools import product
from statistics import mean, stdev

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from efflab.base.significant import significant
from efflab.config import ModelConfig
from efflab.data import tokenizer
from efflab.experiments import dynamic_attention as experiment
from efflab.experiments import dynamic_attention_2 as used_range
from efflab.experiments.record import by_seed, read_record
from efflab.lab.check import judge
from efflab.lab.tables import table_forms
from efflab.model import Transformer
from efflab.publishing.catalog import sources
from efflab.structure.adaptive_span import learned_spans, span_layers
from efflab.structure.dynamic_conv import (
    DynamicConv,
    LightweightConv,
    convolve,
    replace_attention,
)
from efflab_rooms.dynamic_attention import exercises, figures, measure

# --- The experiment --------------------------------------------------------------------------


@pytest.mark.parametrize("variant", experiment.VARIANTS)
def test_variants_share_what_they_have_in_common(variant):
    model, plain = experiment.make_model(variant, 3), experiment.make_model("attention", 3)
    for name in ("embedding.token.weight", "layers.2.ffn.body.up.weight"):
        assert torch.equal(model.get_parameter(name), plain.get_parameter(name))
    again = experiment.make_model(variant, 3)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("variant", ["attention", "lightweight-15", "dynamic-3", "span-1e-05"])
def test_every_parameter_is_optimized_once(variant):
    model = experiment.make_model(variant, 0)
    optimizers = experiment.optimizers(model)
    groups = [g for o in optimizers for g in o.param_groups]
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(map(id, model.parameters()))
    last = optimizers[-1].param_groups
    fast = {id(p) for g in last if g["lr"] == experiment.SPAN_LR for p in g["params"]}
    assert fast == {id(layer.share) for layer in span_layers(model)}


def test_the_penalty_is_the_summed_mean_span():
    model = experiment.make_model("span-1e-05", 0)
    ids = torch.randint(0, 2048, (1, 16))
    plain = experiment.loss_with_penalty(0.0)(model, ids, ids)
    with_penalty = experiment.loss_with_penalty(0.5)(model, ids, ids)
    spans = experiment.CONFIG.n_layer * experiment.INITIAL_SPAN * experiment.CONFIG.max_len
    assert (with_penalty - plain).item() == pytest.approx(0.5 * spans, rel=1e-5)


def test_mixing_flops_by_hand():
    """4 layers, 128 tokens, 64 channels, 4 heads, 2 FLOPs a multiply-accumulate."""
    assert experiment.mixing_flops("attention") == 4 * 128 * 2 * (4 * 64**2 + 2 * 64 * 128)
    assert experiment.mixing_flops("lightweight-15") == 4 * 128 * 2 * (3 * 64**2 + 64 * 15)
    dynamic = 3 * 64**2 + 64 * 15 + 64 * 4 * 15
    assert experiment.mixing_flops("dynamic-15") == 4 * 128 * 2 * dynamic
    halved = experiment.mixing_flops("span-0", [64] * 4)
    assert halved == 4 * 128 * 2 * (4 * 64**2 + 2 * 64 * 64)


def test_a_short_training_of_a_variant_keeps_what_the_record_needs():
    model, result = experiment.train_variant("span-1e-05", 5, n_steps=2)
    assert torch.tensor(result["spans"]).shape == (4, 4)
    assert torch.tensor(result["spans"]).equal(learned_spans(model).detach())
    assert len(result["reach"]) == 4
    assert result["n_params"] == sum(p.numel() for p in model.parameters())
    assert 6 < result["loss"] < 8  # hardly trained: about ln 2048


# --- The record ------------------------------------------------------------------------------


def test_the_record_is_complete_and_consistent():
    stored = experiment.read_record(experiment.NAME)
    assert stored["settings"] == experiment.settings()
    pairs = {(r["variant"], r["seed"]) for r in stored["runs"]}
    assert pairs == {(v, s) for v in experiment.VARIANTS for s in experiment.SEEDS}
    for run in stored["runs"]:
        assert run["mixing_flops"] == experiment.mixing_flops(run["variant"], run.get("reach"))
        model = experiment.make_model(run["variant"], 0)
        assert run["n_params"] == sum(p.numel() for p in model.parameters())
    for spec in measure.record().values():
        losses = spec["losses"].values()
        assert spec["loss"] == pytest.approx(mean(losses))
        low, high = spec["interval"]
        assert low < min(losses)
        assert max(losses) < high
        assert high - low > stdev(losses)


def test_what_the_text_says_of_spans():
    """Without a penalty heads lengthen and shorten; a penalty shortens on average."""
    start = experiment.INITIAL_SPAN * experiment.CONFIG.max_len
    spans = {w: torch.tensor(measure.span_record(w)["spans"]) for w in measure.PENALTIES}
    assert spans[0.0][0].min() < start < spans[0.0][0].max()
    means = [values[0].mean().item() for values in spans.values()]
    assert means == sorted(means, reverse=True)
    for penalty, values in spans.items():
        needs = (values + experiment.RAMP).clamp_max(experiment.CONFIG.max_len)
        computed = torch.tensor(measure.span_record(penalty)["reach"]).float()
        assert needs.mean() <= computed.mean() + 1  # reach is rounded up to whole keys


def test_times_are_tabulated_by_length_and_technique(both_languages):
    rows = measure.time_rows(3, 32, 128)
    assert [row["sequence length (tokens)"] for row in rows] == [32] * 3 + [128] * 3 + [256] * 3
    assert {row["technique"] for row in rows} == {"LightweightConv", "DynamicConv", "adaptive span"}
    for row in rows:
        assert row["interval, low"] <= row["time / attention's (measured)"] <= row["interval, high"]
    _, shown = table_forms(rows, kind="measured")
    assert len(shown.splitlines()) == len(rows) + 2


def test_figures(both_languages):
    spans = figures.recorded_spans_figure()
    assert [trace.z.shape for trace in spans.data] == [(4, 4)] * len(measure.PENALTIES)
    mask = figures.mask_figure((8, 40), 16)
    assert list(mask.layout.meta.values()) == [24, 56]
    model = experiment.make_model("dynamic-7", 0).eval()
    kernels = figures.kernel_figure(model)
    assert [len(trace.x) for trace in kernels.data] == [7] * 8
    for trace in kernels.data:
        assert sum(trace.y) == pytest.approx(1, abs=1e-5)


# --- What is measured ------------------------------------------------------------------------


def test_kernels_differ_by_token_and_are_those_the_layer_uses():
    model = experiment.make_model("dynamic-7", 0).eval()
    layer, (a, b), moved = measure.most_different(model)
    assert moved == pytest.approx(((a - b).abs().sum(-1).mean() / 2).item())
    assert 0 < moved < 1
    body = model.layers[layer].attention.body
    kernels = []
    body.register_forward_hook(lambda m, inputs, out: kernels.append(m.kernels(m.gated(inputs[0]))))
    ids = torch.tensor([tokenizer().encode(measure.SNIPPETS[0]).ids])
    model.encode(ids)
    torch.testing.assert_close(kernels[0][0, measure.POSITION], a)


def test_farthest_finds_a_known_reach():
    class Shift(nn.Module):
        def forward(self, x):
            return x.roll(5, 1) + x

    assert measure.farthest(Shift(), torch.randn(1, 20, 3)) == 5


@pytest.mark.parametrize("k", [3, 15])
def test_reaches_are_what_the_verdict_says(k):
    reaches = measure.reaches(k, [3.0, 40.5, 9.0, 0.0])
    assert reaches["DynamicConv"] == (k - 1, k - 1)
    assert reaches["attention"][0] == experiment.CONFIG.max_len - 1
    # 40.5 + 16 = 56.5: the mask is above zero up to 56 tokens back
    assert reaches["adaptive span"] == (56, 56)
    assert [a == b for a, b in reaches.values()] == [True] * 4 + [False]


def test_stacked_layers_add_up():
    for k in (3, 31):
        stack = nn.Sequential(*(DynamicConv(16, 4, k) for _ in range(4))).double()
        x = torch.randn(1, 160, 16, dtype=torch.double)
        assert measure.farthest(stack, x) == 4 * (k - 1)


def test_counted_flops_are_the_formula_and_the_corners_of_blocks():
    for name, layer in measure.mixers(15, 64, 512).items():
        plain = sdpa_kernel(SDPBackend.MATH)
        with torch.no_grad(), plain, FlopCounterMode(display=False) as counter:
            layer(torch.randn(1, 512, measure.D_MODEL))
        ratio = counter.get_total_flops() / measure.flops_of(name, 15, 64, 512)
        assert ratio == 1 if name == "attention" else 1 < ratio < 1.1


def test_spans_of_a_trained_model_are_learned_alone():
    torch.manual_seed(0)
    model = Transformer(ModelConfig(2, 2, 16, 32, 2048, 64, causal=True)).eval()
    weight = model.layers[0].ffn.body.up.weight.clone()
    shortened = measure.learn_spans(model, penalty=1.0, n_steps=4)
    assert torch.equal(shortened.layers[0].ffn.body.up.weight, weight)
    floor = measure.span_floor(64, 4)  # so large a penalty decides alone
    assert 0 < floor < 64
    shortened(torch.zeros(1, 8, dtype=torch.long))  # the spans as the last step left them
    spans = learned_spans(shortened).detach()
    torch.testing.assert_close(spans, torch.full((2, 2), floor), rtol=1e-3, atol=0)


# --- The used range ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "distance"),
    [([0.05, 0.05, 0.9], 0), ([0.1, 0.3, 0.6], 1), ([0.3, 0.3, 0.4], 2), ([0.9, 0.05, 0.05], 2)],
)
def test_the_used_distance_holds_nine_tenths(weights, distance):
    assert used_range.used_distances(torch.tensor(weights)).item() == distance


def test_attentions_distances_are_counted_back_from_each_token():
    """A head whose queries see only the token three back: its distance is 3 at every position."""
    model = Transformer(ModelConfig(1, 1, 16, 32, 2048, 32, causal=True)).eval()
    seen = []

    def heads(x):
        seen.append(x)
        T = x.shape[1]
        q = 50 * torch.eye(T).roll(-3, 1)  # q of i points at key i - 3
        return q[None, None], torch.eye(T)[None, None], None

    model.layers[0].attention.body.heads = heads
    distances = measure.ranges_of(model, 1)
    assert distances.shape == (1, 16, 1)
    assert set(distances.flatten().tolist()) == {3}
    assert len(seen) == 1


def test_what_does_not_look_at_its_input_differs_by_nothing():
    config = experiment.CONFIG
    shape = config.d_model, config.n_head, 7
    light = replace_attention(Transformer(config), lambda _: LightweightConv(*shape)).eval()
    fixed, uniform = measure.ranges_of(light, 4), measure.uniform_ranges(config.max_len, 4)
    assert fixed.shape == (4, 64, 16)
    assert measure.spread(fixed) == 0 < measure.spread(uniform)
    assert used_range.between_texts(fixed) == used_range.between_texts(uniform) == [0, 0]
    model = experiment.make_model("dynamic-7", 0).eval()
    with torch.no_grad():  # untrained kernels are nearly even; sharper ones differ by token
        model.layers[0].attention.body.predict.weight.mul_(300)
    assert min(used_range.between_texts(measure.ranges_of(model, 4))) > 0.1


def test_uniform_attention_moves_by_its_position_alone():
    """0.9 of half the window, and of the percentiles 0.9: some 40 % of the width."""
    uniform = measure.uniform_ranges(512)
    assert uniform[0, 0, 0] == math.ceil(0.9 * 257) - 1
    assert uniform[0, -1, 0] == math.ceil(0.9 * 512) - 1
    assert measure.spread(uniform) / 511 == pytest.approx(0.9 * 0.9 / 2, abs=0.005)
    assert measure.spread(measure.without_trend(uniform)) < 2


def test_texts_are_compared_two_by_two():
    distances = torch.tensor([[[1], [2]], [[4], [2]], [[0], [0]], [[1], [2]]])
    assert used_range.between_texts(distances) == [1.5, 1.5]
    with pytest.raises(ValueError, match="texts=3"):
        used_range.between_texts(distances[:3])


def test_spread_is_in_tokens():
    distances = torch.arange(101).repeat(2, 5)[..., None]  # 0 to 100, evenly
    assert measure.spread(distances) == pytest.approx(90)


def test_a_run_of_the_second_record(monkeypatch):
    monkeypatch.setattr(used_range, "N_TEXTS", 4)
    monkeypatch.setitem(used_range.MIXERS, "attention", ("attention", 2))
    untrained, attention = (used_range.run_one(mixer, 7) for mixer in ("untrained", "attention"))
    assert 0 <= untrained["tokens"] < attention["tokens"]
    assert untrained["loss"] == pytest.approx(math.log(2048), abs=0.5)


def test_runs_that_are_recorded_follow_from_their_mixers_and_seeds():
    """Every mixer and seed of the rule, and the numbers that the text says."""
    record = read_record(used_range.NAME)
    pairs = [(r["mixer"], r["seed"]) for r in record["runs"]]
    assert sorted(pairs) == sorted(product(used_range.MIXERS, used_range.SEEDS))
    text = sources()["05"].read_text(encoding="utf-8")
    for key in ("range-dynamic", "range-attention"):
        apart = used_range.cases(record["runs"])[key]
        low, high = (significant(end, 3) for end in (apart.low, apart.high))
        value = significant(apart.mean, 3)
        assert re.search(rf"{value}( tokens)? \({low} to {high}\)", text), key
        assert re.search(rf"{value} 个( token)?（{low} 至 {high}）", text), key
    losses = {m: mean(v) for m, v in by_seed(record["runs"], "mixer", "loss").items()}
    assert losses["attention"] > max(losses["dynamic"], losses["fixed"])


def test_the_range_is_compared_with_the_record_of_the_same_kernel_alone(monkeypatch):
    monkeypatch.setattr(used_range, "N_TEXTS", 4)
    monkeypatch.setattr(measure, "same_python", lambda record: True)
    model = experiment.make_model("dynamic-7", 0)
    live, recorded, spread = measure.repeat_used_range(model, 15, 0)
    assert live == pytest.approx(0, abs=0.1)
    assert recorded == pytest.approx(1.17, abs=0.005)
    assert recorded - spread > 0
    assert measure.repeat_used_range(model, 7, 0)[2] is None


# --- Explorer and exercises ------------------------------------------------------------------


def test_the_explorer_counts_as_the_layers_do():
    names = ("attention", "dynamic-15", "span-0.0001")
    attention, conv, span = (figures.kflops_a_token(measure.record()[n], 2048) for n in names)
    assert attention == 2 * (4 * 64**2 + 2 * 64 * 2048) / 1e3
    assert conv == 2 * (3 * 64**2 + 64 * 15 + 64 * 4 * 15) / 1e3
    assert 2 * 4 * 64**2 / 1e3 < span < attention
    shown = figures.range_or_width(15, 1e-4, 2048).layout.meta
    assert list(shown.values())[3:] == [attention, conv, span]


WRONG = {
    "05-1": lambda values, kernels, i: values[i],
    "05-2": lambda spans, ramp, max_span: sum(spans) / len(spans) + ramp,
    "05-3": lambda n_layer, distance: distance // n_layer + 1,
    "05-4": [64] * 6,
}
RIGHT = {
    "05-1": lambda values, kernels, i: convolve(values[None], kernels[None], True)[0, i],
    "05-2": lambda spans, ramp, max_span: min(-int(-(max(spans) + ramp) // 1), max_span),
    "05-3": lambda n_layer, distance: -(-distance // n_layer) + 1,
    "05-4": [152, 48, 16, 24, 32, 112],
}


@pytest.mark.parametrize("name", exercises.EXERCISES)
def test_exercises_tell_right_from_wrong(name, both_languages):
    exercise = exercises.EXERCISES[name]
    assert judge(exercise, RIGHT[name])[0] == "correct"
    assert judge(exercise, WRONG[name])[0] == "not quite"
    assert judge(exercise, ... if name == "05-4" else lambda *_: ...)[0] == "not attempted"


@pytest.mark.parametrize("windows", [[200, 96, 48, 48, 64, 160], [0] + [76] * 5, [64] * 5, 64])
def test_05_4_refuses_wider_windows_and_what_is_none(windows):
    assert judge(exercises.EXERCISES["05-4"], windows)[0] == "not quite"


def test_05_4_says_what_one_width_costs():
    assert exercises.added_bits((64,) * 6) == pytest.approx(0.36, abs=0.01)


def test_unknown_values_are_refused():
    with pytest.raises(ValueError, match="penalty"):
        measure.span_record(0.5)
    with pytest.raises(ValueError, match="variant"):
        experiment.train_variant("dynamic-5", 0)
    with pytest.raises(ValueError, match="reach"):
        measure.mixers(15, 8, 64)
    with pytest.raises(ValueError, match="position"):
        measure.kernels_at(experiment.make_model("dynamic-3", 0), 0, "x", 50)
    assert isinstance(experiment.make_model("dynamic-3", 0).layers[0].attention.body, DynamicConv)
