"""Notebook 13's two cuts of a model, on real ranks: inside the layers, and between them."""

from collections.abc import Mapping
from functools import lru_cache

from efflab import cost, data
from efflab.config import ModelConfig
from efflab.distributed import stages, tensor_orders, tensor_parallel
from efflab.distributed.data_parallel import distance
from efflab.distributed.launch import RankPool

CONFIG = ModelConfig(4, 4, 128, 512, 2048, 128, causal=True)
SECONDS = 120
D_MODEL, D_FF, N_TOKENS = 64, 256, 512  # of the feed-forward that is cut in every order
Pools = Mapping[int, RankPool]


@lru_cache(maxsize=4)
def windows(batch_size: int, seq_len: int):
    """(ids, targets) of the library's text, the same every time."""
    return data.random_windows(data.stdlib_tokens("train"), batch_size, seq_len, seed=0)


# --- Inside the layers -----------------------------------------------------------------------


@lru_cache(maxsize=8)
def tensor_row(pool: RankPool, method: str, batch_size: int, seq_len: int) -> dict:
    """One run of tensor parallelism: errors against one process, what a rank holds and sends."""
    job = tensor_parallel.Job(CONFIG, *windows(batch_size, seq_len), method)
    found = pool.run(tensor_parallel.on_rank, job, timeout=SECONDS)
    sent = max(r.forward + r.backward for r in found)
    formula = 2 * tensor_parallel.wire_bytes(CONFIG, batch_size * seq_len, pool.n_procs)
    return {
        "ranks": pool.n_procs, "cut by": method,
        "logits: difference": max(r.logits_error for r in found),
        "gradients: difference": max(r.gradients_error for r in found),
        "parameters a rank / whole": max(r.params for r in found) / cost.num_params(CONFIG),
        "sent (MB)": sent / 1e6, "sent / formula": sent / formula, "kind": "measured",
    }  # fmt: skip


def tensor_rows(pools: Pools, batch_size: int, seq_len: int) -> list[dict]:
    """Ours and torch's, on each number of ranks."""
    return [tensor_row(pool, method, batch_size, seq_len) for pool in pools.values()
            for method in tensor_parallel.METHODS]  # fmt: skip


def order_rows(pool: RankPool) -> list[dict]:
    """A feed-forward whose two matrices are cut in every order: is it right, what does it send?"""
    least = tensor_orders.traffic("column-row", D_MODEL, D_FF, N_TOKENS, pool.n_procs).n_bytes
    rows = []
    for order in tensor_orders.ORDERS:
        found = pool.run(tensor_orders.on_rank, order, D_MODEL, D_FF, N_TOKENS, timeout=SECONDS)
        formula = tensor_orders.traffic(order, D_MODEL, D_FF, N_TOKENS, pool.n_procs)
        sent = max(r.sent for r in found)
        rows.append({
            "first, second": order, "all-reduces": formula.all_reduces,
            "all-gathers": formula.all_gathers,
            "output: difference": max(r.output_error for r in found),
            "sent / column-row": sent / least, "formula": formula.n_bytes / least,
            "kind": "measured",
        })  # fmt: skip
    return rows


# --- Between the layers ----------------------------------------------------------------------


@lru_cache(maxsize=8)
def pipeline_row(pool: RankPool, schedule: str, batch_size: int, seq_len: int) -> dict:
    """One batch through PyTorch's pipeline, four micro-batches, against one process."""
    job = stages.Job(CONFIG, *windows(batch_size, seq_len), n_microbatches=4, schedule=schedule)
    alone = _alone(batch_size, seq_len)
    found = pool.run(stages.on_rank, job, timeout=SECONDS)
    loss = next(r.loss for r in found if r.loss is not None)
    apart = max(
        distance(r.gradients, {name: alone.gradients[name] for name in r.gradients}) for r in found
    )
    return {
        "ranks": pool.n_procs, "schedule": schedule, "loss: difference": abs(loss - alone.loss),
        "gradients: difference": apart,
        "weights a rank / whole": max(r.weight_bytes for r in found) / alone.weight_bytes,
        "micro-batches held": max(r.trace.held for r in found), "kind": "measured",
    }  # fmt: skip


@lru_cache(maxsize=4)
def _alone(batch_size: int, seq_len: int) -> stages.Passed:
    return stages.Job(CONFIG, *windows(batch_size, seq_len), 1).alone()


def pipeline_rows(pools: Pools, batch_size: int, seq_len: int) -> list[dict]:
    """GPipe and 1F1B on each number of ranks."""
    return [pipeline_row(pool, schedule, batch_size, seq_len) for pool in pools.values()
            for schedule in ("gpipe", "1f1b")]  # fmt: skip
