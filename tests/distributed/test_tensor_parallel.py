"""Tensor parallelism is one process, ours is torch's, and what it holds and sends is the formula's.

And why its order is column first, row second: every other one is right at more traffic, or wrong.
"""

import re
from dataclasses import replace

import model_functions
import pytest
import torch
from batches import SAME, held_params, random_ids

from efflab.config import ModelConfig
from efflab.distributed import tensor_orders, tensor_parallel
from efflab.distributed.data_parallel import distance
from efflab.distributed.launch import RankPool
from efflab.distributed.tensor_orders import ORDERS, Traffic, traffic
from efflab.distributed.tensor_parallel import METHODS, Job, require_split, share_of, wire_bytes

CONFIG = ModelConfig(2, 4, 64, 256, 300, 32, causal=True)
HEADERS = 1.1
"""gloo's header of about 50 bytes with each part, here as small as 4 kB."""
JOB = Job(CONFIG, random_ids(0, 4), random_ids(1, 4))
N_TOKENS = JOB.ids.numel()


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request):
    with RankPool(request.param) as pool:
        yield pool


def run(ranks, **changes):
    return ranks.run(tensor_parallel.on_rank, replace(JOB, **changes), timeout=120)


@pytest.mark.parametrize("method", METHODS)
def test_logits_and_all_gradients_are_those_of_one_process(ranks, method):
    for result in run(ranks, method=method):
        assert result.logits_error < SAME
        assert result.gradients_error < SAME


@pytest.mark.parametrize("method", METHODS)
def test_a_map_that_layers_share_is_cut_once_and_stays_one(ranks, method):
    assert max(ranks.run(model_functions.shared_map, CONFIG, JOB.ids, method, timeout=120)) < SAME


def test_ours_is_torch_s(ranks):
    for ours, theirs in zip(run(ranks), run(ranks, method="torch"), strict=True):
        assert distance(ours.gradients, theirs.gradients) < SAME
        assert ours.params == theirs.params


@pytest.mark.parametrize("method", METHODS)
def test_held_and_sent_are_the_formula_s(ranks, method):
    n = ranks.n_procs
    expected = wire_bytes(CONFIG, N_TOKENS, n)
    for result in run(ranks, method=method):
        assert result.params == held_params(CONFIG, n)
        assert expected <= result.forward < HEADERS * expected
        assert expected <= result.backward < HEADERS * expected


@pytest.mark.parametrize("config", [replace(CONFIG, share="all"), replace(CONFIG, causal=False)])
def test_other_models_are_cut_alike(ranks, config):
    for result in run(ranks, config=config):
        assert result.logits_error < SAME
        assert result.gradients_error < SAME
        assert result.params == held_params(config, ranks.n_procs)


def test_the_paper_s_8_b_s_h_a_layer():
    n, bsh = 4, N_TOKENS * CONFIG.d_model
    values_a_layer = 2 * wire_bytes(CONFIG, N_TOKENS, n, value_bytes=1) / CONFIG.n_layer
    assert values_a_layer == 8 * bsh * (n - 1) / n
    assert wire_bytes(CONFIG, N_TOKENS, 1) == 0


def test_a_rank_s_queries_keys_and_values_are_of_the_same_heads():
    whole = torch.arange(3 * 64).view(-1, 1)
    own = share_of("layers.0.attention.body.qkv.weight", whole, 1, 4).flatten().tolist()
    assert own == [*range(16, 32), *range(80, 96), *range(144, 160)]
    assert share_of("layers.0.attention.body.out.bias", whole, 1, 4) is whole


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_sends_what_its_collectives_cost(ranks, order):
    sizes = 32, 128, 128
    expected = traffic(order, *sizes, ranks.n_procs).n_bytes
    for result in ranks.run(tensor_orders.on_rank, order, *sizes, timeout=60):
        assert expected <= result.sent < HEADERS * expected
        is_right = result.output_error < SAME and result.gradient_error < SAME
        assert is_right == (order != "summed late")
        assert is_right or result.output_error > 0.1


def test_column_row_is_the_least_traffic_that_is_right():
    found = {order: traffic(order, 64, 256, 128, 4) for order in ORDERS}
    best = found.pop("column-row")
    wrong = found.pop("summed late")
    assert best == Traffic(2, 0, 2 * 2 * 3 / 4 * 4 * 128 * 64)
    assert all(other.n_bytes > 3 * best.n_bytes for other in found.values())
    assert wrong.n_bytes < best.n_bytes


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: replace(JOB, method="gshard"), "method='gshard': expected one of 'ours', 'torch'"),
        (lambda: require_split(CONFIG, 3), "n_ranks=3: expected a divisor of n_head=4"),
        (
            lambda: require_split(replace(CONFIG, positions="rotary"), 2),
            "config=('positions',): expected a plain Transformer's",
        ),
        (
            lambda: require_split(replace(CONFIG, d_ff=258), 4),
            "n_ranks=4: expected a divisor of d_ff=258",
        ),
        (lambda: wire_bytes(CONFIG, 0, 2), "n_tokens=0: expected"),
        (lambda: traffic("diagonal", 8, 8, 8, 2), "order='diagonal': expected one of 'column-row'"),
        (lambda: traffic("row-row", 8, 0, 8, 2), "d_ff=0: expected"),
        (
            lambda: tensor_orders.on_rank(0, 4, "row-row", 8, 6, 8),
            "d_ff=6: expected a multiple of 4 ranks",
        ),
    ],
)
def test_bad_arguments(call, error):
    with pytest.raises(ValueError, match=re.escape(error)):
        call()


def test_a_model_that_cannot_be_cut_is_refused_on_the_ranks(ranks):
    config = ModelConfig(1, 3, 48, 96, 300, 32)
    method = "ours" if ranks.n_procs == 2 else "torch"
    with pytest.raises(RuntimeError, match=f"n_ranks={ranks.n_procs}: expected a divisor"):
        run(ranks, config=config, method=method)
