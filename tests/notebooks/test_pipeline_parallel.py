"""Notebook 13: its tables and pictures on real ranks, its explorer, planner and exercises."""

import numpy as np
import pytest

from efflab import lab
from efflab.distributed.launch import RankPool
from efflab.distributed.pipeline import simulate
from efflab.distributed.schedules import SCHEDULES
from efflab.lab.check import judge
from efflab_rooms.pipeline_parallel import cuts, exercises, gantt, planner, rests, verdicts
from efflab_rooms.pipeline_parallel import schedules as compared

BATCH, TOKENS = 4, 16


@pytest.fixture(scope="module")
def pools():
    with RankPool(2) as two, RankPool(4) as four:
        yield {2: two, 4: four}


@pytest.fixture
def fast(monkeypatch):
    """Stages sleep three fifths of the notebook's time, long beside a busy machine's delays."""
    monkeypatch.setattr(gantt, "FORWARD", 0.03)
    monkeypatch.setattr(gantt, "BACKWARD", 0.06)
    gantt.real.cache_clear()
    yield
    gantt.real.cache_clear()


# --- Cuts ------------------------------------------------------------------------------------


def test_a_model_cut_inside_is_the_same_and_sends_by_the_formula(pools, both_languages):
    rows = cuts.tensor_rows(pools, 8, 64)  # messages beside which headers are small
    assert [(row["ranks"], row["cut by"]) for row in rows] == [
        (n, how) for n in (2, 4) for how in ("ours", "torch")
    ]
    for row in rows:
        assert row["gradients: difference"] < verdicts.SAME
        assert row["sent / formula"] == pytest.approx(1, abs=0.02)
        assert 1 / row["ranks"] < row["parameters a rank / whole"] < 0.75
    lab.table(rows)


def test_column_then_row_sends_least_and_summing_late_is_wrong(pools, both_languages):
    rows = {row["first, second"]: row for row in cuts.order_rows(pools[2])}
    for name, row in rows.items():
        assert (row["output: difference"] < 1e-5) == (name != "summed late")
        assert row["sent / column-row"] == pytest.approx(row["formula"], rel=0.02)
    right = [row for name, row in rows.items() if name != "summed late"]
    assert min(right, key=lambda row: row["formula"]) is rows["column-row"]
    lab.table(list(rows.values()))


def test_a_model_cut_between_layers_is_the_same(pools, both_languages):
    rows = cuts.pipeline_rows(pools, BATCH, TOKENS)
    for row in rows:
        assert row["gradients: difference"] < verdicts.SAME
        assert row["loss: difference"] < 1e-5
        most = 4 if row["schedule"] == "gpipe" else row["ranks"]
        assert row["micro-batches held"] == most
    assert rows[2]["weights a rank / whole"] < rows[0]["weights a rank / whole"] < 1
    lab.table(rows)


# --- Time ------------------------------------------------------------------------------------


def test_a_raster_shows_who_does_what():
    timeline = simulate([1.0, 1.0], [2.0, 2.0], 2, "gpipe")
    image = gantt.raster(timeline, timeline.makespan)
    assert image.shape == (2, gantt.COLUMNS)
    assert np.mean(image == 0) == pytest.approx(timeline.bubble_fraction, abs=0.01)
    assert list(image[0, [10, 90, -10]]) == [1, 2, 4]  # F0, F1, at the end B1
    assert set(image[1]) == {0, 1, 2, 3, 4}


def test_real_ranks_are_near_the_simulator(pools, fast, both_languages):
    rows = gantt.bubble_rows(pools, (("gpipe", 4), ("1f1b", 4)))
    for row in rows:
        assert row["simulated"] == pytest.approx(gantt.formula(row["ranks"], 4))
        assert -0.01 < row["difference"] < 0.15  # sleeping takes at least its time; cores are busy
        assert row["held, real"] == row["held, simulated"]
    lab.table(rows)
    drawn = gantt.real_figure(pools[2], "gpipe", 4)
    assert len([t for t in drawn.data if t.type == "heatmap"]) == 2


def test_schedules_compared_and_published(both_languages):
    rows = {row["schedule"]: row for row in compared.compared_rows(4, 8)}
    assert rows["gpipe"]["bubble"] == rows["1f1b"]["bubble"] == pytest.approx(3 / 11)
    assert rows["1f1b"]["micro-batches held"] == 4 < rows["gpipe"]["micro-batches held"] == 8
    assert rows["dualpipe"]["bubble"] < rows["zero-bubble"]["bubble"] < rows["1f1b"]["bubble"]
    lab.table(list(rows.values()))
    published = compared.published_rows()
    alone = [row for row in published if row["micro-batches"] == 1 and row["stages"] > 2]
    assert all(row["published"] > row["ideal"] for row in alone)  # as the notebook says
    large = [row for row in published if "AmoebaNet" in row["model"] and row["stages"] == 8]
    assert large[-1]["published"] < 0.7 * large[-1]["ideal"] * 1.21 * 2
    lab.table(published)
    assert compared.speedup_figure().layout.meta


