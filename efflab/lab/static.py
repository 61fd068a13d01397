"""The form of an explorer without a kernel: plotly's own controls over precomputed pictures.

A slider moves the first control. A menu sets others, in every combination as long as the grid
stays small; each of its entries has its own slider, since plotly's controls are independent. A note
says which controls need a running notebook.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from itertools import product

from efflab.base.alignment import display_width
from efflab.errors import require_int
from efflab.lab.controls import Slider, show_value
from efflab.lab.figures import dress
from efflab.lab.page import plain
from efflab.lab.text import tr

MOST_FRAMES = 120
MOST_BYTES = 250_000
"""Most pictures in a stored grid, and its largest size as JSON."""
MENU_VALUES = 4
"""Number of a slider's values that the menu offers."""
NOTE_COLUMNS, NOTE_LINE = 64, 18
"""Width of a note's line in columns (a Chinese character takes two), and its height in pixels.
Short, since long names on the y axis can push the line's start to the middle of the picture."""
BETWEEN = " · "
FRAME = dict(mode="immediate", transition_duration=0, frame=dict(duration=0, redraw=True))


def with_controls(
    fn, figure, values: dict, controls: dict, *, labels: dict, frames: int, most: int = MOST_FRAMES
):
    """`figure`, drawn from `values`, with plotly's own slider over the first control and a menu.

    `frames`: number of the first control's values; `most`: pictures in all; `labels`: {name: text}
    of each control. A frame holds only what differs between pictures. Values that `fn` refuses are
    left out; with fewer than two left, or with traces of different types, there is no slider.
    """
    first, *others = controls
    specs = _cached_specs(fn, figure, values)
    along = pick(controls[first].values(), values[first], frames)
    row = [spec for value in along if (spec := specs(**{first: value}))]
    if len(row) < 2 or not _match(row):
        return figure
    options = {
        name: pick(controls[name].values(), values[name], MENU_VALUES)
        if isinstance(controls[name], Slider)
        else controls[name].values()
        for name in others
        if controls[name].stored
    }
    menu = _fitting(options, len(along), most)
    while not _small(grid := _grid(specs, first, along, menu)) and menu:
        menu.popitem()
    inactive = [labels[name] for name in others if name not in menu]
    return _figure(grid, values, first, labels, inactive)


def _cached_specs(fn, figure, values: dict) -> Callable:
    """A function from moved controls to plotly JSON, cached; None where `fn` refuses."""
    cache = {tuple(values.values()): plain(figure.to_plotly_json())}

    def spec(**changes) -> dict | None:
        moved = {**values, **changes}
        key = tuple(moved.values())
        if key not in cache:
            try:
                cache[key] = plain(dress(fn(**moved)).to_plotly_json())
            except (ValueError, TypeError, ArithmeticError):
                cache[key] = None
        return cache[key]

    return spec


def _match(specs: list[dict]) -> bool:
    """Whether the specs have traces of the same types, after padding with hidden traces."""
    most = max((spec["data"] for spec in specs), key=len)
    for spec in specs:
        spec["data"] += [{**trace, "visible": False} for trace in most[len(spec["data"]) :]]
    return len({tuple(trace["type"] for trace in spec["data"]) for spec in specs}) == 1


def _small(grid: list) -> bool:
    """Whether the grid has traces of the same types, and frames within `MOST_BYTES`."""
    specs = [spec for _, cells in grid for spec in cells.values()]
    if not _match(specs):
        return False
    moving = _moving(specs)
    return sum(len(json.dumps(_frame("", spec, moving))) for spec in specs) <= MOST_BYTES


def _fitting(options: dict[str, list], n: int, most: int) -> dict[str, list]:
    """The `options`, in order, that fit into the menu in addition to `n` values of the first."""
    menu = {}
    for name, values in options.items():
        if n * len(values) <= most:
            menu[name] = values
            n *= len(values)
    return menu


def _grid(specs: Callable, first: str, along: list, options: dict) -> list[tuple[dict, dict]]:
    """(the menu's values, {value of the first control: spec}) of each menu entry with a picture."""
    rows = []
    for combination in product(*options.values()):
        menu_values = dict(zip(options, combination, strict=True))
        cells = {value: specs(**menu_values, **{first: value}) for value in along}
        rows.append((menu_values, {value: spec for value, spec in cells.items() if spec}))
    return [(menu_values, cells) for menu_values, cells in rows if cells]


