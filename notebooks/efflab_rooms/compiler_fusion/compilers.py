"""Notebook 07's measurements: what two compilers make of one block, how fast, and when it pays."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from efflab import bench
from efflab.acceleration import block, xla
from efflab.acceleration.fusion import (
    FusionReport,
    fuse_report,
    inductor_report,
    xla_report,
)
from efflab.errors import require
from efflab.lab import Evidence

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


def reports_of(made: Block) -> dict[str, FusionReport]:
    """Every report of the block, by form."""
    return {
        "written out, XLA": xla_report(made.jax_written, *made.jax_arrays),
        "written out, Inductor": inductor_report(made.written, made.x),
        "torch's own kernels, Inductor": inductor_report(made.layer, made.x),
    }


# --- The verdict's figures ------------------------------------------------------------------


def fusion_evidence(
    reports: dict[str, FusionReport], times: dict[str, bench.Comparison]
) -> list[Evidence]:
    """What the verdict rests on, out of the block's reports and times."""
    xla = reports["written out, XLA"]
    inductor = reports["written out, Inductor"]
    library = reports["torch's own kernels, Inductor"]
    jax, here = times["JAX"].ratios, times["torch"].ratios
    return [
        Evidence("ops-per-kernel", "operations a kernel, XLA", xla.n_ops / xla.n_kernels),
        Evidence("bytes", "bytes after / before, XLA", xla.bytes_after / xla.bytes_before),
        Evidence("ops", "operations handed to XLA", xla.n_ops),
        Evidence("kernels", "kernels XLA launches", xla.n_kernels),
        Evidence("torch-kernels", "kernels of torch's own, without a compiler", library.n_ops),
        Evidence("inductor-kernels", "kernels Inductor launches", inductor.n_kernels),
        Evidence.of("xla", "XLA's time / single operations", jax["written out, XLA"]),
        Evidence.of(
            "inductor", "Inductor's time / single operations", here["written out, Inductor"]
        ),
        Evidence.of("torch", "torch's own kernels' time / single operations", here[LIBRARY]),
    ]
