"""Notebook 11: its tables, figures, explorer, experiment, verdicts and exercises."""

from statistics import mean

import pytest
import torch

from efflab import cost, lab, points
from efflab.compression import pruning
from efflab.experiments import pruning_schedule as experiment
from efflab.experiments.record import recorded
from efflab_rooms.pruning import masks, minilm, pruned, schedule


@pytest.fixture(scope="module")
def speed():
    return pruned.speed_rows(1 / 3, 64, repeats=1)


# --- masks and layouts -----------------------------------------------------------------------


def test_freer_patterns_keep_more_of_the_matrix(both_languages):
    kept = list(masks.masks_figure().layout.meta.values())
    assert kept == sorted(kept, reverse=True)
    assert 100 > kept[0] > kept[-1] > 50


def test_layouts_cross_dense_where_the_formula_says(both_languages):
    rows = {row["zeros (%)"]: row for row in masks.layout_rows()}
    assert rows[25.0]["CSR (kB)"] > rows[25.0]["dense (kB)"] > rows[25.0]["bitmap and values (kB)"]
    assert rows[90.0]["CSR (kB)"] < rows[90.0]["dense (kB)"]
    assert rows[50.0]["2:4 (kB)"] == pytest.approx(rows[50.0]["dense (kB)"] * (0.5 + 1 / 32))
    assert list(masks.layouts_figure().layout.meta.values()) == [50.0, 3.1, 66.7, 6.2]


# --- stdlib-gpt ------------------------------------------------------------------------------


def test_whole_model_is_what_ratio_zero_gives():
    model = pruned.language_model()
    whole = pruned.quality(model).mean
    assert whole == points.shipped_quality()
    for kind in pruned.KINDS:
        untouched = pruned.pruned(kind, 0.0)
        assert pruned.quality(untouched).mean == pytest.approx(whole, abs=1e-4)


def test_more_removed_is_worse_and_the_gradient_beats_chance_at_first(both_languages):
    curves = pruned.curves(ratios=(0.25, 0.75))
    for curve in curves.values():
        assert curve[0.0] < curve[0.25] < curve[0.75]
    assert curves["heads, least important"][0.25] < curves["heads, at random"][0.25]
    curves = {name: curve | {0.5: curve[0.25]} for name, curve in curves.items()}
    assert len(pruned.curves_figure(curves, 2.0).data) == 5
    assert pruned.importance_figure().data[0].z.shape == (6, 6)


def test_removed_heads_equal_masked_ones_in_the_trained_model():
    gap = pruned.masked_equals_removed(1 / 3)
    assert gap["removed - masked"] < 1e-3
    assert gap["masked - whole"] > 0.1


def test_masks_leave_flops_alone_and_removal_does_not(speed, both_languages):
    flops = {row["pruned"]: row["FLOPs, ratio"] for row in speed}
    assert flops["90% of the weights, masked"] == flops["heads, masked"] == 1
    model = pruned.language_model()
    saved = 1 - flops["heads, removed"]
    # a third of the heads: a third of the attention's share
    parts = cost.flops_by_part(model.config, 64)
    attention = (parts["projections"] + parts["scores"]) / sum(parts.values())
    assert saved == pytest.approx(attention / 3, rel=0.01)
    fig = pruned.speed_figure(speed)
    assert len(fig.data[0].y) == len(speed) - 1


def test_bytes_fall_with_zeros_only_where_they_are_left_out():
    model = pruned.language_model()
    half = pruned.pruned("weights", 0.5)
    whole = pruned.model_bytes(model)
    assert pruned.model_bytes(half) == whole == 4 * cost.num_params(model.config)
    layers = sum(m.numel() for m in pruning.weight_masks(model, lambda w: w != 0).values())
    saved = whole - pruned.model_bytes(half, "bitmap")
    assert saved == pytest.approx(layers * (4 * 0.5 - 1 / 8), rel=0.001)
    assert pruned.model_bytes(model, "csr") == whole  # never larger than dense


