"""Notebook 11: its tables, figures, explorer, experiment, verdicts and exercises."""

import re
from statistics import mean

import pytest
import torch

from efflab import cost, lab, points
from efflab.compression import pruning
from efflab.experiments import lighten
from efflab.experiments import pruning_recovery as recovery
from efflab.publishing.catalog import sources
from efflab_rooms.pruning import figures, measure, verdicts

SEQ_LEN = 64


@pytest.fixture(scope="module")
def models():
    return measure.models_to_time(1 / 3)


@pytest.fixture(scope="module")
def times(models):
    return measure.compare_models(models, SEQ_LEN, repeats=1)


@pytest.fixture(scope="module")
def flops(models):
    whole = pruning.forward_flops(points.language_model(), SEQ_LEN)
    return {name: pruning.forward_flops(m, SEQ_LEN) / whole for name, m in models.items()}


# --- masks and layouts -----------------------------------------------------------------------


def test_freer_patterns_keep_more_of_the_matrix(both_languages):
    shares = list(figures.masks_figure().layout.meta.values())
    assert shares == sorted(shares, reverse=True)
    assert 100 > shares[0] > shares[-1] > 50


def test_layouts_cross_dense_where_the_formula_says(both_languages):
    assert list(figures.layouts_figure().layout.meta.values()) == [50.0, 3.1, 66.7, 6.2]


# --- stdlib-gpt ------------------------------------------------------------------------------


def test_whole_model_is_what_ratio_zero_gives():
    whole = measure.quality(points.language_model()).mean
    assert whole == points.shipped_quality()
    for kind in measure.KINDS:
        untouched = measure.prune(kind, 0.0)
        assert measure.quality(untouched).mean == pytest.approx(whole, abs=1e-4)


def test_figures_of_quality_have_every_curve_and_every_head(both_languages):
    curves = {name: {0.0: 1.0, 0.5: 2.0} for name in ("heads, at random", "weights, smallest")}
    assert len(figures.curves_figure(curves, 2.0).data) == 3
    assert [trace.z.shape for trace in figures.importance_figure().data] == [(6, 6), (6, 6)]


def test_an_ablation_is_the_loss_of_the_model_without_that_head():
    whole, ablation = points.language_model(), measure.ablation()
    without = pruning.apply_masks(whole, pruning.head_masks(whole, {0: [4]}))
    rises = [
        lighten.loss(without, batch) - lighten.loss(whole, batch)
        for batch in measure.training_batches()
    ]
    assert ablation[0, 4].item() == pytest.approx(mean(rises), abs=1e-4)
    assert ablation[0, 4] == ablation.max()


def test_gradients_rank_heads_and_do_not_price_them():
    ratios = measure.ablation() / measure.importance("heads")
    assert ratios.median() > 1.5
    assert ratios.max() > 4
    meta = figures.importance_figure().layout.meta
    assert meta["rank correlation"] > 0.7
    assert meta["largest ratio"] == pytest.approx(ratios.max().item(), abs=0.05)


def test_masks_leave_flops_alone_and_removal_does_not(flops, times, both_languages):
    assert flops["90% of the weights, masked"] == flops["heads, masked"] == 1
    # a share of the heads: as large a share of attention's FLOPs
    parts = cost.flops_by_part(points.language_model().config, SEQ_LEN)
    attention = (parts["projections"] + parts["scores"]) / sum(parts.values())
    for n in measure.HEADS_OFF:
        saved = 1 - flops[f"{n}% of the heads, removed"]
        assert saved == pytest.approx(attention * n / 100, rel=0.01)
    fig = figures.speed_figure(flops, times)
    assert len(fig.data[0].y) == len(flops)


def test_bytes_fall_with_zeros_only_where_they_are_left_out():
    model = points.language_model()
    half = measure.prune("weights", 0.5)
    whole = measure.model_bytes(model)
    assert measure.model_bytes(half) == whole == 4 * cost.num_params(model.config)
    layers = sum(m.numel() for m in pruning.weight_masks(model, lambda w: w != 0).values())
    saved = whole - measure.model_bytes(half, "bitmap")
    assert saved == pytest.approx(layers * (4 * 0.5 - 1 / 8), rel=0.001)
    assert measure.model_bytes(model, "csr") == whole  # never larger than dense


