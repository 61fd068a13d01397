"""Notebook 13's verdicts: each part in the outcomes that other numbers give."""

from dataclasses import replace

import pytest
import torch

from efflab.bench import Comparison, Timing
from efflab.distributed import gpipe
from efflab.distributed.schedules import SCHEDULES
from efflab.distributed.stages import PassResult, Trace
from efflab.distributed.tensor_parallel import Result
from efflab.lab import by_id
from efflab_rooms.pipeline_parallel import measure
from efflab_rooms.pipeline_parallel import verdicts as v

REPEATS = (1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0)
PARAMS = 1_000_000


def passed(gradient, share):
    gradients = {"weight": torch.tensor([1.0, gradient])}
    return PassResult(None, gradients, round(share * PARAMS), Trace())


def model(apart=1e-7, late=0.3, share=0.45, even=0.45):
    between = {(n, s): [passed(1 + apart, share)] for n in (2, 4) for s in ("gpipe", "1f1b")}
    params = round(even * v.cost.num_params(measure.CONFIG))
    result = Result(1e-7, 1e-7, params, 0, 0, {})
    inside = {(n, m): [result] for n in (2, 4) for m in ("ours", "torch")}
    return "model-parallel", v.model_evidence(between, passed(1.0, 1), inside, late)


def published(change):
    rows = [row | dict(throughput=change(row["throughput"])) for row in gpipe.gains()]
    return "gpipe-throughput", v.gpipe_evidence(rows)


def compare(first=1.15, second=1.16, again=1.0, spread=1.0):
    timings = {
        name: Timing(tuple(times * (1 + spread * (r - 1)) for r in order))
        for name, times, order in (
            ("many", 1.0, REPEATS),
            ("first-slow", first, REPEATS),
            ("second-slow", second, REPEATS[::-1]),
            ("again", again, REPEATS[::-1]),
        )
    }
    own = timings.pop("again").ratio_interval(timings["many"])
    return Comparison(
        timings, {k: t.ratio_interval(timings["many"]) for k, t in timings.items()}, own
    )


def balance(slowdowns=None, others=0.1, **times):
    slow = {(s, p): 1.2 for s in SCHEDULES for p in range(4)} if slowdowns is None else slowdowns
    return "pipe-balance", v.balance_evidence(slow, compare(**times), others, 1.2)


def bubble(few=0.35, many=0.14, spread=1.0, others=0.1):
    bubbles = {
        name: [b * (1 + spread * (r - 1)) for r in order]
        for name, b, order in (("few", few, REPEATS), ("many", many, REPEATS[::-1]))
    }
    return "microbatch-bubble", v.bubble_evidence(measure.simulate_all(), bubbles, others)


def drives():
    """(claim, evidence) from numbers that a run or a table may yield."""
    yield model()
    yield model(apart=1e-4, share=0.97)
    yield model(late=1e-4, even=1.0)
    yield published(lambda gain: gain)
    yield published(lambda gain: 3 + gain / 4)
    yield published(lambda gain: gain / 3)
    yield balance()
    yield balance(measure.slowdowns(), first=0.95)
    yield balance(first=1.08, spread=10)
    yield bubble()
    yield bubble(many=0.4)
    yield bubble(many=0.2, spread=3)
    yield bubble(others=0.3)


def outcomes(drive):
    claim, evidence = drive
    outcome = getattr(v, claim.replace("-", "_"))(evidence)
    return [part.outcome for part in outcome.parts]


@pytest.mark.parametrize(
    ("drive", "words"),
    [
        (model(), ["holds", "holds"]),
        (model(apart=1e-4), ["does not hold", "holds"]),
        (model(late=1e-4), ["undecided", "holds"]),
        (model(share=1.0), ["holds", "does not hold"]),
        (model(even=1.0), ["holds", "does not hold"]),
        (published(lambda gain: gain), ["does not hold", "holds"]),
        (published(lambda gain: 3 + gain / 4), ["holds", "holds"]),
        (published(lambda gain: gain / 3), ["does not hold", "does not hold"]),
        (balance(), ["holds", "holds"]),
        (balance(measure.slowdowns()), ["does not hold", "holds"]),
        (balance(second=0.95), ["holds", "does not hold"]),
        (balance(first=1.08, again=1.05), ["holds", "undecided"]),
        (balance(spread=20), ["holds", "undecided"]),
        (balance(others=0.3), ["holds", "undecided"]),
        (bubble(), ["holds", "does not hold"]),
        (bubble(many=0.4, others=0.3), ["undecided", "undecided"]),
        (bubble(many=0.4), ["does not hold", "does not hold"]),
        (bubble(many=0.2), ["holds", "does not hold"]),
        (bubble(few=0.15, spread=10), ["undecided", "does not hold"]),
    ],
)
def test_each_part_follows_its_numbers(drive, words):
    assert outcomes(drive) == words


def test_every_published_gain_is_a_case():
    cases = by_id(published(lambda gain: gain)[1])
    assert cases["table2-amoebanet-2-4"].value == 1.07
    assert cases["table3-amoebanet-8-32"].value == 2.7
    assert sum(item.kind == "published" for item in cases.values()) == 16
    assert cases["ideal-filled"].value == pytest.approx(3.385, abs=0.001)


def test_the_bubble_of_ranks_is_in_points_by_repeat():
    found = by_id(bubble(few=0.3, many=0.1, spread=0.0)[1])
    assert found["falls-real"].ends == pytest.approx((-20, -20))
    assert found["fills-real"].value == pytest.approx(10)
    assert found["fills-gpipe-8"].value == pytest.approx(100 * 7 / 39)
    assert (found["held-gpipe"].value, found["held-1f1b"].value) == (16, 4)


def test_noise_widens_what_real_ranks_pay():
    quiet, noisy = (compare(again=a) for a in (1.0, 1.1))
    ends = [
        by_id(v.balance_evidence({}, times, 0.1, 1.2))["real-first"].ends
        for times in (quiet, noisy)
    ]
    assert ends[1][0] < ends[0][0] < ends[0][1] < ends[1][1]
    wild = replace(quiet, again=noisy.again.widened(2.0, 0.5, 3.0))
    assert by_id(v.balance_evidence({}, wild, 0.1, 1.2))["real-first"].ends[0] < 0.1
