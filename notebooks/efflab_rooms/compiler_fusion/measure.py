"""Notebook 07's numbers: what two compilers make of one block, how fast it runs, when it pays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.split_module import split_module

from efflab import bench
from efflab.acceleration import block, fusion, inductor, xla
from efflab.errors import require
from efflab.estimate import Estimate

N_HEAD, HEAD_DIM, VALUE_BYTES = 4, 64, 4
HERE = "this machine"

# --- One block, its reports and its times --------------------------------------------------------

WITH_XLA, WITH_INDUCTOR = "written out, XLA", "written out, Inductor"
LIBRARY, LIBRARY_WITH_INDUCTOR = "torch's own kernels", "torch's own kernels, Inductor"
PLAN = "written out, our fuser's kernels"


@dataclass(frozen=True)
class Block:
    """One block in three forms: torch's layer, and written out for torch and for JAX."""

    layer: torch.nn.Module
    x: torch.Tensor
    in_torch: Callable  # of x
    in_jax: Callable  # of jax_arrays
    jax_arrays: tuple


def make_block(d_model: int, seq_len: int, seed: int = 0) -> Block:
    """The same random block and input for all."""
    is_width = 64 <= d_model <= 512 and d_model % N_HEAD == 0
    require(is_width, "d_model", d_model, f"a multiple of {N_HEAD} from 64 to 512")
    require(16 <= seq_len <= 1024, "seq_len", seq_len, "16 to 1,024 tokens")
    layer, x = block.plain_layer(d_model, seq_len, N_HEAD, seed)
    weights = block.weights(layer, seq_len)
    pytorch, jax = block.torch_namespace(), block.jax_namespace()
    arrays = {name: jax.xp.asarray(value.numpy()) for name, value in weights.items()}
    return Block(
        layer,
        x,
        lambda x: block.block(pytorch, x, weights, N_HEAD),
        lambda x, weights: block.block(jax, x, weights, N_HEAD),
        (jax.xp.asarray(x.numpy()), arrays),
    )


def block_reports(forms: Block) -> dict[str, fusion.FusionReport]:
    """What each compiler makes of each form."""
    return {
        WITH_XLA: fusion.xla_report(forms.in_jax, *forms.jax_arrays),
        WITH_INDUCTOR: fusion.inductor_report(forms.in_torch, forms.x),
        LIBRARY_WITH_INDUCTOR: fusion.inductor_report(forms.layer, forms.x),
    }


def report_row(program: str, compiler: str, report: fusion.FusionReport, kind="measured") -> dict:
    """A report as a row of a table."""
    return {
        "program": program,
        "compiler": compiler,
        "operations": report.n_ops,
        "resulting kernels": report.n_kernels,
        "MB before": report.bytes_before / 1e6,
        "MB after": report.bytes_after / 1e6,
        "after / before": report.bytes_after / report.bytes_before,
        "kind": kind,
    }


@torch.no_grad()
def compile_plan(fn: Callable, x: torch.Tensor) -> torch.nn.Module:
    """`fn(x)` in the kernels of `fusion.fuse`, each loop compiled by Inductor on its own.

    Single operations and products stay torch's kernels; a view stands with its first reader.
    """
    groups = fusion.fuse(inductor.operations(fn, x))
    home = {op.name: i for i, group in enumerate(groups) for op in group}
    graph, place = make_fx(fn)(x), {}
    for node in reversed(graph.graph.nodes):
        readers = [place[user] for user in node.users]
        place[node] = home.get(node.name, min(readers, default=0))
    plan = split_module(graph, None, place.__getitem__)
    for i, group in enumerate(groups):
        if len(group) > 1:
            part = f"submod_{i}"
            setattr(plan, part, torch.compile(getattr(plan, part), dynamic=False))
    return plan


