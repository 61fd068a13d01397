"""Notebook 14: its record read, its figures, its arithmetic, its exercises."""

import itertools
from statistics import mean

import pytest

from efflab import cost, points
from efflab.config import PRESETS
from efflab.devices import DEVICES
from efflab.experiments import case_study, case_study_2, lighten
from efflab.experiments import case_study_latency as latency
from efflab.experiments.record import agrees, expected_repeat
from efflab.lab.check import judge
from efflab_rooms.case_study import exercises, figures, measure, verdicts

# --- Where the FLOPs are ---------------------------------------------------------------------


def test_half_of_the_flops_are_attention_at_512_tokens():
    short, long = (cost.flops_by_part(measure.CONFIG, n) for n in (128, 512))
    assert long["scores"] / sum(long.values()) == pytest.approx(0.279, abs=0.001)
    attention = long["scores"] + long["projections"]
    assert attention / sum(long.values()) == pytest.approx(0.488, abs=0.001)
    assert short["scores"] / sum(short.values()) < 0.1


def test_the_recipe_is_found_again_from_recorded_damage():
    row = measure.runs()[0]["rows"][0]
    recipe = measure.recipe()
    assert list(recipe.windows) == row["windows"]
    assert [list(heads) for heads in recipe.removed] == row["removed"]
    assert len(recipe.windows) == len(recipe.removed) == 6


def test_windows_alone_do_it_only_on_longer_texts():
    narrow, n = lighten.Recipe((16,) * 6, ((),) * 6), 680  # what the notebook prints
    share = [lighten.removed_share(measure.CONFIG, narrow, length) for length in (512, n - 8, n)]
    assert share[0] < share[1] < 0.3 <= share[2]


def test_the_explorer_takes_more_for_more():
    few, many = (figures.lighter(share=s).layout.meta for s in (0.1, 0.36))
    assert all(a < b for a, b in zip(few.values(), many.values(), strict=True))
    counted = figures.lighter(count="visible pairs").layout.meta["FLOPs removed (%)"]
    assert counted < figures.lighter().layout.meta["FLOPs removed (%)"]
    with pytest.raises(ValueError, match="count='half'"):
        figures.lighter(count="half")
    assert figures.damage().layout.meta["costliest head"] == max(measure.damage().heads.values())


# --- Paths -----------------------------------------------------------------------------------


def test_steps_are_the_records_means():
    rows = measure.steps()
    assert [row["step"] for row in rows] == [
        "as shipped",
        "lighten",
        "tune",
        "prune",
        "tune",
        "INT8",
    ]
    assert rows[0]["flops"] == lighten.plain_flops(measure.CONFIG, 512)
    assert rows[1]["flops"] / rows[0]["flops"] <= 0.7
    assert rows[1]["bits"] > rows[2]["bits"]
    assert all(row["low"] <= row["bits"] <= row["high"] for row in rows)
    drawn = figures.waterfall()
    assert sum(drawn.data[0].y) == pytest.approx(rows[-1]["bits"])
    assert list(drawn.data[1].y) == [row["flops"] / 1e9 for row in rows]


def test_what_the_notebook_says_of_orders():
    main = measure.ends()
    orders = [path for path, order in case_study.PATHS.items() if order]
    above = {path: case_study.difference(measure.ends(path), main) for path in orders}
    assert above[case_study.MAIN].mean == 0
    swapped, last = above["prune, lighten"], above["all after INT8"]
    assert swapped.low < 0 < swapped.high  # which cut comes first does not matter
    assert last.low > 0.1  # training before the cut repairs nothing
    assert above["lighten evenly"].low > max(
        abs(above[path].mean) for path in ("prune, lighten", "both, then tune", "prune after INT8")
    )


