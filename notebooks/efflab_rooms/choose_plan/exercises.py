"""Notebook 15's exercises: what is asked, and how an answer is judged."""

from collections.abc import Mapping

from efflab.advice.ranking import advise
from efflab.cost import roofline_seconds
from efflab.devices import DEVICES
from efflab.lab import Exercise, number, tr
from efflab_rooms.choose_plan import measure

# --- 15-1: a predicted gain ------------------------------------------------------------------

CASES = (
    ("A100 80GB SXM", (1e12, 4e8, "tf32"), (1e12, 2e8, "fp16")),  # arithmetic binds
    ("A100 80GB SXM", (1e9, 4e8, "tf32"), (1e9, 2e8, "int8")),  # memory binds
    ("V100 SXM2", (1e10, 4e8, "fp32"), (1e10, 2e8, "fp16")),  # first one, then the other
)


def _check_gain(answer):
    for device, before, after in CASES:
        chip = DEVICES[device]
        seconds = [roofline_seconds(f, b, chip, t) for f, b, t in (before, after)]
        work = [(f, b, chip.peak(t)) for f, b, t in (before, after)]
        what = tr("{device}: how many times faster", device=device)
        yield what, seconds[0] / seconds[1], answer(*work, chip.memory_bandwidth)


# --- 15-2: a smaller file --------------------------------------------------------------------

GOAL_BYTES, GOAL_BITS = 1_650_000, 1.09


def _check_moves(answer):
    is_moves = isinstance(answer, Mapping)
    yield tr("a dict of moves"), True, is_moves
    score = measure.play(answer)
    sizes = dict(mb=number(score["n_bytes"] / 1e6, 4), limit=number(GOAL_BYTES / 1e6, 3))
    fits = score["n_bytes"] <= GOAL_BYTES
    yield tr("{mb} MB; at most {limit} allowed", **sizes), True, fits
    bits = dict(bits=number(score["bits"], 4), goal=GOAL_BITS)
    what = tr("{bits} bits per byte; at most {goal} allowed", **bits)
    yield what, True, score["bits"] <= GOAL_BITS


# --- 15-3: beat the verdict ------------------------------------------------------------------


def _check_case(answer):
    yield tr("the budget is latency"), "latency", answer.get("budget")
    first = advise(**answer)[0]
    what = tr("first must be a light structure; here: {first}", first=tr(first["technique"]))
    yield what, True, first["structure"]


EXERCISES = {
    "15-1": Exercise(_check_gain, tolerance=1e-6),
    "15-2": Exercise(_check_moves),
    "15-3": Exercise(_check_case),
}