def _figure(grid, values: dict, first: str, labels: dict, inactive: list[str]):
    """The figure at `values` with its frames, slider, menu and note."""
    import plotly.graph_objects as go

    here = next(i for i, (chosen, _) in enumerate(grid) if chosen.items() <= values.items())
    base = grid[here][1][values[first]]["layout"]
    has_menu, bottom = len(grid) > 1, base.get("margin", {}).get("b", 56)
    room = 90 + 50 * has_menu + 24 * bool(inactive)
    specs = [spec for _, cells in grid for spec in cells.values()]
    for layout in (spec["layout"] for spec in specs):
        layout["height"] += room
        layout["margin"] = {**layout.get("margin", {}), "b": bottom + room}
    moving = _moving(specs)
    frames, sliders = [], []
    for i, (_, cells) in enumerate(grid):
        frames += [_frame(f"{i}/{show_value(v)}", spec, moving) for v, spec in cells.items()]
        at = min(range(len(cells)), key=lambda k, c=list(cells): c[k] != values[first])
        sliders.append(_slider(f"{labels[first]}: ", i, list(cells), at))
        if has_menu:
            entry = _frame(str(i), list(cells.values())[at], moving)
            frames.append(entry | {"layout": {**entry["layout"], "sliders": [sliders[i]]}})
    fig = go.Figure(data=grid[here][1][values[first]]["data"], layout=base, frames=frames)
    fig.update_layout(sliders=[sliders[here]])
    if has_menu:
        buttons = [_button(_entry(chosen, labels), str(i)) for i, (chosen, _) in enumerate(grid)]
        place = dict(x=0, xanchor="left", y=0, yanchor="top", pad_t=bottom + 76, direction="up")
        fig.update_layout(updatemenus=[dict(buttons=buttons, active=here, **place)])
    if inactive:
        note = tr("These need a running notebook: {names}", names=tr(", ").join(inactive))
        _add_note(fig, note, bottom + room - 24)
    return fig


def _add_note(fig, note: str, depth: float) -> None:
    """Write a note `depth` pixels below the plot's area."""
    place = dict(x=0, xref="paper", xanchor="left", y=0, yref="paper", yanchor="top")
    fig.add_annotation(text=note, showarrow=False, font_size=12, yshift=-depth, **place)


def at_rest(values: dict, labels: dict) -> str:
    """The note for pages without live controls: they do not move, and which values are drawn."""
    drawn = _entry(values, labels)
    return tr("The controls move only in a running notebook; drawn: {values}", values=drawn)


def still(figure, note: str):
    """`figure` with a note under it, for its PNG."""
    lines = [""]
    for i, piece in enumerate(note.split(BETWEEN)):
        longer = lines[-1] + BETWEEN * (i > 0) + piece
        if i and display_width(longer) > NOTE_COLUMNS:
            lines.append(piece)
        else:
            lines[-1] = longer
    fig = deepcopy(figure)
    below = fig.layout.legend.y is not None and fig.layout.legend.y < 0
    bottom = fig.layout.margin.b or fig.layout.template.layout.margin.b
    high = NOTE_LINE * len(lines)
    room = high + (4 * NOTE_LINE if below else NOTE_LINE)
    fig.update_layout(height=fig.layout.height + room, margin_b=bottom + room)
    _add_note(fig, "<br>".join(lines), bottom + room - high)
    fig.layout.annotations[-1].align = "left"
    return fig


def _slider(prefix: str, row: int, values: list, active: int) -> dict:
    steps = [_button(label, f"{row}/{label}") for label in map(show_value, values)]
    return dict(active=active, steps=steps, currentvalue=dict(prefix=prefix), pad=dict(t=48))


def _button(label: str, frame: str) -> dict:
    """A slider's step or a menu's entry, which shows a frame."""
    return dict(method="animate", label=label, args=[[frame], FRAME])


def _entry(values: dict, labels: dict) -> str:
    return BETWEEN.join(f"{labels[name]}: {show_value(v)}" for name, v in values.items())


def _moving(specs: list[dict]) -> tuple[list[list[str]], list[str]]:
    """The attributes that differ between specs: names for each trace, and for the layout."""

    def differing(parts: list[dict]) -> list[str]:
        names = sorted({key for part in parts for key in part})
        return [k for k in names if any(p.get(k) != parts[0].get(k) for p in parts[1:])]

    traces = [differing(list(t)) for t in zip(*(spec["data"] for spec in specs), strict=True)]
    layout = differing([spec["layout"] for spec in specs])
    return traces, [name for name in layout if name not in ("template", "meta")]


def _frame(name: str, spec: dict, moving) -> dict:
    """A frame with the attributes that differ."""
    traces = []
    for trace, names in zip(spec["data"], moving[0], strict=True):
        changes = {"visible": True} if "visible" in names else {}
        changes |= {k: trace[k] for k in names if k in trace}
        traces.append({"type": trace["type"], **changes})
    layout = {k: spec["layout"][k] for k in moving[1] if k in spec["layout"]}
    return dict(name=name, data=traces, layout=layout)


def pick(values: list, first, count: int) -> list:
    """At most `count` of `values`, evenly spaced, including both ends and `first`; all of texts.

    `first` replaces the nearest one: of numbers in value, else in place.
    """
    require_int("count", count, 0)
    if count < 2:
        return [first]
    if len(values) <= count or isinstance(first, str):
        return list(values) if first in values else sorted([*values, first])
    picks = [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]
    are_numbers = all(isinstance(value, int | float) for value in (first, *picks))

    def distance(value) -> float:
        return abs(value - first if are_numbers else values.index(value) - values.index(first))

    if first not in picks:
        inner = picks[1:-1] or picks
        picks[picks.index(min(inner, key=distance))] = first
    return sorted(set(picks)) if are_numbers else picks
