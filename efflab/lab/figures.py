"""One style for all figures, and the kinds of figure that notebooks share.

Each line has its own colour and its own marker or dash. The background is white with dark text,
also in a dark JupyterLab.
"""

import json
import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import lru_cache

import numpy as np
import plotly.graph_objects as go

from efflab.errors import require, require_one_of
from efflab.lab import colours
from efflab.lab.page import emit, figure_bundle
from efflab.lab.text import number

COLOURS = colours.SERIES
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "solid", "dash")
MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star")
FONT = (
    "system-ui, 'Segoe UI', 'Noto Sans', 'Noto Sans CJK SC', 'PingFang SC', 'Microsoft YaHei', "
    "'Noto Sans CJK HK', sans-serif"
)
"""Simplified Chinese fonts come before Hong Kong's, which draw some characters differently."""
_AXIS = dict(gridcolor=colours.GRID_GREY, linecolor=colours.GREY, ticks="outside")
_AXIS |= dict(zerolinecolor=colours.SOFT_GREY)
_AXIS |= dict(automargin=True, title=dict(standoff=8, font_size=13))
TEMPLATE = go.layout.Template(
    layout=dict(
        colorway=COLOURS,
        font=dict(family=FONT, size=13, color=colours.BLACK),
        title=dict(font_size=16, x=0, xref="paper", xanchor="left"),
        paper_bgcolor=colours.WHITE,
        plot_bgcolor=colours.WHITE,
        margin=dict(l=64, r=24, t=56, b=56),
        xaxis=_AXIS,
        yaxis=_AXIS,
        legend=dict(bgcolor=colours.VEIL),
        hoverlabel=dict(font_size=13),
        modebar=dict(orientation="v", bgcolor=colours.VEIL),
    )
)
HEIGHT = 400


def colour(i: int) -> str:
    """The colour of the i-th series."""
    return COLOURS[i % len(COLOURS)]


def style(i: int, dash: int | None = None, *, width: float = 2, size: float = 7) -> dict:
    """Line and marker of the i-th series, for `fig.add_scatter(x=x, y=y, **figures.style(i))`.

    `dash`: for series that differ in two ways, colour shows the first (i) and dash the second.
    """
    second = (i if dash is None else dash) % len(DASHES)
    return dict(
        line=dict(color=colour(i), dash=DASHES[second], width=width),
        marker=dict(color=colour(i), symbol=MARKERS[second], size=size),
    )


def blank(title: str = "", x_title: str = "", y_title: str = "", *, meta=None, **layout):
    """An empty figure with the house look. `meta`: key numbers, {name: number}."""
    fig = deepcopy(_bare())
    layout = {"height": HEIGHT, **layout}
    fig.update_layout(title_text=title, meta=dict(meta or {}), **layout)
    return fig.update_layout(xaxis_title_text=x_title, yaxis_title_text=y_title)


@lru_cache(maxsize=1)
def _bare() -> go.Figure:
    """An empty figure with the template, to copy: plotly takes 5 ms to make one, 1 to copy it."""
    return go.Figure(layout=dict(template=TEMPLATE))


def dress(fig: go.Figure) -> go.Figure:
    """Give any plotly figure the house template and height, keeping what it sets itself."""
    if fig.layout.template.layout.font.family != FONT:
        fig.layout.template = TEMPLATE
    fig.layout.height = fig.layout.height or HEIGHT
    return fig


def show(fig: go.Figure) -> None:
    """Show a figure with the house template; its text form has the title and `layout.meta`."""
    emit(figure_bundle(dress(fig)))


def line(
    x, series: Mapping[str, Sequence], *titles: str, log_x=False, log_y=False, markers=True, **more
) -> go.Figure:
    """Lines over one x: `series` is {name: values}, each with its colour, dash and marker.

    `titles` and `more`: as `blank` takes them.
    """
    fig = blank(*titles, **more)
    for i, (name, y) in enumerate(series.items()):
        require(len(y) == len(x), "series", name, f"{len(x)} values, one for each x")
        mode = "lines+markers" if markers else "lines"
        fig.add_scatter(x=list(x), y=list(y), name=name, mode=mode, **style(i))
    if log_x:
        fig.update_xaxes(**_log_x(x))
    if log_y:
        log_axis(fig, [v for values in series.values() for v in values])
    fig.update_layout(showlegend=len(series) > 1)
    return fig


def loglog(x, series: Mapping[str, Sequence], *titles: str, **more) -> go.Figure:
    """`line` with both axes logarithmic: a power law is a straight line, its slope the exponent."""
    return line(x, series, *titles, log_x=True, log_y=True, **more)


def log_axis(fig: go.Figure, values, **where) -> None:
    """Make the y axis logarithmic; from two decades on, only powers of ten get a tick.

    `where`: `row` and `col` in a figure of panels.
    """
    positive = [float(v) for v in values if v is not None and v > 0]
    wide = bool(positive) and max(positive) >= 100 * min(positive)
    options = dict(dtick=1) if wide else {}
    fig.update_yaxes(type="log", exponentformat="power", **options, **where)


def log_ticks(values) -> dict:
    """A logarithmic axis with ticks at these values: `fig.update_xaxes(**log_ticks(lengths))`."""
    values = [float(v) for v in values]
    return dict(type="log", tickvals=values, ticktext=[number(v, 6) for v in values])


