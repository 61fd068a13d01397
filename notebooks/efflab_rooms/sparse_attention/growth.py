"""Notebook 03's measurements: how windows and full attention grow, and beside the libraries."""

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from efflab import bench
from efflab.errors import require
from efflab.estimate import Estimate
from efflab.experiments import attention_bench
from efflab.experiments.record import recorded
from efflab.lab import figures, tr
from efflab.model import attention_written_out
from efflab.structure.bigbird import bigbird_layout, block_sparse_attention
from efflab.structure.window import sliding_window_attention, visible_pairs
from efflab_rooms.sparse_attention.windows import N_HEAD

FULL, WINDOW = "full attention (SDPA)", "sliding window"
WRITTEN = "scores written out"
BLOCK = 64


def lengths_up_to(max_len: int) -> list[int]:
    """max_len / 8, / 4, / 2 and itself."""
    require(max_len >= 1024, "max_len", max_len, "at least 1,024 tokens")
    return [max_len // 8, max_len // 4, max_len // 2, max_len]


@torch.no_grad()
def measure_growth(max_len: int, window_size: int, repeats: int = 7) -> list[dict]:
    """Milliseconds and MiB of a window and of full attention at four lengths, interleaved.

    4 heads of 64. `mib_written` is attention with its scores in memory, measured up to 4,096 tokens
    and computed beyond (two n x n matrices a head at once).
    """
    rows = []
    for n in lengths_up_to(max_len):
        q, k, v = (x[:, :N_HEAD] for x in attention_bench.heads(n))
        calls = {
            WINDOW: lambda q=q, k=k, v=v: sliding_window_attention(q, k, v, window_size),
            FULL: lambda q=q, k=k, v=v: F.scaled_dot_product_attention(q, k, v),
        }
        times = bench.interleaved(calls, warmup=1, repeats=repeats)
        mib = {name: bench.peak_bytes(call) / 2**20 for name, call in calls.items()}
        if n <= 4096:
            written = bench.peak_bytes(lambda q=q, k=k, v=v: attention_written_out(q, k, v))
            written /= 2**20
        else:
            written = 2 * 4 * N_HEAD * n * n / 2**20
        rows.append(dict(
            seq_len=n, window_ms=1e3 * times[WINDOW].median, full_ms=1e3 * times[FULL].median,
            ratio=times[FULL].ratio(times[WINDOW]), predicted=n * n / visible_pairs(n, window_size),
            window_mib=mib[WINDOW], full_mib=mib[FULL], written_mib=written, kind="measured",
        ))  # fmt: skip
    return rows


GROWTH_COLUMNS = {
    "seq_len": "sequence length (tokens)",
    "window_ms": "window (ms)",
    "full_ms": "full (ms)",
    "ratio": "times faster, measured",
    "predicted": "pairs, full / window (computed)",
    "kind": "kind",
}


def exponent(rows: list[dict], name: str) -> Estimate:
    """p of the power law n^p through a column of `measure_growth`, by least squares in logs.

    The interval is the fit's own (Student's t): wide where few lengths scatter. Two lengths lie on
    a line whatever they are, and would seem certain.
    """
    from scipy import stats

    require(len(rows) >= 3, "rows", len(rows), "three lengths or more")
    x = np.log([row["seq_len"] for row in rows])
    fit = stats.linregress(x, np.log([row[name] for row in rows]))
    half = float(stats.t.ppf(0.975, len(rows) - 2)) * float(fit.stderr)
    return Estimate(float(fit.slope), float(fit.slope) - half, float(fit.slope) + half)


def exponent_rows(rows: list[dict], block_rows: list[dict]) -> list[dict]:
    """The exponents of time with their intervals, for `table`."""
    columns = (
        (FULL, rows, "full_ms"),
        (WINDOW, rows, "window_ms"),
        ("BigBird: all three", block_rows, "block_ms"),
    )
    found = [(name, exponent(where, column)) for name, where, column in columns]
    return [dict(what=name, exponent=e.mean, low=e.low, high=e.high, kind="measured")
            for name, e in found]  # fmt: skip


EXPONENT_COLUMNS = {
    "what": "implementation",
    "exponent": "time grows as n to the power",
    "low": "interval, low",
    "high": "interval, high",
    "kind": "kind",
}


def pairs_exponent(max_len: int, window_size: int) -> float:
    """The exponent of a window's pairs over the last doubling of the length."""
    return math.log2(visible_pairs(max_len, window_size) / visible_pairs(max_len // 2, window_size))


def growth_figure(rows: list[dict]):
    """Time and memory over the length, both axes logarithmic: the slope is the exponent."""
    names = {"full": FULL, "window": WINDOW}
    meta = {}
    titles = [tr("time (ms)"), tr("memory beyond q, k, v (MiB)")]
    fig = figures.panels(titles, tr("Time and memory over the length: the slope is the exponent"))
    x = [row["seq_len"] for row in rows]
    lines = [(f"{k}_ms", name, 1) for k, name in names.items()]
    lines += [(f"{k}_mib", name, 2) for k, name in names.items()] + [("written_mib", WRITTEN, 2)]
    for key, name, column in lines:
        power = exponent(rows, key).mean
        meta[f"{tr(name)}, {titles[column - 1]}: n^"] = round(power, 2)
        i = [FULL, WINDOW, WRITTEN].index(name)
        y = [row[key] for row in rows]
        shift = -16 if name == FULL and column == 2 else 14  # two lines end close together
        fig.add_scatter(
            x=x, y=y, name=tr(name), legendgroup=name, showlegend=column == 1 or name == WRITTEN,
            line=dict(color=figures.COLOURS[i], dash=figures.DASHES[i]),
            marker=dict(symbol=figures.MARKERS[i], size=8), row=1, col=column,
        )  # fmt: skip
        fig.add_annotation(
            x=math.log10(x[-1]), y=math.log10(y[-1]), text=f"n^{power:.2f}", showarrow=False,
            xanchor="right", yshift=shift, font_color=figures.COLOURS[i], row=1, col=column,
        )  # fmt: skip
    ticks = [f"{n:,}" for n in x]
    fig.update_xaxes(
        type="log", tickvals=x, ticktext=ticks, title_text=tr("sequence length (tokens)")
    )
    fig.update_yaxes(type="log", exponentformat="power", dtick=1)
    fig.update_layout(meta=meta, legend=dict(orientation="h", y=-0.22), margin_b=90)
    return fig


@lru_cache(maxsize=1)
def recorded_bench() -> dict:
    """data/experiments/attention-bench.json: rows, and with what and where they were measured."""
    kept = recorded(attention_bench.NAME)
    return kept | dict(rows=attention_bench.rows_of(kept))


def library_rows(seq_len: int = 8192) -> list[dict]:
    """The recorded contestants at one length, fastest first."""
    rows = [row for row in recorded_bench()["rows"] if row["seq_len"] == seq_len]
    require(bool(rows), "seq_len", seq_len, "a recorded length")
    keys = ("name", "milliseconds", "over_flex", "over_full", "mib")
    rows = [{k: row[k] for k in keys} | dict(peak=100 * row["peak_share"]) for row in rows]
    return [r | dict(kind="recorded") for r in sorted(rows, key=lambda r: r["milliseconds"])]


LIBRARY_COLUMNS = {
    "name": "implementation",
    "milliseconds": "milliseconds",
    "over_flex": "time / FlexAttention",
    "over_full": "time / full attention",
    "peak": "% of the matrix-product peak",
    "mib": "MiB beyond q, k, v",
    "kind": "kind",
}


def flex_now(seq_len: int = 4096, repeats: int = 5) -> tuple[float | None, float]:
    """Our time over compiled FlexAttention's: (measured here now, recorded).

    None where FlexAttention cannot be compiled, which takes a C++ compiler.
    """
    kept = {(r["seq_len"], r["name"]): r["over_flex"] for r in recorded_bench()["rows"]}
    q, k, v = attention_bench.heads(seq_len)
    window = attention_bench.WINDOW
    theirs = attention_bench.flex(q, k, v)
    calls = {
        "ours": lambda: sliding_window_attention(q, k, v, window),
        "flex": theirs,
    }
    now = None
    try:
        with torch.no_grad():
            torch.testing.assert_close(theirs(), calls["ours"](), atol=1e-4, rtol=1e-4)
            times = bench.interleaved(calls, warmup=1, repeats=repeats)
        now = times["ours"].ratio(times["flex"])
    except RuntimeError as error:  # torch's own message names what it misses
        print(tr("FlexAttention cannot be compiled here: {why}", why=str(error).splitlines()[0]))
    return now, kept[seq_len, attention_bench.OURS]


@torch.no_grad()
def block_growth(max_len: int, repeats: int = 3) -> list[dict]:
    """Block-sparse attention (2 global, 3 window, 3 random blocks of 64) beside full attention.

    At four lengths, interleaved; 4 heads of 64.
    """
    rows = []
    for n in lengths_up_to(max_len):
        n -= n % BLOCK
        q, k, v = (x[:, :N_HEAD] for x in attention_bench.heads(n))
        layout = bigbird_layout(n // BLOCK, n_global=2, n_window=3, n_random=3)
        calls = {
            "blocks": lambda q=q, k=k, v=v, m=layout: block_sparse_attention(q, k, v, m, BLOCK),
            FULL: lambda q=q, k=k, v=v: F.scaled_dot_product_attention(q, k, v),
        }
        times = bench.interleaved(calls, warmup=1, repeats=repeats)
        rows.append(dict(
            seq_len=n, block_ms=1e3 * times["blocks"].median,
            block_mib=bench.peak_bytes(calls["blocks"]) / 2**20,
            over_full=times["blocks"].ratio(times[FULL]), share=float(layout.float().mean()),
            kind="measured",
        ))  # fmt: skip
    return rows


BLOCK_COLUMNS = {
    "seq_len": "sequence length (tokens)",
    "block_ms": "blocks (ms)",
    "block_mib": "blocks (MiB)",
    "over_full": "time / full attention",
    "share": "share of the pairs (computed)",
    "kind": "kind",
}
