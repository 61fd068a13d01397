"""Argument types and checks of this chapter: seconds and counts by layer, stage or rank."""

from math import isfinite

from torch import Tensor

from efflab.errors import require
from efflab.rules import Count

Times = list[float] | tuple[float, ...]
"""Seconds, one for each layer, stage or rank."""
Counts = list[Count] | tuple[Count, ...]
"""Bytes, rows or layers, one number for each layer, stage or rank."""
MOST_RANKS = 2**16
"""Upper bound on ranks: far more than anybody uses, and a list of that length is still fast."""
MOST_SECONDS = 3600.0
"""Longest emulated step or layer."""


def require_times(name: str, seconds: Times, *, zero: bool = True) -> None:
    """At least one time, all finite and positive, or also 0 if `zero`."""
    require(len(seconds) > 0, name, seconds, "one time at least")
    allowed = "finite seconds of at least 0" if zero else "positive, finite seconds"
    for value in seconds:
        if not isfinite(value) or value < 0 or not (zero or value):
            require(False, name, value, allowed)


def require_as_many(name: str, values: Times | Counts, n: int, each: str) -> None:
    """There must be `n` values, one for each `each` ("layer")."""
    require(len(values) == n, name, values, f"{n} numbers, one for each {each}")


def require_share(rank: int, n_ranks: int) -> None:
    """The rank must be below `n_ranks`."""
    require(rank < n_ranks, "rank", rank, f"a number below {n_ranks}")


def require_batch(ids: Tensor, targets: Tensor) -> None:
    """There must be at least one id, and a target for each."""
    require(ids.numel() > 0, "ids.shape", tuple(ids.shape), "one id at least")
    same = ids.shape == targets.shape
    require(same, "targets.shape", tuple(targets.shape), f"that of ids, {tuple(ids.shape)}")
