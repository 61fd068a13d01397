"""The simulator against the papers' formulas, and against a simulator that only relaxes times."""

import gc
import random
import re
import time

import pytest
from relaxed_pipeline import Relaxed

from efflab.distributed import schedules
from efflab.distributed.pipeline import run, simulate
from efflab.distributed.schedules import SCHEDULES, Task

EXACT = dict(rel=0, abs=1e-12)


def equal_stages(schedule, K, M, forward=1.0, backward=2.0, **options):
    return simulate([forward] * K, [backward] * K, M, schedule, **options)


def idle(timeline, K, M, work=3.0):
    """Time that a rank idles, where all stages take `work` for a micro-batch."""
    return timeline.makespan - M * work


# --- The papers' formulas ----------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize("K", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("M", [1, 2, 3, 4, 7, 32])
@pytest.mark.parametrize(("forward", "backward"), [(1.0, 2.0), (0.1, 0.3), (5.0, 0.7)])
def test_gpipe_s_bubble_is_k_1_of_m_and_k_1(schedule, K, M, forward, backward):
    """Huang et al. 2019, section 2.3; 1F1B holds less and idles as much (Narayanan et al. 2021)."""
    timeline = equal_stages(schedule, K, M, forward, backward)
    assert timeline.bubble_fraction == pytest.approx((K - 1) / (M + K - 1), **EXACT)
    assert timeline.makespan == pytest.approx((M + K - 1) * (forward + backward), rel=1e-12)


@pytest.mark.parametrize(("K", "rounds"), [(1, 3), (2, 1), (2, 4), (4, 1), (4, 3), (8, 2)])
@pytest.mark.parametrize("n_chunks", [1, 2, 3, 4])
def test_chunks_divide_the_bubble(K, rounds, n_chunks):
    """Narayanan et al. 2021, section 2.2.2: (K - 1) / (v M) of the ideal time."""
    M = rounds * K
    timeline = equal_stages("interleaved", K, M, n_chunks=n_chunks)
    expected = (K - 1) / (n_chunks * M + K - 1)
    assert timeline.bubble_fraction == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize("K", [2, 4, 6, 16])
@pytest.mark.parametrize("more", [0, 2, 10])
def test_bubbles_of_dualpipe_s_table(K, more):
    """DeepSeek-AI 2024, Table 2, with forward, input half and weights' half equal (F = I = W).

    A pair of forward and backward takes the time of both here: there is nothing to overlap.
    """
    F, B, W, M = 1.0, 2.0, 1.0, 2 * K + more
    assert idle(equal_stages("1f1b", K, M), K, M) == (K - 1) * (F + B)
    assert idle(equal_stages("zero-bubble", K, M), K, M) == (K - 1) * (F + B - 2 * W)
    assert idle(equal_stages("dualpipe", K, M), K, M) == (K // 2 - 1) * ((F + B) + B - 3 * W)


@pytest.mark.parametrize("K", [2, 3, 5, 8])
@pytest.mark.parametrize(("forward", "backward"), [(1.0, 1.0), (2.0, 3.0), (1.0, 3.0), (1.0, 6.0)])
def test_zero_bubble_leaves_the_longer_of_forward_and_input_half(K, forward, backward):
    """The formula's (K - 1) F needs I <= F: rank 0 has nothing to fill the first gradient's way."""
    M = 3 * K
    timeline = equal_stages("zero-bubble", K, M, forward, backward)
    longer = max(forward, backward / 2)
    assert idle(timeline, K, M, forward + backward) == pytest.approx((K - 1) * longer)


@pytest.mark.parametrize(("K", "M"), [(1, 3), (4, 2), (4, 4), (4, 16)])
def test_peak_activations(K, M):
    assert equal_stages("gpipe", K, M).peak_activations == [M] * K
    assert equal_stages("1f1b", K, M).peak_activations == [min(M, K - i) for i in range(K)]
    assert max(equal_stages("zero-bubble", K, M).peak_activations) == min(M, K)


def test_peaks_of_ranks_with_two_stages():
    """DualPipe holds one micro-batch more than 1F1B's first stage, on every rank."""
    assert equal_stages("dualpipe", 8, 16).peak_activations == [9] * 8
    interleaved = equal_stages("interleaved", 4, 16, n_chunks=2).peak_activations
    assert interleaved == [(2 * (3 - rank) + 4 + 1) / 2 for rank in range(4)]
    assert interleaved[0] == 4 * (1 + 3 / 8)  # Korthikanti et al. 2022: 1 + (p - 1) / (p m)


# --- Unequal stages, transfers, recomputation -----------------------------------------------


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "zero-bubble"])
def test_the_slowest_stage_sets_the_pace(schedule):
    forward = [1.0, 1.0, 3.0, 1.0]
    timeline = simulate(forward, [2 * f for f in forward], 400, schedule)
    assert 1 <= timeline.makespan / (400 * 9.0) < 1.02
    assert timeline.bubble_fraction == pytest.approx(0.5, abs=0.01)  # 1 - (3 + 3 + 9 + 3) / (4 * 9)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("seed", range(8))