@torch.no_grad()
def block_times(forms: Block, repeats: int = 15) -> dict[str, bench.Comparison]:
    """Each form against single operations in its framework, interleaved."""
    single = xla.op_by_op(forms.in_jax, *forms.jax_arrays)
    jitted = xla.compile_call(forms.in_jax, *forms.jax_arrays)
    programs = {
        PLAN: compile_plan(forms.in_torch, forms.x),
        WITH_INDUCTOR: torch.compile(forms.in_torch),
        LIBRARY: forms.layer,
        LIBRARY_WITH_INDUCTOR: torch.compile(forms.layer),
    }
    calls = {name: partial(program, forms.x) for name, program in programs.items()}
    return {
        "JAX": bench.compare(single, {WITH_XLA: jitted}, repeats=repeats),
        "torch": bench.compare(partial(forms.in_torch, forms.x), calls, repeats=repeats),
    }


def time_rows(times: dict[str, bench.Comparison]) -> list[dict]:
    """A row for each form: milliseconds, and the ratio to single operations with its interval."""
    rows = []
    for framework, result in times.items():
        itself = Estimate(1.0, 1 - result.band, 1 + result.band)
        for name, ratio in {"baseline": itself, **result.ratios}.items():
            is_baseline = name == "baseline"
            rows.append(
                {
                    "framework": framework,
                    "form": "written out, single operations" if is_baseline else name,
                    "time (ms)": 1e3 * result.timings[name].median,
                    "time / single operations": ratio.mean,
                    "from": ratio.low,
                    "to": ratio.high,
                    "outside the noise?": "A/A" if is_baseline else result.differs(name),
                }
            )
    return rows


# --- The bytes of attention ----------------------------------------------------------------------


def attention(namespace: block.Namespace, q, k, v):
    """softmax(q kᵀ)v in eight operations, scores in memory."""
    scores = q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5
    return block.softmax(namespace, scores) @ v


@lru_cache(maxsize=4)
def attention_report(seq_len: int, head_dim: int, n_head: int = 1) -> fusion.FusionReport:
    """XLA's report on the eight operations."""
    q = np.ones((1, n_head, seq_len, head_dim), np.float32)
    return fusion.xla_report(partial(attention, block.jax_namespace()), q, q + 1, q + 2)


def gelu_report(seq_len: int, d_ff: int) -> fusion.FusionReport:
    """XLA's report on bias and GELU of (T, d_ff) values, six operations."""
    namespace = block.jax_namespace()
    ones = np.ones((seq_len, d_ff), np.float32), np.ones(d_ff, np.float32)
    return fusion.xla_report(lambda x, bias: block.gelu(namespace, x + bias), *ones)


@lru_cache(maxsize=1)
def pattern_report(seq_len: int, head_dim=HEAD_DIM, n_head=N_HEAD) -> fusion.FusionReport:
    """Inductor's report on softmax(q kᵀ)v as people write it: a pattern that it knows by heart."""
    heads = [torch.randn(1, n_head, seq_len, head_dim) for _ in range(3)]
    written = lambda q, k, v: (q @ k.mT * head_dim**-0.5).softmax(-1) @ v  # noqa: E731
    return fusion.inductor_report(written, *heads)


# --- Launches ------------------------------------------------------------------------------------

LENGTHS = (1, 4, 16, 64)
SIZES = (2**8, 2**12, 2**15, 2**17, 2**19)


def time_chains(lengths=LENGTHS, sizes=SIZES, repeats: int = 7) -> list[dict]:
    """Chains of multiplications and additions, a kernel each, and `fused` by XLA into one kernel.

    A kernel reads and writes its `n_values`; the fused one moves as much as one of the others.
    """
    jax = xla.load_jax()
    chains = []
    for n_values in sizes:
        x = jax.numpy.ones(n_values)
        calls = {(n, False): fusion.chain(torch.ones(n_values), n) for n in lengths}
        calls |= {(n, True): xla.compile_call(partial(_chain, n_ops=n), x) for n in lengths}
        for (n, fused), seconds in fusion.call_seconds(calls, repeats).items():
            n_kernels = 1 if fused else n
            size = dict(n_ops=n, n_values=n_values, fused=fused, n_kernels=n_kernels)
            n_bytes = 2 * VALUE_BYTES * n_values * n_kernels
            chains.append(size | dict(bytes=n_bytes, seconds=seconds))
    return chains


