"""Notebook 15's verdicts: every outcome that each can come to."""

import pytest

from efflab import lab
from efflab.lab import Figure
from efflab_rooms.choose_plan import TEXTS, light, parallel, verdicts

FIRST = dict.fromkeys(verdicts.LEADS.values(), 2.0) | {
    verdicts.SHARED_FLOPS: 1.0,
    verdicts.IMAGES: 13.8,
}
PARTED = (
    dict.fromkeys(verdicts.SMALL.values(), 7.0)
    | dict.fromkeys(verdicts.HUGE.values(), 18.0)
    | {verdicts.TENSOR: 100.0, verdicts.PLANNER: 5.0}
)
FASTER = {
    verdicts.TIMES[128]: (0.7, 0.65, 0.75),
    verdicts.TIMES[512]: (1.0, 1.0, 1.0),
    verdicts.TIMES[2048]: (1.0, 1.0, 1.0),
    verdicts.CHANGED: (1, None, None),
    verdicts.BAND: (5.0, None, None),
}


@pytest.fixture(autouse=True)
def _texts():
    lab.text.use_texts(TEXTS)
    yield
    lab.text.use_texts({})


def judged(judge, values, **changes):
    def figure(name, value):
        value, low, high = value if isinstance(value, tuple) else (value, None, None)
        return Figure(name, value, low=low, high=high)

    return judge([figure(name, value) for name, value in (values | changes).items()])


LED = verdicts.LEADS


@pytest.mark.parametrize(
    ("changes", "word", "told"),
    [
        ({}, "holds", ""),
        ({LED[b]: 1.0 for b in LED if b != "checkpoint"}, "holds if", "the checkpoint is"),
        ({LED["latency"]: 0.5}, "holds if", "one of the 4 budgets"),
        ({LED[b]: 0.9 for b in LED if b != "memory"}, "holds if", "one of the 1 budgets"),
        (dict.fromkeys(LED.values(), 1.0), "does not hold", ""),
    ],
)
def test_light_first_can_lose(changes, word, told, both_languages):
    found = judged(verdicts.light_first, FIRST, **changes)
    assert found.word == word
    assert told in found.record("light-first")["condition"]
    lab.verdict("light-first", found)


@pytest.mark.parametrize(
    ("changes", "word", "told"),
    [
        ({}, "holds", ""),
        ({verdicts.SMALL[512]: 0.0}, "holds if", "a device has 8 or more"),
        ({verdicts.HUGE[512]: 0.0, verdicts.SMALL[64]: 0.0}, "holds if", "has 64 or more"),
        (dict.fromkeys(verdicts.SMALL.values(), 0.0), "does not hold", ""),
        (dict.fromkeys(verdicts.HUGE.values(), 0.0), "does not hold", ""),
        ({verdicts.PLANNER: 20.1}, "undecided", ""),
        ({verdicts.PLANNER: 20.0}, "holds", ""),
    ],
)
def test_parallel_choice_can_lose(changes, word, told, both_languages):
    found = judged(verdicts.parallel_choice, PARTED, **changes)
    assert found.word == word
    assert told in found.record("parallel-choice")["condition"]
    lab.verdict("parallel-choice", found)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "holds"),
        ({verdicts.BAND: 30.0}, "undecided"),
        ({verdicts.TIMES[128]: (0.95, 0.9, 1.0)}, "undecided"),
        ({verdicts.CHANGED: 0}, "undecided"),
        ({verdicts.TIMES[512]: (1.2, 1.1, 1.3)}, "does not hold"),
        ({verdicts.TIMES[512]: (1.2, 1.04, 1.3)}, "holds"),
        ({verdicts.TIMES[128]: 1.2}, "does not hold"),
        ({verdicts.TIMES[128]: 0.8}, "holds"),
    ],
)
def test_profile_first_can_lose(changes, word, both_languages):
    found = judged(verdicts.profile_first, FASTER, **changes)
    assert found.word == word
    lab.verdict("profile-first", found)


def test_what_this_repository_computes():
    light_outcome = verdicts.light_first(light.light_figures())
    assert light_outcome.word == "holds if"
    assert "checkpoint" in light_outcome.condition
    assert (
        light_outcome.figures[0].name == verdicts.LEADS["checkpoint"]
    )  # what decides stands first
    split = verdicts.parallel_choice(parallel.parallel_figures())
    assert split.word == "holds if"
    assert split.values["each"] == 64
