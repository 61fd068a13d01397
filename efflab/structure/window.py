"""Sliding-window attention over a sequence: each token sees its neighbours, at O(n) cost.

Beltagy et al. 2020 (Longformer), section 3.1. Every query block of the sequence's interior sees the
same band of keys, so all of them become one batch for the ordinary attention kernel: the keys are
not copied, because overlapping blocks are one strided view (`Tensor.unfold`).

Windows over an image (Swin) are in `efflab.structure.swin`, and importable from here too.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention as attention

from efflab.arguments import check_module
from efflab.base.threads import map_on_threads
from efflab.errors import require
from efflab.model import Attention
from efflab.rules import Count, Size
from efflab.structure.dynamic_conv import replace_attention
from efflab.structure.pairs import BLOCK
from efflab.structure.pairs import computed_pairs as computed_pairs
from efflab.structure.pairs import visible_pairs as visible_pairs
from efflab.structure.swin import WindowAttention as WindowAttention
from efflab.tensors import Heads, Hidden, Visible


def window_mask(seq_len: Size, window_size: Count, causal: bool = False) -> Tensor:
    """The window's mask, (T,T) bool: query i (row) sees key j (column).

    >>> window_mask(4, 1, causal=True).int().tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    """
    behind = torch.arange(seq_len)[:, None] - torch.arange(seq_len)  # i - j
    return (behind <= window_size) & (behind >= (0 if causal else -window_size))


SHARED_FROM = 2**21
"""Values of q from which the heads are split over threads. In one call of the kernel the threads
share memory: that took 47 ms or, for minutes on end, 65 ms, and split by heads 42 ms (8 heads of
8,192 tokens, two cores of an EPYC). Smaller calls are over before a thread has started."""


def sliding_window_attention(
    q: Heads, k: Heads, v: Heads, window_size: Count, causal: bool = False
) -> Tensor:
    """Attention in which query i sees key j when |i - j| <= window_size (and j <= i if causal).

    q, k, v and the result are (B,H,T,D). Time and memory are O(T window_size); any T and any
    window, also 0 or beyond T, with gradients. Wrong shapes or sizes are a `ValueError`.
    """
    for name, x in (("k", k), ("v", v)):
        require(x.shape == q.shape, f"{name}.shape", tuple(x.shape), f"q's {tuple(q.shape)}")
        require(x.dtype == q.dtype, f"{name}.dtype", x.dtype, f"q's {q.dtype}")
    B, H, T, D = q.shape
    require(q.numel() > 0, "q.shape", tuple(q.shape), "at least one value")
    left = min(window_size, T - 1)
    attend = partial(attend_in_blocks, left=left, right=0 if causal else left)
    needs_grad = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    if needs_grad or B * H * T * D < SHARED_FROM:  # backward hooks are thread-local
        return attend(q, k, v)
    return _split_heads(attend, q, k, v)


def attend_in_blocks(q: Heads, k: Heads, v: Heads, left: Count, right: Count) -> Tensor:
    """Attention (B,H,T,D) of query i to keys i - left to i + right, `BLOCK` queries at a time."""
    _, _, T, D = q.shape
    band = _band(left, right, q)
    first = -(-left // BLOCK) * BLOCK  # from here no query looks before the first key
    last = max((T - right) // BLOCK * BLOCK, first)  # up to here none looks beyond the last

    def edge(start: int) -> Tensor:
        """A block near an end of the sequence, with only the keys that exist."""
        end = min(start + BLOCK, T)
        lo, hi = max(start - left, 0), min(end + right, T)
        mask = band[: end - start, lo - start + left : hi - start + left]
        return attention(q[:, :, start:end], k[:, :, lo:hi], v[:, :, lo:hi], attn_mask=mask)

    outputs = [edge(start) for start in range(0, min(first, T), BLOCK)]
    if last > first:  # all inner blocks see equally many keys: one batch, (B H, blocks, BLOCK, D)
        queries = q[:, :, first:last].reshape(-1, (last - first) // BLOCK, BLOCK, D)
        visible = slice(first - left, last + right)
        keys, values = (
            x[:, :, visible].flatten(0, 1).unfold(1, left + BLOCK + right, BLOCK).mT for x in (k, v)
        )
        inner = attention(queries, keys, values, attn_mask=band)
        outputs.append(inner.reshape(len(q), -1, last - first, D))
    outputs += [edge(start) for start in range(last, T, BLOCK)]
    return torch.cat(outputs, dim=2)


def _band(left: int, right: int, like: Tensor) -> Tensor:
    """The additive mask of a block's scores (BLOCK, left + BLOCK + right): 0 or -inf."""
    span = left + BLOCK + right
    column = torch.arange(span, device=like.device)
    ahead = column - torch.arange(BLOCK, device=like.device)[:, None]  # from the row's first key
    hidden = (ahead < 0) | (ahead > left + right)
    zeros = torch.zeros(BLOCK, span, dtype=like.dtype, device=like.device)
    return zeros.masked_fill(hidden, -torch.inf)


def _split_heads(attend: Callable, *qkv: Tensor) -> Tensor:
    """`attend(q, k, v)` with the heads (B,H,T,D) split between torch's threads."""
    n_heads = qkv[0].size(0) * qkv[0].size(1)
    n_parts = min(n_heads, torch.get_num_threads())
    flat = (x.reshape(1, n_heads, *x.shape[2:]).tensor_split(n_parts, dim=1) for x in qkv)
    parts = map_on_threads(lambda heads: attend(*heads), zip(*flat, strict=True))
    return torch.cat(list(parts), dim=1).view(qkv[0].shape)


class SlidingAttention(nn.Module):
    """An `efflab.model.Attention` restricted to a window, same weights: (B,T,C) -> (B,T,C)."""

    def __init__(self, attention: nn.Module, window_size: Count):
        name = type(attention).__name__
        require(type(attention) is Attention, "attention", name, "the plain Attention")
        super().__init__()
        self.attention, self.window_size = attention, window_size

    def forward(self, x: Hidden, mask: Visible | None = None) -> Tensor:
        require(mask is None, "mask", mask, "None: sequences without padding")
        q, k, v = self.attention.heads(x)
        y = sliding_window_attention(q, k, v, self.window_size, self.attention.causal)
        return self.attention.out(y.transpose(1, 2).flatten(2))


def with_windows(model: nn.Module, window_size: int) -> nn.Module:
    """A copy of a `Transformer` whose attentions see `window_size` tokens on each side.

    In a causal model only those before the token. The weights are not changed.
    """
    return replace_attention(deepcopy(model), lambda body: SlidingAttention(body, window_size))


check_module(__name__)
