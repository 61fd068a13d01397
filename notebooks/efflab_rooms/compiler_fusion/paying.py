"""Notebook 07's where it breaks: small shapes, changing shapes, too few calls."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from efflab import bench
from efflab.acceleration import block, xla
from efflab.acceleration.fusion import FusionReport, calls_to_pay
from efflab_rooms.compiler_fusion.compilers import LIBRARY


def biased_gelu(x, bias):
    """GELU of x + bias in six operations."""
    return block.gelu(block.torch_namespace(), x + bias)


@torch.no_grad()
def small_shapes(n_tokens: Sequence[int] = (2, 16, 128, 1024), d_ff: int = 1024) -> list[dict]:
    """Bias and GELU compiled once for any length, against six operations and torch's own two."""
    bias = torch.randn(d_ff)
    compiled = torch.compile(biased_gelu, dynamic=True)
    rows = []
    for n in n_tokens:
        x = torch.randn(n, d_ff)
        calls = {"compiled": lambda x=x: compiled(x, bias),
                 "library": lambda x=x: F.gelu(x + bias)}  # fmt: skip
        result = bench.compared(lambda x=x: biased_gelu(x, bias), calls, warmup=5, repeats=31)
        against = result.timings["compiled"].ratio_interval(result.timings["library"])
        rows.append(dict(
            n_values=n * d_ff, us=1e6 * result.timings["compiled"].median,
            over_single=result.ratios["compiled"].mean, over_library=against.mean,
            low=against.low, high=against.high, band=100 * result.band, kind="measured",
        ))  # fmt: skip
    return rows


SMALL_COLUMNS = {
    "n_values": "values",
    "us": "compiled (µs)",
    "over_single": "/ six operations",
    "over_library": "/ torch's own two",
    "low": "from",
    "high": "to",
    "band": "A/A noise (± %)",
    "kind": "kind",
}


def compilations(lengths: Sequence[int]) -> list[dict]:
    """How often each compiler has compiled bias and GELU after each of these lengths.

    Counted by the compilers: JAX's cache of executables, and what Dynamo hands to its backend
    (which here runs the graph as it is: how often does not depend on what then compiles it).
    """
    jax, there = xla.load_jax(), block.jax_namespace()
    # two functions: JAX keeps one cache for one function, however often it is jitted
    exact = jax.jit(lambda x: block.gelu(there, x + 1.0))
    padded = jax.jit(lambda x: block.gelu(there, x + 1.0))
    static, automatic = (dynamo_counts(lengths, dynamic) for dynamic in (False, None))
    rows = []
    for n, *counts in zip(lengths, static, automatic, strict=True):
        exact(jax.numpy.ones((n, 16)))
        padded(jax.numpy.ones((power_of_two(n), 16)))
        both = dict(xla=exact._cache_size(), padded=padded._cache_size())
        rows.append(dict(seq_len=n, **both, static=counts[0], automatic=counts[1],
                         kind="measured"))  # fmt: skip
    return rows


def dynamo_counts(lengths: Sequence[int], dynamic: bool | None) -> list[int]:
    """Graphs that Dynamo has handed on after each length; it forgets what was compiled before."""
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    counter = CompileCounter()
    fn = torch.compile(biased_gelu, backend=counter, dynamic=dynamic)
    counts = []
    for n in lengths:
        fn(torch.ones(n, 16), torch.ones(16))
        counts.append(counter.frame_count)
    torch._dynamo.reset()
    return counts


COMPILATION_COLUMNS = {
    "seq_len": "sequence length (tokens)",
    "xla": "XLA, as it comes",
    "padded": "XLA, padded to a power of two",
    "static": "torch, dynamic=False",
    "automatic": "torch, as it comes",
    "kind": "kind",
}


def power_of_two(n: int) -> int:
    """The next power of two: 100 -> 128."""
    return 1 << (n - 1).bit_length()


def pay_rows(reports: dict[str, FusionReport], times: dict[str, bench.Comparison]) -> list[dict]:
    """Seconds of compiling, what a call saves, and from how many calls on that has paid.

    `reports`: by form, as `block_times` names them. The baseline of torch's own kernels is
    themselves without a compiler.
    """
    cases = {
        "written out, XLA": ("JAX", "baseline"),
        "written out, Inductor": ("torch", "baseline"),
        "torch's own kernels, Inductor": ("torch", LIBRARY),
    }
    rows = []
    for form, (framework, before) in cases.items():
        timings = times[framework].timings
        was, now = timings[before].median, timings[form].median
        calls = calls_to_pay(reports[form].seconds, was, now)
        rows.append(dict(form=form, seconds=reports[form].seconds, saved=1e3 * (was - now),
                         calls="never" if calls == float("inf") else f"{calls:,.0f}",
                         kind="measured"))  # fmt: skip
    return rows


PAY_COLUMNS = {
    "form": "form",
    "seconds": "compiling (s)",
    "saved": "saved a call (ms)",
    "calls": "pays from (calls)",
    "kind": "kind",
}
