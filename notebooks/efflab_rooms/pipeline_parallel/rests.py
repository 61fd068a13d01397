"""Notebook 13: what its verdicts rest on, out of the runs that the tables show."""

from efflab.distributed import gpipe
from efflab.distributed.launch import RankPool
from efflab.distributed.schedules import SCHEDULES
from efflab.lab import Figure
from efflab_rooms.pipeline_parallel import cuts, gantt, schedules, verdicts

UNEVEN = (2 / 3, 1.0, 2 / 3, 2 / 3)
"""One of four stages takes 1.5 times the others..."""
BALANCED = (0.75,) * 4
"""...and the same work dealt out equally."""
MICROBATCHES = 8


def model_figures(pool: RankPool, batch_size: int, seq_len: int) -> list[Figure]:
    """Both cuts on four ranks, and how much of the time one batch keeps them busy."""
    between = cuts.pipeline_row(pool, "gpipe", batch_size, seq_len)
    inside = cuts.tensor_row(pool, "ours", batch_size, seq_len)
    busy = 100 * (1 - gantt.simulated(4, "gpipe", 1).bubble_fraction)
    fullest = 100 * between["weights a rank / whole"]
    even = 100 * inside["parameters a rank / whole"]
    return [
        Figure(verdicts.BETWEEN, between["gradients: difference"]),
        Figure(verdicts.INSIDE, inside["gradients: difference"]),
        Figure(verdicts.BUSY, busy, "%", "simulated"),
        Figure(verdicts.FULLEST, fullest, "%"),
        Figure(verdicts.EVEN, even, "%"),
    ]


def gpipe_figures() -> list[Figure]:
    """Published rows with several micro-batches, and what equal stages could do."""
    rows, baselines = gpipe.published_rows(), set()
    gains = []
    for row in rows:  # a model's first row is what its others are measured against
        model = row["table"], row["model"]
        if model in baselines and row["n_microbatches"] > 1:
            gains.append(row["throughput"])
        baselines.add(model)
    inside = [gain for gain in gains if verdicts.LEAST <= gain <= verdicts.MOST]
    few = next(k for k in range(2, 33) if gpipe.speedup(k, 32) >= verdicts.LEAST)
    return [
        Figure(verdicts.IN_RANGE, len(inside), "", "published"),
        Figure(verdicts.ROWS, len(gains), "", "published"),
        Figure(verdicts.LOWEST, min(gains), "x", "published"),
        Figure(verdicts.HIGHEST, max(gains), "x", "published"),
        Figure(verdicts.FEWEST, few, "", "computed"),
        Figure(verdicts.IDEAL, gpipe.speedup(8, 32), "x", "computed"),
    ]


def slower(schedule: str) -> float:
    """A step with one slow stage over the balanced step of the same work, simulated."""
    uneven, even = (gantt.simulated(4, schedule, MICROBATCHES, factors).makespan
                    for factors in (UNEVEN, BALANCED))  # fmt: skip
    return uneven / even


def really_slower(pool: RankPool) -> float:
    """The same ratio on real ranks."""
    uneven, even = (gantt.real(pool, "gpipe", MICROBATCHES, factors)[0].makespan
                    for factors in (UNEVEN, BALANCED))  # fmt: skip
    return uneven / even


def balance_figures(pool: RankPool) -> list[Figure]:
    """The price of one slow stage, by schedule and on real ranks; the best split's gain."""
    equal, best = schedules.split_rows()
    return [
        *(Figure(verdicts.SLOWER[name], slower(name), "x", "simulated") for name in SCHEDULES),
        Figure(verdicts.REAL, really_slower(pool), "x"),
        Figure(verdicts.SPLIT, equal["time"] / best["time"], "x", "simulated"),
    ]


def bubble_figures(pool: RankPool) -> list[Figure]:
    """Real bubbles with few and many micro-batches, and what ranks then hold."""
    bubbles = {n: gantt.real(pool, "gpipe", n)[0].bubble_fraction for n in (4, 16)}
    apart = max((bubbles[n] - gantt.formula(4, n) for n in bubbles), key=abs)
    held = {name: gantt.real(pool, name, 16)[1] for name in ("gpipe", "1f1b")}
    return [
        Figure(verdicts.MANY, bubbles[16]),
        Figure(verdicts.FEW, bubbles[4]),
        Figure(verdicts.APART, abs(apart)),
        Figure(verdicts.HELD_GPIPE, held["gpipe"]),
        Figure(verdicts.HELD_1F1B, held["1f1b"]),
    ]
