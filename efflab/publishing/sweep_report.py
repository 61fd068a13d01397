"""What a sweep found: a table with a row a run, and a picture of one number over the parameters.

>>> key_number([{"n": 1, "toy/of-n/n": 1.0}], ["n"])
'toy/of-n/n'
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from efflab.base.files import write_atomically
from efflab.base.formats import PLOTLY, VERDICT
from efflab.base.significant import significant
from efflab.errors import require_one_of
from efflab.experiments.provenance import machine_name
from efflab.lab import figures
from efflab.lab.page import figure_png
from efflab.publishing.catalog import find
from efflab.publishing.grid import Point
from efflab.publishing.outputs import of_kind
from efflab.publishing.run import run_folder, writable
from efflab.publishing.source import read_notebook

MOST_PANELS = 12
ABOUT = ("seconds", "peak_mb", "machine", "date", "failure")
"""Columns of each run besides its parameters and numbers."""
ENDS = ("low", "high")


def write_report(points: Sequence[Point], notebook: str, show: str | None = None) -> dict:
    """Write the table and the picture of a sweep: {"table": its path, "figure": its path}.

    `show`: the column to draw; by default the first verdict's first number, else the first number.
    """
    rows, given = [read_row(point) for point in points], list(points[0].given)
    number = key_number(rows, given, show)
    place = writable(run_folder(find(notebook), {}), print).with_name(f"sweep-{'-'.join(given)}")
    paths = dict(table=write_table(rows, place))
    if number is not None:
        words = next((labels(point) for point in points if point.path), {}).get(number, number)
        paths["figure"] = draw(rows, vary(rows, given), number, place, words)
    return paths


def read_row(point: Point) -> dict:
    """One run: parameters, what it took, and its numbers by id.

    "claim/part" is an outcome, "claim/part/id" a figure of a verdict, with ".../low" and
    ".../high" where it was sampled, and "figure 3/name" a key number of the third picture.
    """
    row = dict(point.given) | dict.fromkeys(ABOUT)
    if point.path is None:
        return row | dict(failure=point.failure)
    notebook = read_notebook(point.path)
    cost = notebook.metadata.get("efflab", {}).get("cost", {})
    row |= {name: cost.get(name) for name in ("seconds", "peak_mb", "date")}
    row["machine"] = machine_name(cost["machine"]) if "machine" in cost else None
    for verdict in of_kind(notebook, VERDICT):
        for part in verdict["parts"]:
            place = f"{verdict['claim']}/{part['id']}"
            row[place] = part["outcome"]
            for figure in part["figures"]:
                row |= _numbers(f"{place}/{figure['id']}", figure)
    for i, figure in enumerate(of_kind(notebook, PLOTLY), start=1):
        meta = figure["layout"].get("meta") or {}
        row |= {f"figure {i}/{name}": value for name, value in meta.items() if _is_number(value)}
    return row


def _numbers(name: str, figure: dict) -> dict:
    sampled = {f"{name}/{end}": figure[end] for end in ENDS if figure[end] is not None}
    return {name: figure["value"]} | sampled


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def vary(rows: Sequence[dict], names: Sequence[str]) -> list[str]:
    """The parameters that differ between rows; at least one."""
    varied = [name for name in names if len({repr(row.get(name)) for row in rows}) > 1]
    return varied or list(names)[:1]


def key_number(rows: Sequence[dict], given: Sequence[str], show: str | None = None) -> str | None:
    """The column to draw: `show`, or the first number that the parameters change, or None."""
    numbers = {
        name: len({row.get(name) for row in rows}) > 1
        for name in dict.fromkeys(name for row in rows for name in row)
        if name not in (*given, *ABOUT[1:]) and any(_is_number(row.get(name)) for row in rows)
    }
    if show is not None:
        require_one_of("--show", show, numbers)
        return show
    found = [name for name in numbers if "/" in name and not name.endswith(ENDS)]
    return next((name for name in found if numbers[name]), found[0] if found else None)


def labels(point: Point) -> dict[str, str]:
    """{"claim/part/id": a figure's name and unit} of a run's verdicts."""
    verdicts = of_kind(read_notebook(point.path), VERDICT) if point.path else []
    return {
        f"{verdict['claim']}/{part['id']}/{figure['id']}": f"{figure['name']} {figure['unit']}"
        for verdict in verdicts
        for part in verdict["parts"]
        for figure in part["figures"]
    }


# --- The table -------------------------------------------------------------------------------


def write_table(rows: Sequence[dict], place: Path) -> Path:
    """`place`.csv with a column a name; where pyarrow is installed, `place`.parquet beside it."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path = place.with_name(f"{place.name}.csv")
    write_atomically(path, text.getvalue())
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        return path
    columns = {name: _one_kind([row.get(name) for row in rows]) for name in names}
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), buffer)
    write_atomically(path.with_suffix(".parquet"), buffer.getvalue())
    return path


