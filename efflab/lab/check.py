"""Exercises that check themselves: not attempted, not quite (with the first mismatch), correct.

Help comes in steps: the first wrong answer is told in which direction it is off, the second gets
the hint, the third the expected value. Repeating a wrong answer does not count as a new try.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from efflab.errors import require_one_of
from efflab.lab import notebook
from efflab.lab.colours import OPEN, RIGHT, SCALE, WRONG
from efflab.lab.page import emit_html, render
from efflab.lab.text import number, tr

HINT_AT, VALUE_AT = 2, 3
"""The tries after which the hint, and the value, are shown."""
_strict = False


@dataclass(frozen=True)
class Exercise:
    """How the answer to an exercise is checked.

    `checker` is the expected value itself, or a function of the learner's answer (a number, an
    array, a function ...) that yields `(what, expected, actual)` in turn, as in

        def checker(answer):
            for n in (8, 64):
                yield tr("pairs({n})", n=n), n * n, answer(n)

    The first pair that differs is shown, from the second try on with `hint`, an English text that
    is translated when shown. Numbers and arrays may differ by the relative `tolerance`.
    On the third try arrays of at least four values are drawn.
    """

    checker: Callable | Any
    hint: str = ""
    tolerance: float = 1e-3

    def comparisons(self, answer) -> Iterable[tuple[str, Any, Any]]:
        """The (what, expected, actual) to compare, in order."""
        if callable(self.checker):
            return self.checker(answer)
        return [(tr("your answer"), self.checker, answer)]


@dataclass(frozen=True)
class Mismatch:
    """The first comparison that failed."""

    what: str
    expected: Any
    actual: Any


def check(name: str, answer) -> None:
    """Check an answer to exercise `name` ("03-1") and show what is off; never raises.

    In strict mode (`check.strict(True)`, for tests) anything but correct is an `AssertionError`.
    A name that is not one of the notebook's exercises is a `ValueError`.
    """
    require_one_of("name", name, notebook.current.exercises)
    exercise = notebook.current.exercises[name]
    status, mismatch, problem = judge(exercise, answer)
    n_tries = _count_try(name, status, mismatch, problem)
    _show(name, exercise, status, mismatch, problem, n_tries)
    if n_tries >= VALUE_AT:
        _draw(mismatch)
    if _strict:
        assert status == "correct", f"exercise {name}: {status} {mismatch or ''} {problem}"


def judge(exercise: Exercise, answer) -> tuple[str, Mismatch | None, str]:
    """(status, first mismatch, error text); status: "not attempted", "not quite" or "correct"."""
    if answer is ...:
        return "not attempted", None, ""
    try:
        for what, expected, actual in exercise.comparisons(answer):
            if actual is ... or (actual is None and expected is not None):
                return "not attempted", None, ""
            if not same(expected, actual, exercise.tolerance):
                return "not quite", Mismatch(what, expected, actual), ""
    except Exception as error:  # whatever a learner's code raises is feedback, not a crash
        return "not quite", None, f"{type(error).__name__}: {error}"
    return "correct", None, ""


def _count_try(name: str, status: str, mismatch: Mismatch | None, problem: str) -> int:
    """Number of different wrong results so far, including this one; 0 once correct."""
    if status != "not quite":
        if status == "correct":
            notebook.current.tries.pop(name, None)
        return 0
    tries = notebook.current.tries.setdefault(name, [])
    result = (mismatch.what, brief(mismatch.actual)) if mismatch else problem
    if result not in tries:
        tries.append(result)
    return len(tries)


def same(expected, actual, tolerance: float = 1e-3) -> bool:
    """Equal; numbers, arrays and tensors of equal shape within the relative tolerance."""
    arrays = _arrays(expected, actual)
    if arrays is None:
        return bool(expected == actual)
    a, b = arrays
    if a.dtype.kind not in "biuf" or b.dtype.kind not in "biuf":
        return a.shape == b.shape and bool(np.all(a == b))
    return a.shape == b.shape and bool(_close(a, b, tolerance).all())


def _arrays(expected, actual) -> tuple[np.ndarray, np.ndarray] | None:
    """Both as arrays; None where one cannot be, such as lists of different lengths."""
    try:
        return _array(expected), _array(actual)
    except (TypeError, ValueError, RuntimeError):
        return None


def _array(value) -> np.ndarray:
    """A value as an array, also a tensor with a gradient, or of a type that numpy lacks (bf16)."""
    if not hasattr(value, "detach"):
        return np.asarray(value)
    tensor = value.detach().cpu()
    try:
        return tensor.numpy()
    except TypeError:
        return tensor.float().numpy()


def _close(expected: np.ndarray, actual: np.ndarray, tolerance: float) -> np.ndarray:
    """Entrywise comparison; entries near zero are compared relative to the array's largest."""
    a, b = expected.astype(float), actual.astype(float)
    known = np.abs(a[np.isfinite(a)])
    size = known.max() if known.size else 0.0
    return np.isclose(b, a, rtol=tolerance, atol=tolerance * size * 1e-3, equal_nan=True)


