"""Notebook 07's pictures: a program's operations and kernels, and the explorer of launches."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import plotly.graph_objects as go

from efflab.acceleration.fusion import FusionReport, Kernel, LaunchModel, Op
from efflab.acceleration.graph import kind
from efflab.devices import DEVICES
from efflab.errors import require, require_int, require_one_of
from efflab.experiments import gpu_bench
from efflab.lab import Choice, Slider, colours, explorer, number, panels, tr
from efflab.lab import figures as pictures
from efflab_rooms.compiler_fusion.measure import HERE, VALUE_BYTES

# --- Operations and kernels ----------------------------------------------------------------------

KINDS = {
    "product": ("matrix product", "square"),
    "reduction": ("reduction", "triangle-up"),
    "elementwise": ("elementwise", "circle"),
    "movement": ("copy", "diamond"),
}
MARKERS = {
    name: dict(symbol=symbol, size=9, color=pictures.COLOURS[i])
    for i, (name, (_, symbol)) in enumerate(KINDS.items())
}


@dataclass(frozen=True)
class Node:
    """An operation or a kernel at its place: row of its part, column by what it waits for."""

    name: str
    inputs: tuple[str, ...]
    row: int
    column: float
    ops: tuple[str, ...]

    @property
    def end(self) -> float:
        """The column behind it: it takes one for each of its operations."""
        return self.column + max(1, len(self.ops))


def graph_figure(report: FusionReport, title: str) -> go.Figure:
    """Before and after side by side, a row for each part of the model, a box for each kernel."""
    titles = [tr("{n} operations, one kernel each", n=report.n_ops)]
    titles.append(tr("{n} kernels, one box each", n=report.n_kernels))
    meta = {tr("operations"): report.n_ops, tr("resulting kernels"): report.n_kernels}
    meta |= {tr("MB before"): report.bytes_before / 1e6, tr("MB after"): report.bytes_after / 1e6}
    fig = panels(titles, title, meta=meta, shared_yaxes=True, horizontal_spacing=0.03)
    for column, items in enumerate((report.ops, report.kernels), start=1):
        nodes = place_nodes(items)
        _add_edges(fig, nodes, column)
        _add_markers(fig, nodes, column)
    _add_boxes(fig, nodes)
    for name, (label, _) in KINDS.items():
        fig.add_scatter(x=[None], y=[None], mode="markers", marker=MARKERS[name], name=tr(label))
    labels = row_labels(report.ops)
    fig.update_xaxes(visible=False)
    fig.update_yaxes(showgrid=False, zeroline=False, range=[len(labels) - 0.4, -0.7])
    fig.update_yaxes(tickvals=list(range(len(labels))), ticktext=labels, col=1)
    fig.update_yaxes(ticks="", showticklabels=False, col=2)
    below = pictures.legend("below", y=-0.02, yanchor="top")
    return fig.update_layout(legend=below, height=max(420, 120 + 46 * len(labels)), margin_b=60)


def rows_of(items: Sequence[Op | Kernel]) -> list[int]:
    """The row of each: its part of the model, or where none is named, up to the next product."""
    if any(item.part for item in items):
        parts = list(dict.fromkeys(item.part for item in items))
        return [parts.index(item.part) for item in items]
    return list(accumulate((item.kind == "product" for item in items[:-1]), initial=0))


def row_labels(ops: Sequence[Op]) -> list[str]:
    """What stands beside each row."""
    if any(op.part for op in ops):
        return [tr(part) for part in dict.fromkeys(op.part for op in ops)]
    n_rows, ends_in_product = rows_of(ops)[-1] + 1, ops[-1].kind == "product"
    labels = [tr("up to product {n}", n=i + 1) for i in range(n_rows)]
    return labels if ends_in_product else [*labels[:-1], tr("after the last product")]


def place_nodes(items: Sequence[Op | Kernel]) -> list[Node]:
    """Nodes in their rows, each to the right of what it waits for in the same row."""
    nodes, ends = [], defaultdict(float)
    for item, row in zip(items, rows_of(items), strict=True):
        if isinstance(item, Op):
            inputs, ops, gap = tuple(item.reads), (item.opcode,), 0.0
        else:
            inputs, ops, gap = item.inputs, tuple(op.split("/")[-1] for op in item.ops), 0.45
        nodes.append(Node(item.name, inputs, row, ends[row], ops))
        ends[row] = nodes[-1].end + gap
    return nodes


def _add_edges(fig: go.Figure, nodes: list[Node], column: int) -> None:
    """Who reads from whom; an edge over others in its row is drawn as an arc."""
    by_name = {node.name: node for node in nodes}
    x, y = [], []
    for node in nodes:
        for source in (by_name[name] for name in node.inputs if name in by_name):
            start, end = source.end - 1, node.column
            lift = 0.4 if source.row == node.row and end - start > 1.6 else 0.0
            x += [start, (start + end) / 2, end, None]
            y += [source.row, (source.row + node.row) / 2 - lift, node.row, None]
    look = dict(mode="lines", hoverinfo="skip", showlegend=False)
    line = dict(shape="spline", color=colours.SOFT_GREY, width=1)
    fig.add_scatter(x=x, y=y, line=line, row=1, col=column, **look)


def _add_boxes(fig: go.Figure, kernels: list[Node]) -> None:
    """A box around each kernel, blue where it is fused."""
    for node in kernels:
        colour, fill = colours.GREY, colours.FAINT_GREY
        if len(node.ops) > 1:
            colour, fill = colours.BLUE, colours.tint(colours.BLUE, 0.11)
        place = dict(x0=node.column - 0.5, x1=node.end - 0.5)
        place |= dict(y0=node.row - 0.32, y1=node.row + 0.32, layer="below", row=1, col=2)
        fig.add_shape(type="rect", line=dict(color=colour, width=1.5), fillcolor=fill, **place)


def _add_markers(fig: go.Figure, nodes: list[Node], column: int) -> None:
    """A marker for each operation."""
    spots = [(node.column + j, node.row, op) for node in nodes for j, op in enumerate(node.ops)]
    look = dict(mode="markers", hovertemplate="%{text}<extra></extra>", showlegend=False)
    for name, marker in MARKERS.items():
        own = [spot for spot in spots if kind(spot[2]) == name]
        x, y, text = ([spot[i] for spot in own] for i in range(3))
        fig.add_scatter(x=x, y=y, text=text, marker=marker, row=1, col=column, **look)


# --- The bytes of attention ----------------------------------------------------------------------

OPERATIONS = {
    "q kᵀ": ("2 T D", "T²"),
    "scale": ("T²", "T²"),
    "max": ("T²", "T"),
    "subtract max": ("T² + T", "T²"),
    "exp": ("T²", "T²"),
    "sum": ("T²", "T"),
    "divide by sum": ("T² + T", "T²"),
    "· v": ("T² + T D", "T D"),
}
"""What each operation of one head reads and writes, in values."""
FORMULAS = {
    "none": ("eight kernels", "12 T² + 4 T D + 4 T"),
    "softmax": ("product, softmax, product", "4 T² + 4 T D"),
    "all": ("one kernel", "4 T D"),
}
"""A head's values in all, by what is fused."""

