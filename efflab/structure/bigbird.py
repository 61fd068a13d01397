"""Block-sparse attention: global, window and random blocks (Zaheer et al. 2020, "BigBird").

Section 2 and appendix D: the sequence is cut into blocks, and a layout says which blocks of keys
each block of queries sees. Only those are computed.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from efflab.errors import require, require_int


def bigbird_layout(
    n_blocks: int, *, n_global: int, n_window: int, n_random: int, seed: int = 0
) -> Tensor:
    """Which key blocks (columns) each query block (row) sees: (n_blocks, n_blocks) bool.

    The first `n_global` blocks see all and are seen by all; the `n_window` blocks around the
    diagonal (odd, or 0 for no window); then `n_random` further distinct blocks a row, or as many as
    are left. A row that sees nothing, a negative count or an even window is a `ValueError`.
    """
    require_int("n_blocks", n_blocks)
    for name, value in (("n_global", n_global), ("n_window", n_window), ("n_random", n_random)):
        require_int(name, value, 0)
    require(n_window % 2 == 1 or n_window == 0, "n_window", n_window, "an odd number, or 0")
    counts = n_global + n_window + n_random
    require(counts > 0, "n_global + n_window + n_random", counts, "at least one block a row")
    at = torch.arange(n_blocks)
    layout = (at[:, None] - at).abs() <= (n_window - 1) // 2 if n_window else at[:, None] < 0
    layout = layout.expand(n_blocks, n_blocks).clone()
    layout[:n_global] = layout[:, :n_global] = True
    rng = torch.Generator().manual_seed(seed)
    for row in layout:
        unseen = (~row).nonzero()[:, 0]
        row[unseen[torch.randperm(len(unseen), generator=rng)[:n_random]]] = True
    return layout


def token_mask(layout: Tensor, block_size: int) -> Tensor:
    """The layout token by token, (T,T) bool with T = n_blocks * block_size: for pictures."""
    return layout.repeat_interleave(block_size, 0).repeat_interleave(block_size, 1)


def hops(layout: Tensor) -> Tensor:
    """How many layers it takes a row's block to hear from a column's: (n_blocks, n_blocks) int64.

    One layer carries information along one visible pair; -1 where no number of layers does.
    """
    n_blocks = len(layout)
    reached = torch.eye(n_blocks, dtype=torch.bool)
    distance = torch.where(reached, 0, -1)
    for step in range(1, n_blocks):
        grown = reached | (layout.float() @ reached.float() > 0)
        if torch.equal(grown, reached):
            break
        distance[grown & ~reached] = step
        reached = grown
    return distance


ROWS_AT_ONCE = 32
"""Query blocks whose gathered keys are made together: a few, so that they stay in the cache."""


def block_sparse_attention(
    q: Tensor, k: Tensor, v: Tensor, layout: Tensor, block_size: int
) -> Tensor:
    """Attention over just the layout's blocks; q, k, v and the result are (B,H,T,D).

    `layout` (n_blocks, n_blocks) bool, T = n_blocks * block_size. Query blocks that see equally
    many key blocks are one batch of the ordinary kernel, so that the few global rows, which see
    everything, do not make the many others wait. Rows that see nothing are a `ValueError`.
    """
    require(q.dim() == 4, "q.shape", tuple(q.shape), "four dimensions (B, H, T, D)")
    for name, x in (("k", k), ("v", v)):
        require(x.shape == q.shape, f"{name}.shape", tuple(x.shape), f"q's {tuple(q.shape)}")
    require_int("block_size", block_size)
    B, H, T, D = q.shape
    n_blocks = T // block_size
    fits = T > 0 and T % block_size == 0
    require(fits, "q.shape", tuple(q.shape), f"T a multiple of block_size={block_size}")
    square = layout.shape == (n_blocks, n_blocks) and layout.dtype == torch.bool
    found = f"{layout.dtype} {tuple(layout.shape)}"
    require(square, "layout", found, f"a bool tensor of shape {(n_blocks, n_blocks)}")
    seen = layout.sum(1)  # key blocks of each row
    blind = (seen == 0).nonzero()[:, 0].tolist()
    require(not blind, "layout's empty rows", blind, "at least one key block in each row")

    q, k, v = (x.reshape(B * H, n_blocks, block_size, D) for x in (q, k, v))
    rows, outputs = [], []
    for count in seen.unique().tolist():
        for group in (seen == count).nonzero()[:, 0].split(ROWS_AT_ONCE):
            if count == n_blocks:  # all keys as they lie, nothing to gather
                keys, values = k.view(B * H, 1, T, D), v.view(B * H, 1, T, D)
                queries = q[:, group].view(B * H, 1, -1, D)
            else:
                columns = layout[group].nonzero()[:, 1]  # row by row, `count` of each
                gathered = (x.index_select(1, columns) for x in (k, v))
                keys, values = (x.view(B * H, -1, count * block_size, D) for x in gathered)
                queries = q[:, group]
            y = F.scaled_dot_product_attention(queries, keys, values)
            rows.append(group)
            outputs.append(y.view(B * H, -1, block_size, D))
    order = torch.cat(rows).argsort()
    return torch.cat(outputs, dim=1).index_select(1, order).view(B, H, T, D)