def _chain(x, n_ops: int):
    """`fusion.chain` as an expression, for a compiler."""
    for i in range(n_ops):
        x = x + 1e-4 if i % 2 else x * 1.0001
    return x


def fit_chains(chains: Sequence[dict]) -> fusion.LaunchModel:
    """Overhead and bandwidth by the single kernels; the rate by the longest fused chain."""
    model = fusion.fit_launches([chain for chain in chains if not chain["fused"]])
    fused = [chain for chain in chains if chain["fused"]]
    longest = max(fused, key=lambda chain: chain["n_ops"] * chain["n_values"])
    return replace(model, rate=longest["n_ops"] * longest["n_values"] / longest["seconds"])


def fit_rows(chains: Sequence[dict], model: fusion.LaunchModel) -> list[dict]:
    """Measured and modelled microseconds of the chains of single kernels, and their ratio."""
    rows = []
    for chain in chains:
        if not chain["fused"] and chain["n_ops"] in (1, 16, 64):
            seconds = model.seconds(chain["n_kernels"], chain["bytes"])
            rows.append(
                {
                    "kernels in a row": chain["n_ops"],
                    "values": chain["n_values"],
                    "model (µs, computed)": 1e6 * seconds,
                    "here (µs, measured)": 1e6 * chain["seconds"],
                    "measured / model": chain["seconds"] / seconds,
                }
            )
    return rows


def fused_rows(chains: Sequence[dict]) -> list[dict]:
    """16 kernels against one that does the work of all, by size."""
    seconds = {(c["n_values"], c["fused"]): c["seconds"] for c in chains if c["n_ops"] == 16}
    return [
        {
            "values": n,
            "16 kernels (µs)": 1e6 * seconds[n, False],
            "one kernel, XLA (µs)": 1e6 * seconds[n, True],
            "speed-up": seconds[n, False] / seconds[n, True],
        }
        for n, fused in seconds
        if fused
    ]


# --- When it pays --------------------------------------------------------------------------------


def biased_gelu(x, bias):
    """GELU of x + bias in six operations."""
    return block.gelu(block.torch_namespace(), x + bias)


@torch.no_grad()
def small_rows(n_tokens: Sequence[int] = (2, 16, 128, 1024), d_ff: int = 1024) -> list[dict]:
    """Bias and GELU compiled once for any length, against six operations and torch's own two."""
    bias = torch.randn(d_ff)
    compiled = torch.compile(biased_gelu, dynamic=True)
    rows = []
    for n in n_tokens:
        x = torch.randn(n, d_ff)
        calls = {"compiled": partial(compiled, x, bias), "library": lambda x=x: F.gelu(x + bias)}
        result = bench.compare(partial(biased_gelu, x, bias), calls, warmup=5, repeats=31)
        timing = result.timings["compiled"]
        ratio = timing.ratio_interval(result.timings["library"])
        rows.append(
            {
                "values": n * d_ff,
                "compiled (µs)": 1e6 * timing.median,
                "time / six operations": result.ratios["compiled"].mean,
                "time / torch's two kernels": ratio.mean,
                "from": ratio.low,
                "to": ratio.high,
                "A/A noise (±%)": 100 * result.band,
            }
        )
    return rows


def torch_compilations(lengths: Sequence[int], dynamic: bool | None) -> list[int]:
    """How often torch has compiled bias and GELU after each of these lengths, anew from the first.

    Counted are the graphs that Dynamo hands on. The backend here runs them as they are: how often
    does not depend on what then compiles them.
    """
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(biased_gelu, backend=counter, dynamic=dynamic)
    counts = []
    for n in lengths:
        compiled(torch.ones(n, 16), torch.ones(16))
        counts.append(counter.frame_count)
    torch._dynamo.reset()
    return counts
