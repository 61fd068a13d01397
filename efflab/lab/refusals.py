"""What an explorer says when it refuses values: the message of an error, in the language in use.

Errors are raised in English by the package ("window_size=3: expected at most 2"). Their frame and
the usual ways to say what is allowed are translated here; names and values stand as they are.
"""

import re
from functools import lru_cache

from efflab.lab.text import tr

FRAMES = (
    "{name}={value}: expected {allowed}",
    "{name}={value}: expected {allowed}, got {type}",
)
ALLOWED = (
    "one of {options}",
    "an int of at least {low}",
    "a number of at least {low}",
    "a number above {low}",
    "a number from {low} to {high}",
    "a number from {low} to below {high}",
    "a number between {low} and {high}",
    "a share from {low} to {high}",
    "a share from {low} to {high} %",
    "a positive number",
    "a positive number of microseconds",
    "a finite number",
    "an int",
    "a number",
    "a text",
    "an int of at most {high}",
    "True or False",
    "{low} to {high} in steps of {step}",
    "{low} to {high}",
    "from {low} to {high}",
    "above {low}, at most {high}",
    "at least {low}",
    "at most {high}",
    "less than {high}",
    "a divisor of {n}",
    "a multiple of {n}",
    "an odd number, or 0",
    "at least one block a row",
    "at most n={n}: E and F make the sequence shorter",
)
LONG = ("value", "allowed", "options")
"""Fields that may hold spaces."""


def refusal(error: Exception) -> str:
    """An error's message; one that is no refusal of a value keeps its type beside it.

    >>> refusal(ValueError("bits=1: expected an int of at least 2"))
    'bits=1: expected an int of at least 2'
    >>> refusal(KeyError("k"))
    "KeyError: 'k'"
    """
    if not isinstance(error, ValueError | TypeError | ArithmeticError):
        return f"{type(error).__name__}: {error}"
    found = _matched(str(error), FRAMES)
    if found is None:
        return str(error)
    template, values = found
    if "allowed" in values:
        values["allowed"] = allowed_values(values["allowed"])
    return tr(template, **values)


def allowed_values(text: str) -> str:
    """What is allowed ("at most 8"), in the language in use; an unusual way to say it stays."""
    found = _matched(text, ALLOWED)
    return tr(found[0], **found[1]) if found else text


def _matched(text: str, templates: tuple) -> tuple[str, dict] | None:
    """The template that fits the text and leaves the least to its fields, and the fields."""
    fits = [(t, m.groupdict()) for t in templates if (m := _pattern(t).fullmatch(text))]
    return min(fits, key=lambda fit: sum(map(len, fit[1].values())), default=None)


@lru_cache(maxsize=64)
def _pattern(template: str) -> re.Pattern:
    def field(found: re.Match) -> str:
        return rf"(?P<{found[1]}>.+?)" if found[1] in LONG else rf"(?P<{found[1]}>\S+?)"

    return re.compile(re.sub(r"\\{(\w+)\\}", field, re.escape(template)), re.DOTALL)
