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
