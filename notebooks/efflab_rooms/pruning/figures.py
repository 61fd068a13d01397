"""Notebook 11's pictures of masks, layouts, quality, time and recovery, and its explorer."""

import torch
from scipy.stats import spearmanr

from efflab import points
from efflab.bench import Comparison
from efflab.compression import pruning, sparse
from efflab.errors import require
from efflab.estimate import Estimate
from efflab.experiments import pruning_recovery
from efflab.experiments.pruning_recovery import CONTROL, RATIOS
from efflab.lab import Choice, Slider, explorer, number, tr
from efflab.lab import figures as pictures
from efflab.lab.colours import BLUE, DARK, GREEN, ONE_HUE, ORANGE, PALE_GREY, VERMILION
from efflab_rooms.pruning import measure, verdicts

# --- Masks and layouts -----------------------------------------------------------------------


def masks_figure(rows: int = 12, columns: int = 32):
    """The same random matrix, half of it removed three ways: dark is kept."""
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    structured = torch.ones(weight.shape, dtype=torch.bool)
    structured[weight.norm(dim=1).argsort()[: rows // 2]] = False
    masks = {
        tr("unstructured: smallest weights"): pruning.magnitude_mask(weight, 0.5),
        tr("2:4: two of every four"): pruning.n_m_mask(weight, 2, 4),
        tr("structured: whole rows"): structured,
    }
    total = weight.square().sum()
    shares = {n: 100 * float((weight * m).square().sum() / total) for n, m in masks.items()}
    titles = [f"{name}<br>{tr('‖W‖²: {n}% kept', n=number(v))}" for name, v in shares.items()]
    meta = {name: round(share, 1) for name, share in shares.items()}
    title = tr("Half removed, three ways (blue: kept)")
    fig = pictures.panels(titles, title, horizontal_spacing=0.04, meta=meta)
    scale = [[0, PALE_GREY], [1, BLUE]]
    look = dict(colorscale=scale, showscale=False, xgap=1, ygap=1, zmin=0, zmax=1)
    for column, mask in enumerate(masks.values(), start=1):
        fig.add_heatmap(z=mask.int().numpy(), **look, row=1, col=column)
    fig.update_xaxes(showticklabels=False, ticks="")
    fig.update_yaxes(showticklabels=False, ticks="", autorange="reversed")
    return fig.update_layout(height=320, margin=dict(t=104, b=24))


def layouts_figure(size: int = 256):
    """Bytes over dense bytes by share of zeros, for fp32 and fp16 values."""
    shares = [i / 20 for i in range(20)]
    titles = [tr("32-bit values"), tr("16-bit values")]
    title, meta = tr("Bytes by share of zeros, positions included"), {}
    fig = pictures.panels(titles, title, shared_yaxes=True)
    for column, dtype in enumerate((torch.float32, torch.float16), start=1):
        where = dict(row=1, col=column)
        weight = torch.randn(size, size, generator=torch.Generator().manual_seed(0)).to(dtype)
        masked = [weight * pruning.magnitude_mask(weight, share) for share in shares]
        for i, (layout, name) in enumerate((("csr", "CSR"), ("bitmap", "bitmap and values"))):
            y = [sparse.layout_bytes(w, layout) / w.nbytes for w in masked]
            look = dict(line=pictures.style(i)["line"], mode="lines", showlegend=column == 1)
            fig.add_scatter(x=[100 * s for s in shares], y=y, name=tr(name), **look, **where)
        pictures.mark(fig, tr("dense"), y=1, **where)
        size_bytes, bits = weight.element_size(), 8 * weight.element_size()
        csr, bitmap = sparse.break_even(size_bytes, 4), sparse.break_even(size_bytes, 0, 1)
        meta[tr("CSR, {bits} bits: smaller above (% zeros)", bits=bits)] = round(100 * csr, 1)
        meta[tr("bitmap, {bits} bits: smaller above (% zeros)", bits=bits)] = round(100 * bitmap, 1)
    fig.update_xaxes(title_text=tr("zeros (%)"))
    fig.update_yaxes(title_text=tr("bytes / dense bytes"), col=1)
    fig.update_yaxes(rangemode="tozero")
    return fig.update_layout(meta=meta, legend=pictures.legend("below"))


# --- Quality and time ------------------------------------------------------------------------


def curves_figure(curves: dict[str, dict[float, float]], two_of_four: float):
    """Bits per byte over the share removed, by what is pruned; 2:4 as a point at one half."""
    series = {tr(name): list(curve.values()) for name, curve in curves.items()}
    shares = [100 * share for share in next(iter(curves.values()))]
    halves = {tr(name): curve[0.5] for name, curve in curves.items()}
    halves[tr("weights, 2:4")] = two_of_four
    meta = {tr("{name}: bits per byte at 50%", name=k): round(v, 2) for k, v in halves.items()}
    title = tr("Quality by share removed, without retraining")
    axes = tr("share removed (%)"), tr("bits per byte")
    fig = pictures.line(shares, series, title, *axes, height=440, meta=meta)
    star = dict(symbol="star", size=15, color=DARK)
    fig.add_scatter(x=[50], y=[two_of_four], mode="markers", name=tr("weights, 2:4"), marker=star)
    bits = [v for values in series.values() for v in values]
    fig.update_yaxes(range=[0.95 * min(bits), 1.1 * max(bits)], tickformat=".1f")
    return fig.update_layout(legend=pictures.legend("top left"))


def importance_figure():
    """Each head's importance by its gradient and by its ablation, and the one over the other."""
    gradient, ablation = measure.importance("heads"), measure.ablation()
    ratios = ablation / gradient
    order = float(spearmanr(gradient.flatten(), ablation.flatten()).statistic)
    most = float(ratios.max())
    title = tr("Removing a head raises the loss by up to {n} times its gradient", n=number(most))
    titles = [tr("gradient with respect to its gate (10⁻³ nats)")]
    titles += [tr("loss increase (10⁻³ nats)")]
    meta = {tr("rank correlation"): round(order, 2), tr("largest ratio"): round(most, 1)}
    meta |= {tr("median ratio"): round(float(ratios.median()), 1)}
    fig = pictures.panels(titles, title, meta=meta, horizontal_spacing=0.12)
    y, x = (list(range(n)) for n in gradient.shape)
    look = dict(x=x, y=y, coloraxis="coloraxis", texttemplate="%{z:.0f}")
    for column, scores in enumerate((gradient, ablation), start=1):
        fig.add_heatmap(z=1e3 * scores.numpy(), **look, row=1, col=column)
    fig.update_xaxes(type="category", title_text=tr("head"))
    fig.update_yaxes(type="category", autorange="reversed")
    fig.update_yaxes(title_text=tr("layer"), col=1)
    return fig.update_layout(coloraxis_colorscale=ONE_HUE, height=360, margin_t=96)


def speed_figure(flops: dict[str, float], times: Comparison):
    """FLOPs and time that are left, over the whole model's, by what was pruned."""
    ratios = dict(reversed(times.ratios.items()))
    meta = {tr("{name}: relative time", name=tr(n)): round(t.mean, 2) for n, t in ratios.items()}
    title, x_title = tr("Remaining FLOPs and time (measured)"), tr("pruned / whole model")
    fig = pictures.blank(title, x_title, height=520, meta=meta)
    names, x = [tr(name) for name in ratios], [time.mean for time in ratios.values()]
    ends = [time.low for time in ratios.values()], [time.high for time in ratios.values()]
    bars = pictures.error_bars(x, *ends)
    look = dict(y=names, orientation="h", texttemplate="%{x:.2f}", textposition="inside")
    look |= dict(insidetextanchor="start")
    fig.add_bar(x=[flops[n] for n in ratios], name=tr("FLOPs"), marker_color=BLUE, **look)
    fig.add_bar(x=x, error_x=bars, name=tr("time"), marker_color=VERMILION, **look)
    legend = pictures.legend("below", traceorder="reversed")
    fig.update_layout(barmode="group", legend=legend)
    fig.update_xaxes(range=[0, 1.05 * max(1, *ends[1])])
    fig.update_yaxes(range=[-0.5, len(names)])  # room for the mark's label above the bars
    return pictures.mark(fig, tr("no change"), x=1)


@explorer(
    percent=Slider(0, 95, 50, step=5, unit="%", label="removed"),
    kind=Choice(measure.KINDS, "weights", label="what is pruned"),
)
def prune(percent=50, kind="weights"):
    """`stdlib-gpt` pruned, not retrained: its quality, and its costs over the whole model's."""
    allowed = "a share from {low} to {high} %"
    require(0 <= percent <= 95, "percent", percent, allowed, low=0, high=95)
    whole = measure.quality(points.language_model())
    bits, costs = measure.quality_and_costs(kind, percent)
    text = "{kind}, {percent}% removed: {bits} bits per byte, time ×{time}"
    values = dict(bits=number(bits.mean), time=number(costs["time (measured)"], 2))
    title = tr(text, kind=tr(kind), percent=_actual_percent(kind, percent), **values)
    panels = [tr("bits per byte (lower is better)"), tr("cost, pruned / whole model")]
    options = dict(column_widths=[0.36, 0.64], horizontal_spacing=0.1)
    fig = pictures.panels(panels, title, meta=_key_numbers(bits, costs), **options)
    y = [whole.mean, bits.mean]
    error_y = pictures.error_bars(y, [whole.low, bits.low], [whole.high, bits.high])
    look = dict(texttemplate="%{y:.2f}", textposition="inside", insidetextanchor="start")
    look |= dict(error_y=error_y, marker_color=[BLUE, VERMILION])
    fig.add_bar(x=[tr("whole model"), tr("pruned model")], y=y, **look, row=1, col=1)
    names = [tr(name).replace(", ", ",<br>").replace(" (", "<br>(") for name in costs]
    look = dict(texttemplate="%{y:.2f}", marker_color=ORANGE)
    fig.add_bar(x=names, y=list(costs.values()), **look, row=1, col=2)
    fig.update_yaxes(range=[0, max(3.6, 1.1 * bits.high)], col=1)
    fig.update_yaxes(range=[0, 1.2 * max(1, *costs.values())], col=2)
    return fig.update_layout(showlegend=False)


def _actual_percent(kind: str, percent: int) -> int:
    """Per cent really removed: whole weights of four; each of six layers keeps one of its heads."""
    if kind == "n of 4 weights":
        return 25 * round(4 * percent / 100)
    if kind == "heads":
        return round(100 * min(round(36 * percent / 100), 30) / 36)
    return percent


def _key_numbers(bits: Estimate, costs: dict[str, float]) -> dict[str, float]:
    """What `meta` says of the model drawn."""
    ends = {tr("interval, low"): bits.low, tr("interval, high"): bits.high}
    ratios = {tr("{name} / baseline", name=tr(name)): ratio for name, ratio in costs.items()}
    numbers = {tr("bits per byte"): bits.mean} | ends | ratios
    return {name: round(value, 3) for name, value in numbers.items()}


# --- The recorded schedules ------------------------------------------------------------------


def schedule_figure(live: dict[float, float]):
    """Bits per byte above the dense model in the course of training, a panel for each final ratio.

    `live` {ratio: what pruning at once costs before training, measured here}.
    """
    titles = [tr("{n}% removed", n=number(100 * ratio)) for ratio in RATIOS]
    n_seeds = len(measure.recovery_record()["seeds"])
    title = tr(
        "Recovery, equally many steps (recorded, mean of {n} seeds; each panel has its own scale)",
        n=n_seeds,
    )
    fig, meta = pictures.panels(titles, title, horizontal_spacing=0.07), {}
    for column, ratio in enumerate(RATIOS, start=1):
        where = dict(showlegend=column == 1, mode="lines", row=1, col=column)
        for i, schedule in enumerate(measure.SCHEDULES):
            line = measure.recovery(schedule, ratio)
            name = tr("{n}%, {name}", n=number(100 * ratio), name=tr(schedule))
            meta[name] = round(line["mean"][-1], 3)
            look = dict(line=pictures.style(i, 0)["line"], legendgroup=schedule, name=tr(schedule))
            fig.add_scatter(x=line["steps"], y=line["mean"], **look, **where)
        control, look = measure.recovery(*CONTROL), dict(line=dict(color=DARK, dash="dot"))
        look |= dict(name=tr("control: nothing removed"))
        fig.add_scatter(x=control["steps"], y=control["mean"], **look, **where)
        if ratio in live:
            star = dict(symbol="star", size=15, color=GREEN)
            look = dict(marker=star, name=tr("now, here (measured)"))
            fig.add_scatter(x=[0], y=[live[ratio]], **look, mode="markers", row=1, col=column)
    steps = dict(title_text=tr("steps of training"), tickvals=[0, 200, 400, 600])
    fig.update_xaxes(range=[-12, 612], **steps)
    fig.update_yaxes(title_text=tr("bits per byte above the dense model"), col=1)
    fig.update_yaxes(rangemode="tozero")
    return fig.update_layout(meta=meta, legend=pictures.legend("below"), height=440)


def differences_figure():
    """Gradual less one-shot, by seed with the mean's interval: largest single drop, and the end."""
    runs = measure.recovery_record()["runs"]
    cases = pruning_recovery.cases(runs)
    titles = [tr("largest single drop"), tr("at the end")]
    title = tr("Gradual minus one-shot, bits per byte (recorded; below 0: gradual is better)")
    fig, meta = pictures.panels(titles, title, horizontal_spacing=0.14), {}
    for column, way in enumerate(verdicts.WAYS, start=1):
        where = dict(showlegend=column == 1, mode="markers", row=1, col=column)
        means = {f"{n}%": cases[f"{way}-{n}"] for n in verdicts.RATIOS}
        y, low, high = ([getattr(i, k) for i in means.values()] for k in ("mean", "low", "high"))
        look = dict(marker=dict(size=11, color=BLUE), error_y=pictures.error_bars(y, low, high))
        fig.add_scatter(x=list(means), y=y, name=tr("mean with 95% interval"), **look, **where)
        seeds = [(f"{n}%", v) for n in verdicts.RATIOS for v in verdicts.differences(runs, way, n)]
        x, y = zip(*seeds, strict=True)
        look = dict(marker=dict(size=8, symbol="x-thin-open", color=DARK), name=tr("one seed"))
        fig.add_scatter(x=x, y=y, **look, **where)
        pictures.mark(fig, y=0, row=1, col=column)
        meta |= {f"{titles[column - 1]}, {n}": round(i.mean, 3) for n, i in means.items()}
    fig.update_xaxes(title_text=tr("removed"), type="category")
    return fig.update_layout(meta=meta, legend=pictures.legend("below"), height=400)