def test_what_the_notebook_says_of_80_steps():
    light = {seed: run["rows"][1]["bits"] for seed, run in measure.runs().items()}
    plain = {seed: run["rows"][0]["bits"] for seed, run in measure.runs("all after INT8").items()}
    above, shipped = case_study.difference(light, plain), measure.record()["settings"]["shipped"]
    said = (0.099, 0.091, 0.106)
    assert (above.mean, above.low, above.high) == pytest.approx(said, abs=5e-4)
    assert mean(plain.values()) - shipped == pytest.approx(0.020, abs=5e-4)
    assert mean(light.values()) - shipped == pytest.approx(0.119, abs=5e-4)


def test_rounds_are_the_records_means_and_end_with_what_the_verdict_rests_on():
    rows, cases = measure.round_rows(), case_study_2.cases(measure.rounds())
    assert [row["training steps"] for row in rows] == [0, 250, 500, 750, 1000]
    tuned = cases["tuned"]
    last, above = rows[-1], "lightened - control, by seed"
    assert (last[above], last["from"], last["to"]) == (tuned.mean, tuned.low, tuned.high)
    plain, light = "bits per byte, nothing removed (control)", "bits per byte, lightened"
    for name, before, key in ((plain, rows[0], "control"), (light, rows[-2], "last-round")):
        assert last[name] - before[name] == pytest.approx(cases[key].mean)
    assert all(row[light] - row[plain] == pytest.approx(row[above]) for row in rows)


def test_what_the_notebook_says_of_1000_steps():
    cases, rows = case_study_2.cases(measure.rounds()), measure.round_rows()
    said = {"control": (0.005, 0.004, 0.006), "tuned": (0.050, 0.045, 0.055)}
    for key, expected in said.items():
        found = cases[key]
        assert (found.mean, found.low, found.high) == pytest.approx(expected, abs=5e-4)
    plain, light, above = list(rows[0])[1:4]
    assert rows[0][above] == pytest.approx(0.70, abs=5e-3)
    shares = [1 - row[above] / rows[0][above] for row in rows]
    assert shares[1] == pytest.approx(0.9, abs=5e-3)
    assert shares[-1] > 0.9
    last = [rows[-2][name] - rows[-1][name] for name in (light, plain)]
    assert last == pytest.approx([0.006, 0.002], abs=5e-4)


def test_the_training_begins_as_recorded():
    model = lighten.lighten(points.language_model(), measure.recipe())
    before = points.language_quality(model).mean
    bits = points.language_quality(case_study.tune(model, "fp32", 0, 0, case_study.EARLY)).mean
    assert bits < before
    expected = expected_repeat(
        {s: run["early"] for s, run in measure.runs(precision="fp32").items()}, 0
    )
    assert agrees(bits, *expected)
    assert not agrees(before, *expected)


# --- Engines ---------------------------------------------------------------------------------


def test_engines_have_quality_where_a_path_ends_and_times_for_each_kind_of_cpu():
    shipped = {row["engine"]: row for row in measure.engine_rows("as shipped")}
    both = {row["engine"]: row for row in measure.engine_rows("lightened, pruned")}
    assert list(shipped) == list(latency.ENGINES)
    assert shipped["torch fp32"]["time ratio, all instructions"] == pytest.approx(1, abs=0.05)
    assert all(row["bits per byte"] > 1 for row in (*shipped.values(), *both.values()))
    memory = {name: row["resident memory added (MB)"] for name, row in shipped.items()}
    assert memory["torch fp32"] is None
    assert memory["OpenVINO INT8"] < memory["OpenVINO fp32"]
    drawn = figures.pareto()
    left_out = len(measure.cpus()) + 1  # fp16 stored; bf16 where it takes longest
    assert len(drawn.data) == len(latency.ENGINES) * len(measure.cpus()) - left_out
    assert all(trace.x[1] < trace.x[0] for trace in drawn.data)  # less to do takes less time


def test_a_quarter_is_what_a_large_model_comes_to():
    small, base, large = (
        verdicts.smaller_weights(PRESETS[name]) for name in ("stdlib-gpt", "bert-base", "gpt3-175b")
    )
    assert small < 74 < 74.5 < base < large < 75


