"""Notebook 14: its record read, its figures, its arithmetic, its exercises."""

import json
from functools import partial

import pytest

from efflab import cost, points
from efflab.config import PRESETS
from efflab.devices import DEVICES
from efflab.experiments import case_study, lighten
from efflab.experiments import case_study_latency as latency
from efflab.experiments.record import machines, read_record
from efflab.lab.check import judge
from efflab.publishing.catalog import ROOT
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
    narrow, n = lighten.Recipe((16,) * 6, ((),) * 6), 704  # what the notebook prints
    share = [lighten.removed_share(measure.CONFIG, narrow, length) for length in (512, n - 64, n)]
    assert share[0] < share[1] < 0.3 <= share[2]


def test_the_explorer_takes_more_for_more():
    few, many = (figures.lighter(share=s).layout.meta for s in (0.1, 0.36))
    assert all(a < b for a, b in zip(few.values(), many.values(), strict=True))
    counted = figures.lighter(count="pairs that count").layout.meta["FLOPs gone (%)"]
    assert counted < figures.lighter().layout.meta["FLOPs gone (%)"]
    with pytest.raises(ValueError, match="count='half'"):
        figures.lighter(count="half")
    assert figures.damage().layout.meta["dearest head"] == max(measure.damage().heads.values())


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
    above = {path: measure.difference(measure.ends(path), main) for path in orders}
    assert above[case_study.MAIN].mean == 0
    swapped, last = above["prune, lighten"], above["all after INT8"]
    assert swapped.low < 0 < swapped.high  # which cut comes first does not matter
    assert last.low > 0.1  # training before the cut repairs nothing
    assert above["lighten evenly"].low > max(
        abs(above[path].mean) for path in ("prune, lighten", "both, then tune", "prune after INT8")
    )


def test_the_training_begins_as_recorded(monkeypatch):
    model = lighten.lighten(points.language_model(), measure.recipe())
    before = points.language_quality(model).mean
    bits = points.language_quality(case_study.tune(model, "fp32", 0, 0, case_study.EARLY)).mean
    row = measure.early_row(bits, 0)
    assert row["bits per byte here"] == bits < before
    assert abs(bits - row["recorded"]) < row["within"]
    monkeypatch.setattr(measure, "same_python", lambda record: False)
    other = measure.early_row(before, 0)
    assert other["result"] == "another Python's corpus"


# --- Engines ---------------------------------------------------------------------------------


def test_engines_have_quality_where_a_path_ends_and_times_for_each_kind_of_cpu():
    shipped = {row["engine"]: row for row in measure.engine_rows("as shipped")}
    both = {row["engine"]: row for row in measure.engine_rows("lightened, pruned")}
    assert list(shipped) == list(latency.ENGINES)
    assert shipped["torch fp32"]["time, all instructions"] == pytest.approx(1, abs=0.05)
    assert all(row["bits per byte"] > 1 for row in (*shipped.values(), *both.values()))
    assert shipped["torch fp32"]["memory (MB)"] is None
    assert shipped["OpenVINO INT8"]["memory (MB)"] < shipped["OpenVINO fp32"]["memory (MB)"]
    drawn = figures.pareto()
    assert len(drawn.data) == len(latency.ENGINES) * len(measure.cpus())
    assert all(trace.x[1] < trace.x[0] for trace in drawn.data)  # less to do takes less time


def test_a_quarter_is_what_a_large_model_comes_to():
    small, base, large = (
        verdicts.smaller_weights(PRESETS[name]) for name in ("stdlib-gpt", "bert-base", "gpt3-175b")
    )
    assert small < 74 < base < large < 75


def test_the_verdicts_follow_from_their_records():
    every = json.loads((ROOT / "data" / "verdicts.json").read_text(encoding="utf-8"))["14"]
    stored = {record["claim"]: record for record in every}
    for claim, judge_claim, found in (
        ("ernie-dynamic", verdicts.ernie_dynamic, verdicts.dynamic_evidence()),
        ("fp16-int8", verdicts.fp16_int8, verdicts.recipe_evidence()),
        ("ernie-72h", verdicts.ernie_72h, verdicts.hours_evidence()),
    ):
        assert judge_claim(found).word == stored[claim]["outcome"]
    assert {item.id for item in verdicts.time_evidence()} <= set(verdicts.TIMES)


def test_the_encoder_s_times_are_those_of_notebook_09():
    found = {item.id: item.value for item in verdicts.encoder_evidence()}
    assert set(found) == set(verdicts.ENCODER)  # both kinds of CPU are recorded
    for vnni, kind in ((True, "vnni"), (False, "older")):
        kept = next(
            k
            for k in map(partial(read_record, "int8-engines"), machines("int8-engines"))
            if k["features"]["vnni"] == vnni
        )
        of = {run["engine"]: run for run in kept["runs"] if run["isa"] is None}
        ratio = of["OpenVINO INT8"]["16x128"] / of["OpenVINO fp32"]["16x128"]
        assert found[f"minilm-16x128-{kind}"] == pytest.approx(ratio)


def test_a_ratio_of_ratios_is_no_surer_than_both():
    a, b = dict(ratio=0.4, low=0.38, high=0.42), dict(ratio=0.8, low=0.76, high=0.84)
    found = verdicts.over(a, b)
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.38 / 0.84, 0.42 / 0.76))


# --- 72 hours --------------------------------------------------------------------------------


def test_runs_and_needs_are_the_arithmetic():
    runs = {run.name: run for run in measure.published_runs()}
    assert all(run.days is None or run.days > 20 for run in runs.values())
    assert runs["LLaMA 65B"].device_hours == 1022362
    assert measure.best_utilization() == runs["LLaMA 65B"].utilization
    v100, a100, h100 = (
        measure.devices_needed(100e9, 300e9, 3, DEVICES[gpu], measure.best_utilization())
        for gpu in measure.GPUS
    )
    assert v100 > a100 > h100
    days = measure.run_days(
        100e9, 300e9, round(a100), DEVICES["A100 80GB SXM"], measure.best_utilization()
    )
    assert days == pytest.approx(3, rel=1e-3)


def test_data_and_pipeline_alone_do_not_fit_and_are_slow_with_zero():
    anything, alone, sharded = measure.plans().values()
    assert alone is None
    assert (sharded.tp, anything.tp) == (1, 8)
    assert 2 * sharded.mfu < anything.mfu


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
