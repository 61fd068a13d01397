"""Notebook 07's graphs: a program's operations, and the kernels in which they end up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from efflab.acceleration.fusion import FusionReport, Kernel, Op
from efflab.acceleration.graph import kind
from efflab.lab import colours, figures, tr

KINDS = {
    "product": ("matrix product", "square"),
    "reduction": ("reduction", "triangle-up"),
    "elementwise": ("value by value", "circle"),
    "movement": ("copy", "diamond"),
}
EDGE = dict(color=colours.SOFT_GREY, width=1)


@dataclass(frozen=True)
class Node:
    """An operation or a kernel at its place: row of its part, column by what it waits for."""

    name: str
    inputs: tuple[str, ...]
    row: int
    column: float
    ops: tuple[str, ...]

    @property
    def width(self) -> int:
        """Columns that it takes: one an operation."""
        return max(1, len(self.ops))


def graph_figure(report: FusionReport, title: str):
    """Before and after side by side, a row for each part of the model, a box for each kernel."""
    before = layered(report.ops, lambda op: (op.opcode,))
    after = layered(report.kernels, lambda kernel: tuple(o.split("/")[-1] for o in kernel.ops))
    titles = [tr("{n} operations, each a kernel", n=report.n_ops)]
    titles.append(tr("{n} kernels, each a box", n=report.n_kernels))
    meta = {tr("operations"): report.n_ops, tr("kernels made"): report.n_kernels}
    meta |= {tr("MB before"): report.bytes_before / 1e6, tr("MB after"): report.bytes_after / 1e6}
    fig = figures.panels(titles, title, meta=meta, shared_yaxes=True, horizontal_spacing=0.03)
    labels = row_labels(report.ops)
    for column, nodes in enumerate((before, after), start=1):
        _edges(fig, nodes, column)
        if column == 2:
            _boxes(fig, nodes)
        _markers(fig, nodes, column)
    _legend(fig)
    fig.update_xaxes(visible=False)
    fig.update_yaxes(showgrid=False, zeroline=False, range=[len(labels) - 0.4, -0.7])
    fig.update_yaxes(tickvals=list(range(len(labels))), ticktext=labels, col=1)
    fig.update_yaxes(ticks="", showticklabels=False, col=2)
    fig.update_layout(height=max(420, 120 + 46 * len(labels)), margin_b=60)
    fig.update_layout(legend=dict(orientation="h", y=-0.02, yanchor="top", x=0))
    return fig


def rows_of(items: Sequence[Op | Kernel]) -> list[int]:
    """The row of each: its part of the model, or where none is named, up to the next product."""
    if any(item.part for item in items):
        parts = list(dict.fromkeys(item.part for item in items))
        return [parts.index(item.part) for item in items]
    rows, row = [], 0
    for item in items:
        rows.append(row)
        row += item.kind == "product"
    return rows


def row_labels(ops: Sequence[Op]) -> list[str]:
    """What stands beside each row."""
    if any(op.part for op in ops):
        return [tr(part) for part in dict.fromkeys(op.part for op in ops)]
    n_rows, n_products = max(rows_of(ops)) + 1, sum(op.kind == "product" for op in ops)
    labels = [tr("up to product {n}", n=i + 1) for i in range(n_rows)]
    return labels if n_rows == n_products else [*labels[:-1], tr("after the last product")]


def layered(items: Sequence[Op | Kernel], ops_of: Callable) -> list[Node]:
    """Nodes in their rows, each to the right of what it waits for in the same row."""
    nodes: dict[str, Node] = {}
    taken: dict[int, float] = {}
    for item, row in zip(items, rows_of(items), strict=True):
        inputs = tuple(item.reads) if isinstance(item, Op) else item.inputs
        column = taken.get(row, 0.0)
        node = Node(item.name, inputs, row, column, ops_of(item))
        nodes[item.name] = node
        gap = 0.0 if isinstance(item, Op) else 0.45
        taken[row] = column + node.width + gap
    return list(nodes.values())


def _edges(fig, nodes: list[Node], column: int) -> None:
    """Who reads from whom; an edge over others in its row is drawn as an arc."""
    place = {node.name: node for node in nodes}
    x, y = [], []
    for node in nodes:
        for name in node.inputs:
            if name not in place:
                continue
            source = place[name]
            start, end = source.column + source.width - 1, node.column
            same = source.row == node.row
            lift = 0.4 if same and end - start > 1.6 else 0.0
            x += [start, (start + end) / 2, end, None]
            y += [source.row, (source.row + node.row) / 2 - lift, node.row, None]
    fig.add_scatter(x=x, y=y, mode="lines", line=dict(shape="spline", **EDGE), hoverinfo="skip",
                    showlegend=False, row=1, col=column)  # fmt: skip


def _boxes(fig, nodes: list[Node]) -> None:
    for node in nodes:
        fused = len(node.ops) > 1
        colour = colours.BLUE if fused else colours.GREY
        fill = colours.tint(colours.BLUE, 0.11) if fused else colours.FAINT_GREY
        fig.add_shape(
            type="rect", x0=node.column - 0.5, x1=node.column + node.width - 0.5,
            y0=node.row - 0.32, y1=node.row + 0.32, line=dict(color=colour, width=1.5),
            fillcolor=fill, layer="below", row=1, col=2,
        )  # fmt: skip


def _markers(fig, nodes: list[Node], column: int) -> None:
    for i, (name, (_, symbol)) in enumerate(KINDS.items()):
        spots = [(node.column + j, node.row, op) for node in nodes for j, op in enumerate(node.ops)
                 if kind(op) == name]  # fmt: skip
        fig.add_scatter(
            x=[s[0] for s in spots], y=[s[1] for s in spots], text=[s[2] for s in spots],
            mode="markers", hovertemplate="%{text}<extra></extra>", showlegend=False,
            marker=dict(symbol=symbol, size=9, color=figures.COLOURS[i]), row=1, col=column,
        )  # fmt: skip


def _legend(fig) -> None:
    for i, (label, symbol) in enumerate(KINDS.values()):
        marker = dict(symbol=symbol, size=9, color=figures.COLOURS[i])
        fig.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=tr(label))
