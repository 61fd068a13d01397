"""Formats a number for readers: rounded to significant digits, and never as 1e+03."""

import math

from efflab.errors import require_int
from efflab.rules import AnyFloat

SMALLEST_EXPONENT, LARGEST_EXPONENT = -4, 14
"""Exponents of numbers that are written in full; others get a power of ten."""
MOST_DIGITS = 17
"""A float has no more significant digits."""
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def significant(value: AnyFloat, digits: int = 3) -> str:
    """`value` with `digits` significant digits; whole digits are never rounded away.

    >>> significant(23.9617), significant(999.6), significant(7251.3), significant(1.5e-7)
    ('24', '1,000', '7,251', '1.5×10⁻⁷')
    """
    require_int("digits", digits, 1, MOST_DIGITS)
    value = float(value) + 0.0  # a negative zero is 0
    if not math.isfinite(value):
        return str(value)
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = int(exponent)
    if not SMALLEST_EXPONENT <= power <= LARGEST_EXPONENT:
        times = {1.0: "", -1.0: "-"}.get(float(mantissa), f"{_drop_zeros(mantissa)}×")
        return f"{times}10{str(power).translate(RAISED)}"
    return _drop_zeros(f"{value:,.{max(digits - 1 - power, 0)}f}")


def _drop_zeros(text: str) -> str:
    """Without trailing zeros after the decimal point."""
    return text.rstrip("0").rstrip(".") if "." in text else text
