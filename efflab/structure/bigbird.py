"""Block-sparse attention: global, window and random blocks (Zaheer et al. 2020, "BigBird").

Section 2 and appendix D: the sequence is cut into blocks, and a layout says which blocks of keys
each block of queries sees. Only those are computed.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from efflab.arguments import check_module
from efflab.base.threads import map_on_threads
from efflab.errors import require, require_int
from efflab.rules import Count, Size
from efflab.tensors import Heads, Hidden, Integers, Layout


def bigbird_layout(
    n_blocks: int, *, n_global: int, n_window: int, n_random: int, seed: Count = 0
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
    rng = torch.Generator().manual_seed(int(seed))
    for row in layout:
        unseen = (~row).nonzero()[:, 0]
        row[unseen[torch.randperm(len(unseen), generator=rng)[:n_random]]] = True
    return layout


def token_mask(layout: Layout, block_size: Size) -> Tensor:
    """The layout per token, (T,T) bool with T = n_blocks * block_size: for pictures."""
    return layout.repeat_interleave(block_size, 0).repeat_interleave(block_size, 1)


def hops(layout: Layout) -> Tensor:
    """Number of layers until a column's block reaches a row's block: (n_blocks, n_blocks) int64.

    One layer passes information along each visible pair; -1 if no number of layers suffices.
    """
    n_blocks = len(layout)
    square = n_blocks, n_blocks
    require(layout.shape == square, "layout.shape", tuple(layout.shape), f"{square}")
    reached = torch.eye(n_blocks, dtype=torch.bool)
    distance = torch.where(reached, 0, -1)
    for step in range(1, n_blocks):
        grown = reached | (layout.float() @ reached.float() > 0)
        if torch.equal(grown, reached):
            break
        distance[grown & ~reached] = step
        reached = grown
    return distance


def block_sparse_attention(q: Heads, k: Heads, v: Heads, layout: Layout, block_size: int) -> Tensor:
    """Attention over just the layout's blocks; q, k, v and the result are (B,H,T,D).

    `layout` (n_blocks, n_blocks) bool, T = n_blocks * block_size. Query blocks that see equally
    many key blocks go through the ordinary kernel together, so that the few global rows, which see
    everything, do not make the many others wait. Rows that see nothing are a `ValueError`.
    """
    require(q.dim() == 4, "q.shape", tuple(q.shape), "four dimensions (B, H, T, D)")
    for name, x in (("k", k), ("v", v)):
        require(x.shape == q.shape, f"{name}.shape", tuple(x.shape), f"q's {tuple(q.shape)}")
        require(x.dtype == q.dtype, f"{name}.dtype", x.dtype, f"q's {q.dtype}")
    require(q.numel() > 0, "q.shape", tuple(q.shape), "at least one value")
    require_int("block_size", block_size)
    B, H, T, D = q.shape
    n_blocks = T // block_size
    fits = T % block_size == 0
    require(fits, "q.shape", tuple(q.shape), f"T a multiple of block_size={block_size}")
    square = layout.shape == (n_blocks, n_blocks) and layout.dtype == torch.bool
    actual = f"{layout.dtype} {tuple(layout.shape)}"
    require(square, "layout", actual, f"a bool tensor of shape {(n_blocks, n_blocks)}")
    blind = (~layout.any(1)).nonzero()[:, 0].tolist()
    require(not blind, "layout's empty rows", blind, "at least one key block in each row")
    blocks = (x.reshape(B * H * n_blocks, block_size, D) for x in (q, k, v))
    return _BlockSparse.apply(*blocks, layout, B * H).view(B, H, T, D)


GATHERED_BYTES = 2 * 2**20
"""Keys and values gathered for one call of the kernel: small enough to stay in a core's cache until
used, and to reuse memory that the process already has."""


class Piece(NamedTuple):
    """One call of the kernel: query blocks and their key blocks, indices into all heads' blocks."""

    queries: Tensor
    keys: Tensor | slice  # row after row, or all of a head's blocks
    n_rows: int  # batch size of the call: one row per query block, or one for all


def pieces(layout: Layout, n_heads: Size, block_bytes: Size) -> Iterator[Piece]:
    """The calls that cover the layout; in each, all rows see the same number of key blocks."""
    n_blocks, n_seen = len(layout), layout.sum(1)
    first = torch.arange(n_heads, device=layout.device)[:, None] * n_blocks
    for count in n_seen.unique().tolist():
        group = (n_seen == count).nonzero()[:, 0]
        rows = first + group  # (heads, rows of the group)
        if count == n_blocks:  # all keys of a head, nothing to gather
            for i, own in enumerate(rows):
                yield Piece(own, slice(i * n_blocks, (i + 1) * n_blocks), 1)
            continue
        columns = layout[group].nonzero()[:, 1].view(-1, count) + first[..., None]
        at_once = max(1, GATHERED_BYTES // int(2 * count * block_bytes))
        parts = rows.flatten().split(at_once), columns.flatten(0, 1).split(at_once)
        yield from (Piece(own, keys.flatten(), len(own)) for own, keys in zip(*parts, strict=True))


def _blocks_at(x: Hidden, at: Integers | slice) -> Tensor:
    """The blocks of x (n, block, D) at these indices: a view for a slice, else a copy."""
    return x[at] if isinstance(at, slice) else x.index_select(0, at)


def _attend(q: Hidden, k: Hidden, v: Hidden, n_rows: Size) -> Tensor:
    """The ordinary attention kernel on blocks (n, block, D) as `n_rows` rows; returns q's shape."""
    y = F.scaled_dot_product_attention(*(x.view(1, n_rows, -1, x.shape[-1]) for x in (q, k, v)))
    return y.view(q.shape)


class _BlockSparse(torch.autograd.Function):
    """q, k, v (heads * n_blocks, block, D) -> the same shape.

    The backward pass gathers keys and values again instead of storing the copies.
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, layout: Tensor, n_heads: Size) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.pieces = list(pieces(layout, n_heads, q[0].nbytes))
        y = torch.empty_like(q)

        def fill_output(piece: Piece) -> None:
            own, keys, n_rows = piece
            parts = q.index_select(0, own), _blocks_at(k, keys), _blocks_at(v, keys)
            y.index_copy_(0, own, _attend(*parts, n_rows))

        for _ in map_on_threads(fill_output, ctx.pieces):
            pass
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple:
        q, k, v = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)

        def gradients(piece: Piece) -> tuple[Tensor, ...]:
            own, keys, n_rows = piece
            parts = q.index_select(0, own), _blocks_at(k, keys), _blocks_at(v, keys)
            inputs = queries, block_keys, values = [x.detach().requires_grad_() for x in parts]
            with torch.enable_grad():
                y = _attend(queries, block_keys, values, n_rows)
            return torch.autograd.grad(y, inputs, dy.index_select(0, own))

        # summed on this thread, in order: several would add to the same keys at once
        grads = map_on_threads(gradients, ctx.pieces)
        for (own, keys, _), (of_q, of_k, of_v) in zip(ctx.pieces, grads, strict=True):
            dq.index_copy_(0, own, of_q)
            for total, part in ((dk, of_k), (dv, of_v)):
                if isinstance(keys, slice):
                    total[keys] += part
                else:
                    total.index_add_(0, keys, part)
        return dq, dk, dv, None, None


check_module(__name__)
