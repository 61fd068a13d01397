"""Notebook 05's pictures of the record, of kernels and of spans, and its explorer."""

import torch

from efflab import data
from efflab.errors import require_int, require_one_of
from efflab.experiments import dynamic_attention as experiment
from efflab.experiments.dynamic_attention_2 import SHARE
from efflab.lab import Choice, Slider, bars, explorer, heatmap, line, number, panels, tr
from efflab.lab.colours import SCALE
from efflab.lab.figures import COLOURS, error_bars, legend, log_ticks, style
from efflab.model import Transformer
from efflab.structure.adaptive_span import learned_spans, soft_mask, span_flops
from efflab.structure.dynamic_conv import conv_flops
from efflab_rooms.dynamic_attention import measure
from efflab_rooms.dynamic_attention.measure import KERNELS, NAMES, PENALTIES, full_name

# --- Spans -----------------------------------------------------------------------------------


def mask_figure(spans=(8, 40), ramp: int = 16, n: int = 80):
    """The soft mask over the distance for a short and a long span."""
    distance = torch.arange(n)
    masks = {z: soft_mask(distance, torch.tensor(float(z)), ramp) for z in spans}
    meta = {tr("keys with mask > 0, span {z}", z=z): int((m > 0).sum()) for z, m in masks.items()}
    title = tr("The soft mask: full weight up to the span, none {ramp} tokens later", ramp=ramp)
    series = {tr("span {z}", z=z): mask.tolist() for z, mask in masks.items()}
    axes = (tr("tokens back"), tr("mask"))
    return line(distance.tolist(), series, title, *axes, markers=False, meta=meta, height=300)


def recorded_spans_figure(seed: int = 0):
    """Learned spans by layer and head, one panel a penalty; all started at half the window."""
    spans = {w: torch.tensor(measure.span_record(w)["spans"][seed]) for w in PENALTIES}
    meta = {}
    for w, values in spans.items():
        name = measure.penalty_name(w)
        meta[tr("penalty {w}: mean span", w=name)] = float(values.mean())
        meta[tr("penalty {w}: shortest", w=name)] = float(values.min())
        meta[tr("penalty {w}: longest", w=name)] = float(values.max())
    max_len = experiment.CONFIG.max_len
    title = tr("Learned spans by head and layer (window: {n} tokens)", n=max_len)
    titles = [tr("penalty {w}", w=measure.penalty_name(w)) for w in PENALTIES]
    fig = panels(titles, title, meta=meta, shared_yaxes=True, horizontal_spacing=0.04)
    for column, values in enumerate(spans.values(), start=1):
        look = dict(texttemplate="%{z:.0f}", coloraxis="coloraxis", row=1, col=column)
        fig.add_heatmap(z=values.numpy(), **_heads_and_layers(values), **look)
    scale = dict(colorscale=SCALE, cmin=0, cmax=max_len)
    scale |= dict(colorbar_title_text=tr("span (tokens)"))
    fig.update_xaxes(title_text=tr("head"))
    fig.update_yaxes(autorange="reversed").update_yaxes(title_text=tr("layer"), col=1)
    return fig.update_layout(coloraxis=scale)


def _heads_and_layers(spans: torch.Tensor) -> dict[str, list[str]]:
    """The axes of spans (layers, heads), counted from 1."""
    layers, heads = ([str(i + 1) for i in range(n)] for n in spans.shape)
    return dict(x=heads, y=layers)


def span_figure(model: Transformer):
    """Spans by layer and head of a model that has run, in tokens."""
    spans = learned_spans(model).detach()
    mean = float(spans.mean())
    meta = {tr("mean span (tokens)"): mean}
    meta |= {tr("shortest"): float(spans.min()), tr("longest"): float(spans.max())}
    title = tr("stdlib-gpt's spans, learned here: {mean} tokens on average", mean=number(mean))
    look = dict(bar_title=tr("span (tokens)"), **_heads_and_layers(spans))
    fig = heatmap(spans.numpy(), title, tr("head"), tr("layer"), meta=meta, **look)
    return fig.update_traces(texttemplate="%{z:.0f}")


