"""Notebook 08's exercises: what is asked, and how an answer is judged."""

from dataclasses import replace
from functools import lru_cache

import numpy as np

from efflab.acceleration import npu, systolic
from efflab.devices import DEVICES
from efflab.lab import Exercise, tr
from efflab_rooms.accelerators import measure

QUERY = dict(m=5, n=1536, k=384)
"""A 5-token query's FFN up in MiniLM: the layer of 08-2."""
CELLS, SLACK = 256, 1.02
RIVAL, DTYPE, MOST_TIMES, MOST_TIME = "A100 40GB", "int8", 2.0, 0.6

# --- 08-1: one clock of the grid -----------------------------------------------------------------


def one_clock(x, y, total, left, top):
    """The grid after one clock: A moved right, B moved down, products added."""
    x = np.column_stack([left, x[:, :-1]])
    y = np.vstack([top, y[:-1]])
    return x, y, total + x * y


def entering(values, t):
    """What enters each line at clock t: line i starts i clocks late, 0 is nothing."""
    n = values.shape[1]
    return np.array([values[i, t - i] if 0 <= t - i < n else 0 for i in range(len(values))])


def _check_clock(answer):
    rng = np.random.default_rng(0)
    a, b = rng.integers(1, 9, (2, 3)), rng.integers(1, 9, (3, 4))
    x, y, total = np.zeros((3, 2, 4), int)
    last = systolic.gemm_cycles(2, 4, 3, 2, 4)
    for t in range(last + 1):
        edges = entering(a, t), entering(b.T, t)
        expected = one_clock(x, y, total, *edges)
        own = answer(x.copy(), y.copy(), total.copy(), *edges)
        for what, right, mine in zip(("x", "y", "total"), expected, own, strict=True):
            yield tr("{what} after clock {t}", what=what, t=t), right, mine
        x, y, total = expected
    yield tr("the final total against the product"), a @ b, total


# --- 08-2: the shape for one layer ---------------------------------------------------------------


@lru_cache(maxsize=1)
def fewest() -> int:
    """The fewest cycles of all arrays of at most 256 cells, in all dataflows."""
    shapes = [(r, c) for r in range(1, CELLS + 1) for c in range(1, CELLS // r + 1)]
    return min(
        systolic.gemm_cycles(**QUERY, rows=r, cols=c, dataflow=flow)
        for r, c in shapes
        for flow in systolic.DATAFLOWS
    )


def _check_shape(answer):
    rows, cols, dataflow = answer
    yield tr("at most {n} cells", n=CELLS), True, rows * cols <= CELLS
    cycles, limit = systolic.gemm_cycles(**QUERY, rows=rows, cols=cols, dataflow=dataflow), fewest()
    what = tr("your {cycles} cycles are within 2 % of the fewest", cycles=f"{cycles:,}")
    yield what, True, cycles <= SLACK * limit


# --- 08-3: beat the verdict ----------------------------------------------------------------------


def slowest(side: int, dataflow: str, times: float) -> float:
    """The most of the A100's INT8 time that a square array `times` as strong takes for a block, of
    all batches."""
    twin = npu.twin(DEVICES[RIVAL], DTYPE, side)
    strength = dict(hertz=times * twin.hertz, memory_bandwidth=times * twin.memory_bandwidth)
    array = replace(twin, dataflow=dataflow, **strength)
    return float(measure.ratios(array, RIVAL, DTYPE, 128)[-1].max())


def _check_rival(answer):
    side, dataflow, times = answer
    what = tr("at most {n} times the GPU's peak and bandwidth", n=MOST_TIMES)
    yield what, True, times <= MOST_TIMES
    own = slowest(side, dataflow, times)
    words = "at its slowest batch it takes {ratio} of the GPU's time (at most {most})"
    yield tr(words, ratio=f"{own:.3f}", most=MOST_TIME), True, own <= MOST_TIME


EXERCISES = {
    "08-1": Exercise(_check_clock),
    "08-2": Exercise(_check_shape),
    "08-3": Exercise(_check_rival),
}
