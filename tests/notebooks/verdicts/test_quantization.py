"""Notebook 09's verdicts: every outcome that each can come to."""

import pytest

from efflab import lab, points
from efflab.experiments import int8_ranges as ranges
from efflab_rooms.quantization import verdicts


def sizes(linear, both):
    """Files that are so many per cent smaller."""
    smaller = {"linear": linear, "all": both, "groups": both - 3}
    parts = {"tables (token, position, type)": 50, "linear maps": 50}
    full = 4 * sum(parts.values())
    files = {key: (0, full - full * share / 100) for key, share in smaller.items()}
    return verdicts.size_evidence(files, parts)


@pytest.mark.parametrize(
    ("linear", "both", "word"),
    [
        (35, 74.7, "holds if"),
        (74, 74.7, "holds"),
        (35, 74, "holds if"),
        (73.9, 74, "holds if"),
        (35, 73.9, "does not hold"),
    ],
)
def test_int8_size(linear, both, word):
    assert verdicts.int8_size(sizes(linear, both)).word == word


def test_evidence_of_the_size_is_weighed_files():
    model = points.encoder()[0]
    files, full = verdicts.file_sizes(model), points.weight_bytes(model)
    found = lab.by_id(verdicts.size_evidence(files, verdicts.parts(model)))
    assert found["all"].value == pytest.approx(100 - 100 * files["all"][1] / full, abs=1e-3)
    assert found["half"].value == pytest.approx(100 - 2 * (100 - found["all"].value))
    assert found["tables"].value == pytest.approx(52.7, abs=0.5)
    assert found["tables-large"].value < 1


GOOD, BAD, UNSURE = (-0.001, 0.0, 0.001), (-0.3, -0.2, -0.1), (-0.02, -0.005, 0.01)


def accuracy(control=BAD, rest=GOOD, **changed):
    """Runs of every form with an MRR of fp32 of 0.8; the bar is 0.008 below."""
    runs = {}
    for form in ranges.FORMS:
        low, middle, high = control if form == ranges.CONTROL else rest
        runs[form] = {"mrr fp32": 0.8, "mrr less fp32": middle, "mrr less fp32 low": low}
        runs[form] |= {"mrr less fp32 high": high, "cosine p5": 0.99}
        runs[form] |= {"cosine p5 low": 0.98, "cosine p5 high": 0.995}
    for name, (low, middle, high) in changed.items():
        run = runs[getattr(ranges, name) if hasattr(ranges, name) else verdicts.CUT]
        run |= {"mrr less fp32": middle, "mrr less fp32 low": low, "mrr less fp32 high": high}
    return verdicts.accuracy_evidence(runs)


@pytest.mark.parametrize(
    ("evidence", "word"),
    [
        (accuracy(), "holds"),
        (accuracy(control=GOOD), "undecided"),  # without any adjusting it is kept as well
        (accuracy(control=(-0.3, -0.2, -0.008)), "undecided"),  # at the bar it is kept
        (accuracy(rest=(-0.0055, 0.0, 0.001)), "holds"),
        (accuracy(rest=(-0.0057, 0.0, 0.001)), "undecided"),  # one of ten by chance
        (accuracy(rest=UNSURE, APART=GOOD), "holds if"),
        (accuracy(rest=(-0.3, -0.2, -0.008)), "undecided"),
        (accuracy(rest=BAD), "does not hold"),
        (accuracy(rest=UNSURE), "undecided"),
        (accuracy(ONE_SCALE=BAD), "holds if"),
        (accuracy(rest=UNSURE, SMOOTHED=GOOD), "holds if"),
    ],
)
def test_int8_accuracy(evidence, word):
    assert verdicts.int8_accuracy(evidence).word == word


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (dict(ONE_SCALE=BAD), "each weight channel has its own scale"),
        (dict(cut=BAD), "no outliers are cut off"),
        (dict(ONE_SCALE=BAD, cut=BAD), "its own scale and no outliers"),
        (dict(ONE_SCALE=BAD, cut=BAD, DYNAMIC=UNSURE), "moved into the weights"),
        (dict(SMOOTHED=UNSURE), "outliers are multiplied apart"),
        (dict(SMOOTHED=UNSURE, APART=UNSURE), "one of {n} ways of {all}"),
        (dict(SMOOTHED=UNSURE), "or 0.01% of the values are cut off"),
        (dict(rest=UNSURE, APART=GOOD), "in floats; {n} ways of {all}"),
    ],
)
def test_the_condition_says_what_is_enough(changed, said):
    assert said in verdicts.int8_accuracy(accuracy(**changed)).condition


def test_the_recorded_forms_give_the_figures():
    found = lab.by_id(verdicts.accuracy_evidence(verdicts.recorded_forms()))
    row = verdicts.recorded_forms()[ranges.SMOOTHED]
    assert found["smoothed"].value == row["mrr less fp32"]
    assert found["control"].high < 0
    assert set(verdicts.WAYS) == set(ranges.FORMS) - {ranges.CONTROL}  # no way is left out
    outcome = verdicts.int8_accuracy(tuple(found.values()))
    assert (outcome.values["n"], outcome.values["all"]) == (2, 10)
