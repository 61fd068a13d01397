"""Notebook 05's recorded curves and explorer; `ranges` and `costs` measure."""

from functools import lru_cache

import torch

from efflab.errors import require_int, require_one_of
from efflab.estimate import paired
from efflab.experiments import dynamic_attention as experiment
from efflab.lab import Choice, Slider, explorer, figures, number, tr
from efflab.structure.adaptive_span import soft_mask, span_flops
from efflab.structure.dynamic_conv import conv_flops

NAMES = {
    "attention": "attention",
    "lightweight": "LightweightConv",
    "dynamic": "DynamicConv",
    "span": "adaptive span",
}
KERNELS = [s["kernel_size"] for s in experiment.VARIANTS.values() if s["technique"] == "dynamic"]
PENALTIES = [s["penalty"] for s in experiment.VARIANTS.values() if s["technique"] == "span"]


@lru_cache(maxsize=1)
def record() -> dict[str, dict]:
    """The recorded experiment, by variant."""
    return experiment.by_variant()


def full_name(spec: dict) -> str:
    """A variant as tables and figures call it."""
    name = tr(NAMES[spec["technique"]])
    if "kernel_size" in spec:
        return tr("{name}, {k} tokens", name=name, k=spec["kernel_size"])
    if "penalty" in spec:
        return tr("{name}, penalty {w}", name=name, w=number(spec["penalty"]))
    return name


def table_rows() -> list[dict]:
    """The recorded comparison: loss with its interval, arithmetic, parameters."""
    rows = []
    for spec in record().values():
        low, high = spec["interval"]
        rows.append(dict(technique=full_name(spec), loss=spec["loss"], spread=(high - low) / 2,
                         mflop=spec["mixing_flops"] / 1e6, params=spec["n_params"],
                         kind="recorded"))  # fmt: skip
    return rows


RECORD_COLUMNS = {
    "technique": "technique",
    "loss": "held-out loss (nats a token)",
    "spread": "± (95%, one more seed)",
    "mflop": "mixing layers, MFLOP a window",
    "params": "parameters",
    "kind": "kind",
}


def paired_rows() -> list[dict]:
    """Each variant's recorded loss less attention's, seed by seed, with the interval."""
    base, rows = record()["attention"]["losses"], []
    for spec in record().values():
        if spec["technique"] == "attention":
            continue
        seeds = sorted(base.keys() & spec["losses"].keys())
        less = paired([spec["losses"][s] for s in seeds], [base[s] for s in seeds])
        rows.append(dict(technique=full_name(spec), less=less.mean, low=less.low, high=less.high,
                         kind="recorded"))  # fmt: skip
    return rows


PAIRED_COLUMNS = {
    "technique": "technique",
    "less": "loss less attention's (nats a token, by seed)",
    "low": "interval, low",
    "high": "interval, high",
    "kind": "kind",
}


def recorded_spans(penalty: float, seed: int = 0) -> torch.Tensor:
    """The record's learned spans (layers, heads), in tokens."""
    return torch.tensor(record()[_span_variant(penalty)]["spans"][seed])


def _span_variant(penalty: float) -> str:
    require_one_of("penalty", penalty, PENALTIES)
    return f"span-{penalty:g}"


def recorded_spans_figure(seed: int = 0):
    """Learned spans by layer and head, one panel a penalty; all started at half the window."""
    titles = [tr("penalty {w}", w=number(w)) for w in PENALTIES]
    spans = [recorded_spans(w, seed) for w in PENALTIES]
    meta = {}
    for w, values in zip(PENALTIES, spans, strict=True):
        meta[tr("penalty {w}: mean span", w=number(w))] = float(values.mean())
        meta[tr("penalty {w}: shortest", w=number(w))] = float(values.min())
        meta[tr("penalty {w}: longest", w=number(w))] = float(values.max())
    title = tr("Learned spans by head and layer, of {n} tokens", n=experiment.CONFIG.max_len)
    fig = figures.panels(titles, title, meta=meta, shared_yaxes=True, horizontal_spacing=0.04)
    for column, values in enumerate(spans, start=1):
        L, H = values.shape
        fig.add_heatmap(z=values.numpy(), x=[str(h + 1) for h in range(H)],
                        y=[str(i + 1) for i in range(L)], texttemplate="%{z:.0f}",
                        coloraxis="coloraxis", row=1, col=column)  # fmt: skip
    fig.update_layout(coloraxis=dict(colorscale="Viridis", cmin=0, cmax=experiment.CONFIG.max_len,
                                     colorbar_title_text=tr("tokens")))  # fmt: skip
    fig.update_xaxes(title_text=tr("head"))
    fig.update_yaxes(autorange="reversed")
    fig.update_yaxes(title_text=tr("layer"), col=1)
    return fig