def test_no_schedule_beats_its_bounds(schedule, seed):
    """A rank's work, and one micro-batch's way there and back; nor does it idle a negative time."""
    rng = random.Random(seed)
    K, M = rng.choice([2, 4, 6]), rng.choice([2, 4, 10])
    forward, backward = ([rng.uniform(0.5, 2) for _ in range(K)] for _ in range(2))
    timeline = simulate(forward, backward, M, schedule, transfer_seconds=rng.random())
    work = [f + b for f, b in zip(forward, backward, strict=True)]
    if schedule == "dualpipe":
        work = [(a + b) / 2 for a, b in zip(work, reversed(work), strict=True)]
    split = schedule in ("zero-bubble", "dualpipe")
    way = sum(forward) + sum(backward) * (0.5 if split else 1)
    assert timeline.makespan >= max(M * max(work), way) - 1e-9
    assert 0 <= timeline.bubble_fraction < 1


@pytest.mark.parametrize("transfer", [0.0, 0.25, 4.0])
def test_a_transfer_delays_each_hop_and_no_computation(transfer):
    """GPipe's first micro-batch goes K - 1 hops, and its last gradient comes K - 1 back."""
    timeline = equal_stages("gpipe", 4, 8, transfer_seconds=transfer)
    assert timeline.makespan == pytest.approx((8 + 3) * 3.0 + 2 * 3 * transfer)


def test_between_the_chunks_of_one_rank_nothing_travels():
    timeline = equal_stages("interleaved", 1, 4, n_chunks=3, transfer_seconds=9.0)
    assert timeline.makespan == pytest.approx(12.0)


def test_1f1b_waits_for_each_hop_again_and_again():
    """Its ranks take turns, so every round lacks a second; GPipe lacks one each way in all."""

    def lost(schedule):
        slow = equal_stages(schedule, 2, 32, transfer_seconds=1.0)
        return slow.makespan - equal_stages(schedule, 2, 32).makespan

    assert lost("gpipe") == 2.0
    assert lost("1f1b") == 32.0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_recomputation_is_a_forward_more_in_each_backward(schedule):
    plain = equal_stages(schedule, 4, 8)
    again = equal_stages(schedule, 4, 8, recompute=True)
    assert again.peak_activations == plain.peak_activations
    busy = [sum(e.end - e.start for e in t.events) for t in (plain, again)]
    assert busy == [4 * 8 * 3.0, 4 * 8 * 4.0]
    if schedule in ("gpipe", "1f1b"):
        assert again.makespan == equal_stages(schedule, 4, 8, 1.0, 3.0).makespan


# --- Against a simulator that knows nothing of ranks that sleep ----------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("seed", range(12))
def test_relaxing_all_times_gives_the_same_starts(schedule, seed):
    rng = random.Random(seed)
    K, M, chunks = rng.choice([2, 4]), rng.choice([2, 4, 6, 10]), rng.choice([2, 3])
    forward, backward = ([rng.choice([0.5, 1, 2.5, 3]) for _ in range(K)] for _ in range(2))
    transfer, recompute = rng.choice([0, 0.25, 2]), rng.random() < 0.5
    options = dict(transfer_seconds=transfer, recompute=recompute, n_chunks=chunks)
    timeline = simulate(forward, backward, M, schedule, **options)
    chunks = chunks if schedule == "interleaved" else 1
    two_way = schedule == "dualpipe"
    tasks = timeline.orders
    other = Relaxed(tasks, forward, backward, chunks, two_way, transfer, recompute)
    for found, wanted in zip(timeline.starts, other.solve(), strict=True):
        assert found == pytest.approx(wanted, **EXACT)