def _one_kind(values: list) -> list:
    """The values, as texts if they are of several kinds: a column of parquet has one."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        return [None if value is None else float(value) for value in values] if kinds else values
    return values if len(kinds) == 1 else [None if v is None else str(v) for v in values]


# --- The picture -----------------------------------------------------------------------------


def draw(
    rows: Sequence[dict], varied: Sequence[str], number: str, place: Path, words: str = ""
) -> Path:
    """A line with its band over one parameter, a heat map over two, panels of them over three.

    Of further parameters the first values are shown. `words`: what the number is, for the title.
    A PNG, or a page where no browser draws it.
    """
    x, y, z, *rest = (*varied, None, None, None)[: max(3, len(varied))]
    fixed = {name: rows[0][name] for name in rest if name}
    shown = [row for row in rows if all(row[name] == value for name, value in fixed.items())]
    title = (words or number) + "".join(f", {name}={value}" for name, value in fixed.items())
    if y is None:
        figure = _line(shown, x, number, title)
    elif z is None:
        figure = _heatmap(shown, x, y, number, title)
    else:
        figure = _panels(shown, x, y, z, number, title)
    return _write(figure, place)


def _line(rows: Sequence[dict], x: str, number: str, title: str):
    rows = [row for row in rows if row.get(number) is not None]
    numeric = all(_is_number(row[x]) for row in rows)
    rows = sorted(rows, key=lambda row: row[x]) if numeric else rows
    places = [row[x] if numeric else str(row[x]) for row in rows]
    values = [row[number] for row in rows]
    figure = figures.line(places, {number: values}, title, x)
    lows, highs = ([row.get(f"{number}/{end}") for row in rows] for end in ENDS)
    if None not in (*lows, *highs):
        figure.data[0].error_y = figures.error_bars(values, lows, highs)
    return figure


def _matrix(rows: Sequence[dict], x: str, y: str, number: str) -> tuple[list, list, list]:
    """Values of x, of y, and the number at each pair of them, None where a run has none."""
    xs, ys = ([*dict.fromkeys(row[name] for row in rows)] for name in (x, y))
    at = {(row[x], row[y]): row.get(number) for row in rows}
    return xs, ys, [[at.get((a, b)) for a in xs] for b in ys]


def _heatmap(rows, x: str, y: str, number: str, title: str):
    xs, ys, values = _matrix(rows, x, y, number)
    labels = dict(x=[str(v) for v in xs], y=[str(v) for v in ys])
    figure = figures.heatmap(values, title, x, y, bar_title="", **labels)
    return figure.update_traces(texttemplate="%{z:.4~g}")


def _panels(rows, x: str, y: str, z: str, number: str, title: str):
    shown = list(dict.fromkeys(row[z] for row in rows))[:MOST_PANELS]
    figure = figures.panels([f"{z}={value}" for value in shown], title, rows=-(-len(shown) // 3))
    for i, value in enumerate(shown):
        xs, ys, values = _matrix([r for r in rows if r[z] == value], x, y, number)
        where = dict(row=i // 3 + 1, col=i % 3 + 1)
        labels = dict(x=[str(v) for v in xs], y=[str(v) for v in ys])
        figure.add_heatmap(z=values, coloraxis="coloraxis", **labels, **where)
        figure.update_xaxes(title_text=x, **where)
        figure.update_yaxes(title_text=y, **where)
    return figure.update_layout(coloraxis_colorscale=figures.colours.SCALE)


def _write(figure, place: Path) -> Path:
    """A PNG, or where there is no browser to draw it a page with the figure in it."""
    import kaleido
    from kaleido.errors import BrowserFailedError, ChromeNotFoundError

    try:
        # it would load MathJax from the network, which no figure needs
        kaleido.start_sync_server(mathjax=False, silence_warnings=True)
        picture = figure_png(figure)
        kaleido.stop_sync_server()
    except (ChromeNotFoundError, BrowserFailedError):
        path = place.with_name(f"{place.name}.html")
        write_atomically(path, figure.to_html(include_plotlyjs=True))
        return path
    path = place.with_name(f"{place.name}.png")
    write_atomically(path, picture)
    return path


# --- Two runs --------------------------------------------------------------------------------


def compare(first: Path, second: Path) -> list[str]:
    """What differs between two stored runs: parameters, outcomes, and numbers beyond noise.

    Two sampled numbers differ if their intervals do not overlap, two others if they are not equal.
    """
    rows = [read_row(Point(_given(path), path)) for path in (first, second)]
    lines, n_same = [], 0
    for name in dict.fromkeys(name for row in rows for name in row if name not in ABOUT):
        if name.endswith(ENDS):
            continue
        spans = [_span(row, name) for row in rows]
        a, b = (row.get(name) for row in rows)
        same = _overlap(*spans) if None not in spans else a == b
        n_same += same
        lines += [] if same else [f"{name}: {_words(a)}, {_words(b)}"]
    return [*lines, f"{n_same} others equal, or within their intervals"]


def _given(path: Path) -> dict:
    return dict(read_notebook(path).metadata.get("efflab", {}).get("parameters", {}))


def _span(row: dict, name: str) -> tuple[float, float] | None:
    """The interval of a sampled number; None for another."""
    low, high = (row.get(f"{name}/{end}") for end in ENDS)
    return None if low is None or high is None else (low, high)


def _overlap(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] <= b[1] and b[0] <= a[1]


def _words(value) -> str:
    return significant(value, 4) if _is_number(value) else str(value)