# --- Launches ------------------------------------------------------------------------------------

NOMINAL = LaunchModel(overhead=1e-6, bandwidth=20e9, rate=20e9)
"""Where nothing was measured: the order of size of a laptop's core."""
NAMES, SYMBOLS = ("one kernel each", "fused into one"), ("circle-open", "diamond-open")
COLOURS = colours.VERMILION, colours.BLUE
CONTROLS = dict(
    n_ops=Slider(1, 64, 16, scale="log2", label="operators in a row"),
    n_values=Slider(2**8, 2**24, 2**15, scale="log2", label="values per operator"),
    overhead_us=Slider(0.1, 20.0, 1.0, step=0.1, unit="µs", label="launch overhead"),
    device=Choice((HERE, "V100 SXM2", "A100 80GB SXM", "H100 SXM"), HERE, label="bandwidth from"),
)


@explorer(**CONTROLS)
def fusion_cost(n_ops=16, n_values=2**15, overhead_us=1.0, device=HERE):
    """Bytes and time of a chain of operators, as kernels of their own and as one."""
    return _cost_figure(n_ops, n_values, overhead_us, device, NOMINAL, ())


def fusion_cost_here(model: LaunchModel, chains: Sequence[dict]) -> Callable:
    """The same explorer with this machine's constants and its measured points."""
    overhead = round(min(20.0, max(0.1, 1e6 * model.overhead)), 1)
    start = replace(CONTROLS["overhead_us"], value=overhead)

    @explorer(**CONTROLS | dict(overhead_us=start))
    def fusion_cost(n_ops=16, n_values=2**15, overhead_us=overhead, device=HERE):
        return _cost_figure(n_ops, n_values, overhead_us, device, model, chains)

    return fusion_cost


