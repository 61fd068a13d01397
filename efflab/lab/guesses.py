"""The reader's own guesses, kept in `runs/predictions.json` and never sent anywhere."""

import json
import math
import sys
from pathlib import Path
from statistics import median

from efflab.data import DATA_DIR
from efflab.errors import require
from efflab.files import update

FILE = DATA_DIR.parent / "runs" / "predictions.json"


def in_kernel() -> bool:
    """Whether a notebook's kernel runs this."""
    return "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None


def keep(notebook: str, question: str, guess: float, measured: float, path: Path = FILE) -> None:
    """Keep one guess beside what was measured; of a question asked again the first guess counts."""
    row = dict(notebook=notebook, question=question, guess=guess, measured=measured)

    def added(text: str | None) -> str:
        found = [] if text is None else _rows(text, path.name)
        asked = any((r["notebook"], r["question"]) == (notebook, question) for r in found)
        return json.dumps(found if asked else [*found, row], indent=1) + "\n"

    update(path, added)


def kept(path: Path = FILE) -> list[dict]:
    """All that were kept, in order; none without a file. A damaged file is a `ValueError`."""
    return _rows(path.read_text(encoding="utf-8"), path.name) if path.exists() else []


def _rows(text: str, name: str) -> list[dict]:
    """The guesses in the text of the file `name`."""
    try:
        rows = json.loads(text)
        return [
            dict(
                notebook=str(row["notebook"]),
                question=str(row["question"]),
                guess=float(row["guess"]),
                measured=float(row["measured"]),
            )
            for row in rows
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{name} is damaged ({error!r}); delete it to begin anew") from error


def factor(guess: float, measured: float) -> float | None:
    """How many times too high (above 1) or too low a guess was; None over a change of sign or a 0.

    >>> factor(2.0, 8.0), factor(0.0, 8.0)
    (0.25, None)
    """
    return guess / measured if guess * measured > 0 else None


def calibration(rows: list[dict]) -> dict:
    """Of guesses: how many, the share within a factor of 2, the typical factor off, and of those
    off the share that was too high."""
    require(len(rows) > 0, "rows", rows, "at least one guess")
    factors = [factor(row["guess"], row["measured"]) for row in rows]
    off = [math.inf if f is None else max(f, 1 / f) for f in factors]
    high = [row["guess"] > row["measured"] for row in rows if row["guess"] != row["measured"]]
    return dict(
        guesses=len(rows),
        within_2=sum(x <= 2 for x in off) / len(off),
        typical=median(off),
        too_high=sum(high) / len(high) if high else None,
    )