def test_events_are_the_tasks_with_their_times():
    timeline = equal_stages("1f1b", 2, 2)
    assert [tuple(event) for event in timeline.events] == [
        (0, "F", 0, 0, 0, 1),
        (0, "F", 1, 0, 1, 2),
        (0, "B", 0, 0, 4, 6),
        (0, "B", 1, 0, 7, 9),
        (1, "F", 0, 0, 1, 2),
        (1, "B", 0, 0, 2, 4),
        (1, "F", 1, 0, 4, 5),
        (1, "B", 1, 0, 5, 7),
    ]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_thousand_micro_batches_in_64_stages_cost_a_few_plain_loops(schedule):
    """Measured beside a loop over as many tasks: about 5 times its 0.1 s, and not the square.

    Without the garbage collector, which asks about everything that earlier tests have left.
    """
    gc.collect()
    gc.disable()
    try:
        _costs_a_few_plain_loops(schedule)
    finally:
        gc.enable()


def _costs_a_few_plain_loops(schedule):
    start = time.process_time()
    timeline = equal_stages(schedule, 64, 1024)
    assert timeline.bubble_fraction < 0.06
    middle = time.process_time()
    seen = {}
    for order in timeline.orders:
        for i, task in enumerate(order):
            seen[task.kind, i] = Task(*task)
    assert middle - start < 15 * (time.process_time() - middle)


# --- Arguments -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (([], [], 2), {}, "forward_seconds=[]"),
        (([1, 1], [1], 2), {}, "len(backward_seconds)=1: expected 2"),
        (([1, 0], [1, 1], 2), {}, "forward_seconds[1]=0: expected a positive"),
        (([1, 1], [1, -1], 2), {}, "backward_seconds[1]=-1: expected a positive"),
        (([1, float("nan")], [1, 1], 2), {}, "forward_seconds[1]=nan"),
        (([1, 1], [1, float("inf")], 2), {}, "backward_seconds[1]=inf"),
        (([1, 1], [1, 1], 0), {}, "n_microbatches=0"),
        (([1, 1], [1, 1], 2, "afap"), {}, "schedule='afap': expected one of"),
        (([1, 1], [1, 1], 2), dict(transfer_seconds=-1), "transfer_seconds=-1"),
        (([1, 1], [1, 1], 2), dict(transfer_seconds=float("nan")), "transfer_seconds=nan"),
        (([1, 1], [1, 1], 2, "interleaved"), dict(n_chunks=0), "n_chunks=0"),
        (([1, 1, 1], [1, 1, 1], 2, "dualpipe"), {}, "n_stages=3: expected an even number"),
        (([1, 1], [1, 1], 3, "dualpipe"), {}, "n_microbatches=3: expected an even number"),
    ],
)
def test_bad_arguments(arguments, options, error):
    with pytest.raises(ValueError, match=re.escape(error)):
        simulate(*arguments, **options)


def test_more_than_can_be_played_is_refused_at_once():
    start = time.process_time()
    forward, backward = [1.0] * 4, [2.0] * 4
    for schedule in schedules.SCHEDULES:
        with pytest.raises(ValueError, match="n_microbatches=1000000000: expected at most"):
            simulate(forward, backward, 10**9, schedule)
    with pytest.raises(ValueError, match="n_microbatches=1000000000"):
        run([[]] * 4, forward, backward, 10**9)
    with pytest.raises(ValueError, match="n_chunks=1000000000"):
        simulate(forward, backward, 4, "interleaved", n_chunks=10**9)
    with pytest.raises(ValueError, match="n_stages=1000"):
        simulate([1.0] * 1000, [1.0] * 1000, 2, "dualpipe")
    with pytest.raises(ValueError, match="n_stages=400: expected at most 362"):
        simulate([1.0] * 400, [2.0] * 400, 1)
    schedules.require_playable(4, 20_000, 1)  # as gpipe's are, which has one chunk
    assert time.process_time() - start < 1
    assert simulate([1.0], [2.0], 2**13).makespan == 3 * 2**13


@pytest.mark.parametrize("name", ["recompute", "two_way"])
@pytest.mark.parametrize("value", ["no", "", 0, None])
def test_a_switch_is_true_or_false(name, value):
    orders = schedules.orders("gpipe", 1, 2)
    with pytest.raises(ValueError, match=f"{name}={value!r}: expected True or False"):
        run(orders, [1.0], [2.0], 2, **{name: value})
