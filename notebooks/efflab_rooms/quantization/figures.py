"""Notebook 09's pictures, and its explorer of bit widths."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from efflab import points
from efflab.bench import Comparison
from efflab.compression import affine, int8, packed
from efflab.data import random_windows, read_published, stdlib_tokens
from efflab.errors import require_int, require_one_of
from efflab.experiments import int8_ranges as ranges
from efflab.experiments.record import read_record
from efflab.lab import Choice, Slider, Toggle, colours, explorer, number, tr
from efflab.lab import figures as pictures
from efflab.lab.figures import colour, error_bars, legend, log_ticks, mark, panels, style
from efflab.model import Transformer
from efflab.points import language_model
from efflab_rooms.quantization import measure, verdicts


def parts(model: Transformer):
    """A model's bytes by part: fp32, linear maps in 8 bits, tables too."""
    n_params = verdicts.parts(model)
    widths = {  # bytes a parameter, by part
        "everything in fp32": (4, 4, 4),
        "linear layers in 8 bits": (1, 4, 4),
        "embeddings in 8 bits too": (1, 1, 4),
    }
    sizes = np.array(list(widths.values())) * list(n_params.values()) / 1e6  # (3 files, 3 parts)
    totals = dict(zip(map(tr, widths), sizes.sum(1), strict=True))
    full = next(iter(totals.values()))
    names = [f"{name}<br>{mb:.1f} MB, ×{mb / full:.2f}" for name, mb in totals.items()]
    series = dict(zip(map(tr, n_params), sizes.T, strict=True))
    meta = {name: round(float(mb), 1) for name, mb in totals.items()}
    share = 100 * n_params["embeddings (token, position, type)"] / sum(n_params.values())
    title = tr("MiniLM-L6: embedding tables hold {share}% of its parameters", share=f"{share:.0f}")
    fig = pictures.bars(names, series, title, "", tr("size (MB)"), stacked=True, meta=meta)
    return fig.update_layout(legend=legend("below", traceorder="normal"))


# --- The bit-width explorer ------------------------------------------------------------------


@lru_cache(maxsize=1)
def shown_input() -> Tensor:
    """What the shown layer is given for some held-out source: (n, in)."""
    model, seen = language_model(), {}
    ids, _ = random_windows(stdlib_tokens("held-out"), 2, 128, seed=0)
    with int8.watching(model, lambda name, x: seen.setdefault(name, x)), torch.no_grad():
        model.encode(ids)
    return seen[measure.SHOWN]


@lru_cache(maxsize=64)
def round_model(bits: int, scales: str, symmetric: bool) -> tuple:
    """`stdlib-gpt` on a grid: (quality, bytes, error of the shown layer's output, its weight)."""
    model = language_model()
    quantized = packed.quantize_weights(model, bits, symmetric=symmetric, **measure.GRIDS[scales])
    weight = quantized[f"{measure.SHOWN}.weight"]
    error = int8.layer_error(model.get_submodule(measure.SHOWN), weight.dequantize(), shown_input())
    quality = points.language_quality(packed.with_weights(model, quantized), n_windows=4)
    return quality, packed.model_bytes(model, quantized), error, weight


