"""Notebook 12's data parallelism: ranks against one process, the wire, what breaks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from torch import nn

from efflab import data
from efflab.config import ModelConfig
from efflab.distributed import data_parallel
from efflab.distributed.data_parallel import Job, Run, distance, on_rank, sampled_rows
from efflab.distributed.launch import RankError, RankPool, report
from efflab.distributed.ring import ring_bytes
from efflab.lab import Evidence, figures, tr
from efflab.train import classification_loss
from efflab_rooms.data_parallel import verdicts

CONFIG = ModelConfig(4, 4, 128, 512, 2048, 128, causal=True)
SECONDS = 120
Pools = Mapping[int, RankPool]


@lru_cache(maxsize=4)
def job(batch_size: int, seq_len: int, n_steps: int) -> Job:
    """A small model and `batch_size` windows of the library's text, the same every time."""
    windows = data.random_windows(data.stdlib_tokens("train"), batch_size, seq_len, seed=0)
    return Job(CONFIG, *windows, n_steps)


@lru_cache(maxsize=4)
def alone(batch_size: int, seq_len: int, n_steps: int) -> Run:
    """One process on the whole batch."""
    return job(batch_size, seq_len, n_steps).alone()


def furthest(runs: Sequence[Run], of: str, reference: Run) -> float:
    """The largest distance of the ranks' `of` (gradients or weights) from a reference's."""
    return max(distance(getattr(run, of), getattr(reference, of)) for run in runs)


def gradient_bytes(run: Run) -> int:
    """Bytes of all gradients."""
    return sum(g.nbytes for g in run.gradients.values())


def told(rank: int, world_size: int, n_steps: int) -> str:
    """What `report` is for: each rank says how far it is."""
    for step in range(n_steps):
        report(f"step {step}")
    return f"rank {rank} of {world_size}"


def fails(rank: int, world_size: int) -> None:
    """The last rank fails in the middle of a step; the others wait for it in an all-reduce."""
    if rank == world_size - 1:
        raise ZeroDivisionError("no rows left on this rank")
    torch.distributed.all_reduce(torch.ones(1))


def failure(pool: RankPool) -> str:
    """How the pool says that a rank failed: the last line of its traceback, and which rank."""
    try:
        pool.run(fails, timeout=SECONDS)
    except RankError as error:
        return f"rank {error.rank}: {str(error).strip().splitlines()[-1]}"
    raise AssertionError("the rank that fails did not")  # which a test would notice


def equality_rows(pools: Pools, batch_size: int, seq_len: int, n_steps: int) -> list[dict]:
    """By hand, by DDP and not at all: how far from one process, and the bytes on the wire."""
    sizes = batch_size, seq_len, n_steps
    return [_equality(pool, method, *sizes) for pool in pools.values()
            for method in data_parallel.METHODS]  # fmt: skip


@lru_cache(maxsize=16)
def _equality(pool: RankPool, method: str, batch_size: int, seq_len: int, n_steps: int) -> dict:
    """One row, kept: the table and the verdict show the same runs."""
    plain, one = job(batch_size, seq_len, n_steps), alone(batch_size, seq_len, n_steps)
    runs = pool.run(on_rank, replace(plain, method=method), timeout=SECONDS)
    sent, expected = max(r.sent for r in runs), ring_bytes(gradient_bytes(one), pool.n_procs)
    return {
        "ranks": pool.n_procs, "averaged": method,
        "gradients: difference": furthest(runs, "gradients", one),
        "weights: difference": furthest(runs, "weights", one),
        "between ranks": furthest(runs, "weights", runs[0]),
        "sent (MB)": sent / 1e6, "ring's formula (MB)": expected / 1e6,
        "sent / formula": sent / expected, "kind": "measured",
    }  # fmt: skip


def ways_figure(n_bytes: float = 1e9):
    """What the busiest rank sends for a sum of `n_bytes`: round the ring, or through one rank."""
    ranks = [2**i for i in range(1, 11)]
    ways = {
        tr("through one rank"): [(n - 1) * n_bytes / 1e9 for n in ranks],
        tr("round the ring"): [ring_bytes(n_bytes, n) / 1e9 for n in ranks],
    }
    title = tr("GB that the busiest rank sends to sum 1 GB (computed)")
    meta = {tr("round the ring, 1,024 ranks"): round(ways[tr("round the ring")][-1], 3)}
    return figures.loglog(ranks, ways, title, tr("ranks"), "GB", meta=meta)


# --- What breaks -----------------------------------------------------------------------------


def uneven(n_rows: int, n_ranks: int) -> tuple[int, ...]:
    """Shares as a last, shorter batch deals them: one row for the last rank, the rest as equal.

    >>> uneven(8, 2), uneven(8, 4)
    ((7, 1), (3, 2, 2, 1))
    """
    return (*data_parallel.shares(n_rows - 1, n_ranks - 1), 1)


