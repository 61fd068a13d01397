"""Notebook 15's verdicts: every outcome that each can come to."""

import pytest

from efflab import lab
from efflab.lab import Evidence
from efflab_rooms import texts
from efflab_rooms.choose_plan import measure, verdicts

LED = list(verdicts.LEADS)
FIRST = dict.fromkeys(LED, 2.0) | {"shared-flops": 1.0, "image-flops": 13.8}
SMALL, HUGE = ([f"{size}-{n}" for n in measure.COUNTS] for size in ("small", "huge"))
PARTED = dict.fromkeys(SMALL, 7.0) | dict.fromkeys(HUGE, 18.0)
PARTED |= {"tensor": 100.0, "planner-error": 5.0}
FASTER = {
    "time-128": (0.7, 0.65, 0.75),
    "time-512": (1.0, 1.0, 1.0),
    "time-2048": (1.0, 1.0, 1.0),
    "changed": (1, None, None),
    "band": (5.0, None, None),
}


@pytest.fixture(autouse=True)
def _texts():
    lab.text.use_texts(texts("choose_plan"))
    yield
    lab.text.use_texts({})


def outcome_of(rule, values, changes):
    def evidence(key, value):
        value, low, high = value if isinstance(value, tuple) else (value, None, None)
        return Evidence(key, "x", value, low=low, high=high)

    return rule([evidence(key, value) for key, value in (values | changes).items()])


@pytest.mark.parametrize(
    ("changes", "word", "told"),
    [
        ({}, "holds", ""),
        ({key: 1.0 for key in LED if key != "checkpoint"}, "holds if", "the checkpoint is"),
        ({"latency": 0.5}, "holds if", "one of the 4 budgets"),
        ({key: 0.9 for key in LED if key != "memory"}, "holds if", "one of the 1 budgets"),
        (dict.fromkeys(LED, 1.0), "does not hold", ""),
    ],
)
def test_light_first_can_lose(changes, word, told, both_languages):
    found = outcome_of(verdicts.light_first, FIRST, changes)
    assert found.word == word
    assert told in found.record("light-first")["condition"]
    lab.verdict("light-first", found)


@pytest.mark.parametrize(
    ("changes", "word", "told"),
    [
        ({}, "holds", ""),
        ({"small-512": 0.0}, "holds if", "a device has 8 or more"),
        ({"huge-512": 0.0, "small-64": 0.0}, "holds if", "has 64 or more"),
        (dict.fromkeys(SMALL, 0.0), "does not hold", ""),
        (dict.fromkeys(HUGE, 0.0), "does not hold", ""),
        ({"planner-error": 20.1}, "undecided", ""),
        ({"planner-error": 20.0}, "holds", ""),
    ],
)
def test_parallel_choice_can_lose(changes, word, told, both_languages):
    found = outcome_of(verdicts.parallel_choice, PARTED, changes)
    assert found.word == word
    assert told in found.record("parallel-choice")["condition"]
    lab.verdict("parallel-choice", found)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "holds"),
        ({"band": 30.0}, "undecided"),
        ({"time-128": (0.95, 0.9, 1.0)}, "undecided"),
        ({"changed": 0}, "undecided"),
        ({"time-512": (1.2, 1.1, 1.3)}, "does not hold"),
        ({"time-512": (1.2, 1.04, 1.3)}, "holds"),
        ({"time-128": 1.2}, "does not hold"),
        ({"time-128": 0.8}, "holds"),
    ],
)
def test_profile_first_can_lose(changes, word, both_languages):
    found = outcome_of(verdicts.profile_first, FASTER, changes)
    assert found.word == word
    lab.verdict("profile-first", found)


def test_what_this_repository_computes():
    light_outcome = verdicts.light_first(verdicts.light_evidence())
    assert light_outcome.word == "holds if"
    assert "checkpoint" in light_outcome.condition
    assert light_outcome.evidence[0].id == "checkpoint"  # what decides stands first
    split = verdicts.parallel_choice(verdicts.parallel_evidence())
    assert split.word == "holds if"
    assert split.values["each"] == 64
