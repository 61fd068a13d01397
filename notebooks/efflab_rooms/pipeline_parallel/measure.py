"""Notebook 13's measurements: gradients beside one process's, and steps of stages that sleep or
compute."""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab import bench
from efflab.base.busy import Others
from efflab.bench import Timing
from efflab.config import ModelConfig
from efflab.distributed import stages
from efflab.distributed.data_parallel import distance
from efflab.distributed.launch import RankPool
from efflab.distributed.pipeline import simulate
from efflab.distributed.schedules import SCHEDULES
from efflab.distributed.timeline import Timeline

CONFIG = ModelConfig(4, 4, 128, 512, 2048, 128, causal=True)
SECONDS = 120
N_STAGES, MICROBATCHES, SLOW = 4, 8, 1.5


def gradient_distance(ranks: Sequence[stages.PassResult], alone: stages.PassResult) -> float:
    """The largest distance of the ranks' gradients from the same ones of one process."""
    return max(
        distance(rank.gradients, {name: alone.gradients[name] for name in rank.gradients})
        for rank in ranks
    )


def bubble(n_stages: int, n_microbatches: int) -> float:
    """The bubble of equal stages: (K - 1) / (M + K - 1)."""
    return (n_stages - 1) / (n_microbatches + n_stages - 1)


# --- Four ranks that sleep -----------------------------------------------------------------------

FORWARD, BACKWARD = 0.05, 0.1  # seconds that a stage sleeps for a micro-batch


@lru_cache(maxsize=16)
def run_step(pool: RankPool, schedule: str, n_microbatches: int) -> tuple[Timeline, int]:
    """(a step of real ranks whose stages sleep, the most micro-batches a rank held)."""
    times = [FORWARD] * pool.n_procs, [BACKWARD] * pool.n_procs
    traces = pool.run(stages.sleep_on_rank, *times, n_microbatches, schedule, timeout=SECONDS)
    chunks = 2 if schedule == "interleaved" else 1
    return stages.timeline(traces, chunks), max(trace.held for trace in traces)


def simulate_step(
    n_ranks: int, schedule: str, n_microbatches: int, factors: Sequence[float] = ()
) -> Timeline:
    """The same step in the simulator; `factors`: times of each stage over the usual ones."""
    factors = factors or (1.0,) * n_ranks
    times = [FORWARD * f for f in factors], [BACKWARD * f for f in factors]
    return simulate(*times, n_microbatches, schedule)


def slowdown(schedule: str, place: int, times: float = SLOW) -> float:
    """A simulated step over the balanced one, if stage `place` of four takes `times` the others.

    All stages together do the same work.
    """
    unit = N_STAGES / (N_STAGES - 1 + times)
    factors = [unit * times if stage == place else unit for stage in range(N_STAGES)]
    slow, balanced = (
        simulate_step(N_STAGES, schedule, MICROBATCHES, each).makespan for each in (factors, ())
    )
    return slow / balanced


def simulate_all() -> dict[tuple[str, int, int], Timeline]:
    """{(schedule, stages, micro-batches): a balanced step}, one and four micro-batches a stage."""
    return {
        (schedule, k, n): simulate([1.0] * k, [2.0] * k, n, schedule)
        for schedule in SCHEDULES
        for k in (4, 8)
        for n in (k, 4 * k)
    }


def slowdowns() -> dict[tuple[str, int], float]:
    """{(schedule, place): step over the balanced one}, one of four stages slow, in every place."""
    places = range(N_STAGES)
    return {(schedule, at): slowdown(schedule, at) for schedule in SCHEDULES for at in places}


# --- Two ranks that compute ----------------------------------------------------------------------

ROWS, WIDTH = 512, 384
EQUAL, FIRST_SLOW, SECOND_SLOW = (20, 20), (24, 16), (16, 24)
"""Products of each stage: the same work, dealt out equally or with one stage 1.5 times the other's.
"""
STEPS = {
    "few": (EQUAL, 2),
    "many": (EQUAL, 8),
    "first-slow": (FIRST_SLOW, 8),
    "second-slow": (SECOND_SLOW, 8),
    "again": (EQUAL, 8),
}
"""Products by stage, and micro-batches of the same batch: one a stage, and four."""
REPEATS = 7


class Products(nn.Module):
    """A stage of matrix products: (B,WIDTH) times one weight after the other."""

    def __init__(self, n_products: int):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        weights = (torch.randn(WIDTH, WIDTH, generator=g) for _ in range(n_products))
        self.weights = nn.ParameterList(weight / WIDTH**0.5 for weight in weights)

    def forward(self, x: Tensor) -> Tensor:
        for weight in self.weights:
            x = x @ weight
        return x


def compute_on_rank(
    rank: int, world_size: int, n_products: Sequence[int], n_microbatches: int
) -> stages.Trace:
    """A rank's trace of one of GPipe's steps, in which its stage computes."""
    rows = torch.ones(ROWS, WIDTH)
    chunks = [Products(n_products[rank])]
    step = partial(stages.step, chunks, "gpipe", n_microbatches, F.mse_loss, rows, rows)
    return step(lambda: None)[1]


def compute_steps(
    pool: RankPool, repeats: int = REPEATS
) -> tuple[dict[str, list[Timeline]], float]:
    """(steps of two ranks that compute, interleaved, by name in `STEPS`; others' cores meanwhile).

    Two ranks need two cores; with more ranks than cores they would wait for the cores instead, as
    they do where other processes use them.
    """
    steps: dict[str, list[Timeline]] = {name: [] for name in STEPS}

    def run(name: str) -> None:
        traces = pool.run(compute_on_rank, *STEPS[name], timeout=SECONDS)
        steps[name].append(stages.timeline(traces))

    others = Others()
    with others.watched():
        # no warm-up round: each call has a step of its own before the one that it traces
        bench.time_interleaved({name: partial(run, name) for name in STEPS}, 0, repeats)
    return steps, others.cores


def compare_steps(steps: Mapping[str, Sequence[Timeline]]) -> bench.Comparison:
    """Times of the computing steps over those of equal stages with many micro-batches."""
    timings = {name: Timing(tuple(t.makespan for t in each)) for name, each in steps.items()}
    again = timings.pop("again").ratio_interval(timings["many"])
    ratios = {name: timing.ratio_interval(timings["many"]) for name, timing in timings.items()}
    return bench.Comparison(timings, ratios, again)


def bubbles(steps: Mapping[str, Sequence[Timeline]]) -> dict[str, list[float]]:
    """The bubble of each repeat of the computing steps."""
    return {name: [t.bubble_fraction for t in each] for name, each in steps.items()}


def simulate_products(name: str) -> float:
    """The length of the same step in the simulator, where a product takes 1 and nothing else."""
    products, n_microbatches = STEPS[name]
    return simulate(products, [2 * n for n in products], n_microbatches).makespan
