"""Errors for invalid arguments: they name the argument, quote its value and say what is allowed.

The text is formatted only when an error is raised: planners check millions of values.
It is kept as a template and its values, so that it can be translated.
"""

from collections.abc import Iterable, Mapping
from math import isfinite
from numbers import Integral, Real

LARGEST = 2**63 - 1
"""Upper bound of counts and sizes: more would not fit into a tensor's or a file's index."""


class Refusal(ValueError):
    """A value that is not allowed: its `name`, the `value` as quoted, and what is `allowed`.

    `allowed` is an English template, `fields` its values, and `words` the filled template.
    """

    frame = "{name}={value}: expected {allowed}"

    def __init__(self, name: str, value: str, allowed: str, fields: Mapping[str, object]):
        self.name, self.value, self.allowed, self.fields = name, value, allowed, dict(fields)
        self.words = allowed.format(**fields) if fields else allowed
        super().__init__(self.frame.format(name=name, value=value, allowed=self.words, **fields))

    def __reduce__(self):
        """For pickling between processes: by default only the message would be passed on."""
        return type(self), (self.name, self.value, self.allowed, self.fields)


class WrongType(Refusal, TypeError):
    """A value of the wrong type, which `fields` name; also a `ValueError`, to be caught as one."""

    frame = "{name}={value}: expected {allowed}, got {type}"


def require(condition: bool, name: str, value, allowed: str, **fields) -> None:
    """Raise a `ValueError` naming argument, value and what is allowed, unless `condition` holds.

    >>> require(3 > 5, "window_size", 3, "a number above {low}", low=5)
    Traceback (most recent call last):
    efflab.errors.Refusal: window_size=3: expected a number above 5
    """
    if not condition:
        raise Refusal(name, quote(value), allowed, fields)


def require_int(name: str, value, minimum: int = 1, maximum: int = LARGEST) -> None:
    """`value` must be a whole number in these limits; a wrong type is a `TypeError`."""
    if not is_int(value):
        raise wrong_type(name, value, "an int")
    if value < minimum:
        require(False, name, value, "an int of at least {low}", low=minimum)
    if value > maximum:
        require(False, name, value, "an int of at most {high}", high=maximum)


def require_number(name: str, value) -> None:
    """`value` must be a finite number of at least 0; a wrong type is a `TypeError`."""
    require_finite(name, value)
    require(value >= 0, name, value, "a number of at least {low}", low=0)


def require_positive(name: str, value) -> None:
    """`value` must be a finite number above 0; a wrong type is a `TypeError`."""
    require_finite(name, value)
    require(value > 0, name, value, "a positive number")


def require_finite(name: str, value) -> None:
    """`value` must be a number, neither infinite nor NaN; a wrong type is a `TypeError`."""
    if not is_number(value):
        raise wrong_type(name, value, "a number")
    require(_is_finite(value), name, value, "a finite number")


def require_interval(name: str, value, low, high) -> None:
    """`value` and the ends of its interval must be finite numbers, `low <= value <= high`."""
    for part, number in {name: value, f"{name}, low": low, f"{name}, high": high}.items():
        require_finite(part, number)
    require(low <= value <= high, name, value, f"a number in its interval, {low} to {high}")


def require_figure(name: str, value, low, high) -> None:
    """`value` must be finite, and inside its interval where it has one, with both ends."""
    both = (low is None) == (high is None)
    require(both, f"{name}, low", low, "both ends of the interval or neither")
    if low is None:
        require_finite(name, value)
    else:
        require_interval(name, value, low, high)


def require_one_of(name: str, value, allowed: Iterable) -> None:
    """`value` must be one of `allowed`, which the message lists."""
    allowed = tuple(allowed)
    if not any(_is_same(value, a) for a in allowed):
        require(False, name, value, "one of {options}", options=", ".join(map(repr, allowed)))


def is_int(value) -> bool:
    """Whether it is an integer: numpy's too, but not a bool and not an array."""
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def is_number(value) -> bool:
    """Whether it is a real number: numpy's too, but not a bool and not an array."""
    return type(value) is float or (isinstance(value, Real) and not isinstance(value, bool))


def wrong_type(name: str, value, allowed: str) -> WrongType:
    """The error to raise for a value of a type that is not allowed."""
    return WrongType(name, quote(value), allowed, {"type": type(value).__name__})


def quote(value) -> str:
    """The value's `repr`, cut to about a line; for a tensor or array its type and shape.

    >>> quote("x" * 1000)
    "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'"
    """
    if hasattr(value, "dtype") and hasattr(value, "shape") and len(value.shape):
        kind = str(value.dtype).removeprefix("torch.")
        return f"{type(value).__name__}({kind}, {tuple(value.shape)})"
    try:
        text = repr(value)
    except Exception:  # an int of 5,000 digits, or whatever a foreign __repr__ raises
        return f"<{type(value).__name__}>"
    return text if len(text) <= 80 else f"{text[:40]}...{text[-37:]}"


def _is_same(value, allowed) -> bool:
    """Equal and of the same type: True is not 1, and an array would compare by element."""
    same_type = is_int(value) if is_int(allowed) else isinstance(value, type(allowed))
    return same_type and value == allowed


def _is_finite(value) -> bool:
    try:
        return isfinite(value)
    except OverflowError:  # an int beyond all floats
        return False
