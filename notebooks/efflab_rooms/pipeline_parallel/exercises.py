"""Notebook 13's exercises: what is asked, and how an answer is judged."""

from collections.abc import Sequence

from efflab.distributed.pipeline import run, simulate
from efflab.distributed.schedules import Task
from efflab.distributed.timeline import Timeline
from efflab.lab import Exercise, number, tr
from efflab_rooms.pipeline_parallel import measure

STAGES, MICROBATCHES = 4, measure.MICROBATCHES
EQUAL = (1.0,) * STAGES
"""Times of a forward pass; a backward pass takes twice as long."""
UNEVEN = (2 / 3, 1.0, 2 / 3, 2 / 3)
"""One stage takes 1.5 times the others..."""
BALANCED = (0.75,) * STAGES
"""...and the same work dealt out equally."""


def _check_bubble(answer):
    for k, m in ((2, 1), (4, 8), (8, 32), (64, 1024)):
        yield f"bubble({k}, {m})", measure.bubble(k, m), answer(k, m)


def simulate_known(schedule: str, forward: Sequence[float] = EQUAL) -> Timeline:
    """A known schedule in the simulator."""
    return simulate(forward, [2 * f for f in forward], MICROBATCHES, schedule)


def simulate_orders(orders, forward: Sequence[float] = EQUAL) -> Timeline:
    """The learner's orders in the simulator: lists of ("F", 0), ("B", 3) for each rank.

    What is missing, doubled or never able to start is the simulator's `ValueError`.
    """
    tasks = [[Task(kind, number) for kind, number in order] for order in orders]
    return run(tasks, forward, [2 * f for f in forward], MICROBATCHES)


def score_rows(answer=None) -> list[dict]:
    """GPipe and 1F1B, and below them the learner's own schedule if there is one."""
    timelines = {name: simulate_known(name) for name in ("gpipe", "1f1b")}
    if answer not in (None, ...):
        timelines["yours"] = simulate_orders(answer)
    return [
        {
            "schedule": name,
            "time (forward passes)": timeline.makespan,
            "bubble": timeline.bubble_fraction,
            "micro-batches held": max(timeline.peak_activations),
        }
        for name, timeline in timelines.items()
    ]


def _check_own(answer):
    own, best = simulate_orders(answer), simulate_known("1f1b").makespan
    text = tr("time {time} (1F1B: {best})", time=number(own.makespan), best=number(best))
    yield text, True, own.makespan <= best
    yield _check_held(own, STAGES)


def _check_uneven(answer):
    own = simulate_orders(answer, UNEVEN)
    best = simulate_known("1f1b", BALANCED).makespan
    words = dict(time=number(own.makespan, 4), best=number(best, 4))
    text = tr("time {time} (1F1B on balanced stages: {best})", **words)
    yield text, True, own.makespan <= best
    yield _check_held(own, MICROBATCHES)


def _check_held(timeline: Timeline, most: int) -> tuple[str, bool, bool]:
    held = max(timeline.peak_activations)
    words = dict(held=number(held), most=most)
    text = tr("a rank holds {held} micro-batches (at most {most} allowed)", **words)
    return text, True, held <= most


EXERCISES = {
    "13-1": Exercise(_check_bubble),
    "13-2": Exercise(_check_own),
    "13-3": Exercise(_check_uneven),
}
