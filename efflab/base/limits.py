"""What a notebook's parameters may be: the `limits` of `notebooks/catalog.toml`.

A limit says what the code supports, not where a verdict changes. It is `[low, high]`,
`{ low = 64, high = 512, step = 64 }`, the list of allowed values (texts, or numbers other than
two, since two are a range), or "model": a preset's name, or a model's config as a file.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from efflab.base.places import DATA_DIR
from efflab.base.toml_files import read_toml
from efflab.config import PRESETS
from efflab.errors import require, require_finite, require_one_of, require_positive

Limit = list | Mapping | str
MODEL = "model"
CATALOG = DATA_DIR.parent / "notebooks" / "catalog.toml"


def entry_of(name: str, catalog: Path = CATALOG) -> dict:
    """The catalog's entry of notebook "03_sparse_attention"; {} for one that is not listed."""
    return read_toml(catalog).get(name[:2], {}) if catalog.exists() else {}


def in_words(limit: Limit) -> str:
    """A limit in words, for the comment beside the parameter and for error messages.

    >>> in_words([16, 512]), in_words({"low": 64, "high": 512, "step": 64}), in_words([2, 3, 8])
    ('16 to 512', '64 to 512 in steps of 64', '2, 3 or 8')
    """
    _require_limit(limit)
    if isinstance(limit, str):
        return "a preset's name or the path of a config.json"
    if isinstance(limit, Mapping):
        return "{low} to {high} in steps of {step}".format(**limit)
    if _is_range(limit):
        return f"{limit[0]} to {limit[1]}"
    *first, last = map(str, limit)
    return f"{', '.join(first)} or {last}" if first else last


def kind(limit: Limit) -> type:
    """The type of values within the limit: `float` if one of its numbers is, else `int`; or `str`.

    >>> kind([0.25, 25]), kind([2, 3, 8]), kind({"low": 64, "high": 512, "step": 64}), kind(["a"])
    (<class 'float'>, <class 'int'>, <class 'int'>, <class 'str'>)
    """
    _require_limit(limit)
    if isinstance(limit, str):
        return str
    values = limit.values() if isinstance(limit, Mapping) else limit
    kinds = {type(value) for value in values}
    return float if float in kinds else kinds.pop()


def is_a(kind: type, value) -> bool:
    """Whether `value` is of the kind; an int may stand for a float, but a bool for no number.

    >>> is_a(float, 1), is_a(int, 1.0), is_a(int, True), is_a(str, "a")
    (True, False, False, True)
    """
    fits = isinstance(value, int | float if kind is float else kind)
    return fits and isinstance(value, bool) == (kind is bool)


def allows(limit: Limit, value) -> bool:
    """Whether `value` is of the limit's kind and within it."""
    if not is_a(kind(limit), value):
        return False
    if isinstance(limit, str):
        return value in PRESETS or os.path.exists(os.path.expanduser(value))
    if isinstance(limit, Mapping):
        if not limit["low"] <= value <= limit["high"]:  # rejects NaN too
            return False
        steps = (value - limit["low"]) / limit["step"]
        return abs(steps - round(steps)) < 1e-9  # a step such as 0.1 is not exact in binary
    return limit[0] <= value <= limit[1] if _is_range(limit) else value in limit


def require_within(values: Mapping, limits: Mapping[str, Limit]) -> None:
    """Each of `values` that has a limit must be within it: a `ValueError` names both."""
    for name, value in values.items():
        if name in limits:
            words, whole = in_words(limits[name]), kind(limits[name]) is int
            words += " (a whole number)" if whole and isinstance(value, float) else ""
            require(allows(limits[name], value), name, value, words)


def _require_limit(limit: Limit) -> None:
    """Refuse a limit of none of the forms that the module's docstring lists."""
    if isinstance(limit, str):
        return require_one_of("limit", limit, (MODEL,))
    if isinstance(limit, Mapping):
        require(limit.keys() == {"low", "high", "step"}, "limit", limit, "low, high and step")
        require_finite("low of limit", limit["low"])
        require_finite("high of limit", limit["high"])
        require_positive("step of limit", limit["step"])
        return
    require(len(limit) > 0, "limit", limit, "at least one value")
    if not all(isinstance(value, str) for value in limit):
        for i, value in enumerate(limit):
            require_finite(f"limit[{i}]", value)


def _is_range(limit: list) -> bool:
    return len(limit) == 2 and all(isinstance(end, int | float) for end in limit)
