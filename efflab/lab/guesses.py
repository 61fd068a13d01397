"""The reader's own guesses, kept in `runs/predictions.json` and never sent anywhere."""

import json
import math
import os
from functools import cache
from pathlib import Path
from statistics import median

from efflab.base.files import update
from efflab.base.json_files import parse_json
from efflab.base.places import DATA_DIR
from efflab.base.stored import require_object
from efflab.errors import require
from efflab.lab.text import tr

FILE = DATA_DIR.parent / "runs" / "predictions.json"
FIELDS = dict(notebook=str, question=str, guess=float, measured=float)
DAMAGE = (ValueError, TypeError, KeyError, RecursionError, OverflowError)
"""Exceptions from reading a damaged file; ValueError: invalid JSON or UTF-8."""


def keep(notebook: str, question: str, guess: float, measured: float, path: Path = FILE) -> None:
    """Store one guess and the measured value; only the first guess at a question is stored.

    Never raises for a file: a damaged one is renamed, and if nothing can be written, nothing is
    stored; both are reported once.
    """
    row = dict(notebook=notebook, question=question, guess=guess, measured=measured)

    def add(text: str | None) -> str:
        rows = [] if text is None else _rows(text)
        exists = any((r["notebook"], r["question"]) == (notebook, question) for r in rows)
        return json.dumps(rows if exists else [*rows, row], indent=1) + "\n"

    try:
        try:
            update(path, add)
        except DAMAGE:
            aside = path.with_suffix(".damaged.json")
            os.replace(path, aside)
            said = "{name} is damaged and put aside as {aside}; your guesses are kept anew."
            _say(tr(said, name=path.name, aside=aside.name))
            update(path, add)
    except OSError as error:
        _say(tr("Your guesses are not kept: {reason}", reason=error.strerror or str(error)))


def read_guesses(path: Path = FILE) -> list[dict]:
    """All stored guesses, in order; [] with a printed line if they cannot be read."""
    try:
        return _rows(path.read_text(encoding="utf-8")) if path.exists() else []
    except (OSError, *DAMAGE) as error:
        said = "{name} cannot be read, so that there are no guesses: {reason}"
        _say(tr(said, name=path.name, reason=type(error).__name__))
        return []


@cache
def _say(line: str) -> None:
    """Print each line once per kernel."""
    print(line)


def _rows(text: str) -> list[dict]:
    """The guesses in a file's text; raises one of `DAMAGE` if it is invalid."""
    rows = [{name: row[name] for name in FIELDS} for row in parse_json(text, list)]
    for row in rows:
        require_object("guess", row, FIELDS)
    return rows


def _times_off(guess: float, measured: float) -> float:
    """How many times too high or too low a guess was; infinite if signs differ or one is 0."""
    if guess == measured:  # also at 0
        return 1.0
    ratio = guess / measured if guess * measured > 0 else math.inf
    return max(ratio, 1 / ratio)


def calibration(rows: list[dict]) -> dict:
    """Statistics of guesses: number, share within a factor of 2, median factor off, and, of the
    wrong ones, the share that was too high."""
    require(len(rows) > 0, "rows", rows, "at least one guess")
    off = [_times_off(row["guess"], row["measured"]) for row in rows]
    high = [row["guess"] > row["measured"] for row in rows if row["guess"] != row["measured"]]
    return dict(
        guesses=len(rows),
        within_2=sum(x <= 2 for x in off) / len(off),
        typical=median(off),
        too_high=sum(high) / len(high) if high else None,
    )