def direction(expected, actual, tolerance: float = 1e-3) -> str:
    """In which direction and how far a wrong result is off, without the value; "" if unknown.

    >>> direction(10, 21), direction([1, 2], [1, 2, 3])
    ('yours is about 2 times too large', 'another shape is asked than yours, (3,)')
    """
    arrays = _arrays(expected, actual)
    if arrays is None:
        return ""
    a, b = arrays
    if a.dtype.kind not in "iuf" or b.dtype.kind not in "iuf":
        return ""
    if a.shape != b.shape:
        return tr("another shape is asked than yours, {shape}", shape=b.shape)
    if a.ndim == 0:
        return _how_far(float(a), float(b))
    places = np.argwhere(~_close(a, b, tolerance))
    place = places[0].tolist()
    how = _how_far(float(a[*place]), float(b[*place]))
    numbers = dict(n=len(places), all=a.size, place=place)
    return tr("{n} of {all} entries differ, the first at {place}: {how}", **numbers, how=how)


def _how_far(expected: float, actual: float) -> str:
    if math.isnan(actual):
        return tr("yours is not a number")
    if expected * actual < 0:
        return tr("yours has the other sign")
    large = actual > expected if expected >= 0 else actual < expected
    ends = sorted((abs(expected), abs(actual)))
    if ends[0] > 0 and 1.5 <= ends[1] / ends[0] < math.inf:
        times = number(ends[1] / ends[0], 1)
        if large:
            return tr("yours is about {n} times too large", n=times)
        return tr("yours is about {n} times too small", n=times)
    return tr("yours is too large") if actual > expected else tr("yours is too small")


LOOKS = {"correct": ("✓", RIGHT), "not quite": ("✗", WRONG), "not attempted": ("…", OPEN)}
"""Status -> mark and colour."""


def _show(name, exercise, status, mismatch, problem, n_tries) -> None:
    mark, colour = LOOKS[status]
    title = f"{mark} {tr('Exercise {name}: {status}', name=name, status=tr(status))}"
    lines = []
    if status == "not attempted":
        lines.append(tr("Fill in the cell above, run it, then run this one again."))
    if mismatch:
        lines.append(mismatch.what)
        if n_tries >= VALUE_AT:
            lines.append(tr("expected: {value}", value=brief(mismatch.expected)))
        lines.append(tr("yours: {value}", value=brief(mismatch.actual)))
        lines.append(direction(mismatch.expected, mismatch.actual, exercise.tolerance))
    if problem:
        lines.append(tr("Your code raised {problem}", problem=problem))
    if exercise.hint and n_tries >= HINT_AT:
        lines.append(tr("Hint: {hint}", hint=tr(exercise.hint)))
    lines.append(_outlook(exercise, mismatch, n_tries))
    lines = [line for line in lines if line]
    html = render("exercise", colour=colour, title=title, lines=lines)
    emit_html(html, "\n".join([title, *("  " + line for line in lines)]))


def _outlook(exercise: Exercise, mismatch: Mismatch | None, n_tries: int) -> str:
    """What another wrong answer will show."""
    if exercise.hint and 0 < n_tries < HINT_AT:
        return tr("Another answer brings the hint.")
    if mismatch and 0 < n_tries < VALUE_AT:
        return tr("Another answer brings the value.")
    return ""


def brief(value) -> str:
    """A value in one short line; an array by its first entries and its shape."""
    if hasattr(value, "shape") and np.ndim(value) > 0:
        array = _array(value)
        entries = array.ravel()[:6].tolist()
        first = ", ".join(number(v, 4) if isinstance(v, int | float) else str(v) for v in entries)
        more = ", ..." if array.size > 6 else ""
        return tr("[{first}] of shape {shape}", first=first + more, shape=array.shape)
    if hasattr(value, "item"):
        value = value.item()
    text = number(value, 5) if isinstance(value, int | float | bool) else repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _draw(mismatch: Mismatch | None) -> None:
    from efflab.lab import figures

    arrays = mismatch and _arrays(mismatch.expected, mismatch.actual)
    if arrays is None:
        return
    expected, actual = arrays
    if expected.shape != actual.shape or expected.ndim not in (1, 2) or expected.size < 4:
        return
    if any(array.dtype.kind not in "biuf" for array in arrays):
        return
    if expected.ndim == 1:
        pair = {tr("expected"): expected, tr("your result"): actual}
        figures.show(figures.line(range(len(expected)), pair, mismatch.what, height=280))
        return
    fig = figures.panels([tr("expected"), tr("your result")], mismatch.what)
    both = np.stack([expected, actual]).astype(float)
    scale = dict(zmin=both.min(), zmax=both.max(), colorscale=SCALE)
    for column, z in enumerate(both, start=1):
        fig.add_heatmap(z=z, **scale, showscale=column == 2, row=1, col=column)
    fig.update_yaxes(autorange="reversed")
    figures.show(fig)


def strict(on: bool = True) -> None:
    """Make `check` raise an `AssertionError` unless the answer is correct (tests use it)."""
    global _strict
    _strict = bool(on)


check.strict = strict
