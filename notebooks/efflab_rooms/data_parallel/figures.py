"""Notebook 12's pictures: a ring's traffic, buckets and ZeRO's stages, with two explorers."""

from functools import partial

from efflab import cost
from efflab.bench import MIB
from efflab.config import PRESETS
from efflab.devices import DEVICES
from efflab.distributed import buckets, zero
from efflab.distributed.buckets import Trace, Wire
from efflab.distributed.ring_cost import ring_bytes, tree_bytes
from efflab.distributed.zero import RankState
from efflab.errors import require, require_int, require_one_of
from efflab.lab import Choice, Slider, colours, explorer, mark, number, tr
from efflab.lab import figures as pictures
from efflab.lab.figures import COLOURS, legend
from efflab_rooms.data_parallel import measure

SMALL, LARGE = 1e6, 1e9
"""Bytes of the two sums that are compared."""
LATENCY, BANDWIDTH = 10e-6, 10e9
"""Seconds and bytes a second of the wire that they travel over."""


def ways_to_sum():
    """What a rank sends for a sum, and how long a small sum takes, by way and number of ranks."""
    ranks = [2**i for i in range(1, 11)]
    ring, tree = (Wire(LATENCY, BANDWIDTH, way) for way in ("ring", "tree"))
    names = {ring: tr("ring"), tree: tr("two trees")}
    n_bytes = {tr("through one rank"): [n - 1.0 for n in ranks]}
    n_bytes |= {names[ring]: [ring_bytes(1.0, n) for n in ranks]}
    n_bytes |= {names[tree]: [tree_bytes(1.0, n) for n in ranks]}
    times = {name: [1e3 * wire.seconds(SMALL, n) for n in ranks] for wire, name in names.items()}
    meta = {}
    for size in (SMALL, LARGE):
        for wire, name in names.items():
            key = tr("{way}, 1,024 ranks, {mb} MB (ms)", way=name, mb=number(size / 1e6))
            meta[key] = round(1e3 * wire.seconds(size, ranks[-1]), 2)
    titles = [
        tr("GB sent by the busiest rank to sum 1 GB"),
        tr("ms to sum 1 MB (latency 10 µs, 10 GB/s)"),
    ]
    fig = pictures.panels(titles, tr("Three all-reduce algorithms (computed)"), meta=meta)
    for col, (lines, first) in enumerate(((n_bytes, 0), (times, 1)), start=1):
        for i, (name, values) in enumerate(lines.items(), start=first):
            look = pictures.style(i) | dict(legendgroup=name, showlegend=col == 1)
            fig.add_scatter(x=ranks, y=values, name=name, **look, row=1, col=col)
        pictures.log_axis(fig, [v for values in lines.values() for v in values], row=1, col=col)
    fig.update_xaxes(**pictures.log_ticks(ranks[1::2]), title_text=tr("ranks"))
    return fig.update_layout(legend=legend("below"))


# --- Buckets -------------------------------------------------------------------------------------


def backward_pass(trace: Trace, bucket_mb: float):
    """A real backward pass, and each bucket's transfer."""
    title = tr("A backward pass and its buckets, {mb} MiB each (measured)", mb=number(bucket_mb))
    meta = {
        tr("backward (ms)"): round(1e3 * trace.backward),
        tr("with transfers (ms)"): round(1e3 * trace.seconds),
        tr("hidden (%)"): round(100 * trace.hidden),
    }
    return _chart(trace, title, meta)


def _chart(trace: Trace, title: str, meta: dict):
    """Bars over time, in milliseconds: the backward pass above, each bucket below."""
    transfers = trace.transfers
    height = 250 + 22 * min(len(transfers), 12)
    fig = pictures.blank(title, tr("milliseconds"), meta=meta, height=height, barmode="overlay")
    names = [tr("bucket {i}", i=i) for i in range(1, len(transfers) + 1)]
    waits = [(t.ready, t.start) for t in transfers]
    sends = [(t.start, t.end) for t in transfers]
    for name, colour, lanes, spans in (
        (tr("computing"), COLOURS[0], [tr("backward pass")], [(0, trace.backward)]),
        (tr("ready, waiting for the wire"), colours.LIGHT_GREY, names, waits),
        (tr("all-reduce"), COLOURS[1], names, sends),
    ):
        starts = [1e3 * start for start, _ in spans]
        lengths = [1e3 * (end - start) for start, end in spans]
        look = dict(orientation="h", name=name, marker_color=colour)
        fig.add_bar(x=lengths, base=starts, y=lanes, **look)
    mark(fig, x=1e3 * trace.backward).update_yaxes(autorange="reversed")
    return fig.update_layout(legend=legend("above", y=1), margin_t=90)


