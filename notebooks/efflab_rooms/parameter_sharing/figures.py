"""Notebook 01's pictures of what sharing saves and costs, and its two explorers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from efflab import cost
from efflab.config import PRESETS, SHARING, ModelConfig
from efflab.errors import require_int, require_one_of
from efflab.experiments.encoder_reuse_3 import CASES, accuracy
from efflab.experiments.qkv_sharing import by_count
from efflab.lab import Choice, Slider, Toggle, explorer, number, tr
from efflab.lab import figures as pictures
from efflab.lab.colours import BLUE, DARK, ORANGE, VERMILION
from efflab_rooms.parameter_sharing import measure
from efflab_rooms.parameter_sharing.verdicts import POINTS

# --- Sharing whole layers --------------------------------------------------------------------


def albert_steps():
    """From BERT-base's shape to ALBERT-base, one change at a time: parameters by part."""
    bert = replace(PRESETS["albert-base"], d_embed=None, share="none")
    steps = {
        tr("nothing shared"): bert,
        tr("attention shared"): replace(bert, share="attention"),
        tr("FFN shared"): replace(bert, share="ffn"),
        tr("both shared"): replace(bert, share="all"),
        tr("both, and factorized embedding"): replace(bert, share="all", d_embed=128),
    }
    totals = {name: cost.num_params(config) / 1e6 for name, config in steps.items()}
    counts = [measure.parts(config) for config in steps.values()]
    series = {tr(part): [c[part] / 1e6 for c in counts] for part in counts[0]}
    title = tr("Sharing shrinks the layers, factorization shrinks the embedding")
    meta = {tr("{name}: parameters (millions)", name=n): round(v, 1) for n, v in totals.items()}
    names = [name.replace(", ", ",<br>") for name in steps]
    y_title = tr("parameters (millions)")
    fig = pictures.bars(names, series, title, "", y_title, stacked=True, meta=meta)
    y, text = list(totals.values()), [f"{v:.1f}" for v in totals.values()]
    look = dict(mode="text", textposition="top center", showlegend=False)
    fig.add_scatter(x=names, y=y, text=text, **look)
    fig.update_yaxes(range=[0, 1.12 * max(y)])
    return fig.update_layout(legend=pictures.legend("below", traceorder="normal"))


def costs_figure(rows: Sequence[Mapping]):
    """What sharing every layer leaves of each of `measure.cost_rows`: 1 is no change."""
    ratios = {tr(row["cost"]): row["all / none"] for row in rows}
    meta = {name: round(ratio, 2) for name, ratio in ratios.items()}
    title = tr("What remains of each cost when all layers are shared")
    fig = pictures.blank(title, tr("shared / not shared"), height=380, meta=meta)
    names, x = list(reversed(ratios)), list(reversed(ratios.values()))
    look = dict(orientation="h", texttemplate="%{x:.2f}", textposition="auto")
    look |= dict(marker_color=[BLUE if ratio < 0.9 else VERMILION for ratio in x])
    fig.add_bar(x=x, y=names, **look)
    fig.update_xaxes(range=[0, 1.15 * max(1, *x)])
    return pictures.mark(fig, tr("no change"), x=1)


