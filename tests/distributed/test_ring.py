"""The ring's sum is torch's, and its bytes are the formula's."""

import pytest
import torch

from efflab.distributed import ring, ring_cost
from efflab.distributed.launch import launch

HEADERS = 2000
"""Bytes beyond the values: gloo sends a header of 48 bytes or so with each part."""


@pytest.mark.parametrize("n_ranks", [1, 2, 4])
def test_our_ring_is_torchs_and_takes_the_formulas_bytes(n_ranks):
    n_values = 120_000
    expected = ring_cost.ring_bytes(4 * n_values, n_ranks)
    for row in launch(ring.compare_with_torch, n_ranks, n_values, timeout=60):
        assert row["error"] < 1e-6
        assert row["counted"] == expected
        assert expected <= row["ours"] <= expected + HEADERS
        assert expected <= row["torch"] <= expected + HEADERS


def test_parts_need_not_be_equal():
    rows = launch(ring.compare_with_torch, 3, 7, timeout=60)
    assert all(row["error"] < 1e-6 for row in rows)
    assert sum(row["counted"] for row in rows) == pytest.approx(3 * ring_cost.ring_bytes(4 * 7, 3))


def test_two_trees_send_twice_the_bytes_and_take_few_steps():
    assert [ring_cost.tree_bytes(10, n) for n in (1, 2, 1024)] == [0, 20, 20]
    assert [ring_cost.tree_steps(n) for n in (1, 2, 3, 4, 5, 1024)] == [0, 2, 4, 4, 6, 20]
    assert [ring_cost.ring_steps(n) for n in (1, 2, 3, 1024)] == [0, 2, 4, 2046]


@pytest.mark.parametrize("of", [ring_cost.ring_bytes, ring_cost.tree_bytes])
@pytest.mark.parametrize(("name", "args"), [("n_bytes", (-1, 2)), ("n_ranks", (1, 0))])
def test_bad_sizes_are_refused(of, name, args):
    with pytest.raises(ValueError, match=name):
        of(*args)


def test_a_tensor_with_gaps_is_refused():
    with pytest.raises(ValueError, match="contiguous"):
        ring.ring_all_reduce(torch.ones(4, 4).T)
