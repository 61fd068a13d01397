"""Notebook 03's pictures and its two explorers."""

import math

import numpy as np
import torch
from torch import Tensor

from efflab.data import digits
from efflab.errors import require_int
from efflab.estimate import Estimate
from efflab.lab import Choice, Slider, Toggle, colours, explorer, number, tr
from efflab.lab.figures import (
    COLOURS,
    error_bars,
    heatmap,
    legend,
    line,
    log_ticks,
    mark,
    panels,
    style,
)
from efflab.structure.bigbird import bigbird_layout, hops
from efflab.structure.swin import relative_position_index
from efflab.structure.window import sliding_window_attention, visible_pairs, window_mask
from efflab_rooms.sparse_attention import measure

PIXELS = 64
"""Of a long mask's picture, on each side."""


def white_to(colour: str) -> dict:
    """A heatmap's look from 0, white, to 1, `colour`, without a scale beside it."""
    scale = [[0, colours.WHITE], [1, colour]]
    return dict(zmin=0, zmax=1, colorscale=scale, showscale=False)


def add_mask(fig, mask, gap: float = 0.5, **where) -> None:
    """A mask as dark squares on white, row 0 on top; fractions become shades."""
    z = np.asarray(mask, dtype=float).round(3)
    fig.add_heatmap(z=z, xgap=gap, ygap=gap, **white_to(COLOURS[0]), **where)
    fig.update_yaxes(autorange="reversed", title_text=tr("query"), **where)
    fig.update_xaxes(title_text=tr("key"), constrain="domain", **where)


# --- Windows over a sequence -----------------------------------------------------------------


def mask_picture(seq_len: int = 24, window_size: int = 3):
    """Who sees whom: full attention, a window, a causal window; rows ask, columns answer."""
    masks = {
        "full": torch.ones(seq_len, seq_len, dtype=torch.bool),
        "window": window_mask(seq_len, window_size),
        "causal window": window_mask(seq_len, window_size, causal=True),
    }
    pairs = {tr(name): int(mask.sum()) for name, mask in masks.items()}
    titles = [tr("{name}: {n} pairs", name=name, n=n) for name, n in pairs.items()]
    title = tr("Which keys each query sees: {n} tokens, window {w}", n=seq_len, w=window_size)
    fig = panels(titles, title, meta=pairs)
    for column, mask in enumerate(masks.values(), start=1):
        add_mask(fig, mask, row=1, col=column)
    fig.update_yaxes(title_text="").update_yaxes(title_text=tr("query"), col=1)
    return fig.update_layout(height=340)


def coarse_mask(seq_len: int, window_size: int, causal: bool, pixels: int = PIXELS) -> np.ndarray:
    """The mask of any length as pixels x pixels shares of visible pairs, sampled in each pixel."""
    at = (np.arange(pixels * 4) + 0.5) * seq_len / (pixels * 4)
    behind = at[:, None] - at
    visible = (behind <= window_size + 0.5) & (behind >= (-0.5 if causal else -window_size - 0.5))
    return visible.reshape(pixels, 4, pixels, 4).mean((1, 3))


def gflops(pairs: float) -> float:
    """Of attention with 4 heads of 64: scores and their weighted sum, 2 FLOPs a multiply-add."""
    return 4e-9 * measure.N_HEAD * measure.HEAD_DIM * pairs