def round_ticks(low: float, high: float) -> dict:
    """A logarithmic axis with ticks at 1, 2, 5 times powers of ten from `low` to `high`."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    return log_ticks([tick for tick in ticks if low <= tick <= high])


def _log_x(x) -> dict:
    """A logarithmic axis, with ticks at the x values themselves if they are few."""
    values = sorted({float(v) for v in x})
    return log_ticks(values) if 2 <= len(values) <= 12 else dict(type="log")


def error_bars(values: Sequence, lows: Sequence, highs: Sequence, **look) -> dict:
    """Whiskers from `lows` to `highs`: `fig.add_scatter(x=x, y=y, error_y=error_bars(y, a, b))`."""
    above = [high - value for value, high in zip(values, highs, strict=True)]
    below = [value - low for value, low in zip(values, lows, strict=True)]
    return dict(type="data", symmetric=False, array=above, arrayminus=below, **look)


LEGENDS = {
    "below": dict(orientation="h", x=0, y=-0.2),
    "above": dict(orientation="h", x=0, y=1.02, yanchor="bottom"),
    "top left": dict(x=0.01, y=0.99, xanchor="left", yanchor="top"),
    "top right": dict(x=0.99, y=0.99, xanchor="right", yanchor="top"),
    "bottom left": dict(x=0.01, y=0.01, xanchor="left", yanchor="bottom"),
    "bottom right": dict(x=0.99, y=0.01, xanchor="right", yanchor="bottom"),
}


def legend(place: str, **more) -> dict:
    """A legend's position by name: `fig.update_layout(legend=figures.legend("below"))`."""
    require_one_of("place", place, LEGENDS)
    return LEGENDS[place] | more


def bars(names: Sequence[str], series, *titles: str, stacked=False, text=None, **more) -> go.Figure:
    """Bars over `names`. `series`: values, or {name: values} side by side or `stacked`.

    `text`: a d3 format such as ".3s" that writes each bar's value on it; `titles` and `more`: as
    `blank` takes them.
    """
    groups = series if isinstance(series, Mapping) else {"": series}
    fig = blank(*titles, **more)
    for i, (name, y) in enumerate(groups.items()):
        require(len(y) == len(names), "series", name, f"{len(names)} values, one for each name")
        label = dict(texttemplate=f"%{{y:{text}}}") if text else {}
        fig.add_bar(x=list(names), y=list(y), name=name, marker_color=colour(i), **label)
    fig.update_layout(barmode="stack" if stacked else "group", showlegend=len(groups) > 1)
    return fig.update_xaxes(type="category")


def heatmap(z, *titles: str, x=None, y=None, bar_title="", square=False, **more) -> go.Figure:
    """A matrix `z` (rows, columns) as colours, row 0 on top; `titles` and `more`: as `blank`'s."""
    z = np.asarray(z)
    require(z.ndim == 2, "z", z.shape, "a matrix of two dimensions")
    fig = blank(*titles, **more)
    z = z.astype(int) if z.dtype == bool else z
    fig.add_heatmap(z=z, x=x, y=y, colorscale=colours.SCALE, colorbar_title_text=bar_title)
    fig.update_yaxes(autorange="reversed")
    if square:
        fig.update_yaxes(scaleanchor="x", constrain="domain")
        fig.update_xaxes(constrain="domain")
    return fig


def panels(titles: Sequence[str], title="", *, rows: int = 1, meta=None, **options) -> go.Figure:
    """An empty figure of several panels, `titles` over them; add with `fig.add_trace(t, row, col)`.

    `options` go to plotly's `make_subplots` (such as `shared_yaxes=True`).
    """
    fig = deepcopy(_panels(json.dumps([list(titles), rows, options])))
    return fig.update_layout(title_text=title, meta=dict(meta or {}))


@lru_cache(maxsize=64)
def _panels(arguments: str) -> go.Figure:
    """Empty panels, to copy: plotly takes 15 ms to make them, 2 to copy.

    The arguments are JSON, since lists and dicts cannot be keys of a cache.
    """
    from plotly.subplots import make_subplots

    titles, rows, options = json.loads(arguments)
    columns = -(-len(titles) // rows)
    fig = make_subplots(rows=rows, cols=columns, subplot_titles=titles, **options)
    return dress(fig.update_layout(height=HEIGHT * rows, margin_t=84))


def mark(fig: go.Figure, text: str = "", *, x=None, y=None, **where) -> go.Figure:
    """A dashed line at an x or a y with an optional label: a crossing, a limit, a paper's value.

    `where`: `row` and `col` in a figure of panels. Make an axis logarithmic before its marks.
    """
    require((x is None) != (y is None), "x", x, "either x or y")
    look = dict(line=dict(color=colours.DARK, dash="dash", width=1.5), **where)
    look |= dict(annotation_text=text, annotation_position="top left") if text else {}
    n_labels = len(fig.layout.annotations)
    fig.add_vline(x=x, **look) if y is None else fig.add_hline(y=y, **look)
    letter, value = ("x", x) if y is None else ("y", y)
    for label in fig.layout.annotations[n_labels:]:
        axis = fig.layout[label[f"{letter}ref"].replace(letter, f"{letter}axis")]
        if axis.type == "log":  # plotly wants the power of ten for a label, the value for a line
            label[letter] = math.log10(value)
    return fig