@explorer(
    n_layer=Slider(1, 48, 12, step=1, label="layers"),
    d_model=Slider(128, 2048, 768, step=128, unit="channels", label="width"),
    share=Choice(SHARING, "all", label="shared"),
    d_embed=Choice((64, 128, 256, 0), 0, label="embedding width (0: model width)"),
)
def sharing(n_layer=12, d_model=768, share="all", d_embed=0):
    """What sharing does to parameters, training states, activations and FLOPs (computed)."""
    require_one_of("share", share, SHARING)
    require_int("d_embed", d_embed, 0)
    n_head = math.gcd(d_model, max(1, d_model // 64))  # heads of 64 where the width allows it
    before = ModelConfig(n_layer, n_head, d_model, 4 * d_model, 30000, 512, type_vocab=2)
    after = replace(before, share=share, d_embed=d_embed or None)
    ratios = {name: count(after) / count(before) for name, count in measure.COSTS.items()}
    less, flops = 100 * (1 - ratios["parameters"]), ratios["forward FLOPs"]
    text = "{less}% fewer parameters, FLOPs x{flops}"
    title = tr(text, less=number(less), flops=number(flops))
    meta = {tr("parameters removed (%)"): round(less, 1)}
    meta |= {tr("{name} / baseline", name=tr(name)): round(v, 3) for name, v in ratios.items()}
    titles = [tr("parameters by part (millions)"), tr("your model / nothing shared")]
    fig = pictures.panels(titles, title, horizontal_spacing=0.14, meta=meta)
    for i, part in enumerate(("embedding", "attention", "feed-forward")):
        y = [measure.parts(config)[part] / 1e6 for config in (before, after)]
        look = dict(name=tr(part), marker_color=pictures.colour(i))
        fig.add_bar(x=[tr("nothing shared"), tr("your model")], y=y, **look, row=1, col=1)
    names = [tr(name).replace(" ", "<br>") for name in ratios]
    look = dict(texttemplate="%{y:.2f}", marker_color=ORANGE, showlegend=False)
    fig.add_bar(x=names, y=list(ratios.values()), **look, row=1, col=2)
    fig.update_yaxes(range=[0, 1.15 * max(1, *ratios.values())], col=2)
    legend = pictures.legend("above", x=1, xanchor="right", y=1.16)
    return fig.update_layout(barmode="stack", legend=legend)


# --- Sharing QKV -----------------------------------------------------------------------------


def qkv_figure(live: Mapping[int, float]):
    """Held-out loss over n, early in training with `live` {n: loss} beside it, and at the end.

    Both panels show each recorded run and the mean, over as many nats.
    """
    record, summary = measure.qkv_record()
    runs, settings = record["runs"], record["settings"]
    steps = {"early": settings["early"], "loss": settings["n_steps"]}
    values = {what: [run[what] for run in runs] for what in steps}
    values["early"] += live.values()
    half = max(0.1, 0.75 * max(max(v) - min(v) for v in values.values()))
    title = tr("Sharing QKV in the first n of {total} layers", total=settings["n_layer"])
    meta = {tr("n = {n}: loss minus that at n = 1", n=n): s["cost"] for n, s in summary.items()}
    fig = pictures.panels([tr("after {n} steps", n=n) for n in steps.values()], title, meta=meta)
    for column, what in enumerate(steps, start=1):
        where = dict(row=1, col=column)
        _add_runs(fig, record, what, showlegend=column == 1, **where)
        middle = (max(values[what]) + min(values[what])) / 2
        fig.update_yaxes(range=[middle - half, middle + half], **where)
        pictures.mark(fig, tr("half"), x=settings["n_layer"] / 2, **where)
    look = dict(mode="markers", marker=dict(symbol="star", size=15, color=VERMILION))
    x, y = list(live), list(live.values())
    fig.add_scatter(x=x, y=y, name=tr("now, here (measured)"), **look, row=1, col=1)
    fig.update_xaxes(title_text=tr("layers sharing one QKV projection (1: none)"))
    fig.update_yaxes(title_text=tr("held-out loss (nats per token)"), col=1)
    return fig.update_layout(legend=pictures.legend("below", y=-0.25), height=420)


def _add_runs(fig, record: Mapping, what: str, **where) -> None:
    """Each recorded run as a dash, and the mean over the seeds as a line."""
    runs = record["runs"]
    means = {n: summary["mean"] for n, summary in by_count(runs, what).items()}
    name = tr("mean of {n} seeds (recorded)", n=len(record["seeds"]))
    look = dict(mode="lines+markers", marker_color=BLUE)
    fig.add_scatter(x=list(means), y=list(means.values()), name=name, **look, **where)
    dash = dict(symbol="line-ew-open", size=14, color=DARK, line_width=1.5)
    x, y = [run["n_shared"] for run in runs], [run[what] for run in runs]
    look = dict(mode="markers", marker=dash)
    fig.add_scatter(x=x, y=y, name=tr("one seed (recorded)"), **look, **where)


def without_training(bits: Mapping[int, float]):
    """The damage of sharing after training: bits per byte by the number of sharing layers."""
    title = tr("QKV shared after training, nothing retrained")
    axes = tr("layers sharing one QKV projection (1: none)"), tr("bits per byte")
    names, y = [str(n) for n in bits], list(bits.values())
    meta = {tr("n = {n}: bits per byte", n=n): round(b, 2) for n, b in bits.items()}
    return pictures.bars(names, y, title, *axes, text=".2f", meta=meta)


# --- One encoder, many tasks -----------------------------------------------------------------


def reuse_figure(runs: Sequence[Mapping], lost: Mapping, solutions: Mapping[str, str]):
    """Each recorded seed's accuracy, and the points that heads lose, with their intervals by text.

    `lost`: the record's `cases`; `solutions`: kind of a run -> its name in English.
    """
    names = {key: tr(task) for key, (task, _, kind) in CASES.items() if kind == "head"}
    meta = {name: round(lost[key].mean, 2) for key, name in names.items()}
    titles = [tr("accuracy of each seed (%)"), tr("points a head loses (interval over texts)")]
    title = tr("Heads on a shared encoder against one encoder per task")
    fig = pictures.panels(titles, title, meta=meta)
    for i, (kind, name) in enumerate(solutions.items()):
        of_kind = [run for run in runs if run["kind"] == kind]
        x, y = [tr(run["task"]) for run in of_kind], [accuracy(run["hits"]) for run in of_kind]
        look = dict(mode="markers", marker=pictures.style(i)["marker"], offsetgroup=kind)
        fig.add_scatter(x=x, y=y, name=tr(name), **look, row=1, col=1)
    y, *ends = zip(*((lost[key].mean, lost[key].low, lost[key].high) for key in names), strict=True)
    look = dict(mode="markers", marker=dict(color=DARK, size=9), showlegend=False)
    whiskers = pictures.error_bars(y, *ends, thickness=2)
    fig.add_scatter(x=list(names.values()), y=y, error_y=whiskers, **look, row=1, col=2)
    percents = [accuracy(run["hits"]) for run in runs]
    fig.update_yaxes(range=[min(percents) - 1, max(percents) + 1], col=1)
    fig.update_layout(scattermode="group", legend=pictures.legend("below"))
    return pictures.mark(fig, tr("limit"), y=POINTS, row=1, col=2)


@explorer(
    n_tasks=Slider(1, 32, 4, step=1, label="tasks"),
    n_classes=Slider(2, 1024, 8, scale="log2", label="classes of each head"),
    every_text=Toggle(True, label="every text goes to every task"),
)
def tasks(n_tasks=4, n_classes=8, every_text=True):
    """Memory and compute of MiniLM under n heads, and of n MiniLMs (computed)."""
    costs = measure.reuse_costs(n_tasks, n_classes, every_text)
    memory, compute = (each / one for one, each in costs.values())
    text = "{n} tasks without reuse: {memory}x the memory, {compute}x the compute"
    title = tr(text, n=n_tasks, memory=number(memory), compute=number(compute))
    meta = {tr("memory, no reuse / reuse"): memory, tr("compute, no reuse / reuse"): compute}
    titles = [tr("weights, fp32 (MB)"), tr("one 32-token text (GFLOP)")]
    fig = pictures.panels(titles, title, meta=meta)
    counts = list(range(1, max(8, n_tasks) + 1))
    curves = [measure.reuse_costs(n, n_classes, every_text) for n in counts]
    for column, what in enumerate(costs, start=1):
        where = dict(row=1, col=column)
        for i, name in enumerate((tr("one encoder, n heads"), tr("one encoder per task"))):
            y, here = [curve[what][i] for curve in curves], costs[what][i]
            look = dict(mode="lines", line=pictures.style(i)["line"], showlegend=column == 1)
            fig.add_scatter(x=counts, y=y, name=name, **look, **where)
            look = dict(mode="markers+text", text=[number(here)], textposition="top left")
            look |= dict(marker=dict(color=pictures.colour(i), size=10), showlegend=False)
            fig.add_scatter(x=[n_tasks], y=[here], **look, **where)
    fig.update_xaxes(title_text=tr("tasks"))
    fig.update_yaxes(rangemode="tozero")
    return fig.update_layout(legend=pictures.legend("top left"))