def test_products_compare_the_kernels():
    half, most = measure.compare_products((0.5, 0.99), size=512, repeats=3).values()
    assert half["CSR"].mean > most["CSR"].mean
    assert min(half["dense"].low, most["dense"].low) > 0


@pytest.mark.parametrize("kind", measure.KINDS)
def test_explorer(kind, both_languages):
    lab.use_language("en")
    meta = figures.prune(50, kind).layout.meta
    if kind in ("heads", "FFN neurons"):
        assert meta["FLOPs / baseline"] < 0.9
        assert meta["bytes, dense / baseline"] == meta["bytes, zeros left out / baseline"] < 0.95
    else:
        assert meta["FLOPs / baseline"] == meta["bytes, dense / baseline"] == 1
        assert meta["bytes, zeros left out / baseline"] < 0.65
    assert meta["interval, low"] < meta["bits per byte"] < meta["interval, high"]
    lab.use_language(both_languages)
    assert figures.prune(50, kind).layout.title.text


# --- MiniLM ----------------------------------------------------------------------------------


@pytest.mark.release
def test_minilm_loses_little_with_a_third_of_its_heads():
    whole, third = (measure.prune_minilm(share) for share in (0, 1 / 3))
    heads = [sum(layer.attention.body.n_head for layer in m.layers) for m in (whole, third)]
    assert heads == [72, 48]
    assert measure.minilm_cosines(whole)["mean"] == pytest.approx(1, abs=1e-6)
    assert measure.minilm_cosines(third)["mean"] > 0.85
    assert points.weight_bytes(third) < points.weight_bytes(whole)
    mrr = [
        points.encoder_point(points.encode_with(m), points.weight_bytes(m), repeats=1)[
            "quality"
        ].mean
        for m in (whole, third)
    ]
    assert mrr[1] > mrr[0] - 0.1


# --- the experiment --------------------------------------------------------------------------


def test_experiment_is_complete():
    record = measure.recovery_record()
    assert record["complete"]
    assert {"command", "machine", "versions", "seeds", "date"} <= record.keys()
    cases = [(r["schedule"], r["ratio"], r["seed"]) for r in record["runs"]]
    planned = [(*point, seed) for point in recovery.POINTS for seed in recovery.SEEDS]
    assert sorted(cases) == sorted(planned)


def test_a_recorded_course_has_the_parts_of_its_schedule():
    for schedule, ratio in recovery.POINTS:
        line = measure.recovery(schedule, ratio)
        parts = recovery.parts(schedule, ratio)
        lengths = [b - a for a, b in zip(line["steps"][::2], line["steps"][1::2], strict=True)]
        assert lengths == [0, *(n for _, n in parts)]
        assert line["steps"][-1] == 600
        recorded = measure.runs_of(schedule, ratio)[0]["parts"][1:]
        assert [part["removed"] for part in recorded] == [removed for removed, _ in parts]


def test_a_course_is_what_the_seeds_recorded():
    line, runs = measure.recovery("gradual", 0.8), measure.runs_of("gradual", 0.8)
    last = [run["end"] - run["dense"] for run in runs]
    ends = [line[column][-1] for column in ("mean", "low", "high")]
    assert ends == pytest.approx([mean(last), min(last), max(last)], abs=2e-5)
    drops = [run["parts"][1]["before"] - run["dense"] for run in runs]
    assert line["mean"][:3] == pytest.approx([0, 0, mean(drops)])  # 10 % go before the first step
    first_round = [run["parts"][5]["after"] - run["dense"] for run in runs]
    assert measure.after_rounds("gradual", 0.8)[0] == pytest.approx(mean(first_round))


def test_schedule_tables_and_figure(both_languages):
    rows = measure.schedule_rows()
    assert [row["removed in total (%)"] for row in rows] == [0, 20, 50, 80, 90, 50, 80, 90]
    missing = [row["above dense (bits per byte)"] for row in measure.recovery_rows()]
    assert missing == sorted(missing)
    fig = figures.schedule_figure({0.8: 1.7})
    assert [(trace.x, trace.y) for trace in fig.data if trace.mode == "markers"] == [((0,), (1.7,))]
    assert sum(trace.mode == "lines" for trace in fig.data) == 3 * len(recovery.RATIOS)


