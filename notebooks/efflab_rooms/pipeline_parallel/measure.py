"""Notebook 13's measurements: gradients beside one process's, and steps of stages that sleep."""

from collections.abc import Sequence
from functools import lru_cache

from efflab.config import ModelConfig
from efflab.distributed import stages
from efflab.distributed.data_parallel import distance
from efflab.distributed.launch import RankPool
from efflab.distributed.pipeline import simulate
from efflab.distributed.timeline import Timeline

CONFIG = ModelConfig(4, 4, 128, 512, 2048, 128, causal=True)
SECONDS = 120
FORWARD, BACKWARD = 0.05, 0.1  # seconds that a stage sleeps for a micro-batch
UNEVEN = (2 / 3, 1.0, 2 / 3, 2 / 3)
"""One of four stages takes 1.5 times the others..."""
BALANCED = (0.75,) * 4
"""...and the same work dealt out equally."""
MICROBATCHES = 8


def gradient_distance(ranks: Sequence[stages.PassResult], alone: stages.PassResult) -> float:
    """The largest distance of the ranks' gradients from the same ones of one process."""
    return max(
        distance(rank.gradients, {name: alone.gradients[name] for name in rank.gradients})
        for rank in ranks
    )


def bubble(n_stages: int, n_microbatches: int) -> float:
    """The bubble of equal stages: (K - 1) / (M + K - 1)."""
    return (n_stages - 1) / (n_microbatches + n_stages - 1)


@lru_cache(maxsize=16)
def run_step(
    pool: RankPool, schedule: str, n_microbatches: int, factors: tuple[float, ...] = ()
) -> tuple[Timeline, int]:
    """(a step of real ranks whose stages sleep, the most micro-batches a rank held).

    `factors`: times of each stage over the usual ones.
    """
    args = *_stage_seconds(pool.n_procs, factors), n_microbatches, schedule
    traces = pool.run(stages.sleep_on_rank, *args, timeout=SECONDS)
    chunks = 2 if schedule == "interleaved" else 1
    return stages.timeline(traces, chunks), max(trace.held for trace in traces)


def simulate_step(
    n_ranks: int, schedule: str, n_microbatches: int, factors: tuple[float, ...] = ()
) -> Timeline:
    """The same step in the simulator."""
    return simulate(*_stage_seconds(n_ranks, factors), n_microbatches, schedule)


def _stage_seconds(n_stages: int, factors: tuple[float, ...]) -> tuple[list, list]:
    """Of each stage, forward and backward."""
    factors = factors or (1.0,) * n_stages
    return [FORWARD * f for f in factors], [BACKWARD * f for f in factors]


def slowdown(schedule: str, pool: RankPool | None = None) -> float:
    """A step with one slow stage over the balanced step: simulated, or on the ranks of a pool."""
    uneven, balanced = (
        run_step(pool, schedule, MICROBATCHES, factors)[0]
        if pool
        else simulate_step(4, schedule, MICROBATCHES, factors)
        for factors in (UNEVEN, BALANCED)
    )
    return uneven.makespan / balanced.makespan
