"""What a sweep found: a table with a row a run, and a picture of one number over the parameters.

>>> key_number([{"n": 1, "toy/of-n/n": 1.0}], ["n"])
'toy/of-n/n'
"""

import csv
import hashlib
import io
import shutil
from collections.abc import Sequence
from pathlib import Path

from efflab.base.busy import BUSY_CORES
from efflab.base.files import write_atomically
from efflab.base.formats import PLOTLY, VERDICT
from efflab.base.significant import significant
from efflab.errors import require_one_of
from efflab.experiments.provenance import machine_name
from efflab.lab.page import figure_png
from efflab.lab.sweeps import ABOUT, ENDS, SWEEPS, is_number, picture
from efflab.publishing.catalog import find
from efflab.publishing.grid import Point
from efflab.publishing.outputs import of_kind
from efflab.publishing.run import canonical, run_folder, writable
from efflab.publishing.source import read_notebook

FROM_COST = ("seconds", "peak_mb", "busy_cores", "date")
BUSY = "{n} of {total} runs on a busy machine (busy_cores above {cores}): their times may be off"


def write_report(
    points: Sequence[Point], notebook: str, show: str | None = None, *, record: bool = False
) -> dict:
    """Write the table and the picture of a sweep: {"table": its path, "figure": its path}.

    `show`: the column to draw; by default the first verdict's first number, else the first number.
    `record`: the table also becomes the record that the notebook shows. Busy machines are said.
    """
    rows, given = [read_row(point) for point in points], list(points[0].given)
    number = key_number(rows, given, show)
    mark = hashlib.sha256(canonical([point.given for point in points]).encode()).hexdigest()[:6]
    place = writable(run_folder(find(notebook), {}), print)
    place = place.with_name(f"sweep-{'-'.join(given)}-{mark}")
    paths = dict(table=write_table(rows, place))
    if record:
        SWEEPS.mkdir(exist_ok=True)
        shutil.copy(paths["table"], SWEEPS / f"{find(notebook).stem[:2]}.csv")
    if number is not None:
        words = next((labels(point) for point in points if point.path), {}).get(number, number)
        paths["figure"] = _write(picture(rows, vary(rows, given), number, words), place)
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
    cost = notebook.metadata.get("efflab", {}).get("cost", {})
    row |= {name: cost.get(name) for name in FROM_COST}
    row["machine"] = machine_name(cost["machine"]) if "machine" in cost else None
    row["versions"] = ", ".join(f"{k} {v}" for k, v in cost.get("versions", {}).items()) or None
    for verdict in of_kind(notebook, VERDICT):
        for part in verdict["parts"]:
            place = f"{verdict['claim']}/{part['id']}"
            row[place] = part["outcome"]
            for figure in part["figures"]:
                row |= _numbers(f"{place}/{figure['id']}", figure)
    for i, figure in enumerate(of_kind(notebook, PLOTLY), start=1):
        meta = figure["layout"].get("meta") or {}
        row |= {f"figure {i}/{name}": value for name, value in meta.items() if is_number(value)}
    return row


def _numbers(name: str, figure: dict) -> dict:
    sampled = {f"{name}/{end}": figure[end] for end in ENDS if figure[end] is not None}
    return {name: figure["value"]} | sampled


def vary(rows: Sequence[dict], names: Sequence[str]) -> list[str]:
    """The parameters that differ between rows; at least one."""
    varied = [name for name in names if len({repr(row.get(name)) for row in rows}) > 1]
    return varied or list(names)[:1]


def key_number(rows: Sequence[dict], given: Sequence[str], show: str | None = None) -> str | None:
    """The column to draw: `show`, or the first number that the parameters change, or None."""
    numbers = {
        name: len({row.get(name) for row in rows}) > 1
        for name in dict.fromkeys(name for row in rows for name in row)
        if name not in (*given, *ABOUT[1:]) and any(is_number(row.get(name)) for row in rows)
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
    """`place`.csv with a column a name, and where pyarrow is installed `place`.parquet."""
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


def _write(figure, place: Path) -> Path:
    """A PNG, or where there is no browser to draw it a page with the figure in it."""
    import kaleido
    from kaleido.errors import BrowserFailedError, ChromeNotFoundError

    try:
        # it would load MathJax from the network, which no figure needs
        kaleido.start_sync_server(mathjax=False, silence_warnings=True)
        png = figure_png(figure)
        kaleido.stop_sync_server()
    except (ChromeNotFoundError, BrowserFailedError):
        path = place.with_name(f"{place.name}.html")
        write_atomically(path, figure.to_html(include_plotlyjs=True))
        return path
    path = place.with_name(f"{place.name}.png")
    write_atomically(path, png)
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
    return significant(value, 4) if is_number(value) else str(value)
