"""Systolic arrays: how many cycles a grid of multipliers takes for a matrix product (Kung 1982).

A product (m,k) @ (k,n) is cut into folds, each as large as the grid of rows x cols. The dataflow
says what stays in a cell while a fold runs:

- "os", output-stationary: one output per cell; A comes from the left, B from above;
- "ws", weight-stationary: one weight of B per cell; A from the left, partial sums run down (TPU);
- "is", input-stationary: one input of A per cell; B from the left, partial sums run down.

Cycles are those of SCALE-Sim (Samajdar et al. 2020) with memory that never stalls.
"""

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from efflab.arguments import check_module
from efflab.config import ModelConfig
from efflab.errors import require_int, require_one_of
from efflab.rules import Count, Size

DATAFLOWS = ("os", "ws", "is")


def map_sizes(m: Size, n: Size, k: Size, dataflow: str = "os") -> tuple[int, int, int]:
    """(down, across, stream): which size lies over the rows, which over the columns, which flows.

    >>> map_sizes(128, 64, 256, "ws")
    (256, 64, 128)
    """
    require_one_of("dataflow", dataflow, DATAFLOWS)
    return {"os": (m, n, k), "ws": (k, n, m), "is": (k, m, n)}[dataflow]


def folds(m: Size, n: Size, k: Size, rows: Size, cols: Size, dataflow: str = "os") -> int:
    """Number of folds, partly filled ones at the edges included."""
    down, across, _ = map_sizes(m, n, k, dataflow)
    return -(-down // rows) * -(-across // cols)


def fold_cycles(stream: Count, rows: Size, cols: Size, dataflow: str = "os") -> int:
    """Cycles of one fold: the stream, the diagonal, and what stays in place is loaded before.

    Values reach the far corner rows + cols - 2 cycles after the first. Stationary operands take
    `rows` cycles to load; SCALE-Sim lets outputs leave while the next fold already runs.
    """
    loading = 0 if dataflow == "os" else rows
    return loading + (rows + cols - 2) + stream


def gemm_cycles(m: Size, n: Size, k: Size, rows: Size, cols: Size, dataflow: str = "os") -> int:
    """Cycles of (m,k) @ (k,n) on a grid of rows x cols: SCALE-Sim's compute cycles.

    One less than folds x cycles of a fold, as SCALE-Sim gives the last cycle's number, from 0.

    >>> gemm_cycles(128, 64, 256, 32, 32), gemm_cycles(128, 64, 256, 32, 32, "ws")
    (2543, 3551)
    """
    n_folds = folds(m, n, k, rows, cols, dataflow)
    stream = map_sizes(m, n, k, dataflow)[2]
    return n_folds * fold_cycles(stream, rows, cols, dataflow) - 1


def overlapped_cycles(
    m: Size, n: Size, k: Size, rows: Size, cols: Size, dataflow: str = "ws", count: Size = 1
) -> int:
    """`gemm_cycles` of `count` products in a row, if each cell has a second register.

    What stays in place is shifted into it (outputs: out of it) while the fold before computes, so
    that a fold starts max(stream, rows) cycles after the one before. The first TPU holds a tile of
    weights "plus one for double-buffering" (Jouppi et al. 2017, section 2).

    >>> gemm_cycles(128, 128, 64, 256, 256, "ws"), overlapped_cycles(128, 128, 64, 256, 256)
    (893, 893)
    >>> overlapped_cycles(128, 128, 64, 256, 256, count=12) - 893 == 11 * 256
    True
    """
    n_folds = count * folds(m, n, k, rows, cols, dataflow)
    stream = map_sizes(m, n, k, dataflow)[2]
    first = fold_cycles(stream, rows, cols, dataflow)
    return first + (n_folds - 1) * max(stream, rows) - 1


# --- A Transformer's products --------------------------------------------------------------------


@dataclass(frozen=True)
class Product:
    """A matrix product (m,k) @ (k,n), `count` times."""

    name: str
    m: Size
    n: Size
    k: Size
    count: Size = 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all `count` products."""
        return self.count * self.m * self.n * self.k

    def cycles(self, rows: Size, cols: Size, dataflow: str = "os", overlap: bool = False) -> int:
        """Cycles of all `count` products in a row; `overlap`: as `overlapped_cycles` counts."""
        size = self.m, self.n, self.k, rows, cols, dataflow
        if overlap:
            return overlapped_cycles(*size, self.count)
        return self.count * (gemm_cycles(*size) + 1) - 1


def block_products(config: ModelConfig, seq_len: Size, batch_size: Size = 1) -> list[Product]:
    """One Transformer block's products: scores and context once per head and sequence.

    The others take all sequences as one tall matrix. Their multiply-accumulates are half of
    `cost.forward_flops` without the logits. A model with experts or latent attention is a
    `ValueError`.
    """
    for name, value in (("experts", config.experts), ("latent", config.attention.latent)):
        require_one_of(name, value, (None,))
    C, F, D, T = config.d_model, config.d_ff, config.head_dim, seq_len
    tokens, heads = batch_size * T, batch_size * config.n_head
    width, narrow = config.n_head * D, config.n_kv_head * D
    into = [Product("queries, keys, values", tokens, width, C, 3)]
    if narrow < width:
        into = [Product("queries", tokens, width, C), Product("keys, values", tokens, narrow, C, 2)]
    return [
        *into,
        Product("scores", T, T, D, heads),
        Product("context", T, D, T, heads),
        Product("output", tokens, C, width),
        Product("FFN up", tokens, F, C, 2 if config.feed_forward.gated else 1),
        Product("FFN down", tokens, C, F),
    ]


# --- Which cell multiplies what, and when --------------------------------------------------------


class Step(NamedTuple):
    """At `cycle`, cell (row, col) multiplies A[i, l] by B[l, j]."""

    cycle: int
    row: int
    col: int
    i: int
    j: int
    l: int  # noqa: E741 (the summed index, as in papers)


def schedule(m: Size, n: Size, k: Size, rows: Size, cols: Size, dataflow: str = "os") -> list[Step]:
    """Every multiplication of one fold, in order of cycles, for the animation.

    It must fit into one fold: `down` at most rows, `across` at most cols (see `map_sizes`).
    """
    down, across, stream = map_sizes(m, n, k, dataflow)
    require_int(f"rows for {down}", rows, down)
    require_int(f"cols for {across}", cols, across)
    start = fold_cycles(stream, rows, cols, dataflow) - stream - (rows + cols - 2)
    # which of (row, column, time) are i, j and l
    i, j, l = {"os": (0, 1, 2), "ws": (2, 1, 0), "is": (1, 2, 0)}[dataflow]  # noqa: E741
    every = product(range(down), range(across), range(stream))
    return sorted(Step(start + sum(at), *at[:2], at[i], at[j], at[l]) for at in every)


check_module(__name__)
