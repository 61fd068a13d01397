"""Notebook 13: its tables and pictures on real ranks, its explorer, planner and exercises."""

import numpy as np
import pytest

from efflab import cost, lab
from efflab import data as texts
from efflab.distributed import gpipe, partition, plan_fit, stages, tensor_parallel
from efflab.distributed.launch import RankPool
from efflab.distributed.pipeline import simulate
from efflab.distributed.schedules import SCHEDULES
from efflab.lab.check import judge
from efflab_rooms.pipeline_parallel import exercises, figures, measure, verdicts

BATCH, TOKENS = 4, 16


@pytest.fixture(scope="module")
def pools():
    with RankPool(2) as two, RankPool(4) as four:
        yield {2: two, 4: four}


@pytest.fixture
def fast(monkeypatch):
    """Stages sleep three fifths of the notebook's time, long beside a busy machine's delays."""
    monkeypatch.setattr(measure, "FORWARD", 0.03)
    monkeypatch.setattr(measure, "BACKWARD", 0.06)
    measure.run_step.cache_clear()
    yield
    measure.run_step.cache_clear()


# --- Cuts ------------------------------------------------------------------------------------


def windows(batch_size, seq_len):
    return texts.random_windows(texts.stdlib_tokens("train"), batch_size, seq_len, seed=0)


def cut_inside(pool, method, batch_size=BATCH, seq_len=TOKENS):
    job = tensor_parallel.Job(measure.CONFIG, *windows(batch_size, seq_len), method)
    return pool.run(tensor_parallel.on_rank, job, timeout=120)


SAME = 1e-5


def cut_between(pool, schedule):
    job = stages.Job(measure.CONFIG, *windows(BATCH, TOKENS), 4, schedule)
    return pool.run(stages.on_rank, job, timeout=120)


def run_alone():
    return stages.Job(measure.CONFIG, *windows(BATCH, TOKENS), 1).alone()


def test_a_model_cut_inside_is_the_same_and_sends_by_the_formula(pools):
    for n, pool in pools.items():
        formula = 2 * tensor_parallel.wire_bytes(measure.CONFIG, 8 * 64, n)
        for method in tensor_parallel.METHODS:
            ranks = cut_inside(pool, method, 8, 64)  # messages beside which headers are small
            assert max(rank.gradients_error for rank in ranks) < SAME
            sent = max(rank.forward + rank.backward for rank in ranks)
            assert sent / formula == pytest.approx(1, abs=0.02)
            share = max(rank.params for rank in ranks) / cost.num_params(measure.CONFIG)
            assert 1 / n < share < 0.75


def test_a_model_cut_between_layers_is_the_same(pools):
    alone = run_alone()
    shares = []
    for n, pool in pools.items():
        for schedule in ("gpipe", "1f1b"):
            ranks = cut_between(pool, schedule)
            assert measure.gradient_distance(ranks, alone) < SAME
            (loss,) = (rank.loss for rank in ranks if rank.loss is not None)
            assert loss == pytest.approx(alone.loss, abs=1e-5)
            most = 4 if schedule == "gpipe" else n
            assert max(rank.trace.held for rank in ranks) == most
            shares.append(max(rank.weight_bytes for rank in ranks) / alone.weight_bytes)
    assert shares[2] < shares[0] < 1


# --- Time ------------------------------------------------------------------------------------


def test_a_raster_shows_who_does_what():
    timeline = simulate([1.0, 1.0], [2.0, 2.0], 2, "gpipe")
    image = figures.raster(timeline, timeline.makespan)
    assert image.shape == (2, figures.COLUMNS)
    assert np.mean(image == 0) == pytest.approx(timeline.bubble_fraction, abs=0.01)
    assert list(image[0, [10, 90, -10]]) == [1, 2, 4]  # F0, F1, at the end B1
    assert set(image[1]) == {0, 1, 2, 3, 4}


def test_real_ranks_are_near_the_simulator(pools, fast, both_languages):
    for n, pool in pools.items():
        for schedule in ("gpipe", "1f1b"):
            real, held = measure.run_step(pool, schedule, 4)
            simulated = measure.simulate_step(n, schedule, 4)
            assert simulated.bubble_fraction == pytest.approx(measure.bubble(n, 4))
            # sleeping takes at least its time; cores are busy
            assert -0.01 < real.bubble_fraction - simulated.bubble_fraction < 0.15
            assert held / real.chunks_per_stage == max(simulated.peak_activations)
    drawn = figures.real_step(pools[2], "gpipe", 4)
    assert len([t for t in drawn.data if t.type == "heatmap"]) == 2


def test_what_the_text_says_of_schedules_and_of_gpipe_s_tables(both_languages):
    times = {name: simulate([1.0] * 4, [2.0] * 4, 8, name) for name in SCHEDULES}
    bubbles = {name: timeline.bubble_fraction for name, timeline in times.items()}
    held = {name: max(timeline.peak_activations) for name, timeline in times.items()}
    assert bubbles["gpipe"] == bubbles["1f1b"] == pytest.approx(3 / 11)
    assert held["1f1b"] == 4 < held["gpipe"] == 8
    assert bubbles["dualpipe"] < bubbles["zero-bubble"] < bubbles["1f1b"]
    published = gpipe.published_rows()
    alone = [row for row in published if row["n_microbatches"] == 1 and row["n_stages"] > 2]
    assert all(row["throughput"] > row["ideal"] for row in alone)
    assert [row["throughput"] for row in alone if row["n_stages"] == 8] == [1.3, 1.38]
    (unequal,) = (row for row in gpipe.gains() if row["throughput"] == 3.48)
    assert unequal["over_ideal"] < 0.6
    drawn = [len(trace.x) for trace in figures.gains().data if trace.mode == "markers"]
    assert sum(drawn) == 20, "all rows but the four that are baselines"


