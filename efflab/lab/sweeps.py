"""Pictures of sweeps, and the recorded sweeps of data/sweeps that notebooks show."""

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from efflab.base.files import write_atomically
from efflab.base.json_files import read_json
from efflab.base.places import DATA_DIR
from efflab.errors import is_number, require_one_of
from efflab.estimate import Estimate
from efflab.lab import figures
from efflab.lab.text import tr, tr_known

SWEEPS = DATA_DIR / "sweeps"
ABOUT = ("seconds", "peak_mb", "busy_cores", "machine", "versions", "date", "failure")
"""Columns of each run besides its parameters, which stand before them, and its numbers."""
ENDS = ("low", "high")


def picture(rows: Sequence[dict], names: Sequence[str], number: str, words: str = ""):
    """A line with its band over one parameter, a heat map over two, panels of them over three.

    Of the parameters `names` those that differ count; of a fourth and on the first values are
    shown. `words`: what the number is, for the title.
    """
    varied = [n for n in names if len({repr(row[n]) for row in rows}) > 1] or list(names[:1])
    fixed = {name: rows[0][name] for name in varied[3:]}
    shown = [row for row in rows if all(row[name] == value for name, value in fixed.items())]
    title = (words or number) + "".join(f", {name}={value}" for name, value in fixed.items())
    draw = _line if len(varied) == 1 else _maps
    return draw(shown, *varied[:3], number=number, title=title)


def _line(rows: Sequence[dict], x: str, *, number: str, title: str):
    rows = sorted((r for r in rows if r.get(number) is not None), key=lambda row: row[x])
    places, values = [row[x] for row in rows], [row[number] for row in rows]
    wide = is_number(places[0]) and 0 < 16 * places[0] <= places[-1]
    figure = figures.line(places, {number: values}, title, x, log_x=wide)
    lows, highs = ([row.get(f"{number}/{end}") for row in rows] for end in ENDS)
    if None not in (*lows, *highs):
        figure.data[0].error_y = figures.error_bars(values, lows, highs)
    return figure


def _maps(rows: Sequence[dict], x: str, y: str, z: str = "", *, number: str, title: str):
    # more panels than twelve could not be read
    shown = list(dict.fromkeys(row.get(z) for row in rows))[:12]
    titles = [f"{z}={value}" if z else "" for value in shown]
    n_rows = -(-len(shown) // 3)
    n_columns = -(-len(shown) // n_rows)
    figure = figures.panels(titles, title, rows=n_rows)
    for i, value in enumerate(shown):
        part = [row for row in rows if row.get(z) == value]
        columns = dict(x=x, y=y, z=number).items()
        values = {axis: [row.get(name) for row in part] for axis, name in columns}
        where = dict(row=i // n_columns + 1, col=i % n_columns + 1)
        figure.add_heatmap(**values, coloraxis="coloraxis", texttemplate="%{z:.4~g}", **where)
        figure.update_xaxes(title_text=x, type="category", **where)
        figure.update_yaxes(title_text=y, type="category", **where)
    return figure.update_layout(coloraxis_colorscale=figures.colours.SCALE)


# --- Recorded --------------------------------------------------------------------------------


def write_sweep(notebook: str, rows: Sequence[dict]) -> Path:
    """Keep the rows as notebook "03"'s recorded sweep, as `efflab sweep 03 ... --record` does."""
    columns = {name: [row.get(name) for row in rows] for name in chain(*rows)}
    path = SWEEPS / f"{notebook}.json"
    write_atomically(path, json.dumps(columns).replace("], ", "],\n") + "\n")
    return path


def read_sweep(notebook: str) -> list[dict]:
    """The rows of notebook "03"'s recorded sweep."""
    require_one_of("notebook", notebook, sorted(path.stem for path in SWEEPS.glob("*.json")))
    columns = read_json(SWEEPS / f"{notebook}.json")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def show_sweep(notebook: str, own: float, here: Mapping[str, Estimate]) -> None:
    """A recorded sweep over one parameter, a picture for each name in `here`, and its command.

    `own`: the parameter's value in this notebook; `here`: what was measured with it, for the star.
    """
    rows = read_sweep(notebook)
    parameter = next(iter(rows[0]))
    for name, point in here.items():
        columns = [column for column in rows[0] if column.endswith(f"/{name}")]
        title = tr("{name} (recorded)", name=tr_known(name))
        figure = picture(rows, [parameter], columns[-1], title)
        band = figures.error_bars([point.mean], [point.low], [point.high])
        star = dict(marker=dict(symbol="star", size=13, color=figures.colour(1)), mode="markers")
        figure.data[0].name = tr("recorded")
        figure.add_scatter(x=[own], y=[point.mean], name=tr("measured here"), error_y=band, **star)
        numbers = {name: point.mean, f"{name}/low": point.low, f"{name}/high": point.high}
        figures.show(figure.update_layout(showlegend=True, height=300, meta=numbers))
    print(f"efflab sweep {notebook} -p {parameter}=" + ",".join(str(r[parameter]) for r in rows))
    print(rows[0]["machine"], rows[0]["versions"], rows[0]["date"], sep=" | ")
    busy = f"{max(row['busy_cores'] or 0 for row in rows):.1f}"
    print(tr("others used up to {cores} cores meanwhile", cores=busy))