def predictions(stage, isa, n):
    """INT8 at a stage: the product of the single ratios, by Amdahl's law, and as recorded."""
    times = measure.times(isa, n)
    base = times[latency.SHIPPED, latency.OPENVINO]
    cut = times[stage, latency.OPENVINO]["ratio"] / base["ratio"]
    alone = times[latency.SHIPPED, latency.INT8]["ratio"] / base["ratio"]
    scores, left = measure.score_share(latency.SHIPPED), measure.score_share(stage)
    factor = (alone - scores) / (1 - scores)
    law = cut * ((1 - left) * factor + left)
    return cut * alone, law, measure.over(times[stage, latency.INT8], base)


def test_amdahl_s_law_predicts_int8_with_fewer_flops_and_a_product_does_not():
    inside = {"law": [], "product": []}
    for isa, n, stage in itertools.product(measure.cpus(), (1, 4), latency.STAGES[1:]):
        multiplied, law, recorded = predictions(stage, isa, n)
        inside["law"].append(recorded.low <= law <= recorded.high)
        if recorded.low <= multiplied <= recorded.high:
            inside["product"].append(stage)
    assert sum(inside["law"]) == 12
    assert sorted(inside["product"]) == ["lightened, pruned"] + 4 * ["pruned"]


def test_scores_are_what_windows_and_heads_take_away():
    shares = [measure.score_share(stage) for stage in latency.STAGES]
    parts = cost.flops_by_part(measure.CONFIG, 512)
    assert shares[0] == pytest.approx(parts["scores"] / sum(parts.values()))
    assert shares[1] < 0.1 < shares[0] < shares[2]


def test_damages_together_are_more_than_their_sum():
    nothing = lighten.identity_recipe(measure.CONFIG)
    assert measure.damage_together(nothing) == measure.damage_sum(nothing) == 0
    one = nothing.at(0, removed=(4,))
    assert measure.damage_together(one) == pytest.approx(measure.damage_sum(one), abs=0.02)
    assert measure.damage_together(measure.recipe()) > 2 * measure.damage_sum(measure.recipe())


def test_latencies_are_of_a_machine_that_ran_as_an_older_one():
    assert set(measure.cpus()) == {None, latency.OLDER}


def test_a_ratio_of_ratios_is_no_surer_than_both():
    a, b = dict(ratio=0.4, low=0.38, high=0.42), dict(ratio=0.8, low=0.76, high=0.84)
    found = measure.over(a, b)
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.38 / 0.84, 0.42 / 0.76))


# --- 72 hours --------------------------------------------------------------------------------


def test_runs_are_the_arithmetic_of_their_rows():
    runs = {run.name: run for run in measure.published_runs()}
    assert all(run.days is None or run.days > 20 for run in runs.values())
    a100 = DEVICES["A100 80GB SXM"].peak("fp16")
    peaks = {"A100 80GB": a100, "H100": DEVICES["H100 SXM"].peak("fp16"), "TPU v4": 275e12}
    assert all(run.peak == peaks[run.device] for run in runs.values())
    for run in runs.values():
        possible = run.device_hours * 3600 * run.peak
        assert run.utilization == pytest.approx(6 * run.n_params * run.n_tokens / possible)
        assert 0.3 < run.utilization <= run.sustained < 0.5  # a report leaves stops out


def test_the_rows_of_the_largest_clusters_are_their_papers():
    runs = {run.name: run for run in measure.published_runs()}
    palm, llama = runs["PaLM 540B"], runs["Llama 3 405B"]
    assert palm.device_hours == 6144 * 1200 + 3072 * 336
    # its authors: 2.53e24 FLOPs in all; 238,300 tokens a second by 6 N are 45.7 %, without scores
    assert 6 * palm.n_params * palm.n_tokens == pytest.approx(2.5272e24, rel=1e-3)
    steady = 238_300 * 6 * palm.n_params / (palm.n_devices * palm.peak)
    assert steady == pytest.approx(palm.reported, abs=0.006)
    by_hours = palm.tokens() / palm.sustained * palm.utilization
    assert (palm.tokens(), by_hours) == pytest.approx((337e9, 222e9), rel=3e-3)  # as 14 says
    # its authors: 3.8e25 FLOPs; 400 TFLOP/s a device
    assert 6 * llama.n_params * llama.n_tokens == pytest.approx(3.8e25, rel=0.01)
    assert llama.reported * llama.peak == pytest.approx(400e12, rel=0.02)


