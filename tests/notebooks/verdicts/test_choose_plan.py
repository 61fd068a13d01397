"""Notebook 15's verdicts: what its evidence says, and every outcome that a part can come to."""

from dataclasses import replace

import pytest

from efflab import lab
from efflab.devices import DEVICES
from efflab.distributed.split import Split, Training
from efflab.estimate import Estimate
from efflab.lab.judge import read_rules
from efflab_rooms import texts
from efflab_rooms.choose_plan import measure, verdicts
from efflab_rooms.choose_plan.verdicts import (
    light_evidence,
    light_first,
    parallel_choice,
    parallel_evidence,
    profile_evidence,
    profile_first,
)

BUDGETS = ("latency", "memory", "training days", "checkpoint", "quality")


@pytest.fixture(autouse=True)
def _texts():
    lab.text.use_texts(texts("choose_plan"))
    yield
    lab.text.use_texts({})


def leads(value=1.5, **budgets):
    """Leads by budget and model, such as an advisor may state."""
    named = {name.replace("_", " "): lead for name, lead in budgets.items()}
    return {(b, m): named.get(b, value) for b in BUDGETS for m in measure.MODELS}


def plan_of(tp=1, pp=1):
    gpt2 = measure.models()["gpt2"]
    training = Training(gpt2, DEVICES["A100 80GB SXM"], 512, 1024)
    return training.evaluate(Split(tp, pp, 1, 512))


def grids(small=1.0, huge=0.6):
    """Grids as the planner gives them, with these speeds of data parallelism alone."""
    alone, split = plan_of(), plan_of(tp=2, pp=2)
    cells = [(n, t) for n in measure.COUNTS for t in verdicts.BATCHES]
    odd = [(verdicts.ODD_COUNT, t) for t in verdicts.ODD_BATCHES]
    first = {cell: [(alone, 1.0), (alone, small)] for cell in cells}
    second = {cell: [(split, huge), (split, 0.0)] for cell in [*cells[4:], *odd]}
    return first, second


ODD = {512: 0.35, 1024: 0.7, 2048: 1.0, 4096: 1.0}


SHAPES = read_rules()["profile-first"]["choice"]["cases"]


def rivals(ratio=0.9, width=0.02, **others):
    """Cases that a record may come to: all ten shapes alike, and controls that hold."""
    alike = Estimate(ratio, ratio - width, ratio + width)
    shown = dict.fromkeys([*SHAPES, "twice", "best-profile", "best-count"], alike)
    controls = {"quality-difference": Estimate(0.001, 0, 0.002), "differ": Estimate(5, 4.5, 5.5)}
    controls["spread"] = Estimate(0.6, 0.55, 0.65)
    return shown | controls | {key.replace("_", "-"): value for key, value in others.items()}


def drives():
    """(claim, evidence) of runs that may be."""
    for led in (leads(), leads(0.5), leads(latency=0.4), leads(checkpoint=0.9)):
        yield "light-first", light_evidence(led)
    yield "parallel-choice", parallel_evidence(*grids(), ODD, error=0.03)
    yield "parallel-choice", parallel_evidence(*grids(0.8, 1.0), ODD, error=0.03)
    yield "parallel-choice", parallel_evidence(*grids(), ODD, error=0.25)
    yield "profile-first", profile_evidence(rivals())
    yield "profile-first", profile_evidence(rivals(width=0.2))
    yield "profile-first", profile_evidence(rivals(1.2))


def words(outcome):
    return {part.id: part.outcome for part in outcome.parts}


@pytest.mark.parametrize(
    ("led", "words_of_parts"),
    [
        (leads(), ("holds", "holds", "holds")),
        (leads(1.0), ("does not hold", "does not hold", "does not hold")),
        (leads(latency=0.4), ("holds", "does not hold", "holds")),
        (leads(training_days=0.4), ("holds", "holds", "does not hold")),
        (leads(memory=0.1, quality=0.0), ("holds", "holds", "holds")),
    ],
)
def test_a_light_structure_leads_on_each_budget_by_itself(led, words_of_parts, both_languages):
    found = light_first(light_evidence(led))
    assert tuple(words(found).values()) == words_of_parts
    lab.verdict("light-first", found)


def test_one_model_on_which_another_technique_leads_is_enough():
    led = leads() | {("checkpoint", "gpt2"): 0.99}
    assert words(light_first(light_evidence(led)))["checkpoint"] == "does not hold"


@pytest.mark.parametrize(
    ("small", "huge", "error", "words_of_parts"),
    [
        (1.0, 0.6, 0.03, ("holds", "holds if")),
        (0.999, 0.6, 0.03, ("does not hold", "holds if")),
        (1.0, 1.0, 0.2, ("holds", "does not hold")),
        (1.0, 0.6, 0.201, ("undecided", "undecided")),
    ],
)
def test_parallel_choice_can_lose(small, huge, error, words_of_parts, both_languages):
    evidence = parallel_evidence(*grids(small, huge), ODD, error=error)
    found = parallel_choice(evidence)
    assert tuple(words(found).values()) == words_of_parts
    lab.verdict("parallel-choice", found)


def test_the_planner_itself_can_split_a_small_model(monkeypatch):
    """Where its state does not fit: half a gigabyte a device."""
    small = replace(DEVICES["A100 80GB SXM"], memory_bytes=0.5e9)
    monkeypatch.setitem(measure.DEVICES, measure.A100, small)
    measure.choose.cache_clear()
    plan, share = measure.choose("gpt2", 8, 4096)
    measure.choose.cache_clear()
    assert plan.tp * plan.pp > 1
    assert share < 1


@pytest.mark.parametrize(
    ("cases", "word"),
    [
        (rivals(), "holds"),
        (rivals(1.0), "holds"),
        (rivals(1.04), "undecided"),
        (rivals(0.9, 0.2), "undecided"),
        (rivals(1.2), "does not hold"),
        (rivals(0.9) | {SHAPES[3]: Estimate(1.2, 1.1, 1.3)}, "does not hold"),
        (rivals(differ=Estimate(2, 1.5, 2.5)), "undecided"),
        (rivals(spread=Estimate(0.97, 0.95, 0.99)), "undecided"),
        (rivals(quality_difference=Estimate(0.02, 0.015, 0.025)), "undecided"),
    ],
)
def test_profile_first_can_lose(cases, word, both_languages):
    outcome = profile_first(profile_evidence(cases))
    assert words(outcome) == {"choice": word}
    lab.verdict("profile-first", outcome)


def test_what_this_repository_computes():
    light = light_first(light_evidence(measure.leads()))
    assert words(light) == {
        "checkpoint": "holds",
        "latency": "does not hold",
        "training": "does not hold",
    }
    split = parallel_choice(verdicts.own_parallel_evidence())
    assert words(split) == {"small": "holds", "huge": "holds if"}
    shown = {item.id: item.value for item in split.evidence}
    assert shown["odd-512-512"] < shown["odd-512-1024"] < shown["odd-512-2048"] == 1
    assert shown["unseen"] == 5.09
