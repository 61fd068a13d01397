"""Notebook 12's measurements on real ranks: against one process, and what a rank holds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from efflab import data
from efflab.config import ModelConfig
from efflab.distributed import data_parallel, zero
from efflab.distributed.data_parallel import Job, Run, distance, on_rank, shares
from efflab.distributed.launch import RankPool, report
from efflab.distributed.ring_cost import ring_bytes
from efflab.distributed.zero import RankState
from efflab.train import classification_loss

CONFIG = ModelConfig(4, 4, 128, 512, 2048, 128, causal=True)
SECONDS = 120


def job(batch_size: int, seq_len: int, n_steps: int) -> Job:
    """A small model and `batch_size` windows of the library's text, the same every time."""
    windows = data.random_windows(data.stdlib_tokens("train"), batch_size, seq_len, seed=0)
    return Job(CONFIG, *windows, n_steps)


def report_steps(rank: int, world_size: int, n_steps: int) -> str:
    """What `report` is for: each rank says how far it is."""
    for step in range(n_steps):
        report(f"step {step}")
    return f"rank {rank} of {world_size}"


def fail_on_last_rank(rank: int, world_size: int) -> None:
    """The last rank fails in the middle of a step; the others wait for it in an all-reduce."""
    if rank == world_size - 1:
        raise ZeroDivisionError("no rows left on this rank")
    torch.distributed.all_reduce(torch.ones(1))


# --- Ranks against one process -------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Ranks' training beside one process's: largest differences, and the bytes a rank sends."""

    gradients: float
    weights: float
    between_ranks: float
    sent: float
    formula: float


def compare(pool: RankPool, job: Job, one: Run) -> Comparison:
    """Train on the ranks and compare with `one`, which one process trained."""
    runs = pool.run(on_rank, job, timeout=SECONDS)
    n_bytes = sum(gradient.nbytes for gradient in one.gradients.values())
    return Comparison(
        gradients=largest_distance(runs, "gradients", one),
        weights=largest_distance(runs, "weights", one),
        between_ranks=largest_distance(runs, "weights", runs[0]),
        sent=max(run.sent for run in runs),
        formula=ring_bytes(n_bytes, pool.n_procs),
    )


def largest_distance(runs: Sequence[Run], what: str, reference: Run) -> float:
    """The largest distance of the ranks' "gradients" or "weights" from a reference's."""
    return max(distance(getattr(run, what), getattr(reference, what)) for run in runs)


def gradient_errors(pool: RankPool, job: Job, one: Run) -> dict[str, float]:
    """Largest difference of the ranks' gradients from one process's, by what went wrong."""
    n_rows, n_ranks = len(job.ids), pool.n_procs
    uneven = (*shares(n_rows - 1, n_ranks - 1), 1)  # as a last, shorter batch deals rows out
    seeds = tuple(range(n_ranks))
    first = slice(shares(n_rows, n_ranks)[0])  # the first rank's rows, which all ranks read
    ids, targets = (rows[first].repeat(n_ranks, 1) for rows in (job.ids, job.targets))

    def error(**changes) -> float:
        runs = pool.run(on_rank, replace(job, n_steps=1, **changes), timeout=SECONDS)
        return largest_distance(runs, "gradients", one)

    return {
        "nothing": error(),
        "uneven shares": error(rows=uneven, weighted=False),
        "uneven shares, weighted": error(rows=uneven),
        "different seeds, averaged by hand": error(seeds=seeds, method="by hand"),
        "different seeds, DDP": error(seeds=seeds),
        "batch norm over a rank's own rows": batch_norm_error(pool, shared=False),
        "batch norm over all ranks' rows": batch_norm_error(pool, shared=True),
        "a forgotten sampler": error(ids=ids, targets=targets),
    }


def batch_norm_error(pool: RankPool, shared: bool) -> float:
    """How far a classifier's gradients are from one process's, its norm local or shared."""
    images, labels = data.digits()[:2]
    inputs, labels = images.flatten(1)[:64], labels[:64]
    model = data_parallel.batch_norm_model(inputs.shape[1], 10, nn.BatchNorm1d)
    one = data_parallel.train(model, inputs, labels, 1, loss_of=classification_loss)
    on_rank = data_parallel.batch_norm_on_rank
    runs = pool.run(on_rank, inputs, labels, shared, timeout=SECONDS)
    return largest_distance(runs, "gradients", one)


# --- ZeRO ----------------------------------------------------------------------------------------


BATCHES, TOKENS = (4, 16, 64), 64
"""Sequences of the batches whose whole steps are compared, and tokens of each."""


def held_by_batch(pool: RankPool) -> dict[int, dict[int, list[RankState]]]:
    """{batch: {stage: what each rank holds}}, of DDP (0) and ZeRO-3."""
    held: dict[int, dict[int, list[RankState]]] = {}
    for batch in BATCHES:
        texts = job(batch, TOKENS, 1)
        jobs = {stage: zero.Job(CONFIG, texts.ids, texts.targets, stage, 1) for stage in (0, 3)}
        held[batch] = {s: pool.run(zero.on_rank, j, timeout=SECONDS) for s, j in jobs.items()}
    return held


def state_bytes(held: RankState) -> int:
    """A rank's weights, gradients and optimizer state during a step, gathered weights included."""
    return held.state + held.gathered


def step_bytes(held: RankState) -> int:
    """The most that a step needs; what is gathered is part of `step` already."""
    return held.state + held.step
