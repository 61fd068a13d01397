"""Notebook 07's launches: many small kernels against one, a model of both, and its explorer."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from efflab.acceleration import xla
from efflab.acceleration.fusion import LaunchModel, call_seconds, chain, fit_launches
from efflab.devices import DEVICES
from efflab.errors import require, require_int, require_one_of
from efflab.experiments import gpu_bench
from efflab.lab import Choice, Slider, explorer, figures, number, tr

LENGTHS = (1, 4, 16, 64)
SIZES = (2**8, 2**12, 2**15, 2**17, 2**19)
HERE = "this machine"
VALUE_BYTES = 4


def measure(lengths=LENGTHS, sizes=SIZES, repeats: int = 7) -> list[dict]:
    """Chains of multiplications and additions, a kernel each, timed turn and turn about.

    A kernel reads and writes its `n_values`: 8 bytes each. `fused`: XLA's one kernel for the same
    chain, which moves as much as one of them.
    """
    jax = xla.load_jax()
    rows = []
    for n_values in sizes:
        single = {n: chain(torch.ones(n_values), n) for n in lengths}
        x = jax.numpy.ones(n_values)
        fused = {n: jax.jit(partial(_chained, n_ops=n)) for n in lengths}
        calls = {(n, False): call for n, call in single.items()}
        calls |= {(n, True): partial(_waiting, jax, f, x) for n, f in fused.items()}
        times = call_seconds(calls, repeats)
        for (n, is_fused), seconds in times.items():
            kernels = 1 if is_fused else n
            nbytes = 2 * VALUE_BYTES * n_values * kernels
            rows.append(dict(n_ops=n, n_values=n_values, fused=is_fused, n_kernels=kernels,
                             bytes=nbytes, seconds=seconds))  # fmt: skip
    return rows


def _chained(x, n_ops: int):
    """`fusion.chain` as an expression, for a compiler."""
    for i in range(n_ops):
        x = x + 1e-4 if i % 2 else x * 1.0001
    return x


def _waiting(jax, fn: Callable, x):
    return jax.block_until_ready(fn(x))


def fit(rows: Sequence[dict]) -> LaunchModel:
    """Overhead and bandwidth by the single kernels; the rate by the longest fused chain."""
    model = fit_launches([row for row in rows if not row["fused"]])
    fused = [row for row in rows if row["fused"]]
    longest = max(fused, key=lambda row: row["n_ops"] * row["n_values"])
    rate = longest["n_ops"] * longest["n_values"] / longest["seconds"]
    return replace(model, rate=rate)


def fit_rows(rows: Sequence[dict], model: LaunchModel) -> list[dict]:
    """Measured and modelled microseconds of the chains of single kernels, and their ratio."""
    shown = [row for row in rows if not row["fused"] and row["n_ops"] in (1, 16, 64)]
    return [
        dict(
            n_ops=row["n_ops"],
            n_values=row["n_values"],
            modelled=1e6 * model.seconds(row["n_kernels"], row["bytes"]),
            us=1e6 * row["seconds"],
            ratio=row["seconds"] / model.seconds(row["n_kernels"], row["bytes"]),
        )
        for row in shown
    ]


FIT_COLUMNS = {
    "n_ops": "kernels in a row",
    "n_values": "values",
    "modelled": "model (µs, computed)",
    "us": "here (µs, measured)",
    "ratio": "measured / model",
}


def fused_rows(rows: Sequence[dict], n_ops: int = 16) -> list[dict]:
    """`n_ops` kernels against one that does the work of all, by size."""
    time = {(r["n_values"], r["fused"]): r["seconds"] for r in rows if r["n_ops"] == n_ops}
    sizes = list(dict.fromkeys(n for n, _ in time))
    return [
        dict(n_values=n, single=1e6 * time[n, False], fused=1e6 * time[n, True],
             ratio=time[n, False] / time[n, True], kind="measured")
        for n in sizes
    ]  # fmt: skip


FUSED_COLUMNS = {
    "n_values": "values",
    "single": "16 kernels (µs)",
    "fused": "one kernel, XLA (µs)",
    "ratio": "times faster",
    "kind": "kind",
}


def constant_rows(model: LaunchModel) -> list[dict]:
    """The two constants here, and on every GPU that `make bench-gpu` has recorded."""
    rows = [dict(device=HERE, overhead=1e6 * model.overhead, gb_s=model.bandwidth / 1e9,
                 even_kb=model.even_bytes / 1e3, kind="measured")]  # fmt: skip
    for device, fitted_there in gpu_bench.recorded_launches().items():
        rows.append(rows[0] | dict(
            device=device, overhead=1e6 * fitted_there.overhead,
            gb_s=fitted_there.bandwidth / 1e9, even_kb=fitted_there.even_bytes / 1e3,
            kind="recorded",
        ))  # fmt: skip
    return rows


CONSTANT_COLUMNS = {
    "device": "device",
    "overhead": "a launch (µs)",
    "gb_s": "GB/s",
    "even_kb": "even at (kB)",
    "kind": "kind",
}

# --- The explorer ----------------------------------------------------------------------------

NOMINAL = LaunchModel(overhead=1e-6, bandwidth=20e9, rate=20e9)
"""Where nothing was measured: the order of size of a laptop's core."""
CONTROLS = dict(
    n_ops=Slider(1, 64, 16, scale="log2", label="operators in a row"),
    n_values=Slider(2**8, 2**24, 2**15, scale="log2", label="values in each"),
    overhead_us=Slider(0.1, 20.0, 1.0, step=0.1, unit="µs", label="to launch a kernel"),
    device=Choice((HERE, "V100 SXM2", "A100 80GB SXM", "H100 SXM"), HERE, label="bandwidth of"),
)


