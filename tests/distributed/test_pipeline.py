"""The simulator against the papers' formulas, and against a simulator that only relaxes times."""

import doctest
import random
import re
import time

import pytest
from relaxed_pipeline import Relaxed

from efflab.distributed import pipeline
from efflab.distributed.pipeline import run, simulate
from efflab.distributed.schedules import SCHEDULES, Task, orders

EXACT = dict(rel=0, abs=1e-12)


def equal_stages(schedule, K, M, forward=1.0, backward=2.0, **options):
    return simulate([forward] * K, [backward] * K, M, schedule, **options)


def idle(timeline, K, M, work=3.0):
    """Time that a rank idles, where all stages take `work` for a micro-batch."""
    return timeline.makespan - M * work


def test_doctests():
    assert doctest.testmod(pipeline).failed == 0


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
        (0, "F", 0, 0, 0, 1), (0, "F", 1, 0, 1, 2), (0, "B", 0, 0, 4, 6), (0, "B", 1, 0, 7, 9),
        (1, "F", 0, 0, 1, 2), (1, "B", 0, 0, 2, 4), (1, "F", 1, 0, 4, 5), (1, "B", 1, 0, 5, 7),
    ]  # fmt: skip


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_thousand_micro_batches_in_64_stages_cost_a_few_plain_loops(schedule):
    """Measured beside a loop over as many tasks: about 5 times its 0.1 s, and not the square."""
    start = time.process_time()
    timeline = equal_stages(schedule, 64, 1024)
    assert timeline.bubble_fraction < 0.06
    middle = time.process_time()
    seen = {}
    for order in timeline.orders:
        for i, task in enumerate(order):
            seen[task.kind, i] = Task(*task)
    assert middle - start < 15 * (time.process_time() - middle)


# --- Schedules of one's own ----------------------------------------------------------------


F0, F1, B0, B1 = (Task(kind, microbatch) for kind in "FB" for microbatch in (0, 1))
I0, W0 = Task("I", 0), Task("W", 0)
GOOD = [F0, F1, B0, B1]


def play(*own, M=2, **options):
    return run(list(map(list, own)), [1.0] * len(own), [2.0] * len(own), M, **options)


def test_a_schedule_of_one_s_own_is_scored_like_the_known():
    assert play(GOOD, GOOD).bubble_fraction == equal_stages("gpipe", 2, 2).bubble_fraction
    backwards = [F1, F0, B0, B1]
    assert play(backwards, backwards).makespan == play(GOOD, GOOD).makespan
    assert play(GOOD, backwards).makespan > play(GOOD, GOOD).makespan
    whole, halves = play([F0, B0], [F0, B0], M=1), play([F0, I0, W0], [F0, I0, W0], M=1)
    assert (whole.makespan, halves.makespan) == (6.0, 5.0)


def test_two_tasks_together_pass_on_their_results_at_the_end_of_both():
    """Rank 1's first backward runs with its next forward: rank 0 gets it a second later."""
    alone = play(GOOD, [F0, B0, F1, B1])
    joined = play(GOOD, [F0, B0._replace(together=True), F1, B1])
    assert alone.starts[0][2] == 4.0
    assert joined.starts[0][2] == 5.0


def test_tasks_together_start_when_both_can():
    late = play([F0, F1, B0, B1], [F0, F1._replace(together=True), B0, B1], transfer_seconds=3.0)
    assert late.starts[1][1] == 5.0
    first = play([F0, F1, B0, B1], [F0, B0._replace(together=True), F1, B1], transfer_seconds=3.0)
    assert first.starts[1][1] == 5.0  # and not 5.0 - 1.0, when B0 alone could