def test_one_step_fills_the_zeros_unless_masks_are_held():
    left = pruned.filled_again(0.8)
    assert left[False] < 5
    assert left[True] == pytest.approx(80, abs=0.1)


def test_products_compare_the_kernels():
    rows = pruned.product_rows(ratios=(0.5, 0.99), size=512, repeats=3)
    dense, sparse = "dense kernel, time ratio", "CSR kernel, time ratio"
    assert rows[0][sparse] > rows[1][sparse]
    assert all(row[dense] > 0 for row in rows)


def test_cpu_has_no_two_of_four_kernel():
    assert "CUDA" in pruned.two_of_four_here()


@pytest.mark.parametrize("kind", pruned.KINDS)
def test_explorer(kind, both_languages):
    lab.use_language("en")
    meta = masks.prune(50, kind).layout.meta
    if kind in ("heads", "FFN neurons"):
        assert meta["FLOPs, ratio"] < 0.9
        assert meta["bytes, dense, ratio"] == meta["bytes, zeros left out, ratio"] < 0.95
    else:
        assert meta["FLOPs, ratio"] == meta["bytes, dense, ratio"] == 1
        assert meta["bytes, zeros left out, ratio"] < 0.65
    assert meta["interval, low"] < meta["bits per byte"] < meta["interval, high"]
    lab.use_language(both_languages)
    assert masks.prune(50, kind).layout.title.text


def test_a_pruned_point_counts_the_bitmap():
    point = pruned.pruned_point("weights", 0.5)
    assert point["bytes"] < 0.65 * pruned.model_bytes(pruned.language_model())
    assert 0 < point["quality"].mean < 4
    assert point["model"] == "stdlib-gpt"


# --- MiniLM ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def third_of_heads():
    """Measured once for both languages."""
    return minilm.minilm_points(shares=(0.0, 1 / 3), repeats=1)


def test_minilm_loses_little_with_a_third_of_its_heads(third_of_heads, both_languages):
    whole, third = minilm.minilm_rows(third_of_heads)
    assert (whole["heads left"], third["heads left"]) == (72, 48)
    assert whole["cosine, mean"] == 1
    assert third["cosine, mean"] > 0.85
    assert third["MRR"] > whole["MRR"] - 0.1
    assert third["size (MB)"] < whole["size (MB)"]
    lab.board.add(technique="1/3 of the heads removed", **minilm.for_board(third_of_heads[1 / 3]))


# --- the experiment --------------------------------------------------------------------------


def test_experiment_is_complete():
    kept = recorded(experiment.NAME)
    assert {"command", "machine", "versions", "seeds", "date"} <= kept.keys()
    cases = {(r["schedule"], r["ratio"], r["seed"]) for r in kept["runs"]}
    points = [("one-shot", 0.0), *((s, r) for s in experiment.SCHEDULES for r in experiment.RATIOS)]
    assert cases == {(*point, seed) for point in points for seed in experiment.SEEDS}
    assert len(kept["runs"]) == len(cases)
    for run in kept["runs"]:
        planned = experiment.rounds(run["schedule"], run["ratio"])
        assert [row["removed"] for row in run["rounds"]] == pytest.approx(planned, abs=1e-4)


def test_both_schedules_train_equally_long_and_end_at_the_same_ratio():
    for ratio in experiment.RATIOS:
        one, many = (experiment.rounds(s, ratio) for s in ("one-shot", "gradual"))
        assert len(one) == len(many) == experiment.N_ROUNDS
        assert one[-1] == many[-1] == ratio
        assert many[0] == pytest.approx(experiment.INITIAL)
    assert experiment.rounds("gradual", 0.0) == [0.0] * 3


def test_a_run_prunes_trains_and_leaves_the_model_alone(monkeypatch):
    monkeypatch.setattr(experiment, "STEPS_PER_ROUND", 1)
    monkeypatch.setattr(experiment, "N_WINDOWS", 2)
    model = pruned.language_model()
    before = model.layers[0].ffn.body.up.weight.clone()
    rows = experiment.prune_and_tune(model, "gradual", 0.9, n_rounds=2)
    assert [row["removed"] for row in rows] == [0.1, 0.8]
    assert rows[1]["before"] > rows[0]["before"]
    assert rows[1]["after"] != rows[1]["before"]
    assert torch.equal(model.layers[0].ffn.body.up.weight, before)
    assert experiment.prune_and_tune(model, "gradual", 0.9, n_rounds=2) == rows


