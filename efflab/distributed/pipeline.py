"""A simulator of pipeline parallelism: the time of a step, and each rank's idle time and memory.

A schedule is data, each rank's list of tasks (`efflab.distributed.schedules`). `run` simulates any
such lists by two rules: a rank runs its tasks in order, one at a time, and a task starts when its
input has arrived. `simulate` runs one of the known schedules.
"""

from collections import deque
from math import inf
from typing import NamedTuple

from efflab.arguments import check_module, unchecked
from efflab.distributed import schedules
from efflab.distributed.schedules import KINDS, Orders, Task
from efflab.distributed.timeline import Timeline
from efflab.distributed.values import PositiveTimes, require_times
from efflab.errors import require
from efflab.rules import NonNegative, Size

BEFORE = {"F": None, "B": "F", "I": "F", "W": "I"}
"""The task that must come directly before, for the same micro-batch and chunk."""
Place = tuple[int, int]
"""(rank, chunk)"""


class _Rule(NamedTuple):
    """Data flow of all tasks of one kind and place; the lists have a time for each micro-batch.

    `needs`: when the input, computed at `source`, arrives; infinity until known. The output reaches
    the rank `reader` `delay` seconds after the task's end, which is written into `gives`. One
    task's `gives` is another's `needs`: the same list.
    """

    seconds: float
    needs: list[float]
    source: Place
    gives: list[float]
    reader: int
    delay: float


Rules = list[dict[tuple[str, int], _Rule]]
"""For each rank, by kind and chunk."""


def simulate(
    forward_seconds: PositiveTimes,
    backward_seconds: PositiveTimes,
    n_microbatches: Size,
    schedule: str = "gpipe",
    *,
    n_chunks: Size = 2,
    transfer_seconds: NonNegative = 0.0,
    recompute: bool = False,
) -> Timeline:
    """One training step of a pipeline; the times are those of a micro-batch in each stage.

    See `schedules.orders` for the schedules and `run` for the assumptions. "interleaved" cuts each
    rank's layers into `n_chunks` equal chunks.

    >>> simulate([1.0] * 4, [2.0] * 4, 8).bubble_fraction  # 3 / (8 + 3)
    0.2727272727272727
    """
    _require_times(forward_seconds, backward_seconds)
    orders = schedules.orders(schedule, len(forward_seconds), n_microbatches, n_chunks)
    chunks = {"interleaved": n_chunks, "dualpipe": 2}.get(schedule, 1)
    return unchecked(run)(
        orders,
        forward_seconds,
        backward_seconds,
        n_microbatches,
        n_chunks=chunks,
        two_way=schedule == "dualpipe",
        transfer_seconds=transfer_seconds,
        recompute=recompute,
    )


def run(
    orders: Orders,
    forward_seconds: PositiveTimes,
    backward_seconds: PositiveTimes,
    n_microbatches: Size,
    *,
    n_chunks: Size = 1,
    two_way: bool = False,
    transfer_seconds: NonNegative = 0.0,
    recompute: bool = False,
) -> Timeline:
    """Simulate each rank's list of tasks, of any schedule.

    Each chunk of each rank runs, for each of its micro-batches, F and then B, or F, I and W; I and
    W take half of the backward's time each. A micro-batch passes chunk 0 of all ranks, then chunk 1
    of all, and so on; a chunk takes 1 / n_chunks of its rank's times. If `two_way`, each rank has
    two whole stages instead: the first half of the micro-batches passes chunk 0 of ranks 0, 1, ...,
    the second half chunk 1 of the ranks in reverse order; both begin with stage 0.

    Data for another rank arrives `transfer_seconds` later; transfers overlap with computing and
    with one another. `recompute` adds the forward's time to each B or I (a held micro-batch is
    then only the stage's input).

    A task that is missing, doubled, or before its input, or ranks in a deadlock, are a `ValueError`
    that names rank, task and what it lacks.
    """
    _require_times(forward_seconds, backward_seconds)
    n_ranks = len(forward_seconds)
    schedules.require_playable(n_ranks, n_microbatches, n_chunks)
    require(len(orders) == n_ranks, "len(orders)", len(orders), f"{n_ranks}, one for each stage")
    if two_way:
        require(n_chunks == 2, "n_chunks", n_chunks, "2 if two_way")
        require(n_microbatches % 2 == 0, "n_microbatches", n_microbatches, "an even number")
    for rank, order in enumerate(orders):
        _require_complete(rank, order, _microbatches(n_microbatches, n_chunks, two_way))
    share = 1 if two_way else n_chunks
    seconds = [
        _seconds(forward / share, backward / share, recompute)
        for forward, backward in zip(forward_seconds, backward_seconds, strict=True)
    ]
    paths = _paths(n_ranks, n_chunks, two_way)
    rules = _rules(paths, seconds, n_microbatches, transfer_seconds)
    return _timeline(orders, *_run_tasks(orders, rules), share)


