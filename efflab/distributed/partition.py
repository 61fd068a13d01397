"""Cut unequal layers into stages so that the slowest stage is as fast as can be."""

from math import inf

import numpy as np

from efflab.arguments import check_module
from efflab.distributed.values import Counts, Times, require_times
from efflab.errors import require
from efflab.rules import Size


def best_split(layer_seconds: Times, n_stages: Size) -> list[int]:
    """Layers of each stage, in order and one at least, that make the slowest stage fastest.

    Exact, by dynamic programming: with k stages for the first j layers, try every place i where the
    last stage can begin, best[k][j] = min over i of max(best[k-1][i], seconds of layers i..j-1).

    >>> best_split([1, 1, 1, 3, 2, 4], 3)
    [3, 2, 1]
    """
    require_times("layer_seconds", layer_seconds)
    n_layer = len(layer_seconds)
    require(n_stages <= n_layer, "n_stages", n_stages, f"at most the {n_layer} layers")
    until = np.concatenate([[0.0], np.cumsum(np.asarray(layer_seconds, dtype=float))])
    last_stage = until - until[:, None]  # of layers row..column-1; a stage has one at least
    last_stage[np.tri(n_layer + 1, dtype=bool)] = inf
    best, begins = last_stage[0], []
    for _ in range(n_stages - 1):
        slowest = np.maximum(best[:, None], last_stage)
        begins.append(slowest.argmin(axis=0))
        best = slowest.min(axis=0)
    ends = [n_layer]
    for begin in reversed(begins):
        ends.append(int(begin[ends[-1]]))
    ends.reverse()
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def stage_seconds(layer_seconds: Times, split: Counts) -> list[float]:
    """Seconds of each stage of a split: what `pipeline.simulate` takes.

    >>> stage_seconds([1, 1, 1, 3, 2, 4], [3, 2, 1])
    [3, 5, 4]
    """
    require_times("layer_seconds", layer_seconds)
    fits = sum(split) == len(layer_seconds) and min(split, default=0) >= 1
    allowed = f"positive numbers that add up to the {len(layer_seconds)} layers"
    require(fits, "split", list(split), allowed)
    ends = np.cumsum(split).tolist()
    return [sum(layer_seconds[end - n : end]) for n, end in zip(split, ends, strict=True)]


check_module(__name__)