def test_the_best_split_beats_equal_counts():
    layers = [1.0] * 10 + [4.0]
    best = partition.best_split(layers, 4)
    steps = []
    for split in ([3, 3, 3, 2], best):
        seconds = partition.stage_seconds(layers, split)
        steps.append(simulate(seconds, [2 * s for s in seconds], 16, "1f1b").makespan)
    assert steps[0] > 1.1 * steps[1]
    assert best[-1] == 1  # the output layer alone


def test_the_explorer_follows_its_sliders():
    changes = ({}, dict(n_microbatches=64), dict(slowest=2.0), dict(recompute=True))
    changes += (dict(n_stages=8), dict(schedule="1f1b"))
    meta = [list(figures.pipeline(**values).layout.meta.values()) for values in changes]
    plain, many, slow, again, deep, other = meta
    assert many[0] < plain[0] < min(slow[0], deep[0])
    assert again[2] > plain[2]
    assert other[0] == plain[0]
    assert other[1] < plain[1]
    with pytest.raises(ValueError, match="slowest=4"):
        figures.pipeline(slowest=4)
    with pytest.raises(ValueError, match="schedule='chimera'"):
        figures.pipeline(schedule="chimera")


# --- Balance -----------------------------------------------------------------------------------


def test_one_slow_stage_costs_by_schedule_and_place(both_languages):
    slow = measure.slowdowns()
    by_place = {name: [slow[name, place] for place in range(4)] for name in SCHEDULES}
    assert by_place["gpipe"] == pytest.approx([by_place["gpipe"][0]] * 4), "any place"
    assert by_place["1f1b"] == sorted(set(by_place["1f1b"])), "1F1B: the last costs most"
    assert by_place["dualpipe"] == pytest.approx(by_place["dualpipe"][::-1]), "a pair of stages"
    others = [ratio for (name, _), ratio in slow.items() if name != "dualpipe"]
    assert max(by_place["dualpipe"]) < min(others)
    assert measure.slowdown("gpipe", 1) == pytest.approx((8 + 3 / 1.5) / 11 * 4 * 1.5 / 4.5)
    assert all(measure.slowdown(name, 2, 1.0) == pytest.approx(1) for name in SCHEDULES)
    assert list(figures.imbalance().layout.meta.values()) == [max(by_place[n]) for n in SCHEDULES]


@pytest.fixture(scope="module")
def computed(pools):
    """What `compute_steps` gives: steps by name, and others' cores."""
    return measure.compute_steps(pools[2], repeats=2)


@pytest.fixture(scope="module")
def left_out():
    """Published rows with their predictions."""
    return plan_fit.left_out()


@pytest.mark.parametrize("products", [(40, 2), (2, 40)])
def test_a_rank_computes_as_many_products_as_it_is_given(pools, products):
    traces = pools[2].run(measure.compute_on_rank, products, 8, timeout=measure.SECONDS)
    events = stages.timeline(traces).events
    # the shortest: a task that the system lays aside for another process looks long
    times = [min(e.end - e.start for e in events if e.rank == rank) for rank in (0, 1)]
    less, more = times if products[0] < products[1] else times[::-1]
    assert more > 4 * less, "twenty times the work"


def test_ranks_compute_their_products_in_order(computed, both_languages):
    steps, others = computed
    assert others >= 0
    for name, (products, n) in measure.STEPS.items():
        assert sum(products) == sum(measure.EQUAL), "the same work"
        assert len(steps[name]) == 2
        for timeline in steps[name]:
            kinds = ["".join(task.kind for task in order) for order in timeline.orders]
            assert kinds == ["F" * n + "B" * n] * 2
            assert 0 < timeline.bubble_fraction < 1
    times = measure.compare_steps(steps)
    assert list(times.ratios) == ["few", "many", "first-slow", "second-slow"]
    assert times.ratios["many"].mean == 1
    drawn = figures.computing_steps(steps)
    assert list(drawn.layout.meta.values()) == [
        steps[name][-1].bubble_fraction for name in ("few", "many")
    ]
    expected = measure.simulate_products("first-slow") / measure.simulate_products("many")
    assert expected == pytest.approx((8 * 24 + 16) / (9 * 20))


def test_predictions_are_drawn_row_by_row(left_out, both_languages):
    fig = figures.predictions(left_out)
    drawn = [len(trace.x) for trace in fig.data if trace.mode == "markers"]
    assert sum(drawn) == len(left_out)
    assert all(drawn)


# --- Verdicts --------------------------------------------------------------------------------


def test_equal_models_are_equal_on_real_ranks(pools):
    between = {(n, s): cut_between(pool, s) for n, pool in pools.items() for s in ("gpipe", "1f1b")}
    inside = {(n, m): cut_inside(p, m) for n, p in pools.items() for m in tensor_parallel.METHODS}
    evidence = verdicts.model_evidence(between, run_alone(), inside, 0.1)
    outcome = verdicts.model_parallel(evidence)
    assert [part.outcome for part in outcome.parts] == ["holds", "holds"]


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
        exercises.simulate_orders(orders)
    own = [row["schedule"] for row in exercises.score_rows(one_f_one_b())]
    assert own == ["gpipe", "1f1b", "yours"]
    lab.table(exercises.score_rows(...), kind="simulated")