def words(language):
    """The notebook's text in one language, on one line."""
    text = sources()["11"].read_text(encoding="utf-8")
    cells = re.findall(
        rf'^# %% \[markdown\] tags=\["{language}".*?\n(.*?)(?=^# %%|\Z)', text, re.M | re.S
    )
    return re.sub(r"[#\s]+", " ", " ".join(cells))


def test_the_text_says_what_the_record_says():
    rows = {row["removed in total (%)"]: row for row in measure.recovery_rows()}
    back = {n: f"{row['recovered after round 3 (%)']}%" for n, row in rows.items()}
    missing = {n: f"{row['above the control (bits per byte)']:.3f}" for n, row in rows.items()}
    cases = recovery.cases(measure.recovery_record()["runs"])
    ends = {n: f"{abs(cases[f'end-{n}'].mean):.3f}" for n in verdicts.RATIOS}
    english, chinese = words("en"), words("zh")
    for text in (
        f"at 80% (by {ends[80]} bits per byte) and at 90% ({ends[90]}), and {ends[50]} behind",
        f"At 80% gradual is ahead by {ends[80]} and at 90% by {ends[90]}",
        f"At 50% one-shot is ahead by {ends[50]} bits per byte",
        f"{back[50]} at 50%, {back[80]} at 80% and {back[90]} at 90%",
        f"At 50%, {back[50]} is back after the third: {missing[50]} bits per byte are missing",
        f"At 80% it is {back[80]}, but of a loss six times as large: {missing[80]} are missing",
        f"At 90%, {back[90]} is back",
    ):
        assert text in english
    for text in (
        f"逐步剪枝的终点领先 {ends[80]} 比特/字节，90% 处领先 {ends[90]}，50% 处落后 {ends[50]}",
        f"50% 处一步到位领先 {ends[50]} 比特/字节",
        f"80% 处逐步剪枝领先 {ends[80]}，90% 处领先 {ends[90]}",
        f"50% 处恢复 {back[50]}，80% 处 {back[80]}，90% 处 {back[90]}",
        f"50% 处第三轮之后恢复 {back[50]}，还差 {missing[50]} 比特/字节",
        f"80% 处恢复 {back[80]}，但失去的是 50% 处的六倍，还差 {missing[80]}；",
        f"；90% 处恢复 {back[90]}。",
    ):
        assert text in chinese
    assert rows[20]["recovered after round 1 (%)"] >= 100 - 8
    lost = [rows[n]["lost before training (bits per byte)"] for n in (50, 80)]
    assert round(lost[1] / lost[0]) == 6


def test_the_text_says_how_many_texts_agree():
    texts = {
        point: [mean(bits) for bits in zip(*(r["texts"] for r in runs), strict=True)]
        for point in recovery.POINTS
        for runs in (measure.runs_of(*point),)
    }
    ahead = {
        n: sum(a < b for a, b in zip(texts["gradual", n], texts["one-shot", n], strict=True))
        for n in recovery.RATIOS
    }
    english, chinese = words("en"), words("zh")
    assert ahead[0.9] == recovery.N_WINDOWS
    better = f"{recovery.N_WINDOWS - ahead[0.5]} are better by one-shot at 50%, {ahead[0.8]} by gra"
    assert better in english
    assert f"50% 处有 {recovery.N_WINDOWS - ahead[0.5]} 段是一步到位更好" in chinese
    assert f"80% 处有 {ahead[0.8]} 段是逐步剪枝更好" in chinese


def test_the_text_says_what_gradual_has_removed_and_what_its_beginning_costs():
    half_way = [recovery.parts("gradual", ratio)[4][0] for ratio in recovery.RATIOS]
    assert [round(100 * share) for share in half_way] == [43, 68, 76]
    line = measure.recovery("gradual", 0.5)
    assert round(line["mean"][2], 3) == 0.002
    assert line["low"][3] > 0.01
    steps = [n for share, n in recovery.parts("gradual", 0.9) if share == 0.9]
    assert sum(steps) == 240
    lost = measure.runs_of("one-shot", 0.2)[0]["drop"]
    assert round(100 * 0.001 / lost) == 8


