"""Notebook 04's pictures of spectra, projections and costs, and its explorer."""

from collections.abc import Mapping

from torch import Tensor

from efflab.data import read_published
from efflab.errors import require, require_int
from efflab.estimate import Estimate
from efflab.experiments import linformer_trained as trained
from efflab.lab import Choice, Slider, colours, explorer, number, tr
from efflab.lab.figures import COLOURS, blank, error_bars, legend, log_ticks, mark, panels, style
from efflab.structure.linformer import SHARING, attention_flops, linformer_flops, linformer_params
from efflab_rooms.linformer.measure import Cost, fixed_errors, own_errors, ranks_for


def spectrum_figure(values: Tensor):
    """How many singular values hold 90 % of each head, and what is left beyond k, by layer.

    `values`: singular values (layers, B, H, T) of the attention matrices.
    """
    n_layer, _, n_head, T = values.shape
    ranks = ranks_for(values).float().mean(1)
    errors = 100 * own_errors(values).mean((1, 2))
    means = [round(rank, 1) for rank in ranks.mean(1).tolist()]
    meta = {tr("layer {i}: mean rank for 90% energy", i=i): mean for i, mean in enumerate(means, 1)}
    titles = [tr("singular values for 90% of energy"), tr("error of the best rank-k matrix (%)")]
    title = tr("Most heads are low-rank; a few, mainly in the first three layers, are not")
    fig = panels(titles, title, meta=meta, horizontal_spacing=0.2, column_widths=[0.5, 0.5])
    heads, layers = list(range(1, n_head + 1)), list(range(1, n_layer + 1))
    text = [[f"{rank:.0f}" for rank in row] for row in ranks.tolist()]
    bar = dict(x=0.42, thickness=12, title_text=tr("rank"))
    look = dict(text=text, texttemplate="%{text}", colorscale=colours.SCALE, colorbar=bar)
    fig.add_heatmap(z=ranks.numpy(), x=heads, y=layers, zmin=1, zmax=T, **look, row=1, col=1)
    for i, curve in enumerate(errors):
        _add_curve(fig, i, tr("layer {i}", i=i + 1), curve, col=2)
    fig.update_xaxes(title_text=tr("head"), dtick=1, col=1)
    fig.update_yaxes(title_text=tr("layer"), autorange="reversed", dtick=1, col=1)
    fig.update_xaxes(title_text=tr("k (of {n} tokens)", n=T), col=2)
    fig.update_yaxes(rangemode="tozero", col=2)
    return fig.update_layout(legend=legend("top right"), height=420)


def _add_curve(fig, i: int, name: str, y: Tensor, **look) -> None:
    """Values at 1, 2, 3, ... as the i-th series, in a panel of the first row."""
    x = list(range(1, len(y) + 1))
    line = style(i)["line"]
    fig.add_scatter(x=x, y=y.numpy(), mode="lines", line=line, name=name, row=1, **look)


def projection_figure(values: Tensor, matrices: Tensor, learned: Tensor, random: Tensor):
    """Error over k in the first and the last layer: own, one learned, one random projection.

    `values` and `matrices` are of held-out texts, `learned` and `random` bases of positions.
    """
    T = values.shape[-1]
    errors = {
        tr("one per text (best possible)"): own_errors(values),
        tr("one for all texts, learned"): fixed_errors(matrices, learned),
        tr("one for all texts, random"): fixed_errors(matrices, random),
    }
    curves = {name: 100 * error.mean((1, 2)) for name, error in errors.items()}
    k = T // 4
    last = {name: round(curve[-1, k - 1].item(), 1) for name, curve in curves.items()}
    meta = {tr("last layer, k = {k}: {name} (%)", k=k, name=n): e for n, e in last.items()}
    titles = [tr("layer {i}", i=i) for i in (1, len(values))]
    title = tr("Each matrix needs few directions, but every text needs its own")
    fig = panels(titles, title, meta=meta, shared_yaxes=True, horizontal_spacing=0.06)
    for column, layer in ((1, 0), (2, -1)):
        for i, (name, curve) in enumerate(curves.items()):
            once = dict(legendgroup=name, showlegend=column == 1)
            _add_curve(fig, i, name, curve[layer], col=column, **once)
    fig.update_xaxes(title_text=tr("k (of {n} tokens)", n=T))
    fig.update_yaxes(title_text=tr("error on held-out texts (%)"), range=[0, 102], col=1)
    return fig.update_layout(legend=legend("below"), height=430)


