"""Numbers written out for people."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from efflab.significant import significant

FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (999.6, 3, "1,000"), (99.6, 2, "100"), (-99.6, 2, "-100"), (9.996, 3, "10"),
        (7251.3, 3, "7,251"), (4000.5, 6, "4,000.5"), (0.1 + 0.05, 3, "0.15"), (-0.0, 3, "0"),
        (0.0001, 3, "0.0001"), (0.00009999, 2, "0.0001"), (1e-5, 3, "10⁻⁵"),
        (-1.5e-7, 3, "-1.5×10⁻⁷"),
        (9.99e14, 3, "999,000,000,000,000"), (1e15, 3, "10¹⁵"), (3.14e23, 3, "3.14×10²³"),
    ],
)  # fmt: skip
def test_the_form_is_chosen_after_rounding(value, digits, text):
    assert significant(value, digits) == text


@given(FLOATS, st.integers(1, 15))
def test_no_number_is_shown_as_a_program_writes_it(value, digits):
    text = significant(value, digits)
    assert not re.search("e|inf|nan", text)
    assert len(text) <= max(2 * digits, 21) + 6


@given(FLOATS, st.integers(1, 15))
def test_a_sign_changes_nothing_else(value, digits):
    assert significant(-value, digits).lstrip("-") == significant(value, digits).lstrip("-")