def test_no_seed_disagrees_about_the_ends():
    runs = measure.recovery_record()["runs"]
    signs = {n: {d > 0 for d in verdicts.differences(runs, "end", n)} for n in verdicts.RATIOS}
    assert signs == {50: {True}, 80: {False}, 90: {False}}


def test_pruning_here_costs_what_is_recorded():
    live, recorded, tolerance = measure.repeat_drop(0.5)
    assert tolerance in (None, measure.ROUNDING)
    assert tolerance is None or abs(live - recorded) < measure.ROUNDING
    assert live == pytest.approx(recorded, abs=0.1)


def test_the_differences_are_drawn_seed_by_seed(both_languages):
    runs = measure.recovery_record()["runs"]
    fig = figures.differences_figure()
    seeds = [list(trace.y) for trace in fig.data[1::2]]
    expected = [
        [v for n in verdicts.RATIOS for v in verdicts.differences(runs, way, n)]
        for way in verdicts.WAYS
    ]
    assert seeds == expected
    assert [len(values) for values in seeds] == [15, 15]
    assert all(v < 0 for v in seeds[0])


# --- bad values, exercises -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: figures.prune(96), "percent=96"),
        (lambda: figures.prune(50, "layers"), "kind='layers'"),
        (lambda: measure.prune("heads", 2), "ratio=2"),
        (lambda: measure.importance("weights"), "kind='weights'"),
        (lambda: measure.repeat_drop(0.7), "ratio=0.7"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def layer_flops(T, d_model, n_head, head_dim, n_neurons):
    A = n_head * head_dim
    return 8 * T * d_model * A + 4 * T * T * A + 4 * T * d_model * n_neurons


ANSWERS = {
    "11-1": (pruning.magnitude_mask, lambda w, r: w.abs() > w.abs().median()),
    "11-2": (layer_flops, lambda T, C, H, D, F: 8 * T * C * C + 4 * T * T * C + 4 * T * C * F),
    "11-3": (lambda v, i: i / (v + i), lambda v, i: 0.5),
    "11-4": (
        {0: [2, 5], 1: [4], 2: [1, 4], 3: [2], 4: [1, 5], 5: [1]},
        {0: [2, 3, 5], 2: [1, 4], 3: [2], 4: [1, 5], 5: [1]},  # by single ablations
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_exercises_take_right_answers_and_refuse_wrong_ones(name, strict, both_languages):
    right, wrong = ANSWERS[name]
    lab.check(name, right)
    with pytest.raises(AssertionError):
        lab.check(name, wrong)


def test_11_1_refuses_equal_magnitudes_that_all_go(strict):
    def by_threshold(weight, ratio):
        n = round(ratio * weight.numel())
        magnitudes = weight.abs().flatten()
        return weight.abs() > (magnitudes.kthvalue(n).values if n else -1)

    with pytest.raises(AssertionError):
        lab.check("11-1", by_threshold)


@pytest.mark.parametrize(
    ("kind", "percent", "removed"),
    [
        ("n of 4 weights", 30, 25),
        ("n of 4 weights", 95, 100),
        ("heads", 95, 83),
        ("weights", 95, 95),
    ],
)
def test_the_explorer_says_how_much_was_really_removed(kind, percent, removed):
    title = figures.prune(percent, kind).layout.title.text
    assert f"{removed}% removed" in title
    zeros = pruned_share(kind, percent)
    assert zeros == pytest.approx(removed / 100, abs=0.01)


def pruned_share(kind, percent):
    """Share of the matrices' weights that are zero, or of the heads that are gone."""
    model, whole = measure.prune(kind, percent / 100), points.language_model()
    if kind == "heads":
        heads = [sum(layer.attention.body.n_head for layer in m.layers) for m in (model, whole)]
        return 1 - heads[0] / heads[1]
    kept = torch.cat([m.flatten() for m in pruning.weight_masks(model, lambda w: w != 0).values()])
    return 1 - kept.float().mean().item()
