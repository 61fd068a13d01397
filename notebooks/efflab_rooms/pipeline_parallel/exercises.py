"""Notebook 13's exercises: what is asked, and how an answer is judged."""

from collections.abc import Sequence

from efflab.distributed.pipeline import run, simulate
from efflab.distributed.schedules import Task
from efflab.distributed.timeline import Timeline
from efflab.lab import Exercise, number, tr
from efflab_rooms.pipeline_parallel import gantt, rests

STAGES, MICROBATCHES = 4, 8
EQUAL = (1.0,) * STAGES
"""Times of a forward pass; a backward pass takes twice as long."""


def _check_bubble(answer):
    for k, m in ((2, 1), (4, 8), (8, 32), (64, 1024)):
        yield f"bubble({k}, {m})", gantt.formula(k, m), answer(k, m)


def played(schedule: str, forward: Sequence[float]) -> Timeline:
    """A known schedule."""
    return simulate(forward, [2 * f for f in forward], MICROBATCHES, schedule)


def score(answer, forward: Sequence[float] = EQUAL) -> Timeline:
    """The learner's orders played by the simulator: lists of ("F", 0), ("B", 3) for each rank.

    What is missing, doubled or never able to start is the simulator's `ValueError`.
    """
    orders = [[Task(kind, number) for kind, number in order] for order in answer]
    return run(orders, forward, [2 * f for f in forward], MICROBATCHES)


def score_row(name: str, found: Timeline) -> dict:
    """Time, bubble and what a rank holds at most."""
    return {"schedule": name, "time": found.makespan, "bubble": found.bubble_fraction,
            "micro-batches held": max(found.peak_activations), "kind": "simulated"}  # fmt: skip


def score_rows(answer=None) -> list[dict]:
    """GPipe and 1F1B, and a schedule of one's own below them."""
    rows = [score_row(name, played(name, EQUAL)) for name in ("gpipe", "1f1b")]
    return rows if answer in (None, ...) else [*rows, score_row("yours", score(answer))]


def _check_own(answer):
    found, best = score(answer), played("1f1b", EQUAL)
    text = tr("time {time}, 1F1B's is {best}", time=number(found.makespan),
              best=number(best.makespan))  # fmt: skip
    yield text, True, found.makespan <= best.makespan
    held = max(found.peak_activations)
    text = tr("a rank holds {held} micro-batches, at most {most} are allowed", held=number(held),
              most=STAGES)  # fmt: skip
    yield text, True, held <= STAGES


def _check_uneven(answer):
    found, best = score(answer, rests.UNEVEN), played("1f1b", rests.BALANCED)
    text = tr("time {time}, the balanced 1F1B's is {best}", time=number(found.makespan, 4),
              best=number(best.makespan, 4))  # fmt: skip
    yield text, True, found.makespan <= best.makespan
    held = max(found.peak_activations)
    text = tr("a rank holds {held} micro-batches, at most {most} are allowed", held=number(held),
              most=MICROBATCHES)  # fmt: skip
    yield text, True, held <= MICROBATCHES


EXERCISES = {
    "13-1": Exercise(
        _check_bubble,
        hint="A stage computes for M micro-batches and waits for K - 1: what part is that?",
    ),
    "13-2": Exercise(
        _check_own,
        hint="A rank runs ahead by as many forwards as there are ranks after it, then takes a "
        "forward and a backward by turns, and ends with the backwards that are left.",
    ),
    "13-3": Exercise(
        _check_uneven,
        hint="Split each B into I and W. Let rank r run ahead by 2 (4 - r) - 1 forwards, then take "
        "I and F by turns, and keep r of the W back for later.",
    ),
}
