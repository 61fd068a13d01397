"""Notebook 07's measurements: what two compilers make of one block, how fast, and when it pays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from efflab import bench
from efflab.acceleration import block, xla
from efflab.acceleration.fusion import (
    FusionReport,
    calls_to_pay,
    fuse_report,
    inductor_report,
    xla_report,
)
from efflab.errors import require

N_HEAD = 4
XLA, INDUCTOR, LIBRARY = "XLA", "Inductor", "torch's own kernels"
OURS = "our fuser"


@dataclass(frozen=True)
class Block:
    """One block in four forms: torch's layer, written out in torch, written out in JAX."""

    layer: torch.nn.Module
    x: torch.Tensor
    written: Callable  # of x
    jax_written: Callable  # of jax_arrays
    jax_arrays: tuple


def make_block(d_model: int, seq_len: int, seed: int = 0) -> Block:
    """The same random block and input for all."""
    fits = 64 <= d_model <= 512 and d_model % N_HEAD == 0
    require(fits, "d_model", d_model, f"a multiple of {N_HEAD} from 64 to 512")
    require(16 <= seq_len <= 1024, "seq_len", seq_len, "16 to 1,024 tokens")
    layer, x = block.plain_layer(d_model, seq_len, N_HEAD, seed)
    weights = block.weights(layer, seq_len)
    here, there = block.torch_namespace(), block.jax_namespace()
    jnp = there.xp
    arrays = {name: jnp.asarray(value.numpy()) for name, value in weights.items()}
    return Block(
        layer,
        x,
        lambda x: block.block(here, x, weights, N_HEAD),
        lambda x, w: block.block(there, x, w, N_HEAD),
        (jnp.asarray(x.numpy()), arrays),
    )


@torch.no_grad()
def gaps(made: Block) -> dict[str, float]:
    """The greatest difference from torch's layer, of the block written out, in both frameworks."""
    expected = made.layer(made.x)
    compiled = np.array(xla.compiled(made.jax_written, *made.jax_arrays)())
    results = {"torch": made.written(made.x), "JAX": torch.from_numpy(compiled)}
    return {name: (result - expected).abs().max().item() for name, result in results.items()}


def report_row(program: str, compiler: str, report: FusionReport) -> dict:
    """A report as a row of a table."""
    return dict(
        program=program,
        compiler=compiler,
        n_ops=report.n_ops,
        n_kernels=report.n_kernels,
        mb_before=report.bytes_before / 1e6,
        mb_after=report.bytes_after / 1e6,
        ratio=report.bytes_after / report.bytes_before,
        kind="measured",
    )


REPORT_COLUMNS = {
    "program": "program",
    "compiler": "compiler",
    "n_ops": "operations",
    "n_kernels": "kernels made",
    "mb_before": "MB before",
    "mb_after": "MB after",
    "ratio": "after / before",
    "kind": "kind",
}


def xla_rows(report: FusionReport) -> list[dict]:
    """XLA's counts by ours and by its own cost analysis, and our fuser's on the same program."""
    before, after = report.compiler_bytes
    own = report_row("written out", XLA, report) | dict(program="XLA's own count")
    own |= dict(mb_before=before / 1e6, mb_after=after / 1e6, ratio=after / before)
    ours = report_row("written out", OURS, fuse_report(report.ops)) | dict(kind="computed")
    return [report_row("written out", XLA, report), own, ours]


@torch.no_grad()
def block_times(made: Block, repeats: int = 15) -> dict[str, bench.Comparison]:
    """Compiled against not, in each framework; every second run is of the baseline itself (A/A)."""
    jitted = xla.compiled(made.jax_written, *made.jax_arrays)
    single = xla.op_by_op(made.jax_written, *made.jax_arrays)
    written, layer = torch.compile(made.written), torch.compile(made.layer)
    torch_calls = {
        "written out, Inductor": lambda: written(made.x),
        LIBRARY: lambda: made.layer(made.x),
        "torch's own kernels, Inductor": lambda: layer(made.x),
    }
    return {
        "JAX": bench.compared(single, {"written out, XLA": jitted}, repeats=repeats),
        "torch": bench.compared(lambda: made.written(made.x), torch_calls, repeats=repeats),
    }


def time_rows(times: dict[str, bench.Comparison]) -> list[dict]:
    """A row for each form: milliseconds, and the ratio to single operations with its interval."""
    rows = []
    for framework, result in times.items():
        base = result.timings["baseline"]
        rows.append(dict(framework=framework, form="written out, single operations",
                         ms=1e3 * base.median, ratio=1.0, low=1 - result.band,
                         high=1 + result.band, differs="A/A", kind="measured"))  # fmt: skip
        for name, ratio in result.ratios.items():
            rows.append(dict(framework=framework, form=name, ms=1e3 * result.timings[name].median,
                             ratio=ratio.mean, low=ratio.low, high=ratio.high,
                             differs=result.differs(name), kind="measured"))  # fmt: skip
    return rows


TIME_COLUMNS = {
    "framework": "framework",
    "form": "form",
    "ms": "ms",
    "ratio": "time / single operations",
    "low": "from",
    "high": "to",
    "differs": "outside the noise?",
    "kind": "kind",
}


# --- When it does not pay --------------------------------------------------------------------


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
    "seq_len": "tokens",
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


def reports_of(made: Block) -> dict[str, FusionReport]:
    """Every report of the block, by form."""
    return {
        "written out, XLA": xla_report(made.jax_written, *made.jax_arrays),
        "written out, Inductor": inductor_report(made.written, made.x),
        "torch's own kernels, Inductor": inductor_report(made.layer, made.x),
    }
