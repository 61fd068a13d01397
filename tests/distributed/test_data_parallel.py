"""Data parallelism is one process on the whole batch, and what breaks when ranks differ."""

import re
from dataclasses import replace
from itertools import chain

import model_functions
import pytest
import torch
from batches import SAME, random_ids
from torch import nn

from efflab.config import ModelConfig
from efflab.distributed import data_parallel
from efflab.distributed.data_parallel import Job, distance, on_rank, sampled_rows, shares
from efflab.distributed.launch import RankPool
from efflab.distributed.ring_cost import ring_bytes
from efflab.train import classification_loss

CONFIG = ModelConfig(2, 4, 64, 256, 300, 32, causal=True)
HEADERS = 1.01
"""gloo's headers and acknowledgements: under one per cent of half a megabyte."""
JOB = Job(CONFIG, random_ids(0), random_ids(1))
ONE = JOB.alone()
N_BYTES = sum(w.nbytes for w in ONE.weights.values())


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request):
    with RankPool(request.param) as pool:
        yield pool


def run(ranks, **changes):
    return ranks.run(on_rank, replace(JOB, **changes), timeout=120)


def furthest(runs, of, reference=None):
    """The largest distance of the ranks' gradients or weights from a reference's (rank 0's)."""
    reference = getattr(reference or runs[0], of)
    return max(distance(getattr(r, of), reference) for r in runs)


@pytest.mark.parametrize("method", ["ddp", "by hand"])
def test_gradients_and_weights_are_those_of_one_process(ranks, method):
    runs = run(ranks, method=method)
    assert furthest(runs, "gradients", ONE) < SAME
    assert furthest(runs, "weights", ONE) < SAME
    assert furthest(runs, "weights") == 0
    mean = [sum(losses) / ranks.n_procs for losses in zip(*(r.losses for r in runs), strict=True)]
    assert mean == pytest.approx(ONE.losses, abs=1e-5)


@pytest.mark.parametrize("method", ["ddp", "by hand"])
def test_the_wire_carries_the_ring_s_bytes(ranks, method):
    expected = ring_bytes(N_BYTES, ranks.n_procs)
    for r in run(ranks, method=method):
        assert expected <= r.sent < HEADERS * expected


def test_without_averaging_ranks_part_and_send_nothing(ranks):
    runs = run(ranks, method="none")
    assert furthest(runs, "gradients", ONE) > 0.1
    assert furthest(runs, "weights") > 0.01
    assert [r.sent for r in runs] == [0.0] * ranks.n_procs


def test_uneven_shares_need_their_weight(ranks):
    rows = (5, 3) if ranks.n_procs == 2 else (3, 3, 1, 1)
    assert furthest(run(ranks, rows=rows), "gradients", ONE) < SAME
    assert furthest(run(ranks, rows=rows, weighted=False), "gradients", ONE) > 0.1


def test_ddp_begins_with_rank_0_s_weights_and_a_sum_by_hand_does_not(ranks):
    seeds = tuple(range(ranks.n_procs))
    assert furthest(run(ranks, seeds=seeds), "weights", ONE) < SAME
    assert furthest(run(ranks, seeds=seeds, method="by hand"), "weights") > 0.1


def test_a_batch_norm_sees_its_own_rows_until_its_sums_are_shared(ranks):
    rng = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(16, 8, generator=rng), torch.arange(16) % 3
    model = data_parallel.batch_norm_model(8, 3, nn.BatchNorm1d)
    whole = data_parallel.train(model, inputs, labels, 1, loss_of=classification_loss)
    on_rank = data_parallel.batch_norm_on_rank
    local = ranks.run(on_rank, inputs, labels, False, timeout=60)
    shared = ranks.run(on_rank, inputs, labels, True, timeout=60)
    assert furthest(local, "gradients", whole) > 0.05
    assert furthest(shared, "gradients", whole) < 1e-5


def test_a_sampler_deals_rows_out_and_without_one_all_read_the_same():
    dealt, same = sampled_rows(12, 3, True), sampled_rows(12, 3, False)
    assert sorted(chain(*dealt)) == list(range(12))
    assert same[0] == same[1] == same[2]
    assert sorted(same[0]) == list(range(12))
    assert sampled_rows(12, 3, True, seed=1) != dealt


def test_shares_add_up_and_differ_by_one_at_most():
    for n_rows in range(4, 20):
        found = shares(n_rows, 4)
        assert sum(found) == n_rows
        assert max(found) - min(found) <= 1


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (dict(method="horovod"), "method='horovod': expected one of 'ddp', 'by hand', 'none'"),
        (dict(n_steps=0), "n_steps=0: expected"),
        (dict(rows=(4, 5)), "rows=(4, 5): expected positive numbers that add up to the 8 rows"),
        (dict(rows=(8, 0)), "rows[1]=0: expected an int of at least 1"),
    ],
)
def test_a_bad_job_is_refused_before_any_rank_starts(changes, error):
    with pytest.raises(ValueError, match=re.escape(error)):
        replace(JOB, **changes)


def test_a_job_of_another_number_of_ranks_is_refused():
    for name, given in (("rows", (4, 2, 2)), ("seeds", (0, 1, 2))):
        with pytest.raises(ValueError, match=f"{name}=.*2 numbers, one for each rank"):
            on_rank(0, 2, replace(JOB, **{name: given}))


def test_other_bad_arguments():
    with pytest.raises(ValueError, match="n_rows=3: expected at least one for each of 4 ranks"):
        shares(3, 4)
    with pytest.raises(ValueError, match="b="):
        distance({"a": torch.ones(1)}, {"b": torch.ones(1)})
    with pytest.raises(ValueError, match="world_size=0"):
        sampled_rows(3, 0, True)
    zero = {"a": torch.zeros(2)}
    assert distance(zero, zero) == 0.0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("side", "ab")
def test_no_distance_is_given_to_what_is_not_finite(bad, side):
    """`max` keeps the first of two where one is NaN, so a NaN would be passed over."""
    sides = {s: {"x": torch.zeros(2), "y": torch.ones(2)} for s in "ab"}
    sides[side]["y"][1] = bad
    with pytest.raises(ValueError, match=rf"^{side}\['y'\]='inf or nan inside': .* 1 of 2"):
        distance(**sides)


def test_a_gradient_that_a_rank_lacks_counts_as_zero(ranks):
    n = ranks.n_procs
    found = ranks.run(model_functions.unreached, timeout=60)
    assert found == [{"a": [1.0] * 3, "b": [1 / n] * 3, "c": [0.0] * 3}] * n
