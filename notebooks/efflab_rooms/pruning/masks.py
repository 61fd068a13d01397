"""Notebook 11's pictures of masks and layouts, its explorer and its exercises."""

from functools import lru_cache

import torch

from efflab.compression import pruning, sparse
from efflab.errors import require
from efflab.lab import Choice, Slider, colours, explorer, figures, number, tr
from efflab_rooms.pruning import pruned as measure

# --- Masks and layouts -----------------------------------------------------------------------


def masks_figure(rows: int = 12, columns: int = 32, seed: int = 0):
    """The same random matrix, half of it removed three ways: dark is kept."""
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    weak = weight.norm(dim=1).argsort()[: rows // 2]
    structured = torch.ones(weight.shape, dtype=torch.bool)
    structured[weak] = False
    masks = {
        "unstructured: smallest weights": pruning.magnitude_mask(weight, 0.5),
        "2:4: two of each four": pruning.n_m_mask(weight, 2, 4),
        "structured: whole rows": structured,
    }
    kept = {tr(n): 100 * float((weight * m).square().sum() / weight.square().sum())
            for n, m in masks.items()}  # fmt: skip
    titles = [f"{name}<br>{tr('‖W‖²: {n}% kept', n=number(v))}"
              for name, v in kept.items()]  # fmt: skip
    fig = figures.panels(
        titles, tr("Half removed, three ways (blue: kept)"), horizontal_spacing=0.04
    )
    scale = [[0, colours.PALE_GREY], [1, colours.BLUE]]
    for i, mask in enumerate(masks.values(), start=1):
        fig.add_heatmap(z=mask.int().numpy(), colorscale=scale, showscale=False, xgap=1, ygap=1,
                        zmin=0, zmax=1, row=1, col=i)  # fmt: skip
    fig.update_xaxes(showticklabels=False, ticks="")
    fig.update_yaxes(showticklabels=False, ticks="", autorange="reversed")
    meta = {name: round(value, 1) for name, value in kept.items()}
    return fig.update_layout(height=320, meta=meta, margin=dict(t=104, b=24))


LAYOUT_NAMES = {"dense": "dense", "csr": "CSR", "bitmap": "bitmap and values", "2:4": "2:4"}


def layout_rows(dtype=torch.float32, shape=(768, 192), ratios=(0.25, 0.5, 0.75, 0.9)) -> list[dict]:
    """Real bytes of one FFN matrix at several shares of zeros, a column for each layout.

    The 2:4 layout stands where half of each four is zero.
    """
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    rows = []
    for r in ratios:
        masked = weight * pruning.magnitude_mask(weight, r)
        row = {"zeros (%)": 100 * r}
        for layout in ("dense", "csr", "bitmap"):
            row[f"{LAYOUT_NAMES[layout]} (kB)"] = sparse.layout_bytes(masked, layout) / 1e3
        halved = weight * pruning.n_m_mask(weight, 2, 4)
        row["2:4 (kB)"] = sparse.layout_bytes(halved, "2:4") / 1e3 if r == 0.5 else None
        rows.append(row | {"kind": "measured"})
    return rows


def layouts_figure(size: int = 256):
    """Bytes over dense bytes by share of zeros, for fp32 and fp16 values."""
    shares = [i / 20 for i in range(20)]
    titles = [tr("32-bit values"), tr("16-bit values")]
    fig = figures.panels(titles, tr("Bytes over the share of zeros, places counted"),
                         shared_yaxes=True)  # fmt: skip
    meta = {}
    for column, dtype in enumerate((torch.float32, torch.float16), start=1):
        weight = torch.randn(size, size, generator=torch.Generator().manual_seed(0)).to(dtype)
        masked = [weight * pruning.magnitude_mask(weight, s) for s in shares]
        for i, layout in enumerate(("csr", "bitmap")):
            y = [sparse.layout_bytes(w, layout) / w.nbytes for w in masked]
            fig.add_scatter(x=[100 * s for s in shares], y=y, name=tr(LAYOUT_NAMES[layout]),
                            line=dict(color=figures.COLOURS[i], dash=figures.DASHES[i]),
                            mode="lines", showlegend=column == 1, row=1, col=column)  # fmt: skip
        csr = 100 * sparse.break_even(weight.element_size(), 4)
        bitmap = 100 * sparse.break_even(weight.element_size(), 0, 1)
        figures.mark(fig, tr("dense"), y=1, row=1, col=column)
        bits = 8 * weight.element_size()
        meta[tr("CSR, {bits} bits: smaller from (% zeros)", bits=bits)] = round(csr, 1)
        meta[tr("bitmap, {bits} bits: smaller from (% zeros)", bits=bits)] = round(bitmap, 1)
    fig.update_xaxes(title_text=tr("zeros (%)"))
    fig.update_yaxes(title_text=tr("bytes / dense bytes"), col=1)
    fig.update_yaxes(rangemode="tozero")
    return fig.update_layout(meta=meta, legend=dict(orientation="h", y=-0.2))


# --- Explorer --------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def live_point(kind: str, percent: float) -> dict:
    """What pruning does to `stdlib-gpt`: bits, and each cost over the whole model's, measured."""
    whole = measure.language_model()
    model = measure.pruned(kind, percent / 100)
    ids = torch.zeros(1, 128, dtype=torch.long)
    layout = "bitmap" if "weights" in kind else "dense"
    dense = measure.model_bytes(whole)
    flops = [pruning.forward_flops(m, 128) for m in (model, whole)]
    return {
        "bits": measure.quality(model),
        "bytes, dense": measure.model_bytes(model) / dense,
        "bytes, zeros left out": measure.model_bytes(model, layout) / dense,
        "FLOPs": flops[0] / flops[1],
        "time (measured)": measure.compared(lambda: model(ids), lambda: whole(ids))
        .ratios["new"]
        .mean,
    }


@lru_cache(maxsize=1)
def whole_quality():
    """The unpruned model on the same windows."""
    return measure.quality(measure.language_model())


@explorer(
    percent=Slider(0, 95, 50, step=5, unit="%", label="removed"),
    kind=Choice(measure.KINDS, "weights", label="what is pruned"),
)
def prune(percent=50, kind="weights"):
    """`stdlib-gpt` pruned, not retrained: its quality, and its costs over the whole model's."""
    require(
        0 <= percent <= 95, "percent", percent, "a share from {low} to {high} %", low=0, high=95
    )
    point, whole = live_point(kind, percent), whole_quality()
    titles = [tr("bits per byte (lower is better)"), tr("cost, pruned / whole model")]
    fig = figures.panels(titles, column_widths=[0.36, 0.64], horizontal_spacing=0.1)
    for i, (name, e) in enumerate(((tr("whole"), whole), (tr("pruned"), point["bits"]))):
        error = dict(type="data", array=[e.high - e.mean], arrayminus=[e.mean - e.low])
        fig.add_bar(x=[name], y=[e.mean], error_y=error, marker_color=figures.COLOURS[i],
                    text=[f"{e.mean:.2f}"], textposition="inside", insidetextanchor="start",
                    row=1, col=1)  # fmt: skip
    costs = {name: value for name, value in point.items() if name != "bits"}
    fig.add_bar(x=[tr(name).replace(", ", ",<br>").replace(" (", "<br>(") for name in costs],
                y=list(costs.values()), texttemplate="%{y:.2f}", marker_color=figures.COLOURS[4],
                row=1, col=2)  # fmt: skip
    title = tr("{kind}, {percent}% removed: {bits} bits per byte, time ×{time}", percent=percent,
               kind=tr(kind), bits=number(point["bits"].mean),
               time=number(costs["time (measured)"], 2))  # fmt: skip
    meta = {tr("bits per byte"): round(point["bits"].mean, 3),
            tr("interval, low"): round(point["bits"].low, 3),
            tr("interval, high"): round(point["bits"].high, 3)}  # fmt: skip
    meta |= {tr("{name}, ratio", name=tr(name)): round(v, 3) for name, v in costs.items()}
    fig.update_yaxes(range=[0, max(3.6, 1.1 * point["bits"].high)], col=1)
    fig.update_yaxes(range=[0, 1.2 * max(1, *costs.values())], col=2)
    return fig.update_layout(title_text=title, meta=meta, showlegend=False)