def trained_figure(costs: Mapping[str, Estimate]):
    """Loss over full attention's by k, of the record's `cases`: E and F trained, fixed, fitted."""
    series = {
        tr("E and F trained with the network"): trained.SUMMARIES,
        tr("the same, starting from segment means"): {"started": trained.QUARTER},
        tr("segment means, network trained with them"): {"means": trained.QUARTER},
        tr("E and F fitted to the trained network"): {"fitted": trained.QUARTER},
    }
    title = tr("Loss above full attention (0)")
    axes = tr("k (of {n} bytes)", n=trained.CONFIG.max_len), tr("nats per masked byte")
    fig = blank(title, *axes, height=430)
    for i, (name, ks) in enumerate(series.items()):
        x, ends = list(ks.values()), [costs[f"trained-{variant}"] for variant in ks]
        fig.layout.meta |= {
            f"{name}, k = {k}": round(e.mean, 3) for k, e in zip(x, ends, strict=True)
        }
        y = [e.mean for e in ends]
        whiskers = error_bars(y, [e.low for e in ends], [e.high for e in ends])
        look = dict(**style(i, size=9), error_y=whiskers, mode="lines+markers")
        fig.add_scatter(x=[k * 1.03**i for k in x], y=y, name=name, **look)  # beside each other
    mark(fig, tr("mean of all bytes, no attention"), y=costs["trained-uniform"].mean)
    mark(fig, tr("allowed by the rule"), y=0.05)
    fig.update_xaxes(**log_ticks(trained.SUMMARIES.values()))
    fig.update_yaxes(rangemode="tozero")
    return fig.update_layout(legend=legend("below", y=-0.25))


def cost_figure(costs: list[Cost]):
    """Speedup and memory saving over n for the smallest k, measured here and published."""
    longest = max(costs, key=lambda c: (c.seq_len, -c.k))
    at = dict(n=longest.seq_len, k=longest.k)
    meta = {
        tr("n = {n}, k = {k}: speed-up over unfused (x)", **at): longest.speedup,
        tr("n = {n}, k = {k}: memory, fused / Linformer", **at): longest.fused_memory_saving,
    }
    titles = [tr("speed-up over full attention (x)"), tr("memory, full attention / Linformer")]
    title = tr("What k fixed summaries save, by sequence length")
    fig = panels(titles, title, meta=meta, horizontal_spacing=0.1)
    savings = _savings(costs, longest.k)
    for i, (name, points) in enumerate(savings.items()):
        lengths, *curves = zip(*points, strict=True)
        look = dict(**style(i, size=8), name=f"{name} (k = {longest.k})", legendgroup=name)
        for column, y in enumerate(curves, start=1):
            fig.add_scatter(x=lengths, y=y, **look, showlegend=column == 1, row=1, col=column)
    lengths = sorted({length for points in savings.values() for length, *_ in points})
    fig.update_xaxes(**log_ticks(lengths), title_text=tr("sequence length n (tokens)"))
    fig.update_yaxes(type="log", tickvals=[0.5, 1, 2, 5, 10, 20, 50])
    mark(fig, y=1, row=1, col="all")
    return fig.update_layout(legend=legend("below", y=-0.25), height=440)


