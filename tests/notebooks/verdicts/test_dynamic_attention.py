"""Notebook 05's verdict: what its parts come to, by numbers that a run may yield."""

import pytest

from efflab.experiments import dynamic_attention_2 as used_range
from efflab.experiments.record import read_record
from efflab_rooms.dynamic_attention import verdicts

REACHES = {"DynamicConv": (14, 14), "adaptive span per token (untrained)": (70, 61)}
RANGES = {
    "dynamic": [1.1, 0.9, 1.2, 1.0],
    "untrained": [0.0, 0.1, 0.0, 0.1],
    "fixed": [0.0] * 4,
    "attention": [30.0, 33.0, 28.0, 35.0],
}


def evidence_of(reaches=REACHES, **changes):
    runs = [
        dict(mixer=mixer, seed=seed, tokens=tokens)
        for mixer, values in (RANGES | changes).items()
        for seed, tokens in enumerate(values)
    ]
    return verdicts.dynamic_evidence(reaches, used_range.cases(runs))


def recorded():
    runs = read_record(used_range.NAME)["runs"]
    return verdicts.dynamic_evidence(REACHES, used_range.cases(runs))


def drives():
    """(claim, evidence) of runs in which things move, do not, or cannot be told."""
    even, blind = dict(REACHES, DynamicConv=(14, 12)), dict.fromkeys(REACHES, (61, 61))
    for evidence in (
        evidence_of(),
        evidence_of(even, untrained=[1.4, 1.5, 1.6, 1.7]),
        evidence_of(blind, attention=[0.2] * 4),
        evidence_of(dynamic=[0.0, 0.3, 0.0, 0.1]),
        recorded(),
    ):
        yield "dynamic-attention", evidence


@pytest.mark.parametrize(
    ("drive", "words"),
    [
        (0, ["does not hold", "holds"]),
        (1, ["holds", "does not hold"]),
        (2, ["undecided", "undecided"]),
        (3, ["does not hold", "undecided"]),
        (4, ["does not hold", "undecided"]),
    ],
)
def test_each_part_comes_to_what_its_numbers_say(drive, words):
    _, evidence = list(drives())[drive]
    assert [part.outcome for part in verdicts.dynamic_attention(evidence).parts] == words


def test_figures_are_tokens():
    figures = {item.id: item for item in evidence_of()}
    assert {item.unit for item in figures.values()} == {"tokens"}
    assert figures["reach-by-token"].value == 9
    assert figures["range-over-untrained"].value == pytest.approx(1.0)
    assert figures["range-dynamic"].low < 1.05 < figures["range-dynamic"].high


def test_in_the_record_the_control_alone_fails():
    _, part = verdicts.dynamic_attention(recorded()).parts
    assert part.basis == "registered"
    assert part.decisions == {"range-over-untrained": "holds", "range-attention": "does not hold"}
    assert "a control does not show what it must" in part.reason
    said = part.remark.format(**part.values)
    assert "attention, the control, moves by 0.679 tokens" in said