def test_increases_are_over_the_dense_model():
    kept = recorded(experiment.NAME)
    found = experiment.increases(kept)
    runs = [r for r in kept["runs"] if (r["schedule"], r["ratio"]) == ("one-shot", 0.8)]
    last = [r["rounds"][-1]["after"] - kept["settings"]["dense"] for r in runs]
    assert found["one-shot", 0.8]["mean"][-1] == pytest.approx(mean(last))
    assert found["one-shot", 0.8]["low"][-1] == pytest.approx(min(last))


def test_schedule_tables_and_figure(both_languages):
    rows = schedule.schedule_rows()
    assert len(rows) == 1 + 2 * len(experiment.RATIOS)
    assert {row["kind"] for row in rows} == {"recorded"}
    recovery = schedule.recovery_rows()
    missing = [row["above dense (bits)"] for row in recovery]
    assert missing == sorted(missing)
    fig = schedule.schedule_figure({0.8: 0.5})
    assert [trace.x for trace in fig.data if trace.mode == "markers"] == [(0.25,)]
    assert sum(trace.mode == "lines+markers" for trace in fig.data) == 2 * len(experiment.RATIOS)


def test_recovery_curves_hold_what_the_seeds_recorded():
    kept, lines = schedule.schedule_record()[0], schedule.curves(0.8)
    assert list(lines) == [*experiment.SCHEDULES, "control"]
    assert [p["rounds"] for p in lines["one-shot"]] == [0, 0.25, 1, 2, 3]
    assert [p["rounds"] for p in lines["gradual"]] == [0, 1, 2, 3]
    last = [
        r["rounds"][-1]["after"] - kept["settings"]["dense"]
        for r in kept["runs"]
        if (r["schedule"], r["ratio"]) == ("gradual", 0.8)
    ]
    end = lines["gradual"][-1]
    assert end["mean"] == pytest.approx(mean(last))
    assert (end["low"], end["high"]) == pytest.approx((min(last), max(last)))
    assert lines["one-shot"][1]["mean"] == pytest.approx(mean(schedule.beginning(0.8).values()))


def test_evidence_of_computation_comes_from_the_tables(speed):
    products = pruned.product_rows(ratios=(0.9,), size=256, repeats=3)
    found = lab.by_id(pruned.compute_evidence(speed, products))
    assert found["time-both"].value == speed[-1]["time, ratio"]
    assert found["flops"].value == speed[-1]["FLOPs, ratio"]
    assert found["csr-90"].value == products[0]["CSR kernel, time ratio"]
    band = max(speed[0]["interval, high"] - 1, 1 - speed[0]["interval, low"])
    assert found["band"].value == pytest.approx(100 * band)


# --- bad values, exercises -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: masks.prune(96), "percent=96"),
        (lambda: masks.prune(50, "layers"), "kind='layers'"),
        (lambda: pruned.pruned("heads", 2), "ratio=2"),
        (lambda: pruned.importance("weights"), "kind='weights'"),
        (lambda: schedule.again(0.7), "ratio=0.7"),
        (lambda: experiment.rounds("cubic", 0.5), "schedule='cubic'"),
        (lambda: experiment.prune_and_tune(None, "one-shot", 1.0), "ratio=1.0"),
        (lambda: experiment.prune_and_tune(None, "one-shot", 0.5, n_rounds=4), "n_rounds=4"),
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
}


@pytest.mark.parametrize("name", ANSWERS)
def test_exercises_take_right_answers_and_refuse_wrong_ones(name, strict, both_languages):
    right, wrong = ANSWERS[name]
    lab.check(name, right)
    with pytest.raises(AssertionError):
        lab.check(name, wrong)
