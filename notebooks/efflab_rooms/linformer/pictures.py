"""Notebook 04's figures, explorer and exercises: Linformer and the rank of real attention."""

from torch import Tensor

from efflab.data import published
from efflab.errors import require, require_int
from efflab.lab import Choice, Slider, colours, explorer, figures, number, tr
from efflab.structure.linformer import (
    SHARING,
    attention_flops,
    linformer_flops,
    linformer_params,
)
from efflab_rooms.linformer.spectra import fixed_errors, own_errors, ranks_for

# --- The spectrum ----------------------------------------------------------------------------


def spectrum_figure(values: Tensor):
    """How many singular values hold 90 % of each head, and what is left beyond k, by layer.

    `values`: singular values (layers, B, H, T) of the attention matrices.
    """
    n_layer, _, n_head, T = values.shape
    ranks = ranks_for(values).float().mean(1)
    errors = own_errors(values).mean((1, 2))
    meta = {tr("layer {i}: mean rank for 90 %", i=i + 1): round(ranks[i].mean().item(), 1)
            for i in range(n_layer)}  # fmt: skip
    titles = [tr("singular values that hold 90 %"), tr("error of the best rank-k matrix (%)")]
    title = tr("The last layers are low-rank; in the first three, not every head is")
    fig = figures.panels(titles, title, meta=meta, horizontal_spacing=0.2, column_widths=[0.5, 0.5])
    text = [[f"{v:.0f}" for v in row] for row in ranks.tolist()]
    fig.add_heatmap(
        z=ranks.numpy(), x=list(range(1, n_head + 1)), y=list(range(1, n_layer + 1)), text=text,
        texttemplate="%{text}", colorscale="Viridis", zmin=1, zmax=T,
        colorbar=dict(x=0.42, thickness=12, title_text=tr("rank")), row=1, col=1,
    )  # fmt: skip
    ks = list(range(1, T + 1))
    for i in range(n_layer):
        line = dict(color=figures.COLOURS[i % 7], dash=figures.DASHES[i % 7])
        fig.add_scatter(x=ks, y=100 * errors[i].numpy(), mode="lines", line=line,
                        name=tr("layer {i}", i=i + 1), row=1, col=2)  # fmt: skip
    fig.update_xaxes(title_text=tr("head"), dtick=1, col=1)
    fig.update_yaxes(title_text=tr("layer"), autorange="reversed", dtick=1, col=1)
    fig.update_xaxes(title_text=tr("k, of {n} tokens", n=T), col=2)
    fig.update_yaxes(rangemode="tozero", col=2)
    fig.update_layout(legend=dict(x=0.99, xanchor="right", y=0.98), height=420)
    return fig


def projection_figure(values: Tensor, matrices: Tensor, learned: Tensor, random: Tensor):
    """Error over k in the first and the last layer: own, one learned, one random projection.

    `values` and `matrices` are of held-out texts, `learned` and `random` bases of positions.
    """
    T = values.shape[-1]
    curves = {
        "each text its own (best possible)": own_errors(values).mean((1, 2)),
        "one for all texts, learned": fixed_errors(matrices, learned).mean((1, 2)),
        "one for all texts, random": fixed_errors(matrices, random).mean((1, 2)),
    }
    quarter = T // 4
    last = {name: 100 * curve[-1, quarter - 1].item() for name, curve in curves.items()}
    meta = {tr("last layer, k = {k}: {name} (%)", k=quarter, name=tr(name)): round(v, 1)
            for name, v in last.items()}  # fmt: skip
    titles = [tr("layer {i}", i=i) for i in (1, len(values))]
    title = tr("Each matrix has few directions, but every text has its own")
    fig = figures.panels(titles, title, meta=meta, shared_yaxes=True, horizontal_spacing=0.06)
    ks = list(range(1, T + 1))
    for column, layer in enumerate((0, -1), start=1):
        for i, (name, curve) in enumerate(curves.items()):
            line = dict(color=figures.COLOURS[i], dash=figures.DASHES[i], width=2.5)
            fig.add_scatter(x=ks, y=100 * curve[layer].numpy(), mode="lines", line=line,
                            name=tr(name), legendgroup=name, showlegend=column == 1,
                            row=1, col=column)  # fmt: skip
    fig.update_xaxes(title_text=tr("k, of {n} tokens", n=T))
    fig.update_yaxes(title_text=tr("error on held-out texts (%)"), range=[0, 102], col=1)
    fig.update_layout(legend=dict(orientation="h", y=-0.22), height=430)
    return fig


# --- Time and memory -------------------------------------------------------------------------