@explorer(
    window_size=Slider(0, 1024, 128, step=16, unit="tokens", label="window, each side"),
    seq_len=Slider(1024, 2**17, 2**14, scale="log2", unit="tokens", label="sequence length"),
    causal=Toggle(False, label="causal"),
)
def window_cost(window_size=128, seq_len=2**14, causal=False):
    """The mask's picture and its arithmetic beside full attention's, over the length."""
    require_int("window_size", window_size, 0)
    require_int("seq_len", seq_len)
    pairs = visible_pairs(seq_len, window_size, causal)
    share, fewer = pairs / seq_len**2, seq_len**2 / pairs
    meta = dict(pairs=pairs, fewer=fewer, gflops=gflops(pairs), share=share)
    template = "{n} tokens, window {w}: {p}% of the pairs, {x} times less arithmetic"
    percent, times = number(100 * share), number(fewer)
    title = tr(template, n=number(seq_len), w=number(window_size), p=percent, x=times)
    titles = [tr("visible pairs"), tr("arithmetic (computed)")]
    fig = panels(titles, title, meta=meta, column_widths=[0.42, 0.58])
    add_mask(fig, coarse_mask(seq_len, window_size, causal), gap=0, row=1, col=1)
    step = seq_len / PIXELS
    fig.data[0].update(x0=step / 2, dx=step, y0=step / 2, dy=step)
    _add_arithmetic(fig, window_size, causal)
    point = dict(size=14, color=COLOURS[1])
    fig.add_scatter(
        x=[seq_len], y=[gflops(pairs)], mode="markers", marker=point, showlegend=False, row=1, col=2
    )
    return fig.update_layout(legend=dict(x=0.5, y=0.98))


def _add_arithmetic(fig, window_size: int, causal: bool) -> None:
    lengths = [2**i for i in range(10, 18)]
    curves = {
        "full": [n**2 for n in lengths],
        "window": [visible_pairs(n, window_size, causal) for n in lengths],
    }
    for i, (name, pairs) in enumerate(curves.items()):
        y = [gflops(p) for p in pairs]
        fig.add_scatter(x=lengths, y=y, name=tr(name), **style(i), row=1, col=2)
    ticks = lengths[::2]
    short = log_ticks(ticks) | dict(ticktext=[f"{n // 1024}k" for n in ticks])
    fig.update_xaxes(**short, title_text=tr("sequence length (tokens)"), row=1, col=2)
    fig.update_yaxes(type="log", exponentformat="power", title_text="GFLOP", dtick=1, row=1, col=2)


def growth_figure(costs: list[measure.Costs], written: list[float]):
    """Time and memory over the length, both axes logarithmic: the slope is the exponent.

    `written`: MiB of attention with its scores in memory, one for each of `costs`.
    """
    lengths = [c.seq_len for c in costs]
    names = (measure.FULL, measure.WINDOW)
    times = {name: [1e3 * c.times[name].median for c in costs] for name in names}
    memory = {name: [c.mib[name] for c in costs] for name in names} | {measure.WRITTEN: written}
    titles = [tr("time (ms)"), tr("memory beyond q, k, v (MiB)")]
    fig = panels(titles, tr("Time and memory against length: the slope is the exponent"))
    for column, series in enumerate((times, memory), start=1):
        for i, (name, y) in enumerate(series.items()):
            once = column == 1 or name not in times
            look = dict(name=tr(name), legendgroup=name, showlegend=once, **style(i, size=8))
            fig.add_scatter(x=lengths, y=y, **look, row=1, col=column)
            power = measure.exponent(lengths, y).mean
            fig.layout.meta |= {f"{tr(name)}, {titles[column - 1]}: n^": round(power, 2)}
            end = dict(x=math.log10(lengths[-1]), y=math.log10(y[-1]), xanchor="right")
            end |= dict(yshift=-16 if (i, column) == (0, 2) else 14)  # two lines end close together
            look = dict(text=f"n^{power:.2f}", font_color=COLOURS[i], showarrow=False)
            fig.add_annotation(**end, **look, row=1, col=column)
    fig.update_xaxes(**log_ticks(lengths), title_text=tr("sequence length (tokens)"))
    fig.update_yaxes(type="log", exponentformat="power", dtick=1)
    return fig.update_layout(legend=legend("below"), margin_b=90)


