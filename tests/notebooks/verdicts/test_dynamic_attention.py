"""Notebook 05's verdict: what its parts come to, by numbers that a run may yield."""

import pytest

from efflab_rooms.dynamic_attention import verdicts

REACHES = {"DynamicConv": (14, 14), "adaptive span, by token (untrained)": (70, 61)}
RANGES = {
    "dynamic": [1.1, 0.9, 1.2, 1.0],
    "untrained": [0.0, 0.1, 0.0, 0.1],
    "fixed": [0.0] * 4,
    "attention": [30.0, 33.0, 28.0, 35.0],
}


def drives():
    """(claim, evidence) of runs in which things move, do not, or cannot be told."""
    even = dict(REACHES, DynamicConv=(14, 12))
    for reaches, changes in (
        (REACHES, {}),
        (even, {"untrained": [1.4, 1.5, 1.6, 1.7]}),
        (REACHES | {"adaptive span, by token (untrained)": (61, 61)}, {"attention": [0.2] * 4}),
        (REACHES, {"dynamic": [0.0, 0.3, 0.0, 0.1]}),
    ):
        yield "dynamic-attention", verdicts.dynamic_evidence(reaches, RANGES | changes)


@pytest.mark.parametrize(
    ("drive", "words"),
    [
        (0, ["does not hold", "holds"]),
        (1, ["holds", "does not hold"]),
        (2, ["undecided", "undecided"]),
        (3, ["does not hold", "undecided"]),
    ],
)
def test_each_part_comes_to_what_its_numbers_say(drive, words):
    _, evidence = list(drives())[drive]
    assert [part.outcome for part in verdicts.dynamic_attention(evidence).parts] == words


def test_figures_are_tokens():
    figures = {item.id: item for item in verdicts.dynamic_evidence(REACHES, RANGES)}
    assert {item.unit for item in figures.values()} == {"tokens"}
    assert figures["reach-by-token"].value == 9
    assert figures["range-over-untrained"].value == pytest.approx(1.0)
    assert figures["range-dynamic"].low < 1.05 < figures["range-dynamic"].high
