"""Notebook 08's systolic arrays: data in motion, the formula's terms, and the shape explorer."""

import numpy as np

from efflab.acceleration import systolic
from efflab.config import PRESETS
from efflab.data import published
from efflab.errors import require, require_int, require_one_of
from efflab.lab import Choice, Slider, colours, explorer, figures, number, tr

NAMES = {"os": "outputs stay (os)", "ws": "weights stay (ws)", "is": "inputs stay (is)"}
SIDE = 3  # of the animated grid; the product is as large, so that one fold holds it
SHOWN = 5  # the cycle at which the animation stands still
MODELS = ("minilm-l6", "bert-base", "gpt2")
HERTZ = 700e6  # the clock of the first TPU, for times

# --- Data in motion ------------------------------------------------------------------------------


def snapshots(dataflow: str) -> list[tuple[np.ndarray, list]]:
    """(which value of the stream each cell has, or nan; what each cell shows), cycle by cycle."""
    steps = systolic.schedule(SIDE, SIDE, SIDE, SIDE, SIDE, dataflow)
    n_cycles = 1 + max(s.cycle for d in systolic.DATAFLOWS
                       for s in systolic.schedule(SIDE, SIDE, SIDE, SIDE, SIDE, d))  # fmt: skip
    found = [(np.full((SIDE, SIDE), np.nan), [[""] * SIDE for _ in range(SIDE)])
             for _ in range(n_cycles)]  # fmt: skip
    for t, (_, texts) in enumerate(found):
        for row, col in np.ndindex(SIDE, SIDE):
            texts[row][col] = f"<b>{_held(dataflow, row, col, t)}</b><br> "
    for s in steps:
        waves, texts = found[s.cycle]
        moving = {"os": f"a{s.i}{s.l}·b{s.l}{s.j}", "ws": f"a{s.i}{s.l} → c{s.i}{s.j}",
                  "is": f"b{s.l}{s.j} → c{s.i}{s.j}"}[dataflow]  # fmt: skip
        waves[s.row, s.col] = {"os": s.l, "ws": s.i, "is": s.j}[dataflow]
        texts[s.row][s.col] = f"<b>{_held(dataflow, s.row, s.col, s.cycle)}</b><br>{moving}"
    return found


def _held(dataflow: str, row: int, col: int, t: int) -> str:
    """What is in a cell at cycle t: an output, or a value that was pushed down from the top."""
    if dataflow == "os":
        return f"c{row}{col}"
    source = row + max(0, SIDE - 1 - t)  # while loading, the last row comes in first
    if source >= SIDE:
        return " "
    return f"b{source}{col}" if dataflow == "ws" else f"a{col}{source}"


def animation():
    """A 3 x 3 product on a 3 x 3 grid in all three dataflows, with a slider over the cycles."""
    import plotly.graph_objects as go

    every = {d: snapshots(d) for d in systolic.DATAFLOWS}
    n_cycles = len(every["os"])

    thirds = zip((0, 0.5, 1), (colours.BLUE, colours.ORANGE, colours.GREEN), strict=True)
    scale = [[place, colours.tint(colour, 0.45)] for place, colour in thirds]

    def traces(t: int) -> list:
        look = dict(zmin=0, zmax=SIDE - 1, showscale=False, colorscale=scale)
        look |= dict(xgap=4, ygap=4, hoverinfo="skip", texttemplate="%{text}")
        return [go.Heatmap(z=every[d][t][0], text=every[d][t][1], **look) for d in every]

    fig = figures.panels([tr(NAMES[d]) for d in every], horizontal_spacing=0.03)
    for column, trace in enumerate(traces(SHOWN), start=1):
        fig.add_trace(trace, row=1, col=column)
    fig.frames = [go.Frame(name=str(t), data=traces(t)) for t in range(n_cycles)]
    options = dict(mode="immediate", transition_duration=0)
    steps = [dict(method="animate", label=str(t), args=[[str(t)], {**options,
             "frame": dict(duration=0, redraw=True)}]) for t in range(n_cycles)]  # fmt: skip
    play = dict(method="animate", label="▶", args=[None, dict(frame=dict(duration=700,
                redraw=True), transition_duration=0, fromcurrent=False)])  # fmt: skip
    fig.update_layout(
        sliders=[dict(active=SHOWN, steps=steps, currentvalue_prefix=f"{tr('cycle')} ", pad_t=24,
                      x=0.08, len=0.92)],
        updatemenus=[dict(type="buttons", buttons=[play], x=0, y=-0.12, yanchor="top",
                          xanchor="left", showactive=False)],
    )  # fmt: skip
    fig.update_xaxes(visible=False)
    fig.update_yaxes(visible=False, autorange="reversed")
    title = tr("Three dataflows: what stays is bold, what passes is below it")
    busy = {tr("{flow}: last cycle", flow=tr(NAMES[d])):
            systolic.gemm_cycles(SIDE, SIDE, SIDE, SIDE, SIDE, d) for d in every}  # fmt: skip
    return fig.update_layout(title_text=title, height=460, margin_b=110, meta=busy)