def _savings(costs: list[Cost], k: int) -> dict[str, list[tuple]]:
    """(length, times faster, times less memory) of one k, by what it is compared with."""
    here = [c for c in costs if c.k == k]
    paper = [row for row in read_published("linformer") if row["k"] == k]
    unfused = [(c.seq_len, c.speedup, c.memory_saving) for c in here]
    fused = [(c.seq_len, c.fused_speedup.mean, c.fused_memory_saving) for c in here]
    return {
        tr("here, against unfused attention"): unfused,
        tr("here, against the fused kernel"): fused,
        tr("published, whole model on a V100"): [
            (row["seq_len"], row["speedup"], row["memory_saving"]) for row in paper
        ],
    }


@explorer(
    k=Slider(16, 1024, 128, scale="log2", unit="summaries", label="k"),
    seq_len=Slider(128, 65536, 1024, scale="log2", unit="tokens", label="sequence length n"),
    share=Choice(SHARING, "none", label="sharing of E and F"),
)
def k_and_n(k=128, seq_len=1024, share="none"):
    """FLOPs and score bytes of one BERT-base layer's attention, and what E and F weigh."""
    require_int("k", k)
    require_int("seq_len", seq_len)
    require(k <= seq_len, "k", k, "at most n={n}: E and F make the sequence shorter", n=seq_len)
    C, H = 768, 12
    full, less = attention_flops(seq_len, C), linformer_flops(seq_len, k, C)
    weights = linformer_params(H, seq_len, k, share)
    template = "n = {n}, k = {k}: full attention takes {flops}x the FLOPs, {scores}x the scores"
    ratios = dict(flops=number(full / less), scores=number(seq_len / k))
    title = tr(template, n=number(seq_len), k=k, **ratios)
    meta = {tr("FLOPs, full / Linformer"): full / less}
    meta |= {tr("scores, full / Linformer"): seq_len / k}
    meta |= {tr("weights of E and F"): weights, tr("n at which both take equal FLOPs"): 2 * k}
    titles = [tr("attention's products, GFLOP per layer"), tr("weights of a layer (millions)")]
    widths = dict(horizontal_spacing=0.14, column_widths=[0.62, 0.38])
    fig = panels(titles, title, meta=meta, **widths)
    _add_flops(fig, k, seq_len, C)
    names, millions = [tr("Q, K, V, output"), tr("E and F")], [4 * C * C / 1e6, weights / 1e6]
    text = [number(m) for m in millions]
    look = dict(marker_color=COLOURS[2:4], text=text, showlegend=False)
    fig.add_bar(x=names, y=millions, **look, row=1, col=2)
    return fig.update_layout(legend=dict(x=0.53, xanchor="right", y=0.03))


def _add_flops(fig, k: int, seq_len: int, d_model: int) -> None:
    """Over the length, with the two points at `seq_len` and the length where both cost the same."""
    lengths = [2**i for i in range(7, 17)]
    curves = {
        "full attention": lambda n: attention_flops(n, d_model) / 1e9,
        "Linformer": lambda n: linformer_flops(n, min(k, n), d_model) / 1e9,
    }
    where = dict(row=1, col=1)
    for i, (name, gflop) in enumerate(curves.items()):
        line = style(i)["line"]
        y = [gflop(n) for n in lengths]
        fig.add_scatter(x=lengths, y=y, mode="lines", line=line, name=tr(name), **where)
    y = [gflop(seq_len) for gflop in curves.values()]
    points = dict(mode="markers", marker=dict(size=12, color=COLOURS[:2]), showlegend=False)
    fig.add_scatter(x=[seq_len] * 2, y=y, **points, **where)
    fig.add_vline(x=2 * k, line=dict(color=colours.DARK, dash="dot", width=1.5), **where)
    title = tr("sequence length n (dotted: n = 2 k)")
    fig.update_xaxes(**log_ticks(lengths[::2]), title_text=title, **where)
    fig.update_yaxes(type="log", exponentformat="power", dtick=1, **where)
