"""Notebook 14's verdicts: what evidence says, and every outcome that its parts can come to."""

from dataclasses import replace
from itertools import product

import pytest

from efflab.config import PRESETS
from efflab.data import read_published
from efflab.estimate import Estimate
from efflab.experiments import lighten
from efflab.experiments.case_study import PRECISIONS
from efflab.experiments.case_study_latency import BOTH, INT8, LIGHT, OLDER, OPENVINO, SHIPPED
from efflab_rooms.case_study import measure, verdicts
from efflab_rooms.case_study.measure import CONFIG


def by_seed(value, spread=0.001):
    return {seed: value + spread * (seed - 1) for seed in range(3)}


def row(ratio, half=0.01, **place):
    return dict(ratio=ratio, low=ratio - half, high=ratio + half, **place)


def latencies(int8, fp32=1.0, half=0.01, band=0.0):
    """A record of times at the end of the path: INT8's with and without its instruction."""
    runs = []
    for (isa, ratio), n in product(zip((None, OLDER), int8, strict=True), (1, 4)):
        places = ((INT8, ratio), (OPENVINO, fp32))
        rows = [row(r, half, stage=BOTH, engine=engine) for engine, r in places]
        runs.append(dict(part="time", n=n, isa=isa, band=band, rows=rows))
    return dict(runs=runs)


def dynamic(recipe, tuned, half=0.001, config=CONFIG, control=0.0):
    """What training leaves of a recipe's cost, and what it does to the plain model."""
    values = {"tuned": tuned, "last-round": -0.01, "control": control}
    cases = {key: Estimate(value, value - half, value + half) for key, value in values.items()}
    return verdicts.dynamic_evidence(recipe, cases, config)


def int8(small, int8_times, shapes=PRESETS, **options):
    """Files and weights of which so much stays, and times."""
    sizes = {OPENVINO: 1000, INT8: small}
    return [
        *verdicts.size_evidence(sizes, sizes, shapes),
        *verdicts.time_evidence(latencies(int8_times, **options)),
    ]


def recipe(lost, step, served, half=0.01):
    places = product((SHIPPED, LIGHT), PRECISIONS)
    rows = [
        row(step if precision == PRECISIONS[0] else 1.0, half, stage=stage, precision=precision)
        for stage, precision in places
    ]
    bits = by_seed(1 + lost / 100, 0.0), by_seed(1.0, 0.0001)
    trained = verdicts.recipe_evidence(*bits, dict(rows=rows, band=0.0))
    return [*trained, *verdicts.time_evidence(latencies(served))]


def runs(**largest):
    """The published rows, with one more, larger than all."""
    one = dict(model="one more", year=2021, params_billions=100, tokens_billions=300, device="H100")
    one |= dict(peak_tflops=989.4, n_devices=20_000, days=10, device_hours=None)
    one |= dict(utilization_percent=40) | largest
    return measure.published_runs([*read_published("runs"), one])


WHOLE = lighten.identity_recipe(CONFIG)
SLIM = replace(CONFIG, d_ff=48, vocab_size=256)
"""Attention is most of it, so that windows alone take over 30 %."""
SMALL = PRESETS | {"bert-base": PRESETS["stdlib-gpt"]}
NEITHER = "does not hold", "does not hold"
CASES = {
    ("ernie-dynamic", "as recorded"): (
        dynamic(measure.recipe(), 0.1),
        "does not hold",
        "does not hold",
    ),
    ("ernie-dynamic", "a slim FFN"): (dynamic(WHOLE, 0.0, config=SLIM), "holds", "holds"),
    ("ernie-dynamic", "nothing removed"): (dynamic(WHOLE, 0.0), "does not hold", "holds"),
    ("ernie-dynamic", "at the margin"): (dynamic(WHOLE, 0.05), "does not hold", "undecided"),
    ("ernie-dynamic", "a control that gets worse"): (
        dynamic(WHOLE, 0.0, control=0.02),
        "does not hold",
        "undecided",
    ),
    ("ernie-dynamic", "a control that gets better"): (
        dynamic(WHOLE, 0.1, control=-0.02),
        "does not hold",
        "undecided",
    ),
    ("ernie-int8", "all small and fast"): (int8(250, (0.3, 0.35)), "holds", "holds"),
    ("ernie-int8", "small files alone"): (int8(250, (0.3, 0.6), SMALL), *NEITHER),
    ("ernie-int8", "large files"): (int8(300, (0.3, 0.40)), "does not hold", "undecided"),
    ("fp16-int8", "all"): (recipe(0.1, 0.7, (0.5, 0.6)), "holds", "holds", "holds"),
    ("fp16-int8", "none"): (recipe(2, 1.1, (1.1, 0.6)), *["does not hold"] * 3),
    ("fp16-int8", "near"): (recipe(1, 0.95, (0.95, 0.6)), *["undecided"] * 3),
    ("ernie-72h", "one more of 2021"): (verdicts.hours_evidence(runs()), "holds", "holds"),
    ("ernie-72h", "of 2025"): (verdicts.hours_evidence(runs(year=2025)), "holds", "does not hold"),
    ("ernie-72h", "an idle one"): (
        verdicts.hours_evidence(runs(utilization_percent=1)),
        "does not hold",
        "does not hold",
    ),
}


def drives():
    yield from ((claim, evidence) for (claim, _), (evidence, *_) in CASES.items())


@pytest.mark.parametrize("key", CASES, ids=" ".join)
def test_each_part_follows_its_evidence(key):
    evidence, *expected = CASES[key]
    judge = getattr(verdicts, key[0].replace("-", "_"))
    assert [part.outcome for part in judge(evidence).parts] == expected


def test_a_part_of_the_sizes_is_shown_and_decides_nothing():
    size = verdicts.ernie_int8(int8(250, (0.3, 0.35))).parts[0]
    assert set(size.decisions) == {"bert-weights", "weights", "files"}
    assert {e.id for e in size.evidence} - set(size.decisions) == {
        "bert-large-weights",
        "gpt3-weights",
    }


def test_times_are_widened_by_their_runs_noise():
    narrow, wide = (verdicts.time_evidence(latencies((0.3, 0.6), band=b))[0] for b in (0.0, 0.1))
    assert wide.value == narrow.value
    assert (wide.low, wide.high) == pytest.approx((0.9 * narrow.low, 1.1 * narrow.high))


def test_the_cluster_of_2021_is_looked_for_among_its_years_alone():
    items = {e.id: e for e in verdicts.hours_evidence(measure.published_runs())}
    assert items["tokens"].values["run"] == "Llama 3 405B"
    assert items["tokens-second"].values["run"] == "PaLM 540B"
    assert items["tokens-before"].values["n"] == "3,072"
    assert items["tokens"].value == pytest.approx(2871, abs=1)
    assert items["tokens-second"].value == pytest.approx(337, abs=1)
    assert items["tokens-by-hours"].value < items["tokens"].value
