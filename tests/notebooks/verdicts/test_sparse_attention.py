"""Notebook 03's verdict: every outcome that it can come to."""

import pytest

from efflab.estimate import Estimate
from efflab.notebooks.sparse_attention import verdicts

FIGURES = dict(
    window=Estimate(1.1, 1.0, 1.2),
    full=Estimate(2.0, 1.9, 2.1),
    blocks=Estimate(1.3, 1.2, 1.4),
    pairs=1.01,
    recall=(0.95, 0.12, 1.0),
)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, "holds if"),
        (dict(recall=(0.95, 0.5, 1.0)), "holds"),
        (dict(recall=(0.5, 0.12, 1.0)), "undecided"),  # it does not recall within reach either
        (dict(window=Estimate(1.8, 1.6, 2.0)), "does not hold"),
        (dict(window=Estimate(1.3, 1.0, 1.6)), "undecided"),
        (dict(window=Estimate(1.3, 1.1, 1.49)), "holds if"),
    ],
)
def test_sparse_linear(change, word):
    figures = verdicts.sparse_figures(**FIGURES | change)
    assert verdicts.sparse_linear(figures).word == word