@explorer(
    bits=Slider(2, 8, 4, step=1, unit="bits", label="bit width"),
    scales=Choice(list(measure.GRIDS), "per channel", label="scales"),
    symmetric=Toggle(True, label="symmetric"),
)
def bit_width(bits=4, scales="per channel", symmetric=True):
    """A weight's histogram with its grid, and stdlib-gpt's size and quality on that grid."""
    require_int("bits", bits, 2)
    require_one_of("scales", scales, measure.GRIDS)
    quality, size, error, weight = round_model(bits, scales, symmetric)
    model = language_model()
    fp32, full = points.language_quality(model), packed.model_bytes(model, {})
    meta = {
        tr("step between levels"): weight.scale[0].item(),
        tr("layer error (%)"): round(100 * error, 3),
        tr("size (MB)"): round(size / 1e6, 3),
        tr("size / fp32"): round(size / full, 4),
        tr("bits per byte"): round(quality.mean, 4),
        tr("above fp32"): round(quality.mean - fp32.mean, 4),
        tr("from"): round(quality.low - fp32.mean, 4),
        tr("to"): round(quality.high - fp32.mean, 4),
    }
    titles = [tr("one neuron's weights and their levels"), tr("the whole model")]
    fig = panels(titles, meta=meta, horizontal_spacing=0.14)
    draw_levels(fig, weight)
    draw_qualities(fig, {"fp32": (full, fp32), tr("yours"): (size, quality)})
    values = {end: f"{getattr(quality, end) - fp32.mean:+.3f}" for end in ("mean", "low", "high")}
    values |= dict(bits=bits, scales=tr(scales), size=f"{size / full:.2f}")
    text = "{bits} bits, {scales}: size ×{size}, {mean} bits per byte vs. fp32 ({low} to {high})"
    above = legend("above", x=1, xanchor="right", y=1.12)
    fig.update_layout(title=dict(text=tr(text, **values), y=0.97, yanchor="top"), legend=above)
    return fig.update_layout(height=430, margin_t=110)