@pytest.mark.parametrize(
    ("own", "error"),
    [
        ([GOOD, [F0, F1, B0]], "orders[1]: expected every task, but rank 1 lacks B of"),
        ([GOOD, [F0, B0]], "rank 1 lacks F of micro-batch 1, chunk 0"),
        ([[], GOOD], "rank 0 lacks F of micro-batch 0, chunk 0"),
        ([GOOD, [F0, F1, I0, B1]], "rank 1 lacks W of micro-batch 0"),
        ([[F0, F0, F1, B0, B1], GOOD], "orders[0]='F of micro-batch 0, chunk 0': expected each"),
        ([GOOD, [*GOOD, B1]], "orders[1]='B of micro-batch 1, chunk 0': expected each task once"),
        ([GOOD, [B0, F0, F1, B1]], "orders[1]='B of micro-batch 0, chunk 0': expected after F"),
        ([GOOD, [F0, F1, W0, I0, B1]], "orders[1]='W of micro-batch 0, chunk 0': expected after I"),
        ([GOOD, [F0, F1, B0, I0, W0, B1]], "='I of micro-batch 0, chunk 0': expected after F"),
        ([GOOD, [*GOOD, Task("F", 2)]], "orders[1]='F of micro-batch 2, chunk 0': expected"),
        ([GOOD, [*GOOD, Task("F", 0, 1)]], "orders[1]='F of micro-batch 0, chunk 1': expected"),
        ([GOOD, [*GOOD, Task("X", 0)]], "'X of micro-batch 0, chunk 0': expected one of F, B,"),
        ([GOOD, [F0, F1, B0, B1._replace(together=True)]], "orders[1]='B of micro-batch 1"),
    ],
)  # fmt: skip
def test_an_order_that_is_wrong_by_itself_names_rank_and_task(own, error):
    with pytest.raises(ValueError, match=re.escape(error)):
        play(*own)


def test_a_deadlock_names_who_waits_for_whom():
    """Rank 0 wants gradient 0 before it sends micro-batch 1, which rank 1 wants first."""
    with pytest.raises(ValueError, match="expected no deadlock") as error:
        play([F0, B0, F1, B1], [F1, F0, B0, B1])
    assert "rank 0 waits with B of micro-batch 0, chunk 0 for rank 1's B of" in str(error.value)
    assert "rank 1 waits with F of micro-batch 1, chunk 0 for rank 0's F of" in str(error.value)


def test_a_deadlock_does_not_blame_who_only_waits_for_it():
    with pytest.raises(ValueError, match="expected no deadlock") as error:
        play([F0, F1, B0, B1], [F0, B0, F1, B1], [F1, F0, B0, B1])
    assert "rank 0 waits" not in str(error.value)
    assert "rank 2 waits with F of micro-batch 1" in str(error.value)


def test_a_task_together_with_what_needs_it_is_a_deadlock():
    waits = "rank 1 waits with B of micro-batch 0, chunk 0 for rank 1's F of micro-batch 0, chunk 0"
    with pytest.raises(ValueError, match=f"{waits}$"):
        play(GOOD, [F0._replace(together=True), B0, F1, B1])


def test_only_two_tasks_run_together():
    joined = [task._replace(together=True) for task in (F0, F1)]
    with pytest.raises(ValueError, match="expected one more task to run together with"):
        play([*joined, B0, B1], GOOD)


def test_chunks_and_two_ways_of_one_s_own():
    thin = orders("interleaved", 2, 2, 2)
    assert run(thin, [1, 1], [2, 2], 2, n_chunks=2) == equal_stages("interleaved", 2, 2)
    with pytest.raises(ValueError, match="chunk 1"):
        run(thin, [1, 1], [2, 2], 2)
    both = orders("dualpipe", 2, 2)
    found = run(both, [1, 1], [2, 2], 2, n_chunks=2, two_way=True)
    assert found == equal_stages("dualpipe", 2, 2)
    with pytest.raises(ValueError, match=r"range\(0, 1\) in chunk 0 or range\(1, 2\) in chunk 1"):
        run(thin, [1, 1], [2, 2], 2, n_chunks=2, two_way=True)


# --- Arguments -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (([], [], 2), {}, "number of forward_seconds=0"),
        (([1, 1], [1], 2), {}, "len(backward_seconds)=1: expected 2"),
        (([1, 0], [1, 1], 2), {}, "forward_seconds=0: expected positive"),
        (([1, 1], [1, -1], 2), {}, "backward_seconds=-1: expected positive"),
        (([1, float("nan")], [1, 1], 2), {}, "forward_seconds=nan"),
        (([1, 1], [1, float("inf")], 2), {}, "backward_seconds=inf"),
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


@pytest.mark.parametrize(
    ("own", "options", "error"),
    [
        ([GOOD], {}, "len(orders)=1: expected 2, one for each stage"),
        ([GOOD, GOOD], dict(n_chunks=0), "n_chunks=0"),
        ([GOOD, GOOD], dict(two_way=True), "n_chunks=1: expected 2 if two_way"),
        ([GOOD, GOOD], dict(M=0), "n_microbatches=0"),
        ([GOOD, GOOD], dict(M=3, two_way=True, n_chunks=2), "n_microbatches=3"),
    ],
)
def test_bad_arguments_of_a_schedule_of_one_s_own(own, options, error):
    with pytest.raises(ValueError, match=re.escape(error)):
        run(own, [1, 1], [2, 2], options.pop("M", 2), **options)