def test_what_a_run_needs_is_what_its_devices_can():
    for run in (run for run in measure.published_runs() if run.n_devices):
        can = run.tokens()
        needed = measure.devices_needed(100e9, can, 3, run.peak, run.sustained)
        assert needed == pytest.approx(run.n_devices)
        days = measure.run_days(100e9, can, run.n_devices, run.peak, run.sustained)
        assert days == pytest.approx(3)


def test_the_largest_cluster_is_the_one_with_the_highest_peak_by_then():
    runs = measure.published_runs()
    names = [measure.largest_cluster(runs, year).name for year in (2021, 2022, 2023, 2024)]
    assert names == ["GPT 1T (estimate)", "PaLM 540B", "PaLM 540B", "Llama 3 405B"]
    assert measure.largest_cluster(runs) == measure.largest_cluster(runs, 2024)
    with pytest.raises(ValueError, match="until=2019"):
        measure.largest_cluster(runs, 2019)


def test_data_and_pipeline_alone_do_not_fit_and_are_slower_with_zero():
    anything, alone, sharded = measure.plans().values()
    assert alone is None
    assert (sharded.tp, anything.tp) == (1, 4)
    assert anything.zero_stage == 1  # a plan without sharding would take longer
    assert (sharded.pp, sharded.n_microbatches) == (8, 8)
    assert sharded.n_chunks > 1
    assert sharded.mfu / anything.mfu == pytest.approx(0.77, abs=0.02)  # three quarters


def test_long_times_stand_as_text_and_hide_no_other():
    drawn = figures.pareto()
    assert all(max(trace.x) < figures.MOST_TIME for trace in drawn.data)
    texts = [a.text for a in drawn.layout.annotations if "OpenVINO bf16" in a.text]
    assert len(texts) == 1
    assert "18.6" in texts[0]
    assert not any("fp16" in trace.name for trace in drawn.data)


def test_the_explorer_finds_72_hours():
    meta = figures.hours().layout.meta
    needed = meta["devices for 72 hours"]
    assert meta["hours"] == pytest.approx(72 * needed / 2048)
    assert meta["B tokens in 72 hours"] == pytest.approx(256 * 2048 / needed)
    with pytest.raises(ValueError, match="device='TPU'"):
        figures.hours(device="TPU")


# --- Exercises -------------------------------------------------------------------------------

BETTER = (
    (None, 64, 32, 16, 64, 256),
    ((1, 2, 3), (0, 3), (1, 2, 4), (), (0, 1, 4, 5), (1, 3)),
)


def tokens(n_params, days, n_devices, peak, utilization):
    return 86400 * days * n_devices * peak * utilization / (6 * n_params)


def forward_only(n_params, days, n_devices, peak, utilization):
    return 3 * tokens(n_params, days, n_devices, peak, utilization)


def quarter():
    recipe = lighten.by_layer(measure.CONFIG, measure.damage(), 0.25, 512)
    return recipe.windows, recipe.removed


def path():
    recipe = measure.recipe()
    return recipe.windows, recipe.removed


NOTHING = ((None,) * 6, ((),) * 6)
ANSWERS = {
    "14-1": (lambda: tokens, (lambda: forward_only,)),
    "14-2": (quarter, (lambda: NOTHING, path, lambda: ((7,) * 6, ((),) * 6), lambda: 3)),
    "14-3": (lambda: BETTER, (path, lambda: NOTHING, quarter, lambda: (1, 2))),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_exercises_take_right_answers_and_refuse_wrong_ones(name, both_languages):
    right, wrong = ANSWERS[name]
    assert judge(exercises.EXERCISES[name], right())[0] == "correct"
    for answer in wrong:
        assert judge(exercises.EXERCISES[name], answer())[0] == "not quite"