@explorer(**CONTROLS)
def fusion_cost(n_ops=16, n_values=2**15, overhead_us=1.0, device=HERE):
    """Bytes and time of a chain of operators, as kernels of their own and as one."""
    return draw(n_ops, n_values, overhead_us, device, NOMINAL, ())


def fitted(model: LaunchModel, rows: Sequence[dict]) -> Callable:
    """The same explorer with this machine's constants and its measured points."""
    overhead = round(min(20.0, max(0.1, 1e6 * model.overhead)), 1)
    start = Slider(0.1, 20.0, overhead, step=0.1, unit="µs", label=CONTROLS["overhead_us"].label)

    @explorer(**CONTROLS | dict(overhead_us=start))
    def fusion_cost(n_ops=16, n_values=2**15, overhead_us=overhead, device=HERE):
        return draw(n_ops, n_values, overhead_us, device, model, rows)

    return fusion_cost


def draw(n_ops, n_values, overhead_us, device, here: LaunchModel, rows: Sequence[dict]):
    """Left the bytes over the number of operators, right the time over the number of values."""
    require_int("n_ops", n_ops)
    require_int("n_values", n_values)
    require(overhead_us > 0, "overhead_us", overhead_us, "a positive number of microseconds")
    require_one_of("device", device, CONTROLS["device"].options)
    model = replace(constants(device, here), overhead=1e-6 * overhead_us)
    one = 2 * VALUE_BYTES * n_values
    work = n_ops * n_values
    times = model.seconds(n_ops, n_ops * one, work), model.seconds(1, one, work)
    meta = {
        tr("MB, single kernels"): n_ops * one / 1e6,
        tr("MB, fused"): one / 1e6,
        tr("µs, single kernels"): 1e6 * times[0],
        tr("µs, fused"): 1e6 * times[1],
        tr("times faster"): times[0] / times[1],
    }
    title = tr("{n} operators on {v} values: fused, 1/{n} of the bytes and {y} times as fast",
               n=n_ops, v=number(n_values), y=number(times[0] / times[1]))  # fmt: skip
    titles = [tr("bytes moved (computed)"), tr("time (line: model, dots: measured)")]
    fig = figures.panels(titles, title, meta=meta, horizontal_spacing=0.12)
    _bytes_panel(fig, n_ops, one)
    _time_panel(fig, model, n_ops, n_values, rows if device == HERE else ())
    fig.update_layout(legend=dict(x=0.58, y=0.99, yanchor="top"))
    return fig


def constants(device: str, here: LaunchModel) -> LaunchModel:
    """Bandwidth and rate of a GPU; a datasheet's FLOP/s count two for a multiply-add."""
    if device == HERE:
        return here
    found = DEVICES[device]
    return LaunchModel(here.overhead, found.memory_bandwidth, found.peak("fp32") / 2, queued=True)


NAMES = ("a kernel each", "fused into one")


def _bytes_panel(fig, n_ops: int, one: int) -> None:
    for i, values in enumerate(([n_ops * one / 1e6], [one / 1e6])):
        fig.add_bar(x=[tr(NAMES[i])], y=values, marker_color=figures.COLOURS[1 - i],
                    text=[number(v) for v in values], textposition="outside", showlegend=False,
                    row=1, col=1)  # fmt: skip
    fig.update_yaxes(title_text="MB", range=[0, 1.2 * n_ops * one / 1e6], row=1, col=1)
    fig.update_xaxes(type="category", row=1, col=1)


def _time_panel(fig, model: LaunchModel, n_ops: int, n_values: int, rows) -> None:
    sizes = 2.0 ** np.arange(8, 25)
    for i, n_kernels in enumerate((n_ops, 1)):
        colour = figures.COLOURS[1 - i]
        at = [(n, n_kernels * 2 * VALUE_BYTES * n) for n in (*sizes, n_values)]
        *y, here = (1e6 * model.seconds(n_kernels, moved, n_ops * n) for n, moved in at)
        style = dict(color=colour, dash=figures.DASHES[i])
        fig.add_scatter(x=sizes, y=y, name=tr(NAMES[i]), mode="lines", line=style, row=1, col=2)
        fig.add_scatter(x=[n_values], y=[here], mode="markers", showlegend=False, row=1, col=2,
                        marker=dict(size=13, color=colour))  # fmt: skip
        found = [r for r in rows if r["n_ops"] == n_ops and r["fused"] == bool(i)]
        marker = dict(symbol=figures.MARKERS[2 * i] + "-open", size=8, color=colour, line_width=2)
        fig.add_scatter(x=[r["n_values"] for r in found] or [None], mode="markers",
                        y=[1e6 * r["seconds"] for r in found] or [None], marker=marker,
                        showlegend=False, row=1, col=2)  # fmt: skip
    ticks = [2.0**k for k in range(8, 25, 4)]
    names = [f"{int(n):,}" if n < 2**16 else f"{int(n) // 2**20}M" if n >= 2**20 else "65,536"
             for n in ticks]  # fmt: skip
    fig.update_xaxes(type="log", tickvals=ticks, ticktext=names, title_text=tr("values"), row=1,
                     col=2)  # fmt: skip
    fig.update_yaxes(type="log", exponentformat="power", dtick=1, title_text="µs", row=1, col=2)
