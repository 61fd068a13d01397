"""How many pairs of a query and a key a sliding window has, by formula. No torch here."""

from efflab.arguments import check_module
from efflab.rules import Count, Size

BLOCK = 64
"""Queries per block: larger blocks compute more masked pairs, smaller ones too small products."""


def visible_pairs(seq_len: Size, window_size: Count, causal: bool = False) -> int:
    """Number of visible (query, key) pairs: the sum of `window_mask`, in O(1).

    >>> visible_pairs(4, 1, causal=True)
    7
    """
    reach = min(window_size, seq_len - 1)
    one_side = reach * seq_len - reach * (reach + 1) // 2  # strictly below the diagonal
    return seq_len + one_side * (1 if causal else 2)


def computed_pairs(seq_len: Size, window_size: Count, causal: bool = False) -> int:
    """Number of pairs that `sliding_window_attention` computes: visible ones, and the masked ones
    in its blocks.

    >>> computed_pairs(512, 64, causal=True), visible_pairs(512, 64, causal=True)
    (61440, 31200)
    """
    pairs = 0
    for start in range(0, seq_len, BLOCK):
        end = min(start + BLOCK, seq_len)
        last = end if causal else min(end + window_size, seq_len)
        pairs += (end - start) * (last - max(start - window_size, 0))
    return pairs


check_module(__name__)
