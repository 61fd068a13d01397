"""What an all-reduce over a ring or two trees sends, by formula (`ring` does it). No torch here."""

from efflab.arguments import check_module
from efflab.rules import NonNegative, Size


def ring_bytes(n_bytes: NonNegative, n_ranks: Size) -> float:
    """Bytes each rank sends for the sum of `n_bytes` over a ring: 2 (n - 1) / n of them.

    >>> ring_bytes(1000, 4)
    1500.0
    """
    return n_bytes * 2 * (n_ranks - 1) / n_ranks


def tree_bytes(n_bytes: NonNegative, n_ranks: Size) -> float:
    """Bytes that a rank sends at most for the sum of `n_bytes` over two trees, a half in each.

    A rank sends both halves up once, and down to two children in the tree where it has any.

    >>> tree_bytes(1000, 4)
    2000.0
    """
    return 2.0 * n_bytes if n_ranks > 1 else 0.0


def ring_steps(n_ranks: Size) -> int:
    """Messages of an all-reduce over a ring that wait for one another: 2 (n - 1).

    >>> ring_steps(1024)
    2046
    """
    return 2 * (n_ranks - 1)


def tree_steps(n_ranks: Size) -> int:
    """The same over a tree, up and down: twice its depth, 2 ceil(log2 n).

    >>> tree_steps(1024)
    20
    """
    return 2 * (n_ranks - 1).bit_length()


check_module(__name__)
