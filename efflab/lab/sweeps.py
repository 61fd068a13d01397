"""Pictures of sweeps, and the recorded sweeps of data/sweeps that notebooks show."""

import csv
from collections.abc import Mapping, Sequence

from efflab.base.places import DATA_DIR
from efflab.errors import require_one_of
from efflab.estimate import Estimate
from efflab.lab import figures
from efflab.lab.text import tr, tr_known

SWEEPS = DATA_DIR / "sweeps"
MOST_PANELS = 12
ABOUT = ("seconds", "peak_mb", "busy_cores", "machine", "versions", "date", "failure")
"""Columns of each run besides its parameters, which stand before them, and its numbers."""
ENDS = ("low", "high")


def is_number(value) -> bool:
    """Whether the value is a number, which a bool is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def picture(rows: Sequence[dict], varied: Sequence[str], number: str, words: str = ""):
    """A line with its band over one parameter, a heat map over two, panels of them over three.

    Of further parameters the first values are shown. `words`: what the number is, for the title.
    """
    x, y, z, *rest = (*varied, None, None, None)[: max(3, len(varied))]
    fixed = {name: rows[0][name] for name in rest if name}
    shown = [row for row in rows if all(row[name] == value for name, value in fixed.items())]
    title = (words or number) + "".join(f", {name}={value}" for name, value in fixed.items())
    if y is None:
        return _line(shown, x, number, title)
    if z is None:
        labels, values = _matrix(shown, x, y, number)
        figure = figures.heatmap(values, title, x, y, **labels)
        return figure.update_traces(texttemplate="%{z:.4~g}")
    return _panels(shown, x, y, z, number, title)


def _line(rows: Sequence[dict], x: str, number: str, title: str):
    rows = [row for row in rows if row.get(number) is not None]
    numeric = all(is_number(row[x]) for row in rows)
    rows = sorted(rows, key=lambda row: row[x]) if numeric else rows
    places = [row[x] if numeric else str(row[x]) for row in rows]
    values = [row[number] for row in rows]
    wide = numeric and min(places) > 0 and max(places) >= 16 * min(places)
    figure = figures.line(places, {number: values}, title, x, log_x=wide)
    lows, highs = ([row.get(f"{number}/{end}") for row in rows] for end in ENDS)
    if None not in (*lows, *highs):
        figure.data[0].error_y = figures.error_bars(values, lows, highs)
    return figure


def _matrix(rows: Sequence[dict], x: str, y: str, number: str) -> tuple[dict, list]:
    """The labels of x and of y, and the number at each pair of them, None where a run has none."""
    xs, ys = ([*dict.fromkeys(row[name] for row in rows)] for name in (x, y))
    at = {(row[x], row[y]): row.get(number) for row in rows}
    values = [[at.get((a, b)) for a in xs] for b in ys]
    return dict(x=[str(v) for v in xs], y=[str(v) for v in ys]), values


def _panels(rows, x: str, y: str, z: str, number: str, title: str):
    shown = list(dict.fromkeys(row[z] for row in rows))[:MOST_PANELS]
    figure = figures.panels([f"{z}={value}" for value in shown], title, rows=-(-len(shown) // 3))
    for i, value in enumerate(shown):
        labels, values = _matrix([row for row in rows if row[z] == value], x, y, number)
        where = dict(row=i // 3 + 1, col=i % 3 + 1)
        figure.add_heatmap(z=values, coloraxis="coloraxis", **labels, **where)
        figure.update_xaxes(title_text=x, **where)
        figure.update_yaxes(title_text=y, autorange="reversed", **where)
    return figure.update_layout(coloraxis_colorscale=figures.colours.SCALE)


# --- Recorded --------------------------------------------------------------------------------


def read_sweep(notebook: str) -> list[dict]:
    """The rows of notebook "03"'s recorded sweep, as `efflab sweep 03 ... --record` left them."""
    require_one_of("notebook", notebook, sorted(path.stem for path in SWEEPS.glob("*.csv")))
    with (SWEEPS / f"{notebook}.csv").open(encoding="utf-8", newline="") as file:
        return [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)]


def _value(text: str):
    try:
        return float(text) if text else None
    except ValueError:
        return text


def show_sweep(notebook: str, own: float, here: Mapping[str, Estimate]) -> None:
    """A recorded sweep over one parameter, a picture for each name in `here`, and its command.

    `own`: the parameter's value in this notebook; `here`: what was measured with it, for the star.
    """
    rows = read_sweep(notebook)
    parameter = next(iter(rows[0]))
    for name, point in here.items():
        columns = [column for column in rows[0] if column.endswith(f"/{name}")]
        figure = picture(rows, [parameter], columns[-1], f"{tr_known(name)} ({tr('recorded')})")
        band = figures.error_bars([point.mean], [point.low], [point.high])
        star = dict(marker=dict(symbol="star", size=13, color=figures.colour(1)), mode="markers")
        figure.data[0].name = tr("recorded")
        figure.add_scatter(x=[own], y=[point.mean], name=tr("measured here"), error_y=band, **star)
        numbers = {name: point.mean, f"{name}/low": point.low, f"{name}/high": point.high}
        figures.show(figure.update_layout(showlegend=True, height=300, meta=numbers))
    values = ",".join(f"{row[parameter]:g}" for row in rows)
    print(f"efflab sweep {notebook} -p {parameter}={values}")
    print(rows[0]["machine"], rows[0]["versions"], rows[0]["date"], sep=" | ")
    busy = max(row["busy_cores"] or 0 for row in rows)
    print(tr("others used up to {cores} cores meanwhile", cores=f"{busy:.1f}"))