def reach(window_size: int, n_layer: int, causal: bool = False) -> Tensor:
    """Which positions around a token reach it through 1 to n_layer windows, by the gradient.

    bool (n_layer, 2 n_layer window_size + 5), the token in the middle column.
    """
    middle = n_layer * window_size + 2
    rng = torch.Generator().manual_seed(0)
    rows = []
    for depth in range(1, n_layer + 1):
        x = torch.rand(1, 1, 2 * middle + 1, 4, generator=rng, dtype=torch.float64)
        y = x.requires_grad_()
        for _ in range(depth):
            y = sliding_window_attention(y, y, y, window_size, causal)
        (grad,) = torch.autograd.grad(y[0, 0, middle].sum(), x)
        rows.append(grad[0, 0].abs().sum(-1) > 0)
    return torch.stack(rows)


def reach_picture(window_size: int = 8, n_layer: int = 6):
    """Reach by depth, both ways and causal: L layers of window w see L w tokens away."""
    require_int("window_size", window_size)
    require_int("n_layer", n_layer)
    titles = [tr("both ways"), tr("causal")]
    title = tr("Window {w}: each layer sees {w} tokens further", w=window_size)
    fig = panels(titles, title, shared_yaxes=True)
    for column, name in enumerate(titles, start=1):
        arrives = reach(window_size, n_layer, causal=column == 2).int().numpy()
        middle = arrives.shape[1] // 2
        fig.layout.meta |= {name: middle - int(arrives[-1].argmax())}
        look = dict(**white_to(COLOURS[0]), ygap=2, row=1, col=column)
        fig.add_heatmap(z=arrives, x0=-middle, dx=1, y0=1, dy=1, **look)
    fig.update_xaxes(title_text=tr("position relative to the token"))
    fig.update_yaxes(autorange="reversed", dtick=1).update_yaxes(title_text=tr("layers"), col=1)
    return fig.update_layout(height=320)


# --- Windows over an image -------------------------------------------------------------------


def bias_picture(window_size: int = 4):
    """Which entry of the bias table each pair of pixels uses; equal offsets share one."""
    index = relative_position_index(window_size)
    rows = (2 * window_size - 1) ** 2
    meta = {tr("pairs"): index.numel(), tr("table rows"): rows}
    title = tr("{n} pairs of pixels read {m} learned numbers per head", n=index.numel(), m=rows)
    axes, bar = (tr("key pixel"), tr("query pixel")), tr("table row")
    return heatmap(index, title, *axes, square=True, meta=meta, bar_title=bar)


STACKS = {
    "one layer": (0,),
    "three layers, never shifted": (0, 0, 0),
    "second layer shifted": (0, 2),
    "second of three shifted": (0, 2, 0),
}
"""Shifts of the layers."""


def talk_picture():
    """Which pixels hear of a change in the top-left window, by the layers' shifts."""
    maps = {tr(name): measure.pixel_changes(shifts) > 1e-6 for name, shifts in STACKS.items()}
    counts = {name: int(change.sum()) for name, change in maps.items()}
    titles = [tr("the digit")]
    titles += [f"{name}<br>{tr('{n} of 64 change', n=n)}" for name, n in counts.items()]
    fig = panels(titles, tr("One changed pixel: which outputs change?"), meta=counts)
    y, x = measure.PIXEL
    cross = dict(symbol="x", size=9, color=colours.VERMILION)
    for column, image in enumerate([digits()[0][0], *maps.values()], start=1):
        where = dict(row=1, col=column)
        look = white_to(colours.BLACK if column == 1 else colours.BLUE)
        fig.add_heatmap(z=image.float().numpy().round(3), xgap=1, ygap=1, **look, **where)
        fig.add_scatter(x=[x], y=[y], mode="markers", marker=cross, showlegend=False, **where)
        edge = dict(line=dict(color=colours.ORANGE, width=2), **where)
        fig.add_vline(measure.IMAGE_WINDOW - 0.5, **edge)
        fig.add_hline(measure.IMAGE_WINDOW - 0.5, **edge)
        fig.update_yaxes(scaleanchor="x" if column == 1 else f"x{column}", **where)
    fig.update_xaxes(showticklabels=False, ticks="", constrain="domain")
    fig.update_yaxes(showticklabels=False, ticks="", autorange="reversed", constrain="domain")
    fig.update_annotations(font_size=12)
    return fig.update_layout(height=280, margin=dict(l=12, r=12, t=100, b=12))


