"""Notebook 15's verdicts: what its evidence says, and every outcome that a part can come to."""

from dataclasses import replace

import pytest

from efflab import bench, lab
from efflab.bench import Timing
from efflab.devices import DEVICES
from efflab.distributed.split import Split, Training
from efflab.estimate import Estimate
from efflab_rooms import texts
from efflab_rooms.choose_plan import measure, verdicts
from efflab_rooms.choose_plan.measure import Shares
from efflab_rooms.choose_plan.verdicts import (
    light_evidence,
    light_first,
    parallel_choice,
    parallel_evidence,
    profile_evidence,
    profile_first,
)

BUDGETS = ("latency", "memory", "training days", "checkpoint", "quality")
ATTENTION, FFN = Shares(0.6, 0.1, 0.2, 0.1), Shares(0.05, 0.2, 0.65, 0.1)


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


def times(windows, neurons, spread=0.01, band=0.01):
    """What a run may measure: seconds of each choice, interleaved, with the baseline's noise."""

    def timing(seconds):
        return Timing(tuple(seconds * (1 + spread * (i % 3 - 1)) for i in range(9)))

    timings = {"baseline": timing(1.0), "windows": timing(windows), "neurons": timing(neurons)}
    ratios = {k: t.ratio_interval(timings["baseline"]) for k, t in timings.items()}
    return bench.Comparison(timings, ratios, Estimate(1.0, 1 - band, 1 + band))


def measurements(windows=1.0, neurons=0.75, **noise):
    """Short texts whose FFN weighs most, and a long one of which windows save most."""
    short = (FFN, times(windows, neurons, **noise))
    long = (ATTENTION, times(0.6, 0.9, **noise))
    return {case: long if case.endswith("2048") else short for case in measure.CASES}


def drives():
    """(claim, evidence) of runs that may be."""
    for led in (leads(), leads(0.5), leads(latency=0.4), leads(checkpoint=0.9)):
        yield "light-first", light_evidence(led)
    yield "parallel-choice", parallel_evidence(*grids(), ODD, error=0.03)
    yield "parallel-choice", parallel_evidence(*grids(0.8, 1.0), ODD, error=0.03)
    yield "parallel-choice", parallel_evidence(*grids(), ODD, error=0.25)
    yield "profile-first", profile_evidence(measurements())
    yield "profile-first", profile_evidence(measurements(band=0.4))
    yield "profile-first", profile_evidence(measurements(0.7, 0.8))


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
    ("made", "word"),
    [
        (measurements(), "holds"),
        (measurements(windows=0.79), "undecided"),
        (measurements(band=0.4), "undecided"),
        (measurements(band=3.0), "undecided"),
        (measurements(0.7, 0.8), "does not hold"),
    ],
)
def test_profile_first_can_lose(made, word, both_languages):
    found = profile_first(profile_evidence(made))
    assert words(found) == {"choice": word}
    lab.verdict("profile-first", found)


def test_the_profile_is_never_compared_with_itself():
    """Whichever it picks, the other of two different models is timed beside it."""
    ratios = {e.id: e.value for e in profile_evidence(measurements())}
    assert ratios["time-192-128"] == pytest.approx(0.75)
    assert ratios["time-192-2048"] == pytest.approx(0.6 / 0.9)


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
