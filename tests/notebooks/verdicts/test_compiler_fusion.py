"""Notebook 07's verdict: what its parts come to, by counts that compilers may give."""

import pytest

from efflab.acceleration.graph import FusionReport, Op
from efflab.bench import Comparison, Timing
from efflab.estimate import Estimate
from efflab_rooms.compiler_fusion import measure, verdicts

OPS = (Op("a", "add", {"x": 8}, 8), Op("b", "exp", {"a": 8}, 8), Op("c", "dot", {"b": 8}, 8))


def times(ratio=0.5):
    named = {
        "JAX": [measure.WITH_XLA],
        "torch": [measure.WITH_INDUCTOR, measure.PLAN, measure.LIBRARY],
    }
    one = Estimate(ratio, 0.9 * ratio, 1.1 * ratio)
    return {
        framework: Comparison(
            {"baseline": Timing((1.0,))}, dict.fromkeys(forms, one), Estimate(1, 0.98, 1.02)
        )
        for framework, forms in named.items()
    }


def evidence(**changed):
    """Three programs of 46, 8 and 6 operations; `changed`: (kernels, bytes after) of some."""
    programs = {"block": (46, (28, 60)), "attention": (8, (6, 50)), "gelu": (6, (1, 15))}
    xla = {
        name: FusionReport(n_ops, kernels, 100, after)
        for name, (n_ops, own) in programs.items()
        for kernels, after in [changed.get(name, own)]
    }
    reports = {
        measure.WITH_INDUCTOR: FusionReport.of(OPS, ()),
        measure.LIBRARY_WITH_INDUCTOR: FusionReport(10, 7, 40, 30),
    }
    return verdicts.fusion_evidence(xla, reports, times())


def drives():
    """(claim, evidence) of other compilers and sizes."""
    for changed in ({}, dict(attention=(8, 114)), dict(block=(46, 60)), dict(gelu=(7, 100))):
        yield "xla-fusion", evidence(**changed)


@pytest.mark.parametrize(
    ("drive", "words"),
    [
        (0, ["holds", "holds"]),
        (1, ["does not hold", "does not hold"]),
        (2, ["does not hold", "holds"]),
        (3, ["does not hold", "does not hold"]),
    ],
)
def test_each_part_comes_to_what_its_counts_say(drive, words):
    _, figures = list(drives())[drive]
    assert [part.outcome for part in verdicts.xla_fusion(figures).parts] == words


def test_time_decides_nothing():
    """Slower kernels are no more of them."""
    figures = {item.id: item for item in evidence()}
    slow = verdicts.time_evidence(times(2.0))
    outcome = verdicts.xla_fusion([*(figures | {item.id: item for item in slow}).values()])
    assert outcome.outcome == "holds"
    assert figures["plan-kernels"].value == 2
    assert "10 kernels" in outcome.record("xla-fusion")["parts"][0]["remark"]
