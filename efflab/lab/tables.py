"""Small tables as HTML and as aligned text, Chinese included."""

import numbers
from collections.abc import Mapping, Sequence

from efflab.base.alignment import align, display_width
from efflab.errors import require, require_one_of
from efflab.lab.page import emit_html, render
from efflab.lab.text import KINDS, number, tr, tr_name


def table(rows: Sequence[Mapping], columns=None, *, digits: int = 3, kind: str = "") -> None:
    """Show rows, each {header: value}, as `table([{"bits": 8, "MB": 3.4}], kind="measured")`.

    Headers and texts are translated here (`tr`). The numbers' kind (one of `KINDS`) is the last
    column: `kind` if all rows share it, else each row's own "kind". Numbers get thousands
    separators and `digits` significant digits. `columns`: the headers to show, in order, or
    {key: header}; default: those of the first row. One that no row has is a `ValueError`.
    """
    html, text = table_forms(rows, columns, digits=digits, kind=kind)
    emit_html(html, text)


def table_forms(
    rows: Sequence[Mapping], columns=None, *, digits: int = 3, kind: str = ""
) -> tuple[str, str]:
    """The table as HTML and as text."""
    require(len(rows) > 0, "rows", rows, "at least one row")
    if kind:
        require_one_of("kind", kind, KINDS)
        rows = [{**row, "kind": kind} for row in rows]
    columns = list(rows[0]) if columns is None else columns
    headers = dict(columns) if isinstance(columns, Mapping) else {c: c for c in columns}
    for key in headers:
        known = {name for row in rows for name in row}
        require_one_of("columns", key, sorted(known, key=str))
    right = {k: any(isinstance(row.get(k), numbers.Real) for row in rows) for k in headers}
    cells = [[_cell(key, row.get(key), digits) for key in headers] for row in rows]
    titles = [tr(header.replace("_", " ")) for header in headers.values()]
    sides = ["right" if is_right else "left" for is_right in right.values()]
    html = render("table", titles=titles, cells=cells, sides=sides)
    widths = [max(map(display_width, column)) for column in zip(titles, *cells, strict=True)]
    rule = ["-" * width for width in widths]
    return html, "\n".join(align([titles, rule, *cells], list(right.values())))


def _cell(key, value, digits: int) -> str:
    if key == "kind":
        require_one_of("kind", value, KINDS)
        return tr(value)
    return tr_name(value) if isinstance(value, str) else number(value, digits)