def batch_norm_errors(pool: RankPool) -> dict[bool, float]:
    """How far a classifier's gradients are from one process's: its norm local, and shared."""
    images, labels = data.digits()[:2]
    inputs, labels = images.flatten(1)[:64], labels[:64]
    model = data_parallel.batch_norm_model(inputs.shape[1], 10, nn.BatchNorm1d)
    whole = data_parallel.train(model, inputs, labels, 1, loss_of=classification_loss)
    on_rank = data_parallel.batch_norm_on_rank
    return {
        shared: furthest(pool.run(on_rank, inputs, labels, shared, timeout=SECONDS),
                         "gradients", whole)
        for shared in (False, True)
    }  # fmt: skip


@lru_cache(maxsize=4)
def broken(pool: RankPool, batch_size: int, seq_len: int) -> dict[str, float]:
    """Largest difference of the gradients from one process's, by what went wrong."""
    n = pool.n_procs
    plain, one = job(batch_size, seq_len, 2), alone(batch_size, seq_len, 2)
    rows, seeds = uneven(batch_size, n), tuple(range(n))

    def error(**changes) -> float:
        runs = pool.run(on_rank, replace(plain, **changes), timeout=SECONDS)
        return furthest(runs, "gradients", one)

    norm = batch_norm_errors(pool)
    return {
        "nothing": error(),
        "uneven shares": error(rows=rows, weighted=False),
        "uneven shares, weighted": error(rows=rows),
        "another seed each, averaged by hand": error(seeds=seeds, method="by hand"),
        "another seed each, DDP": error(seeds=seeds),
        "batch norm over a rank's own rows": norm[False],
        "batch norm over all ranks' rows": norm[True],
        "a forgotten sampler": error_without_sampler(pool, batch_size, seq_len),
    }


def error_without_sampler(pool: RankPool, batch_size: int, seq_len: int) -> float:
    """Every rank reads the first rank's rows: the average is that of these rows alone."""
    plain, one = job(batch_size, seq_len, 2), alone(batch_size, seq_len, 2)
    own = data_parallel.shares(batch_size, pool.n_procs)[0]
    ids, targets = (t[:own].repeat(pool.n_procs, 1) for t in (plain.ids, plain.targets))
    runs = pool.run(on_rank, replace(plain, ids=ids, targets=targets), timeout=SECONDS)
    return furthest(runs, "gradients", one)


REPAIR = {
    "uneven shares": "weight each loss by its rows",
    "another seed each, averaged by hand": "DDP sends rank 0's weights first",
    "batch norm over a rank's own rows": "sum over ranks (SyncBatchNorm)",
    "a forgotten sampler": "DistributedSampler, and set_epoch",
}


def broken_rows(pool: RankPool, batch_size: int, seq_len: int) -> list[dict]:
    """What went wrong, how far the gradients then are from one process's, and the repair."""
    return [{"what differs": what, "gradients: difference": error,
             "wrong": error > verdicts.SAME, "repair": REPAIR.get(what), "kind": "measured"}
            for what, error in broken(pool, batch_size, seq_len).items()]  # fmt: skip


def sampler_rows(n_rows: int = 1024, n_ranks: int = 4, batch: int = 8) -> list[dict]:
    """How many different rows a step and an epoch see, with a sampler and without."""
    rows = []
    for sampler in (True, False):
        read = sampled_rows(n_rows, n_ranks, sampler)
        step = {row for rank in read for row in rank[:batch]}
        rows.append({
            "DistributedSampler": sampler, "ranks": n_ranks, "rows a rank and step": batch,
            "different rows in a step": len(step),
            "steps in an epoch": len(read[0]) // batch, "kind": "measured",
        })  # fmt: skip
    return rows


# --- What the verdict rests on ---------------------------------------------------------------


def equal_evidence(pools: Pools, batch_size: int, seq_len: int, n_steps: int) -> list[Evidence]:
    """DDP's distance from one process, its control, the wire, and what breaks it."""
    rows = equality_rows(pools, batch_size, seq_len, n_steps)
    ddp = [r for r in rows if r["averaged"] == "ddp"]
    apart = [r for r in rows if r["averaged"] == "none"]
    wrong = broken(pools[max(pools)], batch_size, seq_len)
    return [
        Evidence(
            "gradients",
            "gradients: DDP against one process, largest difference",
            max(r["gradients: difference"] for r in ddp),
        ),
        Evidence(
            "weights",
            "weights after training: DDP against one process, largest difference",
            max(r["weights: difference"] for r in ddp),
        ),
        Evidence(
            "control",
            "gradients: not averaged, against one process (control)",
            min(r["gradients: difference"] for r in apart),
        ),
        Evidence(
            "sent",
            "bytes that a rank sends over the ring's formula",
            max(r["sent / formula"] for r in ddp),
            "x",
        ),
        Evidence("uneven", "gradients: uneven shares, not weighted", wrong["uneven shares"]),
        Evidence(
            "batch-norm",
            "gradients: batch norm over a rank's own rows",
            wrong["batch norm over a rank's own rows"],
        ),
    ]
