"""Columns of text that line up in a terminal, Chinese included."""

import unicodedata
from collections.abc import Sequence

from efflab.errors import require


def align(rows: Sequence[Sequence[str]], right: Sequence[bool] = ()) -> list[str]:
    """Format rows as lines, each cell padded to its column's width.

    `right`: for each column whether it is right-aligned; default: all left-aligned.

    >>> align([["bits", "MB"], ["8", "13.5"]], right=[True, True])
    ['bits    MB', '   8  13.5']
    """
    sizes = [len(row) for row in rows]
    require(len(set(sizes)) == 1, "rows", rows, "at least one row, all of one length")
    sides = right or [False] * sizes[0]
    require(len(sides) == sizes[0], "right", right, f"{sizes[0]} values, one a column")
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(_pad, row, widths, sides)).rstrip() for row in rows]


def display_width(text: str) -> int:
    """Columns that a text takes in a terminal: two for each Chinese character."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _pad(text: str, width: int, to_right: bool) -> str:
    gap = " " * (width - display_width(text))
    return gap + text if to_right else text + gap
