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
        return tr("{name}, penalty {w}", name=name, w=f"{spec['penalty']:g}")
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
    titles = [tr("penalty {w}", w=f"{w:g}") for w in PENALTIES]
    spans = [recorded_spans(w, seed) for w in PENALTIES]
    meta = {}
    for w, values in zip(PENALTIES, spans, strict=True):
        meta[tr("penalty {w}: mean span", w=f"{w:g}")] = float(values.mean())
        meta[tr("penalty {w}: shortest", w=f"{w:g}")] = float(values.min())
        meta[tr("penalty {w}: longest", w=f"{w:g}")] = float(values.max())
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


@explorer(
    kernel_size=Choice(KERNELS, 15, unit="tokens", label="kernel width"),
    penalty=Choice(PENALTIES, PENALTIES[1], label="span penalty"),
    seq_len=Slider(128, 8192, 1024, scale="log2", unit="tokens", label="sequence length"),
)
def range_or_width(kernel_size=15, penalty=PENALTIES[1], seq_len=1024):
    """Recorded loss over arithmetic, and what the chosen two cost in longer sequences."""
    require_one_of("kernel_size", kernel_size, KERNELS)
    require_int("seq_len", seq_len)
    conv, span = record()[f"dynamic-{kernel_size}"], record()[_span_variant(penalty)]
    chosen = {"attention": record()["attention"], "dynamic": conv, "span": span}
    shape = experiment.CONFIG.d_model, experiment.CONFIG.n_head
    reach = [r for layers in span["reach"] for r in layers]

    def per_token(name: str, T: int) -> float:
        if name == "dynamic":
            return conv_flops(*shape, kernel_size, T) / T / 1e3
        keys = [T] if name == "attention" else [min(r, T) for r in reach]
        return sum(span_flops(shape[0], r, T) for r in keys) / len(keys) / T / 1e3

    lengths = [2**i for i in range(7, 14)]
    now = {name: per_token(name, seq_len) for name in chosen}
    meta = {tr("{name}: loss", name=full_name(s)): s["loss"] for s in chosen.values()}
    meta |= {tr("{name}: kFLOP a token", name=full_name(s)): now[n] for n, s in chosen.items()}
    title = tr("At {n} tokens a layer of DynamicConv costs {a} of attention's FLOPs, spans {b}",
               n=number(seq_len), a=f"{now['dynamic'] / now['attention']:.0%}",
               b=f"{now['span'] / now['attention']:.0%}")  # fmt: skip
    titles = [tr("recorded: loss over FLOPs at {n} tokens", n=experiment.CONFIG.max_len),
              tr("computed: FLOPs over length, one layer")]  # fmt: skip
    fig = figures.panels(titles, title, meta=meta, horizontal_spacing=0.13)
    for i, technique in enumerate(NAMES):
        style = dict(color=figures.COLOURS[i], symbol=figures.MARKERS[i])
        specs = [s for s in record().values() if s["technique"] == technique]
        specs.sort(key=lambda s: s["mixing_flops"])
        # one marker size for all, but for the chosen two, which stand out
        sizes = [14 if s in chosen.values() else 7 for s in specs]
        spread = [(s["interval"][1] - s["interval"][0]) / 2 for s in specs]
        fig.add_scatter(x=[s["mixing_flops"] / 1e6 for s in specs], y=[s["loss"] for s in specs],
                        error_y=dict(array=spread, thickness=1), mode="lines+markers",
                        marker=style | dict(size=sizes), name=tr(NAMES[technique]),
                        line=dict(color=figures.COLOURS[i], dash="dot"),
                        text=[full_name(s) for s in specs], row=1, col=1)  # fmt: skip
        if technique in chosen:
            y = [per_token(technique, T) for T in lengths]
            fig.add_scatter(x=lengths, y=y, mode="lines+markers", showlegend=False, row=1, col=2,
                            marker=style | dict(size=[14 if T == seq_len else 5 for T in lengths]),
                            line=dict(color=figures.COLOURS[i]))  # fmt: skip
    fig.update_xaxes(title_text=tr("mixing layers, MFLOP a window"), row=1, col=1)
    fig.update_yaxes(title_text=tr("held-out loss (nats a token)"), row=1, col=1)
    ticks = dict(tickvals=lengths[::2], ticktext=[f"{n:,}" for n in lengths[::2]])
    fig.update_xaxes(title_text=tr("tokens in the sequence"), type="log", **ticks, row=1, col=2)
    fig.update_yaxes(title_text=tr("kFLOP a token"), type="log", dtick=1, row=1, col=2)
    # in the second panel's empty corner: below the plot is the slider of the stored figure
    fig.update_layout(legend=dict(x=0.58, y=0.98, xanchor="left", yanchor="top"))
    return fig
