"""The form of an explorer that needs no kernel: plotly's own slider over values computed before."""

from efflab.errors import require_int
from efflab.lab.controls import show_value
from efflab.lab.figures import dress
from efflab.lab.page import plain


def with_slider(fn, figure, values: dict, control, *, label: str, frames: int):
    """`figure`, drawn from `values`, with plotly's own slider over the first of them.

    A frame keeps only what differs from the first figure. Values that `fn` refuses are left out,
    and with fewer than two left, or with traces of other types, there is no slider.
    """
    import plotly.graph_objects as go

    name, first = next(iter(values.items()))
    specs = {}
    for value in pick(control.values(), first, frames):
        try:
            fig = figure
            if value != first:
                fig = dress(fn(**{**values, name: value}))
            specs[value] = plain(fig.to_plotly_json())
        except (ValueError, TypeError, ArithmeticError):
            continue
    fig = go.Figure(figure)
    most = max((spec["data"] for spec in specs.values()), key=len, default=[])
    for spec in specs.values():
        spec["data"] += [{**trace, "visible": False} for trace in most[len(spec["data"]) :]]
    kinds = {tuple(trace["type"] for trace in spec["data"]) for spec in specs.values()}
    if len(specs) < 2 or len(kinds) != 1:
        return fig
    base = specs[first]
    fig.add_traces([go.Figure(data=[t]).data[0] for t in base["data"][len(fig.data) :]])
    fig.frames = [
        go.Frame(name=show_value(v), data=_changed(specs, v), layout=_changed_layout(specs, v))
        for v in specs
    ]
    options = dict(mode="immediate", transition_duration=0)
    frame = {"duration": 0, "redraw": True}
    steps = [
        dict(
            method="animate",
            label=show_value(v),
            args=[[show_value(v)], {**options, "frame": frame}],
        )
        for v in specs
    ]
    slider = dict(active=list(specs).index(first), steps=steps, currentvalue_prefix=f"{label}: ")
    fig.update_layout(sliders=[{**slider, "pad_t": 48}], height=fig.layout.height + 90)
    bottom = fig.layout.margin.b
    fig.update_layout(margin_b=(56 if bottom is None else bottom) + 90)
    return fig


def _changed(specs: dict, value) -> list[dict]:
    """Of each trace, the type and the attributes that differ between any two frames."""
    traces = []
    for i, trace in enumerate(specs[value]["data"]):
        others = [spec["data"][i] for spec in specs.values()]
        names = {key for other in others for key in other}
        moving = [k for k in sorted(names) if any(o.get(k) != trace.get(k) for o in others)]
        kept = {"visible": True} if "visible" in moving else {}
        kept |= {k: trace[k] for k in moving if k in trace}
        traces.append({"type": trace["type"], **kept})
    return traces


def _changed_layout(specs: dict, value) -> dict:
    """The layout entries that differ between any two frames (titles, notes, ranges)."""
    layouts = [spec["layout"] for spec in specs.values()]
    layout = specs[value]["layout"]
    names = {key for other in layouts for key in other} - {"template", "meta"}
    moving = [k for k in sorted(names) if any(o.get(k) != layout.get(k) for o in layouts)]
    return {k: layout[k] for k in moving if k in layout}


def pick(values: list, first, count: int) -> list:
    """At most `count` of `values`, evenly spaced, both ends, and `first` among them."""
    require_int("count", count, 0)
    if count < 2:
        return [first]
    if len(values) <= count:
        return list(values) if first in values else sorted([*values, first])
    chosen = [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]
    if first not in chosen:
        inner = chosen[1:-1] or chosen
        chosen[chosen.index(min(inner, key=lambda v: abs(v - first)))] = first
    return sorted(set(chosen)) if isinstance(first, int | float) else chosen
