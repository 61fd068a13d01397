"""What several files of this chapter take: seconds and numbers by layer, stage or rank; batches."""

from math import isfinite

from torch import Tensor

from efflab.errors import require
from efflab.rules import Count

Times = list[float] | tuple[float, ...]
"""Seconds, one for each layer, stage or rank."""
Counts = list[Count] | tuple[Count, ...]
"""Bytes, rows or layers, one number for each layer, stage or rank."""
MOST_RANKS = 2**16
"""Far more than anybody trains on, and a list of so many is made at once."""
MOST_SECONDS = 3600.0
"""No step or layer is emulated for longer."""


def require_times(name: str, seconds: Times, *, zero: bool = True) -> None:
    """One at least, each finite and of at least 0, or above it unless `zero` may be among them."""
    require(len(seconds) > 0, name, seconds, "one time at least")
    allowed = "finite seconds of at least 0" if zero else "positive, finite seconds"
    for value in seconds:
        if not isfinite(value) or value < 0 or not (zero or value):
            require(False, name, value, allowed)


def require_as_many(name: str, values: Times | Counts, n: int, each: str) -> None:
    """`n` of them, "one for each layer"."""
    require(len(values) == n, name, values, f"{n} numbers, one for each {each}")


def require_share(rank: int, n_ranks: int) -> None:
    """Ranks count from 0."""
    require(rank < n_ranks, "rank", rank, f"a number below {n_ranks}")


def require_batch(ids: Tensor, targets: Tensor) -> None:
    """A target for each id, and one row at least."""
    require(ids.numel() > 0, "ids.shape", tuple(ids.shape), "one id at least")
    same = ids.shape == targets.shape
    require(same, "targets.shape", tuple(targets.shape), f"that of ids, {tuple(ids.shape)}")
