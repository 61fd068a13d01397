"""Notebook 13: what its verdicts rest on, out of the runs that the tables show."""

from efflab.distributed import gpipe
from efflab.distributed.launch import RankPool
from efflab.distributed.schedules import SCHEDULES
from efflab.lab import Evidence
from efflab_rooms.pipeline_parallel import cuts, gantt, schedules, verdicts

UNEVEN = (2 / 3, 1.0, 2 / 3, 2 / 3)
"""One of four stages takes 1.5 times the others..."""
BALANCED = (0.75,) * 4
"""...and the same work dealt out equally."""
MICROBATCHES = 8


def model_evidence(pool: RankPool, batch_size: int, seq_len: int) -> list[Evidence]:
    """Both cuts on four ranks, and how much of the time one batch keeps them busy."""
    between = cuts.pipeline_row(pool, "gpipe", batch_size, seq_len)
    inside = cuts.tensor_row(pool, "ours", batch_size, seq_len)
    busy = 100 * (1 - gantt.simulated(4, "gpipe", 1).bubble_fraction)
    fullest = 100 * between["weights a rank / whole"]
    even = 100 * inside["parameters a rank / whole"]
    layers = "cut between layers: gradients' distance from one process"
    matrices = "cut inside layers: gradients' distance from one process"
    used = "four stages, one batch at a time: devices' time in use (%)"
    most = "cut between layers: weights of the fullest of four ranks, of all (%)"
    return [
        Evidence("between", layers, between["gradients: difference"]),
        Evidence("inside", matrices, inside["gradients: difference"]),
        Evidence("busy", used, busy, "%", "simulated"),
        Evidence("fullest", most, fullest, "%"),
        Evidence("even", "cut inside layers: parameters a rank of four, of all (%)", even, "%"),
    ]


def gpipe_evidence() -> list[Evidence]:
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
    within = "published rows with several micro-batches whose gain is 3 to 5"
    fewest = "fewest stages that come to 3 with 32 micro-batches"
    ideal = "8 stages, 32 micro-batches, over one device"
    n_rows = len(gains)
    return [
        Evidence("rows-within", within, len(inside), "", "published"),
        Evidence("rows", "published rows with several micro-batches", n_rows, "", "published"),
        Evidence("lowest", "lowest published gain", min(gains), "x", "published"),
        Evidence("highest", "highest published gain", max(gains), "x", "published"),
        Evidence("fewest-stages", fewest, few, "", "computed"),
        Evidence("ideal", ideal, gpipe.speedup(8, 32), "x", "computed"),
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


SLOW = "one stage of four half as slow again, same work: time over balanced, {schedule}"


def balance_evidence(pool: RankPool) -> list[Evidence]:
    """The price of one slow stage, by schedule and on real ranks; the best split's gain."""
    equal, best = schedules.split_rows()
    split = "unequal layers: equal counts over the best split, time"
    return [
        *(
            Evidence(
                f"slow-{name}", SLOW, slower(name), "x", "simulated", values={"schedule": name}
            )
            for name in SCHEDULES
        ),
        Evidence("slow-real", "the same on real ranks, gpipe", really_slower(pool), "x"),
        Evidence("split", split, equal["time"] / best["time"], "x", "simulated"),
    ]


def bubble_evidence(pool: RankPool) -> list[Evidence]:
    """Real bubbles with few and many micro-batches, and what ranks then hold."""
    bubbles = {n: gantt.real(pool, "gpipe", n)[0].bubble_fraction for n in (4, 16)}
    apart = max((bubbles[n] - gantt.formula(4, n) for n in bubbles), key=abs)
    difference = "real bubbles less (K-1)/(M+K-1), the largest difference"
    held = {name: gantt.real(pool, name, 16)[1] for name in ("gpipe", "1f1b")}
    return [
        Evidence("bubble-16", "bubble of 4 real ranks, 16 micro-batches", bubbles[16]),
        Evidence("bubble-4", "bubble of 4 real ranks, 4 micro-batches", bubbles[4]),
        Evidence("difference", difference, abs(apart)),
        Evidence("held-gpipe", "micro-batches held by a rank, 16 in all, gpipe", held["gpipe"]),
        Evidence("held-1f1b", "micro-batches held by a rank, 16 in all, 1f1b", held["1f1b"]),
    ]