N_LAYERS, LAYER_SECONDS, LAYER_BYTES = 24, 0.004, 24 * MIB
"""The explorer's model: 24 layers of BERT-large's size, 12.6 M parameters in 16 bits each."""


@explorer(
    bucket=Slider(1, 256, 32, scale="log2", unit="MiB", label="bucket size"),
    gigabits=Slider(1, 512, 64, scale="log2", unit="Gbit/s", label="bandwidth"),
    latency=Slider(0, 200, 20, step=10, unit="µs", label="latency"),
    ranks=Slider(2, 1024, 8, scale="log2", label="ranks"),
    way=Choice(tuple(buckets.WAYS), "ring", label="all-reduce"),
)
def overlap(bucket=32, gigabits=64, latency=20, ranks=8, way="ring"):
    """The backward pass of 24 layers and its transfers, by bucket size and wire."""
    require(1 <= bucket <= 256, "bucket", bucket, "{low} to {high}", low=1, high=256)
    require(1 <= gigabits <= 512, "gigabits", gigabits, "{low} to {high}", low=1, high=512)
    require(0 <= latency <= 200, "latency", latency, "{low} to {high}", low=0, high=200)
    require_int("ranks", ranks, 2, 1024)
    require_one_of("way", way, buckets.WAYS)
    layers = [LAYER_SECONDS] * N_LAYERS, [LAYER_BYTES] * N_LAYERS
    wire = Wire(1e-6 * latency, 1e9 * gigabits / 8, way)
    trace = buckets.predict(*layers, bucket * MIB, wire, ranks)
    exposed = trace.seconds - trace.backward
    meta = {
        tr("buckets"): len(trace.transfers),
        tr("time (ms)"): 1e3 * trace.seconds,
        tr("exposed (ms)"): 1e3 * exposed,
        tr("hidden (%)"): 100 * trace.hidden,
    }
    ms = dict(ms=number(1e3 * trace.seconds), exposed=number(1e3 * exposed))
    text = "{n} buckets: {ms} ms, {exposed} ms of it waiting for the wire (simulated)"
    return _chart(trace, tr(text, n=len(trace.transfers), **ms), meta)


# --- ZeRO ----------------------------------------------------------------------------------------


def _stage_name(stage: int) -> str:
    return f"ZeRO-{stage}" if stage else tr("DDP")


def stages(by_stage: dict[int, list[RankState]]):
    """A whole step of the rank that holds most, by part and stage."""
    held = {stage: max(ranks, key=measure.step_bytes) for stage, ranks in by_stage.items()}
    parts = {
        tr("weights"): [h.weights for h in held.values()],
        tr("gradients"): [h.gradients for h in held.values()],
        tr("optimizer state"): [h.optimizer for h in held.values()],
        tr("gathered weights"): [h.gathered for h in held.values()],
        tr("activations and buffers"): [h.step - h.gathered for h in held.values()],
    }
    series = {name: [n / 1e6 for n in n_bytes] for name, n_bytes in parts.items()}
    ddp = measure.step_bytes(held[0])
    meta = {_stage_name(s): round(100 * measure.step_bytes(h) / ddp) for s, h in held.items()}
    labels = [f"{name}<br>{share} %" for name, share in meta.items()]
    n_ranks = len(by_stage[0])
    title = tr("Memory per rank in a step, {n} ranks, % of DDP (measured)", n=n_ranks)
    fig = pictures.bars(labels, series, title, "", "MB", stacked=True, meta=meta)
    return fig.update_layout(legend=legend("below", traceorder="normal"))


def batches(by_batch: dict[int, dict[int, list[RankState]]]):
    """A whole step with DDP and with ZeRO-3, by batch: the state, and what no stage cuts."""
    series: dict[str, list[float]] = {
        tr("model state"): [],
        tr("activations, buffers, gathered weights"): [],
    }
    labels, meta = [], {}
    for batch, held in by_batch.items():
        most = {stage: max(ranks, key=measure.step_bytes) for stage, ranks in held.items()}
        share = 100 * measure.step_bytes(most[3]) / measure.step_bytes(most[0])
        meta[tr("{n} sequences: ZeRO-3 / DDP (%)", n=batch)] = round(share, 1)
        for stage, own in most.items():
            labels.append(f"{_stage_name(stage)}<br>{batch}")
            for values, n_bytes in zip(series.values(), (own.state, own.step), strict=True):
                values.append(n_bytes / 1e6)
    title = tr("Memory per rank in a step, 4 ranks, by sequences per batch (measured)")
    fig = pictures.bars(labels, series, title, "", "MB", stacked=True, meta=meta)
    return fig.update_layout(legend=legend("below", traceorder="normal"))