def _timeline(orders: Orders, starts: list, ends: list, chunks_per_stage: int) -> Timeline:
    """A `Timeline` without its argument check, which would take longer than the simulation."""
    timeline = object.__new__(Timeline)
    unchecked(Timeline.__init__)(timeline, orders, starts, ends, chunks_per_stage)
    return timeline


# --- How tasks depend on one another ----------------------------------------------------------


def _paths(n_ranks: int, n_chunks: int, two_way: bool) -> list[list[Place]]:
    """The (rank, chunk) places that micro-batches pass in the forward pass, stage by stage."""
    if two_way:
        return [[(r, 0) for r in range(n_ranks)], [(r, 1) for r in reversed(range(n_ranks))]]
    return [[(rank, chunk) for chunk in range(n_chunks) for rank in range(n_ranks)]]


def _microbatches(n_microbatches: int, n_chunks: int, two_way: bool) -> list[range]:
    """The micro-batches that pass each chunk."""
    if two_way:
        return [range(n_microbatches // 2), range(n_microbatches // 2, n_microbatches)]
    return [range(n_microbatches)] * n_chunks


def _seconds(forward: float, backward: float, recompute: bool) -> dict[str, float]:
    """Seconds of each kind of task."""
    extra = forward if recompute else 0.0
    return {"F": forward, "B": backward + extra, "I": backward / 2 + extra, "W": backward / 2}


def _rules(
    paths: list[list[Place]], seconds: list[dict[str, float]], n_microbatches: int, transfer: float
) -> Rules:
    rules: Rules = [{} for _ in seconds]
    for path in paths:
        activations = [[inf] * n_microbatches for _ in path]
        gradients = [[inf] * n_microbatches for _ in path]
        activations[0] = [0.0] * n_microbatches
        unread = [0.0] * n_microbatches
        for i, (rank, chunk) in enumerate(path):
            before, after = path[max(i - 1, 0)], path[min(i + 1, len(path) - 1)]
            delay = {place: transfer * (place[0] != rank) for place in (before, after)}
            times = seconds[i % len(seconds)]
            is_last = after == path[i]  # its own forward pass starts the backward pass
            to_after = (gradients[i] if is_last else activations[i + 1], after[0], delay[after])
            to_before = (gradients[i - 1] if i else unread, before[0], delay[before])
            back = (gradients[i], after, *to_before)
            rules[rank] |= {
                ("F", chunk): _Rule(times["F"], activations[i], before, *to_after),
                ("B", chunk): _Rule(times["B"], *back),
                ("I", chunk): _Rule(times["I"], *back),
                # W needs no other rank's data: its input is there from the start, nobody reads it
                ("W", chunk): _Rule(times["W"], activations[0], (rank, chunk), unread, rank, 0.0),
            }
    return rules


def _run_tasks(orders: Orders, rules: Rules) -> tuple[list[list[float]], list[list[float]]]:
    """Starts and ends of all tasks; a waiting rank is set aside until something arrives for it."""
    starts: list[list[float]] = [[] for _ in orders]
    ends: list[list[float]] = [[] for _ in orders]
    awake = deque(range(len(orders)))
    asleep = [False] * len(orders)
    while awake:
        rank = awake.popleft()
        order, rule, rank_starts, rank_ends = orders[rank], rules[rank], starts[rank], ends[rank]
        clock = rank_ends[-1] if rank_ends else 0.0
        for i in range(len(rank_ends), len(order)):
            kind, microbatch, chunk, together = order[i]
            seconds, needs, _, gives, reader, delay = rule[kind, chunk]
            arrival = needs[microbatch]
            if together:
                partner = order[i + 1]
                other = rule[partner.kind, partner.chunk]
                arrival = max(arrival, other.needs[partner.microbatch])
                delay += other.seconds
            if arrival == inf:
                asleep[rank] = True
                break
            if arrival > clock:
                clock = arrival
            rank_starts.append(clock)
            clock += seconds
            rank_ends.append(clock)
            gives[microbatch] = clock + delay
            if asleep[reader]:
                asleep[reader] = False
                awake.append(reader)
    if any(asleep):
        raise _deadlock(orders, rules, [len(rank_ends) for rank_ends in ends])
    return starts, ends


# --- What can be wrong --------------------------------------------------------------------------


def _require_times(forward: PositiveTimes, backward: PositiveTimes) -> None:
    require_times("forward_seconds", forward)
    same = len(forward) == len(backward)
    require(same, "len(backward_seconds)", len(backward), f"{len(forward)}, as forward_seconds has")


def _require_complete(rank: int, order: list[Task], microbatches: list[range]) -> None:
    """Every micro-batch must pass every chunk of the rank, each task once and in order."""
    last: dict[tuple[int, int], str | None] = {}
    for chunk, passing in enumerate(microbatches):
        last |= dict.fromkeys((microbatch, chunk) for microbatch in passing)
    for i, (kind, microbatch, chunk, _) in enumerate(order):
        if last.get((microbatch, chunk), "not there") != BEFORE.get(kind, "unknown"):
            raise _order_error(rank, order, i, microbatches)
        last[microbatch, chunk] = kind
    pair_starts = [i for i, task in enumerate(order) if task.together]
    for i in pair_starts:
        has_partner = any(not partner.together for partner in order[i + 1 : i + 2])
        require(has_partner, f"orders[{rank}]", str(order[i]), "one more task to run together with")
    for (microbatch, chunk), last_kind in last.items():
        missing = {None: "F", "F": "B", "I": "W"}.get(last_kind)
        if missing:
            lacks = Task(missing, microbatch, chunk)
            raise ValueError(f"orders[{rank}]: expected every task, but rank {rank} lacks {lacks}")


def _order_error(rank: int, order: list[Task], i: int, microbatches: list[range]) -> ValueError:
    """The error that says why the rank's ith task cannot come at that position."""
    task = order[i]
    before = [t.kind for t in order[:i] if t[1:3] == task[1:3]]
    if task.kind not in KINDS:
        allowed = f"one of {', '.join(KINDS)}"
    elif not any(c == task.chunk and task.microbatch in m for c, m in enumerate(microbatches)):
        allowed = " or ".join(f"{m} in chunk {c}" for c, m in enumerate(microbatches))
    elif task.kind in before:
        allowed = "each task once, and this one comes twice"
    else:
        last = before[-1] if before else "nothing"
        allowed = f"after {BEFORE[task.kind] or 'nothing'} of the same, and it comes after {last}"
    return ValueError(f"orders[{rank}]={str(task)!r}: expected {allowed}")


def _deadlock(orders: Orders, rules: Rules, n_done: list[int]) -> ValueError:
    """The error for a deadlock: follow who waits for whom until a rank comes up again."""
    rank = next(r for r, n in enumerate(n_done) if n < len(orders[r]))
    waits: dict[int, str] = {}
    while rank not in waits:
        left = orders[rank][n_done[rank] :]
        task = next(t for t in left if rules[rank][t.kind, t.chunk].needs[t.microbatch] == inf)
        other = rules[rank][task.kind, task.chunk].source
        forward = task.kind == "F" or other == (rank, task.chunk)
        needed = next(
            t
            for t in orders[other[0]]
            if (t.microbatch, t.chunk, t.kind == "F") == (task.microbatch, other[1], forward)
        )
        waits[rank] = f"rank {rank} waits with {task} for rank {other[0]}'s {needed}"
        rank = other[0]
    circle = list(waits.values())[list(waits).index(rank) :]
    return ValueError(f"orders: expected no deadlock, but {', '.join(circle)}")


check_module(__name__)
