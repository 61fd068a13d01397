"""Argument types and checks of this chapter: seconds and counts by layer, stage or rank."""

from dataclasses import dataclass

from efflab.arguments import check_arguments
from efflab.config import ModelConfig
from efflab.errors import require
from efflab.rules import Count, NonNegative, Positive
from efflab.tensors import Ids

Times = list[NonNegative] | tuple[NonNegative, ...]
PositiveTimes = list[Positive] | tuple[Positive, ...]
"""Seconds, one for each layer, stage or rank."""
Counts = list[Count] | tuple[Count, ...]
"""Bytes, rows or layers, one number for each layer, stage or rank."""
MOST_RANKS = 2**16
"""Upper bound on ranks: far more than anybody uses, and a list of that length is still fast."""


def require_times(name: str, seconds: Times) -> None:
    """There must be at least one time."""
    require(len(seconds) > 0, name, seconds, "one time at least")


def require_as_many(name: str, values: Times | Counts, n: int, each: str) -> None:
    """There must be `n` values, one for each `each` ("layer")."""
    require(len(values) == n, name, values, f"{n} numbers, one for each {each}")


def require_share(rank: int, n_ranks: int) -> None:
    """The rank must be below `n_ranks`."""
    require(rank < n_ranks, "rank", rank, f"a number below {n_ranks}")


@check_arguments
@dataclass(frozen=True)
class Batch:
    """What ranks train: a model of this config on ids and targets (B,T), one id at least."""

    config: ModelConfig
    ids: Ids
    targets: Ids

    def __post_init__(self):
        require(self.ids.numel() > 0, "ids.shape", tuple(self.ids.shape), "one id at least")
        shape, expected = tuple(self.targets.shape), tuple(self.ids.shape)
        require(shape == expected, "targets.shape", shape, f"that of ids, {expected}")