MODELS = ("gpt2-xl", "qwen3-8b", "llama-3.1-70b", "gpt3-175b", "deepseek-v3")
CARDS = [DEVICES[name].memory_bytes / 1e9 for name in ("V100 SXM2", "A100 40GB", "H100 SXM")]
"""GB of each, rising."""
OPTIMIZERS = {"Adam": 2, "momentum": 1, "plain SGD": 0}
"""Numbers of the weights' size that an optimizer keeps."""
PRECISIONS = ("mixed", "fp32")
RANKS = [2**i for i in range(11)]


def bytes_a_parameter(optimizer: str, precision: str) -> dict[str, float]:
    """Bytes of weight, gradient and optimizer state; mixed precision adds an fp32 master copy."""
    moments = 4 * OPTIMIZERS[optimizer]
    if precision == "fp32":
        return dict(param_bytes=4, grad_bytes=4, optimizer_bytes=moments)
    return dict(param_bytes=2, grad_bytes=2, optimizer_bytes=4 + moments)


@explorer(
    model=Choice(MODELS, "qwen3-8b", label="model"),
    ranks=Slider(1, RANKS[-1], 64, scale="log2", label="ranks"),
    stage=Choice(zero.STAGES, 2, label="ZeRO stage"),
    optimizer=Choice(tuple(OPTIMIZERS), "Adam", label="optimizer"),
    precision=Choice(PRECISIONS, "mixed", label="precision"),
)
def cards(model="qwen3-8b", ranks=64, stage=2, optimizer="Adam", precision="mixed"):
    """GB of model state a card over the ranks, every stage, and the cards that hold it."""
    require_one_of("model", model, MODELS)
    require_int("ranks", ranks, 1, RANKS[-1])
    require_one_of("stage", stage, zero.STAGES)
    require_one_of("optimizer", optimizer, OPTIMIZERS)
    require_one_of("precision", precision, PRECISIONS)
    # of billions of parameters, billions of bytes
    billions, active = (f(PRESETS[model]) / 1e9 for f in (cost.num_params, cost.active_params))
    gb_at = partial(cost.model_state_bytes, billions, **bytes_a_parameter(optimizer, precision))
    gb = gb_at(ranks, stage)
    enough = next((n for n in range(1, RANKS[-1] + 1) if gb_at(n, stage) <= CARDS[-1]), None)
    needed = tr("ranks needed, {gb} GB per card", gb=number(CARDS[-1]))
    meta = {"GB": gb, needed: enough or tr("more than {n}", n=number(RANKS[-1]))}
    meta |= {tr("parameters (B)"): billions, tr("active per token (B)"): active}
    words = dict(model=model, s=stage, n=number(ranks), gb=number(gb))
    many = "{model}, stage {s}, {n} ranks: {gb} GB per card (computed)"
    one = "{model}, stage {s}, {n} rank: {gb} GB per card (computed)"
    title = tr(one if ranks == 1 else many, **words)
    axes = tr("ranks"), tr("model state per card (GB)")
    fig = pictures.blank(f"{title}<br>{_fitting_card(gb)}", *axes, meta=meta, height=460)
    for s in zero.STAGES:
        look = pictures.style(s, width=4 if s == stage else 1.5) | dict(mode="lines+markers")
        fig.add_scatter(x=RANKS, y=[gb_at(n, s) for n in RANKS], name=_stage_name(s), **look)
    ring = dict(size=16, color=colours.CLEAR, line=dict(color=colours.BLACK, width=2))
    fig.add_scatter(x=[ranks], y=[gb], mode="markers", showlegend=False, marker=ring)
    _add_cards(fig)
    return fig.update_layout(legend=legend("above"), margin=dict(t=118, r=72))


def _add_cards(fig) -> None:
    """Logarithmic axes, and a line for each size of card, its label to the right of all curves."""
    fig.update_xaxes(**pictures.log_ticks(RANKS))
    fig.update_yaxes(type="log", exponentformat="power", dtick=1)
    for size in CARDS:
        mark(fig, tr("{gb} GB", gb=number(size)), y=size)
    fig.update_annotations(x=1.01, xanchor="left")
    fig.layout.annotations[0].yanchor = "top"  # below its line, for the next one is near


def _fitting_card(gb: float) -> str:
    """The smallest card that holds so much."""
    fitting = [size for size in CARDS if size >= gb]
    text = "fits a card of {gb} GB" if fitting else "does not even fit a card of {gb} GB"
    return tr(text, gb=number(fitting[0] if fitting else CARDS[-1]))