# --- The formula ---------------------------------------------------------------------------------


def derivation(m: int = 4, n: int = 6, k: int = 5, rows: int = 2, cols: int = 3) -> list[dict]:
    """The formula's terms for a product small enough to follow by hand."""
    rows_of = []
    for flow in systolic.DATAFLOWS:
        stream = systolic.folded(m, n, k, flow)[2]
        rows_of.append({
            "dataflow": tr(NAMES[flow]),
            "folds": systolic.folds(m, n, k, rows, cols, flow),
            "loading": 0 if flow == "os" else rows,
            "diagonal": rows + cols - 2,
            "stream": stream,
            "cycles": systolic.gemm_cycles(m, n, k, rows, cols, flow),
            "kind": "computed",
        })  # fmt: skip
    return rows_of


def scale_sim_rows() -> list[dict]:
    """SCALE-Sim's compute cycles beside the formula's."""
    found = []
    for row in published("systolic"):
        sizes = {name: row[name] for name in ("m", "n", "k", "rows", "cols")}
        ours = systolic.gemm_cycles(**sizes, dataflow=row["dataflow"])
        found.append({
            "product": "({m} x {k}) ({k} x {n})".format(**sizes),
            "array": "{rows} x {cols}".format(**sizes), "dataflow": tr(NAMES[row["dataflow"]]),
            "SCALE-Sim": row["cycles"], "formula": ours,
            "ratio": ours / row["cycles"], "kind": "simulated",
        })  # fmt: skip
    return found


def scores_utilization(seq_len: int = 128) -> float:
    """Per cent of the first TPU's multiplications that one head's scores need."""
    head_dim = PRESETS["bert-base"].head_dim
    return 100 * systolic.utilization(seq_len, seq_len, head_dim, 256, 256, "ws")


# --- The explorer --------------------------------------------------------------------------------


@explorer(
    seq_len=Slider(16, 512, 128, scale="log2", unit="tokens", label="sequence length"),
    rows=Slider(4, 256, 32, scale="log2", label="rows of the array"),
    cols=Slider(4, 256, 32, scale="log2", label="columns of the array"),
    dataflow=Choice(list(systolic.DATAFLOWS), "ws", label="dataflow"),
    model=Choice(list(MODELS), label="model"),
)
def array_shape(seq_len=128, rows=32, cols=32, dataflow="ws", model="minilm-l6"):
    """Cycles and utilization of each product of a Transformer block on an array."""
    for name, value in dict(seq_len=seq_len, rows=rows, cols=cols).items():
        require_int(name, value)
        require(value <= 65536, name, value, "at most {high}", high="65,536")
    require_one_of("dataflow", dataflow, systolic.DATAFLOWS)
    require_one_of("model", model, MODELS)
    products = systolic.block_products(PRESETS[model], seq_len)
    names = [tr(p.name) for p in products]
    titles = [tr("cycles, one block"), tr("utilization (%)")]
    fig = figures.panels(titles, shared_yaxes=True, horizontal_spacing=0.06)
    totals, work = {}, sum(p.macs for p in products)
    for i, flow in enumerate(systolic.DATAFLOWS):
        cycles = [p.cycles(rows, cols, flow) for p in products]
        totals[flow] = sum(cycles)
        shares = [100 * p.macs / (c * rows * cols) for p, c in zip(products, cycles, strict=True)]
        look = dict(name=tr(NAMES[flow]), legendgroup=flow, marker_color=figures.COLOURS[i],
                    opacity=1 if flow == dataflow else 0.4)  # fmt: skip
        for column, values in enumerate((cycles, shares), start=1):
            fig.add_bar(x=values, y=names, orientation="h", showlegend=column == 1, row=1,
                        col=column, **look)  # fmt: skip
    used = 100 * work / (totals[dataflow] * rows * cols)
    ms = 1e3 * totals[dataflow] / HERTZ
    fig.update_xaxes(range=[0, 100], col=2)
    fig.update_yaxes(autorange="reversed")
    title = tr("{rows} x {cols}, {flow}: {used} % in use, {ms} ms a block", rows=rows, cols=cols,
               flow=tr(NAMES[dataflow]), used=f"{used:.1f}", ms=number(ms))  # fmt: skip
    meta = {tr("cycles, {flow}", flow=tr(NAMES[f])): t for f, t in totals.items()}
    meta |= {tr("utilization (%)"): round(used, 2), tr("ms a block at 700 MHz"): ms}
    above = dict(orientation="h", x=1, xanchor="right", y=1.1, yanchor="bottom")
    fig.update_layout(title=dict(text=title, y=0.97, yanchor="top"), legend=above, meta=meta)
    return fig.update_layout(height=460, margin_t=110, barmode="group")