def test_the_best_split_beats_equal_counts(both_languages):
    equal, best = compared.split_rows()
    assert equal["time"] > 1.1 * best["time"]
    assert best["layers"].split()[-1] == "1"  # the output layer alone
    lab.table([equal, best])


def test_the_explorer_follows_its_sliders():
    meta = [list(compared.pipeline(**kw).layout.meta.values()) for kw in (
        {}, dict(n_microbatches=64), dict(slowest=2.0), dict(recompute=True), dict(n_stages=8),
        dict(schedule="1f1b"))]  # fmt: skip
    plain, many, slow, again, deep, other = meta
    assert many[0] < plain[0] < min(slow[0], deep[0])
    assert again[2] > plain[2]
    assert other[0] == plain[0]
    assert other[1] < plain[1]
    with pytest.raises(ValueError, match="slowest=4"):
        compared.pipeline(slowest=4)
    with pytest.raises(ValueError, match="schedule='chimera'"):
        compared.pipeline(schedule="chimera")


# --- The planner -----------------------------------------------------------------------------


def test_plans_and_their_published_rows(both_languages):
    rows = planner.plan_rows()
    assert len(rows) == 12
    fits = [row for row in rows if row["tensor"]]
    assert all(row["tensor"] * row["pipeline"] * row["data"] == row["devices"] for row in fits)
    assert [row["model"] for row in rows if not row["tensor"]] == ["gpt3-175b"]
    assert "36 or more" in planner.refusal()
    errors = {row["rows"]: row["median error (%)"] for row in planner.error_rows()}
    assert errors["Table 2, the model"] < 15
    assert errors["Table 1, one number for all"] < 2 * errors["Table 1, the model"]
    assert all(row["ranked right"] for row in planner.zero_rows())
    assert len(planner.megatron_rows()) == 19
    for table in (rows, planner.megatron_rows(), planner.error_rows(), planner.zero_rows()):
        lab.table(table)


# --- Verdicts --------------------------------------------------------------------------------


def test_verdicts_rest_on_the_runs(pools, fast):
    assert verdicts.model_parallel(rests.model_evidence(pools[4], BATCH, TOKENS)).word == "holds if"
    assert verdicts.gpipe_throughput(rests.gpipe_evidence()).word == "holds if"
    ids = {item.id for item in rests.balance_evidence(pools[4])}
    assert {f"slow-{name}" for name in SCHEDULES} < ids
    values = {item.id: item.value for item in rests.bubble_evidence(pools[4])}
    assert values["bubble-16"] < values["bubble-4"]
    assert (values["held-gpipe"], values["held-1f1b"]) == (16, 4)


def test_one_slow_stage_has_the_work_of_balanced_ones():
    assert sum(rests.UNEVEN) == pytest.approx(sum(rests.BALANCED))
    assert rests.UNEVEN[1] == pytest.approx(1.5 * rests.UNEVEN[0])
    assert rests.slower("dualpipe") < rests.slower("1f1b") < rests.slower("gpipe")


# --- Exercises -------------------------------------------------------------------------------


def one_f_one_b(ahead_of=lambda r: 3 - r):
    orders = []
    for r in range(4):
        ahead = ahead_of(r)
        order = [("F", i) for i in range(ahead)]
        for i in range(8 - ahead):
            order += [("F", ahead + i), ("B", i)]
        orders.append(order + [("B", i) for i in range(8 - ahead, 8)])
    return orders


def split_backward():
    orders = []
    for r in range(4):
        ahead = min(8, 2 * (4 - r) - 1)
        order = [("F", i) for i in range(ahead)]
        for i in range(8):
            order.append(("I", i))
            if ahead + i < 8:
                order.append(("F", ahead + i))
            if i >= r:
                order.append(("W", i - r))
        orders.append(order + [("W", i) for i in range(8 - r, 8)])
    return orders


def all_ahead():
    return [[("F", i) for i in range(8)] + [("B", i) for i in range(8)]] * 4


ANSWERS = {
    "13-1": (lambda: lambda k, m: (k - 1) / (m + k - 1), (lambda: lambda k, m: (k - 1) / m,)),
    "13-2": (one_f_one_b, (all_ahead, lambda: one_f_one_b(lambda r: 0))),
    "13-3": (split_backward, (one_f_one_b, all_ahead)),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_exercises_take_right_answers_and_refuse_wrong_ones(name, both_languages):
    right, wrong = ANSWERS[name]
    assert judge(exercises.EXERCISES[name], right())[0] == "correct"
    for answer in wrong:
        assert judge(exercises.EXERCISES[name], answer())[0] == "not quite"


def test_the_simulator_says_what_a_schedule_of_ones_own_lacks(both_languages):
    orders = one_f_one_b()
    orders[2] = orders[2][:-1]
    with pytest.raises(ValueError, match="rank 2 lacks"):
        exercises.score(orders)
    assert [row["schedule"] for row in exercises.score_rows(one_f_one_b())] == [
        "gpipe", "1f1b", "yours"
    ]  # fmt: skip
    lab.table(exercises.score_rows(...))
