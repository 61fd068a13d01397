"""Numbers written out for people."""

import ast
import re

import pytest
from code_files import code_files
from hypothesis import given
from hypothesis import strategies as st

from efflab.base.significant import significant
from efflab.publishing.catalog import sources

FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (999.6, 3, "1,000"),
        (99.6, 2, "100"),
        (-99.6, 2, "-100"),
        (9.996, 3, "10"),
        (7251.3, 3, "7,251"),
        (4000.5, 6, "4,000.5"),
        (0.1 + 0.05, 3, "0.15"),
        (-0.0, 3, "0"),
        (0.0001, 3, "0.0001"),
        (0.00009999, 2, "0.0001"),
        (1e-5, 3, "10⁻⁵"),
        (-1.5e-7, 3, "-1.5×10⁻⁷"),
        (9.99e14, 3, "999,000,000,000,000"),
        (1e15, 3, "10¹⁵"),
        (3.14e23, 3, "3.14×10²³"),
    ],
)
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


# --- Everywhere

PROGRAMS_FORM = re.compile(r"%[-+ #0]*\d*(\.\d+)?[eEgG]\b|\{[^{}]*:[-+ ,.0-9]*[eEgG]\}")
FOR_MACHINES = {
    "base/significant.py": 1,  # the rounding itself
    "experiments/dynamic_attention.py": 1,  # the key of a record's case
    "dynamic_attention/measure.py": 1,  # the same key
}
"""How many formats a file has whose text no reader sees."""


def program_formats(tree):
    """Lines on which a number is formatted with g or e: f-strings, `format`, % and `str.format`.

    One that goes straight back into `float` rounds data, and is nobody's text.
    """
    back = {
        id(node)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "float"
        for node in ast.walk(call)
    }
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FormattedValue) and node.format_spec and id(node) not in back:
            spec = ast.unparse(node.format_spec).rstrip("'\"")
            lines += [node.lineno] * (spec[-1] in "eEgG")
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "format":
            spec = getattr(node.args[1], "value", "") if len(node.args) > 1 else ""
            lines += [node.lineno] * str(spec).endswith(tuple("eEgG"))
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
            text = getattr(node.left, "value", "")
            lines += [node.lineno] * bool(PROGRAMS_FORM.search(str(text)))
        elif isinstance(node, ast.Attribute) and node.attr == "format":
            text = getattr(node.value, "value", "")
            lines += [node.lineno] * bool(PROGRAMS_FORM.search(str(text)))
    return sorted(lines)


def test_no_text_is_formatted_as_a_program_would():
    found = {
        name: lines
        for name, path in code_files().items()
        if (lines := program_formats(ast.parse(path.read_text("utf-8"))))
    }
    assert {path: len(lines) for path, lines in found.items()} == FOR_MACHINES, found
    for path in sources().values():
        assert program_formats(ast.parse(path.read_text("utf-8"))) == [], path.name


def test_the_reader_of_formats_finds_each_kind():
    code = """
f"{a:.3g} and {b:,.0f}"
f"{a:.{n}e}"
float(f"{a:.4g}")
format(a, "g")
"%.2g ms" % a
"{0:g}".format(a)
"100 % good {x}".format(x=a)
"""
    assert program_formats(ast.parse(code)) == [2, 3, 5, 6, 7]
