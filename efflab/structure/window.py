"""Sliding-window attention over a sequence: each token sees its neighbours, at O(n) cost.

Beltagy et al. 2020 (Longformer), section 3.1. Every query block of the sequence's interior sees the
same band of keys, so all of them become one batch for the ordinary attention kernel: the keys are
not copied, because overlapping blocks are one strided view (`Tensor.unfold`).

Windows over an image (Swin) are in `efflab.structure.swin`, and importable from here too.
"""

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab.arguments import check_arguments
from efflab.errors import require, require_int
from efflab.structure.swin import WindowAttention
from efflab.tensors import Heads, Hidden, Visible
from efflab.threads import shared_out

__all__ = [
    "SlidingAttention",
    "WindowAttention",
    "computed_pairs",
    "sliding_window_attention",
    "visible_pairs",
    "window_mask",
    "with_windows",
]


@check_arguments
def window_mask(seq_len: int, window_size: int, causal: bool = False) -> Tensor:
    """What a window lets through, (T,T) bool: query i (row) sees key j (column).

    >>> window_mask(4, 1, causal=True).int().tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    """
    require_int("seq_len", seq_len)
    require_int("window_size", window_size, 0)
    behind = torch.arange(seq_len)[:, None] - torch.arange(seq_len)  # i - j
    return (behind <= window_size) & (behind >= (0 if causal else -window_size))


@check_arguments
def visible_pairs(seq_len: int, window_size: int, causal: bool = False) -> int:
    """How many (query, key) pairs the window lets through: the sum of `window_mask`, in O(1).

    >>> visible_pairs(4, 1, causal=True)
    7
    """
    require_int("seq_len", seq_len)
    require_int("window_size", window_size, 0)
    reach = min(window_size, seq_len - 1)
    one_side = reach * seq_len - reach * (reach + 1) // 2  # strictly below the diagonal
    return seq_len + one_side * (1 if causal else 2)


BLOCK = 64
"""Queries handled together: few enough to waste few keys, enough for a matrix product."""
SHARED_FROM = 2**21
"""Values of q from which each thread takes heads of its own. In one call of the kernel the threads
meet in the same memory: 47 ms or, for minutes on end, 65 ms where they stand for 42 alone (8 heads
of 8,192 tokens, two cores of an EPYC). Smaller calls are over before a thread has started."""


@check_arguments
def computed_pairs(seq_len: int, window_size: int, causal: bool = False) -> int:
    """How many pairs `sliding_window_attention` computes: those it lets through and, in whole
    blocks, some that it hides.

    >>> computed_pairs(512, 64, causal=True), visible_pairs(512, 64, causal=True)
    (61440, 31200)
    """
    require_int("seq_len", seq_len)
    require_int("window_size", window_size, 0)
    pairs = 0
    for start in range(0, seq_len, BLOCK):
        end = min(start + BLOCK, seq_len)
        last = end if causal else min(end + window_size, seq_len)
        pairs += (end - start) * (last - max(start - window_size, 0))
    return pairs


@check_arguments
def sliding_window_attention(
    q: Heads, k: Heads, v: Heads, window_size: int, causal: bool = False
) -> Tensor:
    """Attention in which query i sees key j when |i - j| <= window_size (and j <= i if causal).

    q, k, v and the result are (B,H,T,D). Time and memory are O(T window_size); any T and any
    window, also 0 or beyond T, with gradients. Wrong shapes or sizes are a `ValueError`.
    """
    require(q.dim() == 4, "q.shape", tuple(q.shape), "four dimensions (B, H, T, D)")
    for name, x in (("k", k), ("v", v)):
        require(x.shape == q.shape, f"{name}.shape", tuple(x.shape), f"q's {tuple(q.shape)}")
    require_int("window_size", window_size, 0)
    B, H, T, D = q.shape
    require(T > 0, "q.shape", tuple(q.shape), "at least one token")

    left = min(window_size, T - 1)  # keys before a query, and after it
    right = 0 if causal else left
    span = left + BLOCK + right  # keys that some query of a block sees
    column = torch.arange(span, device=q.device) - torch.arange(BLOCK, device=q.device)[:, None]
    hidden = (column < 0) | (column > left + right)
    band = torch.zeros(BLOCK, span, dtype=q.dtype, device=q.device).masked_fill(hidden, -torch.inf)

    def edge(q: Tensor, k: Tensor, v: Tensor, start: int) -> Tensor:
        """One block whose keys would reach beyond the sequence: just those that exist."""
        end = min(start + BLOCK, T)
        lo, hi = max(start - left, 0), min(end + right, T)
        mask = band[: end - start, lo - start + left : hi - start + left]
        keys, values = k[:, :, lo:hi], v[:, :, lo:hi]
        return F.scaled_dot_product_attention(q[:, :, start:end], keys, values, attn_mask=mask)

    def interior(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """All blocks with their whole span of keys, as one batch: (heads, blocks, BLOCK, D)."""
        queries = q[:, :, first:last].reshape(-1, (last - first) // BLOCK, BLOCK, D)
        keys, values = (
            x[:, :, first - left : last + right].flatten(0, 1).unfold(1, span, BLOCK).mT
            for x in (k, v)
        )
        y = F.scaled_dot_product_attention(queries, keys, values, attn_mask=band)
        return y.reshape(len(q), -1, last - first, D)

    def windows(heads: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        outputs = [edge(*heads, start) for start in range(0, min(first, T), BLOCK)]
        if last > first:
            outputs.append(interior(*heads))
        outputs += [edge(*heads, start) for start in range(last, T, BLOCK)]
        return torch.cat(outputs, dim=2)

    first = -(-left // BLOCK) * BLOCK
    last = max((T - right) // BLOCK * BLOCK, first)
    recorded = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    if recorded or B * H * T * D < SHARED_FROM:  # hooks for the backward pass are a thread's
        return windows((q, k, v))
    n_parts = min(B * H, torch.get_num_threads())
    flat = (x.reshape(1, B * H, T, D).tensor_split(n_parts, dim=1) for x in (q, k, v))
    return torch.cat(list(shared_out(windows, zip(*flat, strict=True))), dim=1).view(B, H, T, D)


@check_arguments
class SlidingAttention(nn.Module):
    """`efflab.model.Attention` with its own weights, looking through a window: (B,T,C) -> same."""

    def __init__(self, attention: nn.Module, window_size: int):
        super().__init__()
        require_int("window_size", window_size, 0)
        self.attention, self.window_size = attention, window_size

    def forward(self, x: Hidden, mask: Visible | None = None) -> Tensor:
        require(mask is None, "mask", mask, "None: sequences without padding")
        q, k, v = self.attention.heads(x)
        y = sliding_window_attention(q, k, v, self.window_size, self.attention.causal)
        return self.attention.out(y.transpose(1, 2).flatten(2))


@check_arguments
def with_windows(model: nn.Module, window_size: int) -> nn.Module:
    """A copy of a `Transformer` whose every attention sees `window_size` tokens on each side.

    A causal model sees them before the token only. The weights are kept, nothing is retrained.
    """
    model = deepcopy(model)
    for block in {layer.attention for layer in model.layers}:  # layers may share one
        block.body = SlidingAttention(block.body, window_size)
    return model
