"""Notebook 10's verdict: every outcome that each part can come to."""

import pytest

from efflab import lab
from efflab.estimate import Estimate
from efflab.experiments import gptq_crossing as crossing
from efflab.experiments import gptq_quality as experiment
from efflab.experiments.record import read_record
from efflab_rooms.gptq import measure, verdicts

LOWER, SPANS, HIGHER = (
    Estimate(-0.1, -0.2, -0.05),
    Estimate(0.0, -0.1, 0.1),
    Estimate(0.2, 0.1, 0.3),
)


def evidence(ratio=(0.33, 0.34, 0.35), paired=None):
    """`ratio` with 4,096 tokens by seed; `paired`: bits -> the difference of the model's losses."""
    runs = [
        dict(n_tokens=n, seed=seed, ratio=value)
        for n in crossing.TOKENS
        for seed, value in enumerate(ratio if n == 4096 else (0.8, 0.9, 1.3), start=100)
    ]
    by_tokens = dict(zip(crossing.TOKENS, crossing.cases(runs).values(), strict=True))
    ratios = dict.fromkeys(experiment.BITS, (0.34, 0.35, 0.36))
    paired = dict.fromkeys(experiment.BITS, LOWER) | (paired or {})
    seeded = dict.fromkeys(experiment.BITS, (-0.1, -0.1, -0.11))
    kinds = dict.fromkeys(("all", "down"), by_tokens)
    return verdicts.gptq_evidence(kinds, ratios, paired, seeded)


def drives():
    """Records in which GPTQ wins, in which it is not sure, and in which it surely loses."""
    yield "gptq-error", evidence()
    yield "gptq-error", evidence([0.9, 1.0, 1.2], {8: SPANS})
    yield "gptq-error", evidence([1.1, 1.11, 1.12], {2: HIGHER})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (evidence(), ("holds", "holds")),
        (evidence([0.9, 1.0, 1.2]), ("undecided", "holds")),
        (evidence([1.1, 1.11, 1.12]), ("does not hold", "holds")),
        (evidence(paired={8: SPANS}), ("holds", "undecided")),
        (evidence(paired={4: HIGHER, 8: SPANS}), ("holds", "does not hold")),
        (evidence(paired={8: Estimate(-0.1, -0.2, 0.0)}), ("holds", "undecided")),
    ],
)
def test_gptq_error(given, words):
    assert tuple(part.outcome for part in verdicts.gptq_error(given).parts) == words


def test_evidence_is_the_records():
    found = lab.by_id(verdicts.collect_evidence())
    for key, estimate in crossing.cases(read_record(crossing.NAME)["runs"]).items():
        assert found[key].value == pytest.approx(estimate.mean, rel=1e-5)
        assert found[key].values == {"n": f"{int(key.split('-')[1]):,}"}
    assert found["wide-512"].ends[0] > 1 > found["wide-4096"].ends[1]
    paired = {run["bits"]: run for run in measure.record()["paired"]}
    for bits in experiment.BITS:
        rtn, gptq = (measure.recorded_point(bits, None, m) for m in experiment.METHODS)
        if bits != crossing.BITS:
            assert found[f"error-{bits}"].values["n"] == len(experiment.SEEDS)
            low, high = found[f"error-{bits}"].ends
            assert low <= gptq["layer_error"] / rtn["layer_error"] <= high
        added = found[f"added-{bits}"]
        assert added.ends == (paired[bits]["less low"], paired[bits]["less high"])
        # the same calibration on the same windows, each loss kept with four decimals
        less = gptq["bits_per_byte"] - rtn["bits_per_byte"]
        assert added.value == pytest.approx(less, abs=1.1e-4)
