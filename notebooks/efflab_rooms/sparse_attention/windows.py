"""Notebook 03's windows over a sequence: masks and their cost, reach by depth, exercises."""

import numpy as np
import torch

from efflab.errors import require_int
from efflab.lab import Slider, Toggle, colours, explorer, figures, number, tr
from efflab.structure.window import sliding_window_attention, visible_pairs, window_mask

N_HEAD, HEAD_DIM = 4, 64
PIXELS = 64


def mask_picture(seq_len: int = 24, window_size: int = 3):
    """Who sees whom: full attention, a window, a causal window; rows ask, columns answer."""
    masks = {
        "full": torch.ones(seq_len, seq_len, dtype=torch.bool),
        "window": window_mask(seq_len, window_size),
        "causal window": window_mask(seq_len, window_size, causal=True),
    }
    pairs = {name: int(mask.sum()) for name, mask in masks.items()}
    titles = [tr("{name}: {n} pairs", name=tr(name), n=n) for name, n in pairs.items()]
    title = tr("Which keys each query sees: {n} tokens, window {w}", n=seq_len, w=window_size)
    fig = figures.panels(titles, title, meta={tr(name): n for name, n in pairs.items()})
    for column, mask in enumerate(masks.values(), start=1):
        add_mask(fig, mask, row=1, col=column)
    fig.update_yaxes(title_text="", row=1, col=2)
    fig.update_yaxes(title_text="", row=1, col=3)
    fig.update_layout(height=340)
    return fig


def add_mask(fig, mask, **where) -> None:
    """A mask as dark squares on white, row 0 on top; fractions become shades."""
    z = np.asarray(mask, dtype=float)
    scale = [[0, colours.WHITE], [1, figures.COLOURS[0]]]
    fig.add_heatmap(
        z=z.round(3), zmin=0, zmax=1, colorscale=scale, showscale=False, xgap=0.5, ygap=0.5, **where
    )
    fig.update_yaxes(autorange="reversed", title_text=tr("query"), **where)
    fig.update_xaxes(title_text=tr("key"), constrain="domain", **where)


def coarse_mask(seq_len: int, window_size: int, causal: bool, pixels: int = PIXELS) -> np.ndarray:
    """The mask of any length as pixels x pixels shares of visible pairs, sampled in each pixel."""
    at = (np.arange(pixels * 4) + 0.5) * seq_len / (pixels * 4)
    behind = at[:, None] - at
    seen = (behind <= window_size + 0.5) & (behind >= (-0.5 if causal else -window_size - 0.5))
    return seen.reshape(pixels, 4, pixels, 4).mean((1, 3))


@explorer(
    window_size=Slider(0, 1024, 128, step=16, unit="tokens", label="window, each side"),
    seq_len=Slider(1024, 2**17, 2**14, scale="log2", unit="tokens", label="sequence length"),
    causal=Toggle(False, label="causal"),
)
def window_cost(window_size=128, seq_len=2**14, causal=False):
    """The mask's picture and its arithmetic beside full attention's, over the length."""
    require_int("window_size", window_size, 0)
    require_int("seq_len", seq_len)
    pairs, all_pairs = visible_pairs(seq_len, window_size, causal), seq_len**2
    fewer = all_pairs / pairs
    gflops = 4 * N_HEAD * HEAD_DIM * pairs / 1e9
    meta = dict(pairs=pairs, fewer=fewer, gflops=gflops, share=pairs / all_pairs)
    title = tr("{n} tokens, window {w}: {p} % of the pairs, {x} times less arithmetic",
               n=number(seq_len), w=number(window_size), p=number(100 * pairs / all_pairs),
               x=number(fewer))  # fmt: skip
    titles = [tr("what is visible"), tr("arithmetic (computed)")]
    fig = figures.panels(titles, title, meta=meta, column_widths=[0.42, 0.58])
    step = seq_len / PIXELS
    add_mask(fig, coarse_mask(seq_len, window_size, causal), row=1, col=1)
    fig.data[0].update(x0=step / 2, dx=step, y0=step / 2, dy=step, xgap=0, ygap=0)
    lengths = 2 ** np.arange(10, 18)
    lines = {
        tr("full"): lengths.astype(float) ** 2,
        tr("window"): [visible_pairs(int(n), window_size, causal) for n in lengths],
    }
    for i, (name, values) in enumerate(lines.items()):
        y = [4e-9 * N_HEAD * HEAD_DIM * v for v in values]
        style = dict(color=figures.COLOURS[i], dash=figures.DASHES[i])
        fig.add_scatter(x=lengths, y=y, name=name, line=style, row=1, col=2)
    fig.add_scatter(
        x=[seq_len], y=[gflops], mode="markers", showlegend=False, row=1, col=2,
        marker=dict(size=14, color=figures.COLOURS[1]),
    )  # fmt: skip
    ticks = [int(n) for n in lengths[::2]]
    fig.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{n // 1024}k" for n in ticks],
                     title_text=tr("sequence length (tokens)"), row=1, col=2)  # fmt: skip
    fig.update_yaxes(type="log", exponentformat="power", title_text="GFLOP", dtick=1, row=1, col=2)
    fig.update_layout(legend=dict(x=0.5, y=0.98))
    return fig


# --- How far it sees -------------------------------------------------------------------------


def reach(window_size: int, n_layer: int, causal: bool = False) -> np.ndarray:
    """For 1..n_layer stacked windows, the positions relative to a token that can reach it.

    Found by gradients: whose input changes the token's output. bool (n_layer, 2 n_layer w + 5).
    """
    half = n_layer * window_size + 2
    seen = np.zeros((n_layer, 2 * half + 1), dtype=bool)
    rng = torch.Generator().manual_seed(0)
    for depth in range(1, n_layer + 1):
        start = torch.rand(1, 1, 2 * half + 1, 4, generator=rng, dtype=torch.float64)
        start.requires_grad_()
        x = start
        for _ in range(depth):
            x = sliding_window_attention(x, x, x, window_size, causal)
        x[0, 0, half].sum().backward()
        seen[depth - 1] = (start.grad[0, 0].abs().sum(-1) > 0).numpy()
    return seen


def reach_picture(window_size: int = 8, n_layer: int = 6):
    """Reach by depth, both ways and causal: L layers of window w see L w tokens away."""
    require_int("window_size", window_size)
    require_int("n_layer", n_layer)
    half = n_layer * window_size + 2
    fig = figures.panels(
        [tr("both ways"), tr("causal")],
        tr("Window {w}: each layer sees {w} tokens further", w=window_size),
        shared_yaxes=True,
    )
    scale = [[0, colours.WHITE], [1, figures.COLOURS[0]]]
    for column, causal in enumerate((False, True), start=1):
        seen = reach(window_size, n_layer, causal)
        furthest = half - int(seen[-1].argmax())
        fig.layout.meta |= {tr("both ways") if column == 1 else tr("causal"): furthest}
        fig.add_heatmap(z=seen.astype(int), x0=-half, dx=1, y0=1, dy=1, zmin=0, zmax=1, ygap=2,
                        colorscale=scale, showscale=False, row=1, col=column)  # fmt: skip
        fig.update_xaxes(title_text=tr("position relative to the token"), row=1, col=column)
    fig.update_yaxes(autorange="reversed", dtick=1)
    fig.update_yaxes(title_text=tr("layers"), col=1)
    fig.update_layout(height=320)
    return fig