# --- Recall and BigBird ----------------------------------------------------------------------


def recall_figure(windows: dict[int, Estimate], full: dict[int, float], reach: int):
    """Accuracy over the distance, with the reach of the window's stack and chance."""
    shares = [share.mean for share in windows.values()]
    series = {tr("windows"): shares, tr("full attention"): list(full.values())}
    title = tr("Recall against distance to the answer")
    axes = (tr("distance to the answer (tokens)"), tr("accuracy"))
    meta = {str(distance): round(share, 2) for distance, share in zip(windows, shares, strict=True)}
    fig = line(list(windows), series, title, *axes, meta=meta)
    ends = zip(*((share.low, share.high) for share in windows.values()), strict=True)
    fig.data[0].error_y = error_bars(shares, *ends)
    mark(fig, tr("reach: {n} tokens", n=reach), x=reach)
    mark(fig, tr("chance"), y=1 / measure.N_SYMBOLS)
    return fig.update_yaxes(range=[0, 1.15]).update_layout(legend=legend("below"))


@explorer(
    n_global=Slider(0, 8, 2, step=1, unit="blocks", label="global"),
    n_window=Choice((1, 3, 5, 7, 9, 11, 13, 15), 3, unit="blocks", label="window"),
    n_random=Slider(0, 8, 3, step=1, unit="blocks", label="random"),
)
def bigbird_cost(n_global=2, n_window=3, n_random=3, n_blocks=64):
    """The layout's picture, how many hops lie between its blocks, and what it costs."""
    layout = bigbird_layout(n_blocks, n_global=n_global, n_window=n_window, n_random=n_random)
    distance = hops(layout)[~torch.eye(n_blocks, dtype=torch.bool)]
    unreached, share = int((distance < 0).sum()), float(layout.float().mean())
    furthest = -1 if unreached else int(distance.max())
    meta = dict(share=share, furthest=furthest, unreached=unreached, blocks=int(layout.sum()))
    words = tr("every block reaches every other within {n} layers", n=furthest)
    if unreached:
        per_cent = number(100 * unreached / len(distance))
        words = tr("{p}% of block pairs are never connected", p=per_cent)
    title = tr("{p}% of full attention's blocks; {words}", p=number(100 * share), words=words)
    titles = [tr("layout: {n} blocks", n=n_blocks), tr("layers for one block to reach another")]
    fig = panels(titles, title, meta=meta, column_widths=[0.45, 0.55])
    add_mask(fig, layout, row=1, col=1)
    _add_distances(fig, distance)
    return fig


def _add_distances(fig, distance: torch.Tensor, last: int = 8) -> None:
    """Which share of the pairs of blocks is 1, 2, ... layers apart, `last` and more together."""
    # shifted by one, so that -1, never, is counted first; no pair is 0 layers apart
    never, _, *counts = torch.bincount(distance.clamp(max=last) + 1, minlength=last + 2).tolist()
    names = [*(str(n) for n in range(1, last)), f"{last}+", tr("never")]
    per_cent = [100 * n / len(distance) for n in (*counts, never)]
    look = dict(text=[f"{p:.0f}%" if p else "" for p in per_cent], textposition="outside")
    look |= dict(textangle=0, marker_color=COLOURS[0], showlegend=False)
    fig.add_bar(x=names, y=per_cent, **look, row=1, col=2)
    fig.update_xaxes(type="category", title_text=tr("layers"), row=1, col=2)
    fig.update_yaxes(title_text=tr("% of block pairs"), range=[0, 110], row=1, col=2)
