"""What the command line writes as a notebook's parameters."""

import pytest

from efflab.publishing import parameters as given
from efflab.publishing.source import read_source


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("512", 512),
        ("0.5", 0.5),
        ("True", True),
        ("[1, 2]", [1, 2]),
        ("'3'", "3"),
        ("gpt2", "gpt2"),
        ("a b", "a b"),
        ("", ""),
        ("-" * 9999 + "1", "-" * 9999 + "1"),
        ("print(1)", "print(1)"),
    ],
)
def test_a_text_is_the_value_that_it_writes_or_itself(text, value):
    assert given.literal(text) == value


def test_pairs_are_name_and_value_and_each_name_once():
    assert given.parse(["n=3", "text=a=b", "empty="]) == {"n": "3", "text": "a=b", "empty": ""}
    with pytest.raises(ValueError, match="-p='n': expected name=value"):
        given.parse(["n"])
    with pytest.raises(ValueError, match="-p='n=4': expected n once"):
        given.parse(["n=3", "m=1", "n=4"])


def test_choices_of_a_repeated_name_add_up():
    assert given.parse_choices(["n=1,2", "m=a", "n=4"]) == {"n": [1, 2, 4], "m": ["a"]}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1, 2", ["1", "2"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ('"a,b", "c"', ['"a,b"', '"c"']),
        ("[1, 2],[3]", ["[1, 2]", "[3]"]),
        ("[(1, 2), 3],4", ["[(1, 2), 3]", "4"]),
        ("{'a': 1, 'b': 2},3", ["{'a': 1, 'b': 2}", "3"]),
        ("['a]',2],3", ["['a]',2]", "3"]),
        (r"'a\',b',c", [r"'a\',b'", "c"]),
        (r"'a\\',b", [r"'a\\'", "b"]),
        ("it's,a", ["it's", "a"]),
        ("a(,b", ["a(", "b"]),
        ("a),b", ["a)", "b"]),
        ("", [""]),
    ],
)
def test_commas_in_quotes_and_brackets_part_nothing(text, parts):
    assert given.split(text) == parts


def test_a_value_is_of_its_limits_kind_and_within_them():
    known, limits = {"n": 3, "rate": 1, "language": "en", "any": None}, {"rate": [0.0, 1.0]}
    fine = {"n": 5, "rate": 0.5, "language": "zh", "any": "what"}
    assert given.checked(fine, known, limits) == fine
    for wrong, message in [
        ({"m": 1}, "parameter='m': expected one of n, rate, language, any"),
        ({"n": 0.5}, "n=0.5: expected a value of type int, like 3"),
        ({"n": True}, "n=True: expected a value of type int"),
        ({"rate": "x"}, "rate='x': expected a value of type float, like 1"),
        ({"rate": 2}, "rate=2: expected 0.0 to 1.0"),
        ({"language": "fr"}, "language='fr': expected one of"),
    ]:
        with pytest.raises(ValueError, match=message):
            given.checked(wrong, known, limits)


def test_a_sources_limits_are_its_catalogs(toy):
    (toy / "catalog.toml").write_text('["90"]\nname = "90_toy"\nlimits = { n = [1, 9] }\n')
    path = toy / "src" / "90_toy.py"
    assert given.check_values_for(path, read_source(path), {"n": 9}) == {"n": 9}
    with pytest.raises(ValueError, match="n=10: expected 1 to 9"):
        given.check_values_for(path, read_source(path), {"n": 10})
