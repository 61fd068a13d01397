"""Schedules of one's own: played like the known ones, and refused where they cannot work."""

import re

import pytest

from efflab.distributed.pipeline import run, simulate
from efflab.distributed.schedules import Task, orders

F0, F1, B0, B1 = (Task(kind, microbatch) for kind in "FB" for microbatch in (0, 1))
I0, W0 = Task("I", 0), Task("W", 0)
GOOD = [F0, F1, B0, B1]


def play(*own, M=2, **options):
    return run(list(map(list, own)), [1.0] * len(own), [2.0] * len(own), M, **options)


def test_a_schedule_of_one_s_own_is_scored_like_the_known():
    assert play(GOOD, GOOD).bubble_fraction == simulate([1.0] * 2, [2.0] * 2, 2).bubble_fraction
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
)
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
    assert run(thin, [1, 1], [2, 2], 2, n_chunks=2) == simulate([1, 1], [2, 2], 2, "interleaved")
    with pytest.raises(ValueError, match="chunk 1"):
        run(thin, [1, 1], [2, 2], 2)
    both = orders("dualpipe", 2, 2)
    found = run(both, [1, 1], [2, 2], 2, n_chunks=2, two_way=True)
    assert found == simulate([1, 1], [2, 2], 2, "dualpipe")
    with pytest.raises(ValueError, match=r"range\(0, 1\) in chunk 0 or range\(1, 2\) in chunk 1"):
        run(thin, [1, 1], [2, 2], 2, n_chunks=2, two_way=True)


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