def draw_levels(fig, weight: affine.QuantizedTensor) -> None:
    """Left: the first weights of the shown layer, as many as share a scale, and their levels."""
    symmetric = weight.zero_point is None
    low, high = affine.code_range(weight.bits, symmetric)
    zero = 0 if symmetric else int(weight.zero_point[0])
    levels = (np.arange(low, high + 1) - zero) * weight.scale[0].item()
    neuron = language_model().get_submodule(measure.SHOWN).weight[0].detach().numpy()
    neuron = neuron[: weight.group_size]
    span = 1.05 * float(np.abs(neuron).max())
    counts, edges = np.histogram(neuron, bins=40, range=(-span, span))
    middles = (edges[1:] + edges[:-1]) / 2
    look = dict(width=np.diff(edges), name=tr("weights"), marker_color=colour(5))
    fig.add_bar(x=middles, y=counts, row=1, col=1, **look)
    inside = levels[np.abs(levels) <= span]
    some = inside[:: max(1, len(inside) // 200)]  # 16 bits have more than a picture shows
    below = np.full(len(some), -0.04 * max(counts))
    marker = dict(symbol="line-ns-open", size=12, color=colour(1))
    look = dict(mode="markers", name=tr("levels"), marker=marker)
    fig.add_scatter(x=some, y=below, row=1, col=1, **look)
    fig.update_xaxes(title_text=tr("weight"), range=[-1.05 * span, 1.05 * span], col=1)
    fig.update_yaxes(title_text=tr("number of weights"), col=1)


def draw_qualities(fig, models: dict[str, tuple]) -> None:
    """Right: bits per byte over bytes, fp32 first; `models`: name -> (bytes, quality)."""
    for (name, (size, quality)), i, dash in zip(models.items(), (6, 2), (0, 1), strict=True):
        ends = error_bars([quality.mean], [quality.low], [quality.high])
        look = dict(mode="markers", name=name, **style(i, dash, size=12))
        fig.add_scatter(x=[size / 1e6], y=[quality.mean], error_y=ends, row=1, col=2, **look)
    full = next(iter(models.values()))[0]
    fig.update_xaxes(title_text=tr("size (MB)"), range=[0, 1.1 * full / 1e6], col=2)
    fig.update_yaxes(title_text=tr("bits per byte (lower is better)"), col=2)


# --- INT8 ------------------------------------------------------------------------------------


def outliers(name: str = "layers.0.ffn.body.down"):
    """Peaks of one input's channels in order of size, before and after smoothing."""
    peaks, smoothed = measure.channel_peaks()[name], measure.smoothed_peaks(name)
    order = peaks.argsort(descending=True)
    lines = {tr("unsmoothed"): peaks, tr("smoothed"): smoothed}
    series = {key: (values[order] / values.median()).tolist() for key, values in lines.items()}
    meta = {tr("largest / median, {what}", what=k): round(max(v), 1) for k, v in series.items()}
    title = tr("Channel peaks, largest first ({name})", name=name)
    axes = tr("channel rank (1: largest peak)"), tr("peak / median peak")
    x = list(range(1, len(peaks) + 1))
    fig = pictures.line(x, series, title, *axes, markers=False, log_x=True, log_y=True, meta=meta)
    return fig.update_layout(legend=dict(x=0.7, y=0.95))


def with_ends(rows, key: str) -> tuple[list, list, list]:
    """A column of recorded rows, and the ends of its intervals where the record keeps them."""
    return tuple(
        [row.get(f"{key}{end}", row[key]) for row in rows] for end in ("", " low", " high")
    )


def forms():
    """What every form loses: 1 - cosine on a log axis, and the MRR with its interval."""
    rows = verdicts.recorded_forms()
    n_texts = read_record(ranges.NAME)["settings"]["n_test"]
    titles = [tr("1 - cosine, 5th percentile of {n} texts", n=n_texts), tr("MRR minus fp32's")]
    title = tr("Ten ranges and a control (recorded; dashed: 1% less MRR)")
    meta = {tr("MRR minus fp32's, {form}", form=tr(f)): r["mrr less fp32"] for f, r in rows.items()}
    fig = panels(titles, title, meta=meta, shared_yaxes=True, horizontal_spacing=0.05)
    p5 = with_ends(rows.values(), "cosine p5")
    lost, high, low = ([1 - cosine for cosine in ends] for ends in p5)
    columns = (lost, low, high), with_ends(rows.values(), "mrr less fp32")
    look = dict(y=list(map(tr, rows)), mode="markers", showlegend=False, **style(0, size=10))
    for column, (values, lows, highs) in enumerate(columns, start=1):
        ends = error_bars(values, lows, highs)
        fig.add_scatter(x=values, error_x=ends, row=1, col=column, **look)
    fig.update_xaxes(type="log", dtick=1, exponentformat="power", col=1)
    fig.update_yaxes(autorange="reversed")
    mark(fig, x=-verdicts.SHARE * rows[ranges.CONTROL]["mrr fp32"], row=1, col=2)
    _write_far_ones(fig, rows)
    return fig.update_layout(height=480, margin_l=220)


FAR = -0.05
"""A way that loses more than this is written at the right panel's edge, not drawn."""


def _write_far_ones(fig, rows) -> None:
    """Let the right panel span what is near fp32, so that its intervals can be read."""
    far = [form for form, row in rows.items() if row["mrr less fp32"] < FAR]
    near = [row for form, row in rows.items() if form not in far]
    low = min(row["mrr less fp32 low"] for row in near)
    high = max(row["mrr less fp32 high"] for row in near)
    room = 0.06 * (high - low)
    fig.update_xaxes(range=[low - room, high + room], col=2)
    for form in far:
        place = dict(x=low - room / 2, y=tr(form), xanchor="left", showarrow=False, row=1, col=2)
        text = measure.interval_text(rows[form], "mrr less fp32")
        fig.add_annotation(text=f"← {text}", bgcolor=colours.WHITE, **place)


SPEEDS = {
    "int8_without_overhead": "the INT8 product alone",
    "vector_wise": "with ranges and rounding (vector-wise)",
    "llm_int8": "with outliers computed separately (LLM.int8)",
}
"""Column of `llm_int8.csv` -> what is timed."""


def published_speeds():
    """LLM.int8's Table 5: speed over fp16 by width; the dashed line is fp16."""
    rows = read_published("llm_int8")
    widths = [row["d_model"] for row in rows]
    series = {tr(name): [row[key] for row in rows] for key, name in SPEEDS.items()}
    meta = {tr("{what}, width {width}", what=n, width=widths[0]): v[0] for n, v in series.items()}
    title = tr("One feed-forward layer on a GPU, speed of INT8 / fp16 (published; dashed: fp16)")
    axes = "d_model", tr("speed / fp16")
    fig = pictures.line(widths, series, title, *axes, log_x=True, meta=meta)
    return mark(fig, y=1).update_layout(legend=legend("below"))


def engines():
    """Size, time on both kinds of CPU, and 1 - least cosine, by engine."""
    record, shape, newest = measure.record(), measure.SHAPE, measure.recorded_engines()
    n = record["settings"]["n_test"]
    titles = [tr("size / fp32"), tr("time / fp32"), tr("1 - cosine, worst of {n} texts", n=n)]
    text = "Nine engines (recorded): 16 texts of 128 tokens, {n} threads (dashed: 0.4)"
    title = tr(text, n=record["threads"])
    fig = panels(titles, title, shared_yaxes=True, horizontal_spacing=0.04)
    names = [tr(name).replace("，", "，<br>").replace(", ", ",<br>") for name in newest]
    sizes = [row["size"] for row in newest.values()]
    label = dict(texttemplate="%{x:.2f}", textposition="inside", insidetextanchor="start")
    look = dict(orientation="h", showlegend=False, marker_color=colour(5), **label)
    fig.add_bar(x=sizes, y=names, row=1, col=1, **look)
    meta = {}
    for i, (vnni, label) in enumerate(measure.CPUS.items()):
        rows = measure.recorded_engines(vnni)
        look = dict(y=names, mode="markers", name=tr(label), legendgroup=label, **style(i, size=11))
        times, *ends = with_ends(rows.values(), shape)
        fig.add_scatter(x=times, error_x=error_bars(times, *ends), row=1, col=2, **look)
        lost = [max(1 - row["cosine min"], 5e-5) for row in rows.values()]  # recorded to 1e-4
        fig.add_scatter(x=lost, row=1, col=3, showlegend=False, **look)
        key = tr("time, OpenVINO INT8 / torch fp32, {cpu}", cpu=tr(label))
        meta[key] = rows["OpenVINO INT8"][shape]
    fig.update_yaxes(autorange="reversed").update_xaxes(range=[0, 1.05], col=1)
    fig.update_xaxes(**log_ticks([0.25, 0.5, 1, 2, 4, 8]), range=[-0.8, 1], col=2)
    fig.update_xaxes(type="log", dtick=2, exponentformat="power", col=3)
    mark(fig, x=0.4, row=1, col=2)  # the article's section 5 reports of ERNIE 60 % less latency
    return fig.update_layout(meta=meta, height=520, legend=legend("below", y=-0.08), margin_l=160)


def linear_forms(forms: dict[str, Comparison]):
    """One layer's forms as points with their intervals, by whether they differ; 1 is fp32."""
    title = tr("Low-precision arithmetic in one linear layer")
    ratios = {form: times.ratios[form] for form, times in forms.items()}
    meta = {tr(form): ratio.mean for form, ratio in ratios.items()}
    fig = pictures.blank(title, tr("time / fp32 (dashed: 1)"), meta=meta)
    words = {"faster": 2, "slower": 1, "within the noise": 6}  # and their colours
    for dash, (word, i) in enumerate(words.items()):
        chosen = [f for f, times in forms.items() if measure.difference(times, f) == word]
        x = [ratios[form].mean for form in chosen]
        ends = [ratios[form].low for form in chosen], [ratios[form].high for form in chosen]
        labels = dict(text=[f"{number(v, 2)}x" for v in x], textposition="top center")
        look = dict(mode="markers+text", cliponaxis=False, **labels, **style(i, dash, size=11))
        names = list(map(tr, chosen))
        fig.add_scatter(x=x, y=names, error_x=error_bars(x, *ends), name=tr(word), **look)
    fig.update_yaxes(categoryorder="array", categoryarray=list(meta)[::-1], type="category")
    fig.update_xaxes(**log_ticks([0.1, 0.3, 1, 3, 10, 30, 100]))
    return mark(fig, x=1).update_layout(legend=legend("below"))
