"""Notebook 10's verdict: every outcome that each part can come to."""

import pytest

from efflab import lab
from efflab.estimate import Estimate
from efflab.experiments import gptq_quality as experiment
from efflab_rooms.gptq import measure, verdicts

ERRORS = {"rtn": [4.0, 2.0, 6.0], "gptq": [1.0, 1.0, 1.0]}
LOWER, SPANS, HIGHER = (
    Estimate(-0.1, -0.2, -0.05),
    Estimate(0.0, -0.1, 0.1),
    Estimate(0.2, 0.1, 0.3),
)


def evidence(ratios=None, paired=None):
    """Three seeds a width, as a record holds them; both arguments: bits -> values."""
    ratios = dict.fromkeys(experiment.BITS, (0.34, 0.35, 0.36)) | (ratios or {})
    paired = dict.fromkeys(experiment.BITS, LOWER) | (paired or {})
    seeded = dict.fromkeys(experiment.BITS, (-0.1, -0.1, -0.11))
    return verdicts.gptq_evidence(ratios, paired, seeded, 3, ERRORS)


def drives():
    """Records in which GPTQ wins at all widths, not surely at one, or surely loses at one."""
    yield "gptq-error", evidence()
    yield "gptq-error", evidence({8: [0.9, 1.0, 1.2]}, {8: SPANS})
    yield "gptq-error", evidence({2: [1.1, 1.11, 1.12]}, {2: HIGHER})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (evidence(), ("holds", "holds")),
        (evidence({8: [0.9, 1.0, 1.2]}), ("undecided", "holds")),
        (evidence({3: [1.1, 1.11, 1.12]}), ("does not hold", "holds")),
        (evidence(paired={8: SPANS}), ("holds", "undecided")),
        (evidence(paired={4: HIGHER, 8: SPANS}), ("holds", "does not hold")),
        (evidence(paired={8: Estimate(-0.1, -0.2, 0.0)}), ("holds", "undecided")),
    ],
)
def test_gptq_error(given, words):
    assert tuple(part.outcome for part in verdicts.gptq_error(given).parts) == words


def test_evidence_is_the_records_and_that_of_the_matrices_here():
    found = lab.by_id(verdicts.collect_evidence(3, ERRORS))
    assert found["error-here"].value == 3 / 12
    assert found["error-here"].values == {"bits": 3}
    paired = {run["bits"]: run for run in measure.record()["paired"]}
    for bits in experiment.BITS:
        rtn, gptq = (measure.recorded_point(bits, None, m) for m in experiment.METHODS)
        assert found[f"error-{bits}"].values["n"] == len(experiment.SEEDS)
        low, high = found[f"error-{bits}"].ends
        assert low <= gptq["layer_error"] / rtn["layer_error"] <= high
        added = found[f"added-{bits}"]
        assert added.ends == (paired[bits]["less low"], paired[bits]["less high"])
        # the same calibration on the same windows, each loss kept with four decimals
        less = gptq["bits_per_byte"] - rtn["bits_per_byte"]
        assert added.value == pytest.approx(less, abs=1.1e-4)
