"""What a reader may type for a number: read whole, in the question's unit, or refused."""

import ast
import itertools
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

import efflab_rooms
from efflab import lab
from efflab.lab import text
from efflab.lab.text import number, with_unit
from efflab.lab.typed import MULTIPLIERS, UNITS, parse
from efflab.publishing.catalog import sources

READ = {
    # a comma before one group of three digits or more parts thousands, else it is a decimal comma
    "1,000": 1000,
    "1,234.5": 1234.5,
    "1,000,000": 1e6,
    "1,5": 1.5,
    "0,125": 0.125,
    ",5": 0.5,
    "10,25": 10.25,
    "-0,5": -0.5,
    "1 000 000": 1e6,
    "1_000": 1000,
    "1'000": 1000,
    "１０００": 1000,
    "１，０００": 1000,
    "１０００，5。": 1000.5,
    "3。5": 3.5,
    "−3": -3,
    "５％": 5,
    "10k": 1e4,
    "4 K": 4000,
    "3M": 3e6,
    "1.5B": 1.5e9,
    "2 million": 2e6,
    "4Ki": 4096,
    "3 万": 3e4,
    "1亿": 1e8,
    "2.5千": 2500,
    "3 百万": 3e6,
    "1 万亿": 1e12,
    "3万个 token": 3e4,
    "1e3": 1000,
    "1.5E-3": 0.0015,
    "1.5×10^3": 1500,
    "2·10⁶": 2e6,
    "10⁻⁵": 1e-5,
    "≈ 3": 3,
    "~3": 3,
    "～３": 3,
    "about 3k": 3000,
    "大约 3 倍": 3,
    "5 左右": 5,
    "5?": 5,
}


@pytest.mark.parametrize("typed", READ)
def test_it_is_read_as_it_is_meant(typed):
    assert parse(typed) == READ[typed]


@pytest.mark.parametrize(
    "typed",
    [
        "1,,2",
        "1,00,000",
        "1,000,5",
        "12345,678",
        "1.234,5",
        "1.000.000",
        "1, 000",
        "00,125",
        "3-5",
        "3–5",
        "3~5",
        "3 to 5",
        "3到5",
        "3±1",
        "<5",
        "5+",
        "1 1/2",
        "1½",
        "x5",
        "3 4",
        "3m",
        "5 apples",
        "3kk",
        "3k万",
        "0x10",
        "nan",
        "inf",
        "1/0",
        "1/2",
        "2^12",
        "1e999",
        "2^99999",
        "三",
        "",
        "1" * 90_000,
        "-" * 5000,
    ],
)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_anything_else_is_refused_in_one_sentence(typed, language):
    lab.use_language(language)
    with pytest.raises(ValueError, match=r"0\.5") as refused:
        parse(typed)
    assert len(str(refused.value)) < 160
    assert text.missing == set()


@pytest.mark.parametrize("typed", [True, None, float("nan"), float("inf"), 1j, [3]])
def test_a_value_that_is_no_number_is_refused_by_name(typed):
    with pytest.raises(ValueError, match="guess="):
        parse(typed)


@pytest.mark.parametrize(
    ("typed", "unit", "value"),
    [
        ("2 s", "ms", 2000),
        ("3 秒", "ms", 3000),
        ("1 min", "ms", 60_000),
        ("5", "ms", 5),
        ("3 GB", "MB", 3000),
        ("1 MiB", "MB", 1.048576),
        ("5 mb", "MB", 5),
        ("2k ms", "ms", 2000),
        ("4k", "tokens", 4000),
        ("1 token", "tokens", 1),
        ("5 个", "kernels", 5),
        ("3×", "x", 3),
        ("3-fold", "x", 3),
        ("12 per cent", "%", 12),
        ("1.2 bpb", "bits per byte", 1.2),
    ],
)
def test_a_unit_of_the_questions_kind_is_converted(typed, unit, value):
    assert parse(typed, unit) == pytest.approx(value)


@pytest.mark.parametrize(
    ("typed", "unit"),
    [
        ("12 %", "x"),
        ("3x", "%"),
        ("5 heads", "tokens"),
        ("5 ms", "MB"),
        ("3 MB", "tokens"),
        ("3M", "MB"),
        ("5 GB", "bits per byte"),
    ],
)
def test_a_unit_of_another_kind_is_refused_with_the_questions_own(typed, unit):
    with pytest.raises(ValueError, match=f"alone or in {unit}"):
        parse(typed, unit)


@given(st.text(max_size=80) | st.text("0123456789,. 'x^/ek万千%-", max_size=12))
def test_no_text_raises_anything_but_a_refusal(typed):
    with suppress(ValueError):
        assert isinstance(parse(typed), float)


@given(st.text("123456789", min_size=1, max_size=9), st.data())
def test_a_comma_never_makes_ten_times_as_much(digits, data):
    """Wherever commas stand: thousands, one decimal comma, or refused."""
    cuts = data.draw(st.sets(st.integers(1, max(len(digits) - 1, 1)), max_size=3))
    typed = "".join("," * (i in cuts) + digit for i, digit in enumerate(digits))
    try:
        value = parse(typed)
    except ValueError:
        return
    assert typed in (digits, f"{value:,.0f}") or value == float(typed.replace(",", "."))


@given(st.floats(-1e300, 1e300), st.integers(1, 15))
def test_what_number_shows_is_read_back(value, digits):
    assert parse(number(value, digits)) == pytest.approx(value, rel=0.51 * 10 ** (1 - digits))


@given(
    st.floats(1e-6, 1e9) | st.integers(0, 10**9),
    st.sampled_from(["", "x", "%", "ms", "MB", "tokens", "heads", "kernels", "bits per byte"]),
    st.sampled_from(["en", "zh"]),
)
def test_what_is_shown_with_its_unit_is_read_back(value, unit, language):
    lab.use_language(language)
    assert parse(with_unit(value, unit, 12), unit) == pytest.approx(value)
    lab.use_language("en")


def asked_units(source):
    """The units of a notebook's predictions."""
    calls = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)]
    asked = [call for call in calls if getattr(call.func, "id", "") == "predict"]
    given = [call.args[1:2] + [k.value for k in call.keywords if k.arg == "unit"] for call in asked]
    return [unit.value for units in given for unit in units]


@pytest.mark.parametrize("number", sources())
def test_every_question_is_answered_in_its_unit_or_without(number):
    path = sources()[number]
    units = asked_units(path.read_text("utf-8"))
    assert units
    text.use_texts(efflab_rooms.texts(path.stem[3:]))
    for unit, language in itertools.product(units, ("en", "zh")):
        lab.use_language(language)
        for typed in ("4.5", with_unit(4.5, unit), f"4.5{text.unit_name(unit)}"):
            assert parse(typed, unit) == 4.5, (typed, unit)
    text.use_texts({})


@pytest.mark.parametrize("multiplier", MULTIPLIERS)
def test_every_multiplier_multiplies(multiplier):
    assert (
        parse(f"1.5 {multiplier}") == parse(f"1.5{multiplier} x") == 1.5 * MULTIPLIERS[multiplier]
    )


@pytest.mark.parametrize("kind", UNITS)
def test_every_unit_is_converted_to_every_other_of_its_kind(kind):
    names = UNITS[kind]
    if kind == "count":  # each counts its own
        return
    for unit, base in names.items():
        for typed, size in names.items():
            assert parse(f"3 {typed}", unit) == pytest.approx(3 * size / base)