def cost_figure(rows: list[dict]):
    """Speedup and memory saving over n, measured here and published, for each k."""
    titles = [tr("times faster"), tr("times less memory")]
    title = tr("The longer the text, the more k fixed summaries save")
    longest = max(rows, key=lambda row: (row["seq_len"], -row["k"]))
    meta = {
        tr("n = {n}, k = {k}: times faster than unfused", n=longest["seq_len"],
           k=longest["k"]): longest["speedup"],
        tr("n = {n}, k = {k}: times less memory than fused", n=longest["seq_len"],
           k=longest["k"]): longest["fused_memory_saving"],
    }  # fmt: skip
    fig = figures.panels(titles, title, meta=meta, horizontal_spacing=0.1)
    k = longest["k"]
    paper = [row for row in published("linformer") if row["k"] == k]
    own = [row for row in rows if row["k"] == k]
    series = {
        "here, against unfused attention": (own, "speedup", "memory_saving"),
        "here, against the fused kernel": (own, "fused_speedup", "fused_memory_saving"),
        "published, whole model on a V100": (paper, "speedup", "memory_saving"),
    }
    for i, (name, (points, *columns)) in enumerate(series.items()):
        for column, what in enumerate(columns, start=1):
            fig.add_scatter(
                x=[p["seq_len"] for p in points], y=[p[what] for p in points],
                mode="lines+markers", name=f"{tr(name)} (k = {k})", legendgroup=name,
                line=dict(color=figures.COLOURS[i], dash=figures.DASHES[i]),
                marker=dict(symbol=figures.MARKERS[i], size=8), showlegend=column == 1,
                row=1, col=column,
            )  # fmt: skip
    lengths = sorted({row["seq_len"] for row in rows} | {row["seq_len"] for row in paper})
    fig.update_xaxes(type="log", tickvals=lengths, ticktext=[f"{n:,}" for n in lengths],
                     title_text=tr("sequence length n (tokens)"))  # fmt: skip
    fig.update_yaxes(type="log", tickvals=[0.5, 1, 2, 5, 10, 20, 50])
    for column in (1, 2):
        fig.add_hline(y=1, line=dict(color=colours.DARK, dash="dot", width=1), row=1, col=column)
    fig.update_layout(legend=dict(orientation="h", y=-0.25), height=440)
    return fig


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
    lengths = [2**i for i in range(7, 17)]
    full, less = attention_flops(seq_len, C), linformer_flops(seq_len, k, C)
    weights = linformer_params(H, seq_len, k, share)
    meta = {"flop_ratio": full / less, "score_ratio": seq_len / k, "params": weights,
            "break_even": 2 * k}  # fmt: skip
    fewer = dict(flops=number(full / less), scores=number(seq_len / k))
    title = tr("n = {n}, k = {k}: {flops} times fewer FLOPs, {scores} times fewer scores",
               n=number(seq_len), k=k, **fewer)  # fmt: skip
    titles = [tr("attention's products, GFLOP a layer"), tr("weights of a layer (millions)")]
    fig = figures.panels(
        titles, title, meta=meta, horizontal_spacing=0.14, column_widths=[0.62, 0.38]
    )
    curves = {
        "full attention": [attention_flops(n, C) / 1e9 for n in lengths],
        "Linformer": [linformer_flops(n, min(k, n), C) / 1e9 for n in lengths],
    }
    for i, (name, y) in enumerate(curves.items()):
        line = dict(color=figures.COLOURS[i], dash=figures.DASHES[i])
        fig.add_scatter(x=lengths, y=y, mode="lines", line=line, name=tr(name), row=1, col=1)
    points = [full / 1e9, less / 1e9]
    fig.add_scatter(x=[seq_len] * 2, y=points, mode="markers", showlegend=False,
                    marker=dict(size=12, color=figures.COLOURS[:2]), row=1, col=1)  # fmt: skip
    fig.add_vline(x=2 * k, line=dict(color=colours.DARK, dash="dot", width=1.5), row=1, col=1)
    fig.add_bar(x=[tr("Q, K, V, output"), tr("E and F")], y=[4 * C * C / 1e6, weights / 1e6],
                marker_color=figures.COLOURS[2:4], text=[number(4 * C * C / 1e6),
                number(weights / 1e6)], showlegend=False, row=1, col=2)  # fmt: skip
    ticks = [2**i for i in range(7, 17, 2)]
    fig.update_xaxes(type="log", title_text=tr("sequence length n (dotted: n = 2 k)"),
                     tickvals=ticks, ticktext=[f"{n:,}" for n in ticks], row=1, col=1)  # fmt: skip
    fig.update_yaxes(type="log", exponentformat="power", dtick=1, row=1, col=1)
    fig.update_layout(legend=dict(x=0.53, xanchor="right", y=0.03))
    return fig
