"""Notebook 03's verdict: every outcome that it can come to."""

import pytest

from efflab.estimate import Estimate
from efflab_rooms.sparse_attention import verdicts

FIGURES = dict(
    window=Estimate(1.1, 1.0, 1.2),
    full=Estimate(2.0, 1.9, 2.1),
    blocks=Estimate(1.3, 1.2, 1.4),
    pairs=1.01,
    recall=(0.95, 0.12, 1.0),
)


def test_evidence_stands_under_its_ids():
    values = [(f.id, f.value, f.low) for f in verdicts.sparse_evidence(**FIGURES)]
    assert values == [
        ("window-time", 1.1, 1.0),
        ("full-time", 2.0, 1.9),
        ("bigbird-time", 1.3, 1.2),
        ("window-pairs", 1.01, None),
        ("recall-within", 0.95, None),
        ("recall-beyond", 0.12, None),
        ("recall-global", 1.0, None),
    ]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, "holds if"),
        (dict(recall=(0.95, 0.3, 1.0)), "holds"),
        (dict(recall=(0.6, 0.29, 1.0)), "holds if"),
        (dict(recall=(0.59, 0.29, 1.0)), "undecided"),
        (dict(recall=(0.5, 0.12, 1.0)), "undecided"),  # it does not recall within reach either
        (dict(window=Estimate(1.8, 1.6, 2.0)), "does not hold"),
        (dict(window=Estimate(1.8, 1.5, 2.0)), "undecided"),
        (dict(window=Estimate(1.3, 1.0, 1.5)), "undecided"),
        (dict(window=Estimate(1.3, 1.1, 1.49)), "holds if"),
    ],
)
def test_sparse_linear(change, word):
    figures = verdicts.sparse_evidence(**FIGURES | change)
    assert verdicts.sparse_linear(figures).word == word