def trim_rows() -> list[dict]:
    """What trimming saves of the keys: a layer pays for its widest head, not for the mean."""
    T, rows = experiment.CONFIG.max_len, []
    for w in PENALTIES:
        spec = record()[_span_variant(w)]
        seen = torch.tensor(spec["spans"]) + experiment.RAMP
        rows.append(dict(penalty=w, mean=float(seen.clamp_max(T).mean()) / T * 100,
                         widest=float(torch.tensor(spec["reach"]).float().mean()) / T * 100,
                         kind="recorded"))  # fmt: skip
    return rows


TRIM_COLUMNS = {
    "penalty": "penalty (nats a token)",
    "mean": "keys that an average head needs (%)",
    "widest": "keys computed, widest head of each layer (%)",
    "kind": "kind",
}


def mask_figure(spans=(8, 40), ramp: int = 16, n: int = 80):
    """The soft mask over the distance for a short and a long span."""
    x = torch.arange(n)
    series = {tr("span {z}", z=z): soft_mask(x, torch.tensor(float(z)), ramp) for z in spans}
    meta = {tr("keys that count, span {z}", z=z): int((m > 0).sum())
            for z, m in zip(spans, series.values(), strict=True)}  # fmt: skip
    title = tr("The soft mask: full weight up to the span, none {ramp} tokens later", ramp=ramp)
    series = {name: m.tolist() for name, m in series.items()}
    return figures.line(x.tolist(), series, title, tr("tokens back"), tr("mask"), markers=False,
                        meta=meta, height=300)  # fmt: skip


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
    variants = ("attention", f"dynamic-{kernel_size}", _span_variant(penalty))
    chosen = [record()[name] for name in variants]
    now = [kflops_a_token(spec, seq_len) for spec in chosen]
    meta = {tr("{name}: loss", name=full_name(s)): s["loss"] for s in chosen}
    meta |= {tr("{name}: kFLOP a token", name=full_name(s)): k
             for s, k in zip(chosen, now, strict=True)}  # fmt: skip
    attention, conv, span = now
    title = tr("At {n} tokens a layer of DynamicConv costs {a} of attention's FLOPs, spans {b}",
               n=number(seq_len), a=f"{conv / attention:.0%}",
               b=f"{span / attention:.0%}")  # fmt: skip
    titles = [tr("recorded: loss over FLOPs at {n} tokens", n=experiment.CONFIG.max_len),
              tr("computed: FLOPs over length, one layer")]  # fmt: skip
    fig = figures.panels(titles, title, meta=meta, horizontal_spacing=0.13)
    for technique in NAMES:
        _add_losses(fig, technique, chosen)
    for spec in chosen:
        _add_costs(fig, spec, seq_len)
    fig.update_xaxes(title_text=tr("mixing layers, MFLOP a window"), row=1, col=1)
    fig.update_yaxes(title_text=tr("held-out loss (nats a token)"), row=1, col=1)
    ticks = dict(tickvals=LENGTHS[::2], ticktext=[f"{n:,}" for n in LENGTHS[::2]])
    fig.update_xaxes(title_text=tr("tokens in the sequence"), type="log", **ticks, row=1, col=2)
    fig.update_yaxes(title_text=tr("kFLOP a token"), type="log", dtick=1, row=1, col=2)
    # in the second panel's empty corner: below the plot is the slider of the stored figure
    fig.update_layout(legend=dict(x=0.58, y=0.98, xanchor="left", yanchor="top"))
    return fig


def _style(technique: str) -> dict:
    i = list(NAMES).index(technique)
    return dict(color=figures.COLOURS[i], symbol=figures.MARKERS[i])


def _add_losses(fig, technique: str, chosen: list[dict]) -> None:
    """A technique's recorded variants, loss over arithmetic; the chosen ones stand out."""
    specs = [s for s in record().values() if s["technique"] == technique]
    specs.sort(key=lambda s: s["mixing_flops"])
    style = _style(technique)
    fig.add_scatter(
        x=[s["mixing_flops"] / 1e6 for s in specs],
        y=[s["loss"] for s in specs],
        error_y=dict(array=[(s["interval"][1] - s["interval"][0]) / 2 for s in specs], thickness=1),
        mode="lines+markers",
        marker=style | dict(size=[14 if s in chosen else 7 for s in specs]),
        line=dict(color=style["color"], dash="dot"),
        name=tr(NAMES[technique]),
        text=[full_name(s) for s in specs],
        row=1,
        col=1,
    )


def _add_costs(fig, spec: dict, seq_len: int) -> None:
    """What a variant costs a token over the length, the chosen length larger."""
    style = _style(spec["technique"])
    fig.add_scatter(
        x=LENGTHS,
        y=[kflops_a_token(spec, T) for T in LENGTHS],
        mode="lines+markers",
        marker=style | dict(size=[14 if T == seq_len else 5 for T in LENGTHS]),
        line=dict(color=style["color"]),
        showlegend=False,
        row=1,
        col=2,
    )
