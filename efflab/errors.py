"""One way to refuse a bad argument: name it, quote it, and say what is allowed.

What is allowed is put into words only where something is refused: planners check millions of times.
"""

from collections.abc import Iterable


def require(condition: bool, name: str, value, allowed: str) -> None:
    """Raise a `ValueError` naming argument, value and what is allowed, unless `condition` holds.

    >>> require(3 > 5, "window_size", 3, "a number above 5")
    Traceback (most recent call last):
    ValueError: window_size=3: expected a number above 5
    """
    if not condition:
        raise _error(name, value, allowed)


def require_int(name: str, value, minimum: int = 1) -> None:
    """`value` must be a whole number of at least `minimum`; a wrong type is a `TypeError`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}={value!r}: expected an int, got {type(value).__name__}")
    if value < minimum:
        raise _error(name, value, f"an int of at least {minimum}")


def require_positive(name: str, value) -> None:
    """`value` must be a number above 0."""
    require(value > 0, name, value, "a positive number")


def require_one_of(name: str, value, allowed: Iterable) -> None:
    """`value` must be one of `allowed`, which the message lists."""
    allowed = tuple(allowed)
    if value not in allowed:
        raise _error(name, value, "one of " + ", ".join(map(repr, allowed)))


def _error(name: str, value, allowed: str) -> ValueError:
    return ValueError(f"{name}={value!r}: expected {allowed}")