def _cost_figure(n_ops, n_values, overhead_us, device, here: LaunchModel, chains) -> go.Figure:
    """Left the bytes, right the time over the number of values."""
    require_int("n_ops", n_ops)
    require_int("n_values", n_values)
    require(overhead_us > 0, "overhead_us", overhead_us, "a positive number of microseconds")
    require_one_of("device", device, CONTROLS["device"].options)
    model = replace(launch_model(device, here), overhead=1e-6 * overhead_us)
    mb = [n_kernels * 2 * VALUE_BYTES * n_values / 1e6 for n_kernels in (n_ops, 1)]
    us = [chain_us(model, n_ops, n_values, n_kernels) for n_kernels in (n_ops, 1)]
    meta = {tr("MB, one kernel each"): mb[0], tr("MB, fused"): mb[1]}
    meta |= {tr("µs, one kernel each"): us[0], tr("µs, fused"): us[1]}
    meta |= {tr("speed-up"): us[0] / us[1]}
    words = "{n} operators on {v} values: fused, 1/{n} of the bytes, {y} times as fast (computed)"
    title = tr(words, n=n_ops, v=number(n_values), y=number(us[0] / us[1]))
    titles = [
        tr("bytes moved (computed)"),
        tr("time (open symbols: measured)"),
    ]
    fig = panels(titles, title, meta=meta, horizontal_spacing=0.12)
    _add_bytes(fig, mb)
    _add_times(fig, model, n_ops, n_values, chains if device == HERE else ())
    return fig.update_layout(legend=pictures.legend("top left", x=0.58))


def _add_bytes(fig: go.Figure, mb: Sequence[float]) -> None:
    """A bar of megabytes for each way."""
    names, text = [tr(name) for name in NAMES], [number(v) for v in mb]
    look = dict(marker_color=COLOURS, textposition="outside", showlegend=False)
    fig.add_bar(x=names, y=mb, text=text, row=1, col=1, **look)
    fig.update_yaxes(title_text="MB", range=[0, 1.2 * max(mb)], row=1, col=1)


def _add_times(fig: go.Figure, model: LaunchModel, n_ops: int, n_values: int, chains) -> None:
    """The model's lines, where the sliders stand on them, and the measured chains."""
    sizes = 2.0 ** np.arange(8, 25)
    look = dict(mode="markers", showlegend=False, row=1, col=2)
    for i, n_kernels in enumerate((n_ops, 1)):
        *y, here = (chain_us(model, n_ops, n, n_kernels) for n in (*sizes, n_values))
        line = dict(color=COLOURS[i], dash=pictures.DASHES[i])
        fig.add_scatter(x=sizes, y=y, name=tr(NAMES[i]), mode="lines", line=line, row=1, col=2)
        fig.add_scatter(x=[n_values], y=[here], marker=dict(size=13, color=COLOURS[i]), **look)
        own = [c for c in chains if c["n_ops"] == n_ops and c["fused"] == bool(i)]
        x, y = [c["n_values"] for c in own], [1e6 * c["seconds"] for c in own]
        marker = dict(symbol=SYMBOLS[i], size=8, color=COLOURS[i], line_width=2)
        fig.add_scatter(x=x or [None], y=y or [None], marker=marker, **look)
    ticks = dict(tickvals=[2**8, 2**12, 2**16, 2**20, 2**24])
    ticks |= dict(ticktext=["256", "4,096", "65,536", "1M", "16M"])
    fig.update_xaxes(type="log", title_text=tr("values per operator"), **ticks, row=1, col=2)
    fig.update_yaxes(type="log", exponentformat="power", dtick=1, title_text="µs", row=1, col=2)


def constant_rows(model: LaunchModel) -> list[dict]:
    """The two constants here, and on every GPU that `make bench-gpu` has recorded."""
    models = {HERE: model} | gpu_bench.read_launches()
    return [
        {
            "device": device,
            "launch overhead (µs)": 1e6 * own.overhead,
            "bandwidth (GB/s)": own.bandwidth / 1e9,
            "break-even size (kB)": own.even_bytes / 1e3,
            "kind": "measured" if device == HERE else "recorded",
        }
        for device, own in models.items()
    ]


def launch_model(device: str, here: LaunchModel) -> LaunchModel:
    """Bandwidth and rate of a GPU; a datasheet's FLOP/s count two for a multiply-add."""
    if device == HERE:
        return here
    gpu = DEVICES[device]
    return LaunchModel(here.overhead, gpu.memory_bandwidth, gpu.peak("fp32") / 2, queued=True)


def chain_us(model: LaunchModel, n_ops: int, n_values: float, n_kernels: int) -> float:
    """Microseconds of `n_ops` operators on as many values in so many kernels."""
    n_bytes = n_kernels * 2 * VALUE_BYTES * n_values
    return 1e6 * model.seconds(n_kernels, n_bytes, n_ops * n_values)
