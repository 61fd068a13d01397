"""Buckets: the prediction against hand-made cases, and against real passes of layers that sleep."""

from itertools import chain

import pytest
import torch

from efflab.config import ModelConfig
from efflab.distributed import buckets
from efflab.distributed.buckets import Trace, Transfer, Wire, fill, predict
from efflab.distributed.launch import RankPool

MIB = 2**20
SECONDS, SIZES = [0.05] * 6, [MIB // 2] * 6
WIRE = Wire(0.01, 25e6)
"""A bucket of one layer takes 41 ms on two ranks, just less than a layer computes."""
TRIES = 5
"""A busy machine only ever adds time, so the least of a few is the one to compare."""


@pytest.fixture(scope="module")
def ranks():
    with RankPool(2) as pool:
        yield pool


def test_transfers_follow_one_another_and_never_come_early():
    found = predict([1.0] * 4, [100] * 4, 200, Wire(0.25, 100.0), 2)
    assert found.transfers == (Transfer(200, 2.0, 2.0, 4.5), Transfer(200, 4.0, 4.5, 7.0))
    assert (found.backward, found.seconds) == (4.0, 7.0)
    assert found.hidden == pytest.approx(2.0 / 5.0)


def test_one_bucket_hides_nothing_and_a_free_wire_costs_nothing():
    one = predict([1.0] * 4, [100] * 4, 1e9, Wire(0.25, 100.0), 2)
    assert one.hidden == 0.0
    assert one.seconds == 4.0 + 0.5 + 4.0
    free = predict([1.0] * 4, [100] * 4, 1, Wire(), 2)
    assert free.seconds == free.backward
    assert free.hidden == 1.0


def test_every_layer_is_in_one_bucket_the_last_first():
    for bucket_bytes in (1, 7, 16, 1000):
        found = fill([5, 9, 2, 8, 3], bucket_bytes)
        assert list(chain(*found)) == [4, 3, 2, 1, 0]
        assert all(sum([5, 9, 2, 8, 3][i] for i in b) >= bucket_bytes for b in found[:-1])


def test_only_the_first_bucket_has_a_size_of_its_own():
    assert fill([4] * 6, 8, 4) == [[5], [4, 3], [2, 1], [0]]
    assert fill([4] * 6, 8, 8) == fill([4] * 6, 8)


def test_a_ring_pays_each_of_its_steps_and_a_tree_twice_its_depth():
    ring, tree = (Wire(1.0, 100.0, way) for way in ("ring", "tree"))
    assert [ring.seconds(0, n) for n in (1, 2, 3, 1024)] == [0, 2, 4, 2046]
    assert [tree.seconds(0, n) for n in (1, 2, 3, 4, 5, 1024)] == [0, 2, 4, 4, 6, 20]
    assert ring.seconds(100, 4) == 6 + 1.5
    assert tree.seconds(100, 4) == 4 + 2.0
    assert tree.seconds(100, 1) == 0


@pytest.mark.parametrize("bucket_mb", [0.5, 25.0, None])
def test_a_real_pass_of_sleeping_layers_is_the_predicted_one(ranks, bucket_mb):
    """None: DDP's own sizes, of which the first is 1 MiB."""
    sizes = (25 * MIB, MIB) if bucket_mb is None else (bucket_mb * MIB, None)
    expected = predict(SECONDS, SIZES, sizes[0], WIRE, 2, sizes[1])
    for _ in range(TRIES):
        trace = ranks.run(buckets.sleep_on_rank, SECONDS, SIZES, bucket_mb, WIRE, timeout=60)[0]
        assert [t.n_bytes for t in trace.transfers] == [t.n_bytes for t in expected.transfers]
        assert trace.seconds >= expected.seconds
        if trace.seconds < 1.1 * expected.seconds:
            break
    assert trace.seconds == pytest.approx(expected.seconds, rel=0.1)
    assert trace.hidden == pytest.approx(expected.hidden, abs=0.1)


def test_a_real_model_s_gradients_travel_in_buckets_while_it_computes(ranks):
    config = ModelConfig(4, 4, 128, 512, 1000, 64, causal=True)
    ids = torch.randint(0, 1000, (4, 64), generator=torch.Generator().manual_seed(0))
    args = buckets.trace_on_rank, config, ids, ids
    many, one = (ranks.run(*args, mb, Wire(), timeout=60)[0] for mb in (0.5, 25))
    n_bytes = sum(t.n_bytes for t in one.transfers)
    assert sum(t.n_bytes for t in many.transfers) == n_bytes
    assert len(one.transfers) == 1
    assert len(many.transfers) > 3
    assert many.transfers[0].start < many.backward  # while layers are still computing
    assert one.transfers[0].ready >= one.backward  # it waits for every layer
    for before, after in zip(many.transfers, many.transfers[1:], strict=False):
        assert before.end <= after.start


def test_bad_arguments():
    with pytest.raises(ValueError, match="latency_seconds=-1"):
        Wire(-1)
    with pytest.raises(ValueError, match="bytes_per_second=0"):
        Wire(0, 0)
    with pytest.raises(ValueError, match="way='star': expected one of 'ring', 'tree'"):
        Wire(way="star")
    with pytest.raises(ValueError, match=r"layer_bytes=.*2 numbers, one for each layer"):
        predict([1.0, 1.0], [1], 1, Wire(), 2)
    with pytest.raises(ValueError, match="bucket_bytes=0"):
        fill([1], 0)
    with pytest.raises(ValueError, match="first_bytes=0"):
        fill([1], 1, 0)
    assert Trace(1.0, ()).hidden == 1.0
    assert Trace(1.0, ()).seconds == 1.0
