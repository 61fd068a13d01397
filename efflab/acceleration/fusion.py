"""Why fusion pays: less memory traffic and fewer kernel launches.

`xla_report` and `inductor_report` read what the two compilers made of a program; the formulas here
predict the savings.
"""

import math
import timeit
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from efflab.acceleration.graph import FusionReport as FusionReport
from efflab.acceleration.graph import Kernel as Kernel
from efflab.acceleration.graph import Op as Op
from efflab.acceleration.graph import fuse as fuse
from efflab.acceleration.graph import fuse_report as fuse_report
from efflab.acceleration.inductor import inductor_report as inductor_report
from efflab.acceleration.xla import xla_report as xla_report
from efflab.arguments import check_module
from efflab.errors import require, require_one_of, require_positive
from efflab.rules import Infinite, NonNegative, Positive, Size


def attention_bytes(
    seq_len: Size, head_dim: Size, n_head: Size = 1, *, fused: str = "none", value_bytes: Size = 4
) -> int:
    """Bytes that softmax(q kᵀ)v reads and writes, counting each tensor once per kernel.

    `fused`: "none", one kernel per operation (product, scale, max, subtract, exp, sum, divide,
    product): 12 T² + 4 T D + 4 T values per head; "softmax", the softmax as one kernel between two
    products: 4 T² + 4 T D; "all", one kernel whose scores never reach memory: 4 T D (Dao et al.
    2022, where the cache holds all keys and values).
    """
    square, ends = seq_len * seq_len, 4 * seq_len * head_dim
    between = {"none": 12 * square + 4 * seq_len, "softmax": 4 * square, "all": 0}
    require_one_of("fused", fused, between)
    return value_bytes * n_head * (between[fused] + ends)


@dataclass(frozen=True)
class LaunchModel:
    """Time of simple kernels: n · overhead + the longer of bytes / bandwidth and FLOPs / rate.

    `overhead`: seconds to start a kernel; `bandwidth`: bytes per second; `rate`: FLOP/s of
    elementwise arithmetic, a limit for long fused kernels only. `queued`: launches overlap with the
    work, as on a GPU, so the longer of the two counts instead of their sum.
    """

    overhead: Positive
    bandwidth: Positive
    rate: Infinite = math.inf
    queued: bool = False

    def __post_init__(self):
        require(self.rate > 0, "rate", self.rate, "a positive number")

    def seconds(self, n_kernels: NonNegative, nbytes: NonNegative, flops: NonNegative = 0) -> float:
        """Seconds of `n_kernels` that move `nbytes` and do `flops` in total."""
        launches = n_kernels * self.overhead
        work = max(nbytes / self.bandwidth, flops / self.rate)
        return max(launches, work) if self.queued else launches + work

    @property
    def even_bytes(self) -> float:
        """Bytes that take as long to move as a kernel takes to start."""
        return self.overhead * self.bandwidth


def fit_launches(rows: Sequence[Mapping], queued: bool = False) -> LaunchModel:
    """Fit the model to measured rows with `n_kernels`, `bytes` and `seconds`.

    Least squares of the relative error, so that short and long runs count equally. If a constant
    does not come out positive, the rows are refused.
    """
    require(len(rows) >= 2, "rows", len(rows), "two measurements or more")
    names = ("n_kernels", "bytes", "seconds")
    for (i, row), name in product(enumerate(rows), names):
        require_positive(f"rows[{i}][{name!r}]", row.get(name))
    n, moved, seconds = (np.array([row[name] for row in rows], float) for name in names)
    fit = _longer_of_both if queued else _sum_of_both
    overhead, per_byte = fit(n / seconds, moved / seconds)
    require(overhead > 0 and per_byte > 0, "rows", len(rows), "sizes small and large")
    return LaunchModel(float(overhead), float(1 / per_byte), queued=queued)


def _sum_of_both(n, moved) -> tuple[float, float]:
    """(a, b) for which a · n + b · moved is closest to 1, by non-negative least squares."""
    from scipy.optimize import nnls

    return tuple(nnls(np.stack([n, moved], 1), np.ones(len(n)))[0])


def _longer_of_both(n, moved) -> tuple[float, float]:
    """(a, b) for which the larger of a · n and b · moved is closest to 1, in logarithms.

    Starts where neither term exceeds any measurement, so that no row is explained by the wrong one.
    """
    from scipy.optimize import least_squares

    def error(logs):
        return np.log(np.maximum(np.exp(logs[0]) * n, np.exp(logs[1]) * moved))

    return tuple(np.exp(least_squares(error, -np.log([n.max(), moved.max()])).x))


def chain(x: Any, n_ops: Size) -> Callable[[], object]:
    """A function that runs `n_ops` operations in a row on a torch tensor, each its own kernel.

    Multiplications and additions alternate, so that no compiler can merge two of them. They write
    into two buffers in turn, so that no memory is allocated.
    """
    import torch

    is_tensor = isinstance(x, torch.Tensor) and not x.is_meta and x.is_floating_point()
    require(is_tensor, "x", x, "a tensor of floats, of torch and with a memory")
    buffers = [torch.empty_like(x), torch.empty_like(x)]

    def call():
        source = x
        for i in range(n_ops):
            step, value = (torch.add, 1e-4) if i % 2 else (torch.mul, 1.0001)
            source = step(source, value, out=buffers[i % 2])
        return source

    return call


def call_seconds(calls: Mapping, repeats: Size = 7, seconds: float = 2e-4) -> dict:
    """Median seconds of one call of each, interleaved.

    Each repeat makes as many calls as fill `seconds`, since reading the clock takes as long as some
    kernels.
    """
    are_functions = bool(calls) and all(map(callable, calls.values()))
    require(are_functions, "calls", calls, "at least one function, by name")
    from efflab import bench

    loops = {}
    for name, call in calls.items():
        call()
        once = max(bench.time_calls(call, warmup=1, repeats=3).median, 1e-7)
        loops[name] = max(1, round(seconds / once))
    many: dict[Hashable, Callable[[], object]] = {
        name: partial(timeit.timeit, call, number=loops[name]) for name, call in calls.items()
    }
    times = bench.time_interleaved(many, warmup=1, repeats=repeats)
    return {name: timing.median / loops[name] for name, timing in times.items()}


def calls_to_pay(compile_seconds: NonNegative, before: Positive, after: Positive) -> float:
    """Number of calls after which compiling pays: its time over the time saved per call, or inf.

    >>> calls_to_pay(6.0, before=0.005, after=0.003), calls_to_pay(6.0, 0.003, 0.003)
    (3000.0, inf)
    """
    saved = before - after
    return round(compile_seconds / saved, 6) if saved > 0 else float("inf")


check_module(__name__)
