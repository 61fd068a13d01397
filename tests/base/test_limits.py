"""What a parameter's limit may look like, and values that no comparison finds outside of it."""

import pytest

from efflab.base.limits import allows, in_words, kind

STEPS = {"low": 0.5, "high": 2.5, "step": 0.5}


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ([], r"limit=\[\]: expected at least one value"),
        ([1, None], r"limit\[1\]=None: expected a number"),
        ([1, "a"], r"limit\[1\]='a': expected a number"),
        ([1, float("inf")], r"limit\[1\]=inf: expected a finite number"),
        ({}, r"limit=\{\}: expected low, high and step"),
        ({None: 1}, "expected low, high and step"),
        (STEPS | {"more": 1}, "expected low, high and step"),
        (STEPS | {"low": None}, "low of limit=None: expected a number"),
        (STEPS | {"step": 0}, "step of limit=0: expected a positive number"),
        ("path", "limit='path': expected one of 'model'"),
    ],
)
@pytest.mark.parametrize("ask", [in_words, kind, lambda limit: allows(limit, 1)])
def test_a_limit_of_another_form_is_refused(ask, limit, message):
    with pytest.raises(ValueError, match=message):
        ask(limit)


@pytest.mark.parametrize("limit", [STEPS, [0.5, 2.5], [0.5, 1.0, 2.5]])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, True, None, [], "1"])
def test_what_is_no_number_within_a_limit_is_not_allowed(limit, value):
    assert not allows(limit, value)
    assert allows(limit, 2.5)


def test_a_model_is_a_preset_or_a_file(tmp_path):
    assert in_words("model") == "a preset's name or the path of a config.json"
    assert kind("model") is str
    assert allows("model", "qwen3-8b")
    assert allows("model", str(tmp_path))
    for value in (str(tmp_path / "config.json"), "x" * 10**4, "a\0b", "", 3, True, None):
        assert not allows("model", value)