# --- Kernels ---------------------------------------------------------------------------------


def token_at(text: str, position: int) -> str:
    """The token at a position, as text with visible spaces."""
    token = data.tokenizer().encode(text).ids[position]
    return data.tokenizer().decode([token]).replace(" ", "·").replace("\n", "↵")


def kernel_figure(model: Transformer, position: int = measure.POSITION, texts=measure.SNIPPETS):
    """One position's kernels for two inputs, head by head, in the layer where they differ most."""
    layer, pair, share = measure.most_different(model, position, texts)
    H, k = pair[0].shape
    back = torch.arange(k - 1, -1, -1)
    mean_a, mean_b = (float((kernel * back).sum(-1).mean()) for kernel in pair)
    meta = {
        tr("layer"): layer + 1,
        tr("kernel width (tokens)"): k,
        tr("share of the weight that moved"): share,
        tr("mean distance, input A (tokens)"): mean_a,
        tr("mean distance, input B (tokens)"): mean_b,
    }
    place = dict(p=position, l=layer + 1, k=k)
    title = tr("Position {p}, layer {l}: different weights, same {k} tokens", **place)
    titles = [tr("head {h}", h=h + 1) for h in range(H)]
    shared = dict(shared_xaxes=True, shared_yaxes=True, vertical_spacing=0.12)
    fig = panels(titles, title, rows=2, meta=meta, **shared)
    for i, (kernel, text) in enumerate(zip(pair, texts, strict=True)):
        token = repr(token_at(text, position))
        name = tr("input {name}, token {token}", name="AB"[i], token=token)
        for h in range(H):
            look = dict(name=name, legendgroup=str(i), showlegend=h == 0, marker_color=COLOURS[i])
            y = kernel[h].tolist()
            fig.add_bar(x=back.tolist(), y=y, **look, row=h // 2 + 1, col=h % 2 + 1)
    fig.update_xaxes(autorange="reversed").update_xaxes(title_text=tr("tokens back"), row=2)
    fig.update_yaxes(title_text=tr("weight"), col=1)
    return fig.update_layout(height=520, barmode="group", legend=legend("below", y=-0.14))


def distance_figure(distances: torch.Tensor, width: int):
    """How often each distance is the used one, over texts, positions and heads."""
    counts = distances.flatten().bincount(minlength=width)
    meta = {tr("5th–95th percentile spread (tokens)"): measure.spread(distances)}
    share = round(100 * SHARE)
    title = tr("How far back {share}% of a kernel's weight lies", share=share)
    names, per_cent = [str(i) for i in range(width)], (100 * counts / counts.sum()).tolist()
    axes = (tr("tokens back"), tr("share of positions and heads (%)"))
    return bars(names, per_cent, title, *axes, meta=meta, height=320)


# --- Explore ---------------------------------------------------------------------------------

LENGTHS = [2**i for i in range(7, 14)]


def kflops_a_token(spec: dict, seq_len: int) -> float:
    """What a variant's mixing layer costs for each of `seq_len` tokens, in thousand FLOPs.

    Spans cost as much as the widest head of each recorded layer reaches, on average.
    """
    d_model, n_head = experiment.CONFIG.d_model, experiment.CONFIG.n_head
    if spec["technique"] == "dynamic":
        return conv_flops(d_model, n_head, spec["kernel_size"], seq_len) / seq_len / 1e3
    reach = [seq_len]
    if spec["technique"] == "span":
        reach = [keys for layers in spec["reach"] for keys in layers]
    flops = [span_flops(d_model, min(keys, seq_len), seq_len) for keys in reach]
    return sum(flops) / len(flops) / seq_len / 1e3


@explorer(
    kernel_size=Choice(KERNELS, 15, unit="tokens", label="kernel width"),
    penalty=Choice(PENALTIES, PENALTIES[1], label="span penalty"),
    seq_len=Slider(128, 8192, 1024, scale="log2", unit="tokens", label="sequence length"),
)
def range_or_width(kernel_size=15, penalty=PENALTIES[1], seq_len=1024):
    """Recorded loss over arithmetic, and what the chosen two cost in longer sequences."""
    require_one_of("kernel_size", kernel_size, KERNELS)
    require_int("seq_len", seq_len)
    record, spans = measure.record(), measure.span_record(penalty)
    chosen = [record["attention"], record[f"dynamic-{kernel_size}"], spans]
    costs = [kflops_a_token(spec, seq_len) for spec in chosen]
    names = [full_name(spec) for spec in chosen]
    meta = {tr("{name}: loss", name=n): spec["loss"] for n, spec in zip(names, chosen, strict=True)}
    meta |= {tr("{name}: kFLOP per token", name=n): c for n, c in zip(names, costs, strict=True)}
    conv, span = (f"{cost / costs[0]:.0%}" for cost in costs[1:])
    template = "At {n} tokens, a DynamicConv layer costs {a} of attention's FLOPs, spans {b}"
    title = tr(template, n=number(seq_len), a=conv, b=span)
    left = tr("recorded: loss against FLOPs, {n} tokens", n=experiment.CONFIG.max_len)
    titles = [left, tr("computed: FLOPs against length, one layer")]
    fig = panels(titles, title, meta=meta, horizontal_spacing=0.13)
    for i, technique in enumerate(NAMES):
        _add_losses(fig, i, technique, chosen)
    for spec in chosen:
        _add_costs(fig, spec, seq_len)
    fig.update_xaxes(title_text=tr("mixing layers (MFLOP per window)"), col=1)
    fig.update_yaxes(title_text=tr("held-out loss (nats per token)"), col=1)
    fig.update_xaxes(title_text=tr("sequence length (tokens)"), **log_ticks(LENGTHS[::2]), col=2)
    fig.update_yaxes(title_text=tr("kFLOP per token"), type="log", dtick=1, col=2)
    # in the second panel's empty corner: below the plot is the slider of the stored figure
    return fig.update_layout(legend=legend("top left", x=0.58))


def _add_losses(fig, i: int, technique: str, chosen: list[dict]) -> None:
    """A technique's recorded variants, loss over arithmetic; the chosen ones stand out."""
    specs = [spec for spec in measure.record().values() if spec["technique"] == technique]
    specs.sort(key=lambda spec: spec["mixing_flops"])
    losses = [spec["loss"] for spec in specs]
    lows, highs = zip(*(spec["interval"] for spec in specs), strict=True)
    sizes = [14 if spec in chosen else 7 for spec in specs]
    fig.add_scatter(
        x=[spec["mixing_flops"] / 1e6 for spec in specs],
        y=losses,
        error_y=error_bars(losses, lows, highs, thickness=1),
        mode="lines+markers",
        marker=style(i)["marker"] | dict(size=sizes),
        line=dict(color=COLOURS[i], dash="dot"),
        name=tr(NAMES[technique]),
        text=[full_name(spec) for spec in specs],
        row=1,
        col=1,
    )


def _add_costs(fig, spec: dict, seq_len: int) -> None:
    """What a variant costs a token over the length, the chosen length larger."""
    i = list(NAMES).index(spec["technique"])
    costs = [kflops_a_token(spec, T) for T in LENGTHS]
    marker = style(i)["marker"] | dict(size=[14 if T == seq_len else 5 for T in LENGTHS])
    look = dict(mode="lines+markers", line_color=COLOURS[i], showlegend=False)
    fig.add_scatter(x=LENGTHS, y=costs, marker=marker, **look, row=1, col=2)
