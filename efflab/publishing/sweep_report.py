"""What a sweep found: a table with a row a run, and a picture of one number over the parameters.

>>> key_number([{"n": 1, "toy/of-n/n": 1.0}], ["n"])
'toy/of-n/n'
"""

import csv
import hashlib
import io
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from efflab.base.busy import BUSY_CORES
from efflab.base.files import write_atomically
from efflab.base.formats import PLOTLY, STATEMENT, VERDICT
from efflab.errors import is_number, require, require_one_of
from efflab.experiments.provenance import machine_name
from efflab.lab.page import figure_png, start_renderer
from efflab.lab.sweeps import ABOUT, ENDS, picture, write_sweep
from efflab.lab.text import number
from efflab.publishing.catalog import find
from efflab.publishing.doctor import find_browser
from efflab.publishing.grid import Point
from efflab.publishing.outputs import of_kind
from efflab.publishing.run import canonical, run_folder, writable
from efflab.publishing.source import read_notebook

FROM_COST = ("seconds", "peak_mb", "busy_cores", "date")
BUSY = "{n} of {total} runs on a busy machine (busy_cores above {cores}): their times may be off"


def write_report(points: Sequence[Point], notebook: str, show=None, record=False) -> dict:
    """Write the table and the picture of a sweep: {"table": its path, "figure": its path}.

    `show`: the column to draw; by default that of `key_number`.
    `record`: the table also becomes the record that the notebook shows, unless a run failed, which
    is a `ValueError`. Prints how many runs were on a busy machine, if any.
    """
    rows, given = [read_row(point) for point in points], list(points[0].given)
    column = key_number(rows, given, show)  # refuses before anything is written
    n_failed = sum(row["failure"] is not None for row in rows)
    require(not (record and n_failed), "--record", n_failed, "a sweep of which no run failed")
    mark = hashlib.sha256(canonical([point.given for point in points]).encode()).hexdigest()[:6]
    place = writable(run_folder(find(notebook), {}), print)
    place = place.with_name(f"sweep-{'-'.join(given)}-{mark}")
    paths = dict(table=write_table(rows, place))
    if record:
        paths["record"] = write_sweep(find(notebook).stem[:2], rows)
    if column is not None:
        figure = picture(rows, given, column, words_for(column, points))
        paths["figure"] = _write(figure, place)
    n_busy = sum((row["busy_cores"] or 0) > BUSY_CORES for row in rows)
    if n_busy:
        print(BUSY.format(n=n_busy, total=len(rows), cores=BUSY_CORES))
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
    about = notebook.metadata.get("efflab", {})
    cost = about.get("cost", {})
    row |= about.get("parameters", {}) | {name: cost.get(name) for name in FROM_COST}
    row["machine"] = machine_name(cost["machine"]) if "machine" in cost else None
    row["versions"] = ", ".join(f"{k} {v}" for k, v in cost.get("versions", {}).items()) or None
    for name, figure in _figures(notebook).items():
        row[name.rpartition("/")[0]] = figure["outcome"]
        row[name] = figure["value"]
        row |= {f"{name}/{end}": figure[end] for end in ENDS if figure[end] is not None}
    for i, figure in enumerate(of_kind(notebook, PLOTLY), start=1):
        meta = figure["layout"].get("meta") or {}
        row |= {f"figure {i}/{name}": value for name, value in meta.items() if is_number(value)}
    return row


def _figures(notebook) -> dict[str, dict]:
    """{"claim/part/id": a figure of a verdict, with its part's outcome}."""
    return {
        f"{verdict['claim']}/{part['id']}/{figure['id']}": figure | dict(outcome=part["outcome"])
        for verdict in of_kind(notebook, VERDICT) + of_kind(notebook, STATEMENT)
        for part in verdict["parts"]
        for figure in part["figures"]
    }


def key_number(rows: Sequence[dict], given: Sequence[str], show: str | None = None) -> str | None:
    """The column to draw: `show`, or the first number that the parameters change, else seconds.

    None where no run has a number.
    """
    names = [n for n in dict.fromkeys(chain(*rows)) if n not in (*given, *ABOUT[1:])]
    numbers = [n for n in names if any(is_number(row.get(n)) for row in rows)]
    if show is not None:
        require_one_of("--show", show, numbers)
        return show
    key_numbers = [n for n in numbers if "/" in n and not _is_end(n)]
    changing = [n for n in key_numbers if len({row.get(n) for row in rows} - {None}) > 1]
    return next(iter([*changing, *numbers[:1]]), None)


def _is_end(name: str) -> bool:
    """Whether a column holds an end of another one's interval."""
    return name.endswith(tuple(f"/{end}" for end in ENDS))


def words_for(column: str, points: Sequence[Point]) -> str:
    """A verdict's figure in words, with its unit; another number is called as its column."""
    path = next(point.path for point in points if point.path)
    figure = _figures(read_notebook(path)).get(column, dict(name=column, unit=""))
    return f"{figure['name']} {figure['unit']}".strip()


# --- The table -------------------------------------------------------------------------------


def write_table(rows: Sequence[dict], place: Path) -> Path:
    """`place`.csv with a column for each name, and `place`.parquet where pyarrow is installed."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(chain(*rows))), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path = place.with_name(f"{place.name}.csv")
    write_atomically(path, text.getvalue())
    with suppress(ImportError):
        from pyarrow import csv as reader
        from pyarrow import parquet

        options = reader.ConvertOptions(strings_can_be_null=True)
        table = reader.read_csv(path, convert_options=options)
        parquet.write_table(table, path.with_suffix(".parquet"))
    return path


# --- The picture -----------------------------------------------------------------------------


def _write(figure, place: Path) -> Path:
    """A PNG, or where there is no browser to draw it a page with the figure in it."""
    if not find_browser():
        path = place.with_name(f"{place.name}.html")
        write_atomically(path, figure.to_html(include_plotlyjs=True))
        return path
    start_renderer()
    path = place.with_name(f"{place.name}.png")
    write_atomically(path, figure_png(figure))
    return path


# --- Two runs --------------------------------------------------------------------------------


def compare(first: Path, second: Path) -> list[str]:
    """What differs between two stored runs: parameters, outcomes, and numbers beyond noise.

    Two sampled numbers differ if their intervals do not overlap, two others if they are not equal.
    """
    rows = [read_row(Point({}, path)) for path in (first, second)]
    names = [n for n in dict.fromkeys(chain(*rows)) if n not in ABOUT and not _is_end(n)]
    lines = []
    for name in names:
        a, b = (row.get(name) for row in rows)
        lows, highs = ([row.get(f"{name}/{end}") for row in rows] for end in ENDS)
        sampled = None not in (*lows, *highs)
        if not (max(lows) <= min(highs) if sampled else a == b):
            lines.append(f"{name}: {number(a, 4)}, {number(b, 4)}")
    return [*lines, f"{len(names) - len(lines)} others equal, or within their intervals"]
