"""Notebook 12's buckets: a real backward pass and its transfers, the prediction, and a slider."""

from functools import lru_cache

from efflab.bench import MIB
from efflab.config import PRESETS
from efflab.distributed import buckets
from efflab.distributed.buckets import Trace, Wire
from efflab.distributed.launch import RankPool
from efflab.errors import require, require_int
from efflab.lab import Slider, colours, explorer, figures, number, tr
from efflab_rooms.data_parallel import equal

MODEL = "stdlib-gpt"
SLOW = Wire(latency_seconds=0.001, bytes_per_second=200e6)
"""About a fast office network's: this machine's own memory is too fast to show anything."""


@lru_cache(maxsize=8)
def trace(pool: RankPool, batch_size: int, seq_len: int, bucket_mb: float) -> Trace:
    """Rank 0's backward pass over the slow wire."""
    plain = equal.job(batch_size, seq_len, 2)
    args = PRESETS[MODEL], plain.ids, plain.targets, bucket_mb, SLOW
    return pool.run(buckets.trace_on_rank, *args, timeout=equal.SECONDS)[0]


def trace_rows(pool: RankPool, batch_size: int, seq_len: int, sizes: tuple) -> list[dict]:
    """Real time and hidden share by bucket size, predicted from when each was ready as well."""
    rows = []
    for bucket_mb in sizes:
        real = trace(pool, batch_size, seq_len, bucket_mb)
        ready = [t.ready for t in real.transfers]
        bytes_of = [t.n_bytes for t in real.transfers]
        made = Trace(real.backward, buckets.transfers(ready, bytes_of, SLOW, pool.n_procs))
        rows.append({
            "bucket (MiB)": bucket_mb, "buckets": len(ready),
            "backward (ms)": 1e3 * real.backward, "with transfers (ms)": 1e3 * real.seconds,
            "predicted (ms)": 1e3 * made.seconds, "ratio": real.seconds / made.seconds,
            "hidden (%)": 100 * real.hidden, "hidden, predicted (%)": 100 * made.hidden,
            "kind": "measured",
        })  # fmt: skip
    return rows


def trace_figure(pool: RankPool, batch_size: int, seq_len: int, bucket_mb: float):
    """The real pass as a chart: the backward pass above, each bucket's transfer below."""
    real = trace(pool, batch_size, seq_len, bucket_mb)
    title = tr("A backward pass and its buckets, {mb} MiB each (measured)", mb=number(bucket_mb))
    meta = {
        tr("backward (ms)"): round(1e3 * real.backward),
        tr("with transfers (ms)"): round(1e3 * real.seconds),
        tr("hidden (%)"): round(100 * real.hidden),
    }
    return chart(real, title, meta)


def chart(real: Trace, title: str, meta: dict):
    """Bars over time, in milliseconds: compute, waiting, sending."""
    n = len(real.transfers)
    fig = figures.blank(title, tr("milliseconds"), "", meta=meta, height=250 + 22 * min(n, 12))
    names = [tr("bucket {i}", i=i + 1) for i in range(n)]
    fig.add_bar(y=[tr("backward pass")], x=[1e3 * real.backward], base=[0], orientation="h",
                name=tr("computing"), marker_color=figures.COLOURS[0])  # fmt: skip
    waits = [1e3 * (t.start - t.ready) for t in real.transfers]
    fig.add_bar(
        y=names,
        x=waits,
        base=[1e3 * t.ready for t in real.transfers],
        orientation="h",
        name=tr("ready, waiting for the wire"),
        marker_color=colours.LIGHT_GREY,
    )
    sends = [1e3 * (t.end - t.start) for t in real.transfers]
    fig.add_bar(y=names, x=sends, base=[1e3 * t.start for t in real.transfers], orientation="h",
                name=tr("all-reduce"), marker_color=figures.COLOURS[1])  # fmt: skip
    fig.add_vline(x=1e3 * real.backward, line=dict(color=colours.DARK, dash="dash", width=1.5))
    fig.update_yaxes(autorange="reversed")
    above = dict(orientation="h", x=0, xanchor="left", y=1, yanchor="bottom")  # off the bars
    return fig.update_layout(barmode="overlay", legend=above, margin_t=90)


N_LAYERS, LAYER_MS, LAYER_MIB = 24, 4.0, 24
"""The explorer's model: 24 layers of BERT-large's size, 12.6 M parameters in 16 bits each, with
backward passes of 4 ms."""


@explorer(
    bucket=Slider(1, 256, 32, scale="log2", unit="MiB", label="bucket"),
    gigabits=Slider(1, 512, 64, scale="log2", unit="Gbit/s", label="wire"),
    latency=Slider(0, 2000, 200, step=100, unit="µs", label="latency"),
    ranks=Slider(2, 256, 8, scale="log2", label="ranks"),
)
def overlap(bucket=32, gigabits=64, latency=200, ranks=8):
    """The backward pass of 24 layers and its transfers, by bucket size and wire."""
    require(1 <= bucket <= 256, "bucket", bucket, "{low} to {high}", low=1, high=256)
    require(1 <= gigabits <= 512, "gigabits", gigabits, "{low} to {high}", low=1, high=512)
    require(0 <= latency <= 2000, "latency", latency, "{low} to {high}", low=0, high=2000)
    require_int("ranks", ranks)
    require(2 <= ranks <= 256, "ranks", ranks, "{low} to {high}", low=2, high=256)
    wire = Wire(1e-6 * latency, 1e9 * gigabits / 8)
    layers = [LAYER_MS / 1e3] * N_LAYERS, [LAYER_MIB * MIB] * N_LAYERS
    made = buckets.predict(*layers, bucket * MIB, wire, ranks)
    exposed = made.seconds - made.backward
    meta = {tr("buckets"): len(made.transfers), tr("milliseconds"): 1e3 * made.seconds,
            tr("exposed (ms)"): 1e3 * exposed, tr("hidden (%)"): 100 * made.hidden}  # fmt: skip
    title = tr("{n} buckets: {ms} ms, of which {exposed} ms wait for the wire (simulated)",
               n=len(made.transfers), ms=number(1e3 * made.seconds),
               exposed=number(1e3 * exposed))  # fmt: skip
    return chart(made, title, meta)
