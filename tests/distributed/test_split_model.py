"""Splits of today's models: grouped heads, gates, experts; memory beside arithmetic by hand."""

import re
from dataclasses import replace

import pytest

from efflab import cost
from efflab.config import PRESETS, Attention, Experts, ModelConfig
from efflab.devices import DEVICES
from efflab.distributed.plan import best_plan
from efflab.distributed.split import Split, Training
from efflab.distributed.split_model import layer_params, stage_model

H100 = DEVICES["H100 SXM"]
SMALL = ModelConfig(4, 12, 96, 384, 1000, 128, causal=True, positions="rotary")


def memory(config, *sizes, seq_len=128, **options):
    return Training(config, H100, 64, seq_len).memory_bytes(Split(*sizes, **options))


def test_llama_on_64_devices_fits_as_computed_by_hand():
    config = PRESETS["llama-3.1-70b"]
    plan = best_plan(config, 64, H100, global_batch=512, seq_len=8192)
    assert plan.n_devices == 64
    assert plan.memory_bytes <= H100.memory_bytes
    split = Split(8, 8, 1, 512, recompute="selective")
    found = Training(config, H100, 512, 8192).memory_bytes(split)
    # queries and output of 64 heads, keys and values of 8; gate, up and down; two norms
    layer = 8192 * 128 * (64 + 8 + 8 + 64) + 3 * 8192 * 28672 + 2 * 8192
    # one of the two tables, and the final norm
    stage = 10 * layer + 128256 * 8192 + 8192
    whole = 8192 * (4 * 2 + 2)
    queries_keys_values, gates = 2 * (2 * 8192 + 2 * 1024), 2 * 4 * 28672
    a_layer = 8192 * (whole + (queries_keys_values + gates) / 8)
    scores = 8192 * 64 * 8192 * 5 / 8
    logits = 4 * 8192 * 128256 / 8
    # 8 micro-batches of 10 layers, and one layer's scores recomputed with all else of it
    assert found == 16 * stage / 8 + 80 * a_layer + (a_layer + scores) + logits


def test_qwen3_on_8_devices_fits_as_computed_by_hand():
    config = PRESETS["qwen3-8b"]
    plan = best_plan(config, 8, H100, global_batch=64, seq_len=4096)
    assert plan.n_devices == 8
    assert plan.memory_bytes <= H100.memory_bytes
    found = Training(config, H100, 64, 4096).memory_bytes(Split(8, 1, 1, 64))
    # all in one stage: both tables; norms of 128 channels on queries and keys
    layer = 4096 * 128 * (32 + 8 + 8 + 32) + 2 * 128 + 3 * 4096 * 12288 + 2 * 4096
    params = 36 * layer + 2 * 151936 * 4096 + 4096
    split = 2 * (2 * (4096 + 1024) + 4096 + 1024) + 2 * 4 * 12288
    current = 4096 * (4096 * 10 + split / 8) + 4096 * 32 * 4096 * 5 / 8
    assert found == 16 * params / 8 + 36 * 4096 * 2 * 4096 + current + 4 * 4096 * 151936 / 8


def test_all_experts_of_deepseek_are_in_memory_and_refused_where_they_do_not_fit():
    config = PRESETS["deepseek-v3"]
    sizes = dict(global_batch=512, seq_len=4096)
    with pytest.raises(ValueError, match="n_devices=64: expected 244 or more for H100 SXM"):
        best_plan(config, 64, H100, **sizes)
    plan = best_plan(config, 488, H100, **sizes)
    assert plan.pp == 61
    assert plan.memory_bytes <= H100.memory_bytes
    # 256 experts and the shared one, the router
    experts = 257 * 3 * 7168 * 2048 + 256 * 7168
    queries, keys = 1536 * (7168 + 128 * 192) + 1536, 512 * 128 * 256 + 7168 * 576 + 512
    layer = experts + queries + keys + 128 * 128 * 7168 + 2 * 7168
    assert layer_params(stage_model(config, 1, 4)) == layer
    found = Training(config, H100, 512, 4096).memory_bytes(Split(4, 61, 2, 256))
    stage = layer + 129280 * 7168 + 7168
    wide = 2 * 128 * (192 + 128) + 2 * 1536 + 2 * 512 + 64
    hidden, copies = 4 * 9 * 2048, 2 * 8 * 7168 + 256
    current = 4096 * (7168 * 10 + 2 * copies + 2 * (wide + hidden) / 4)
    scores, inputs = 4096 * 128 * 4096 * 5 / 4, 61 * 4096 * 2 * 7168
    assert found == 16 * stage / 4 + inputs + current + scores + 4 * 4096 * 129280 / 4


def test_few_heads_of_keys_are_replicated():
    grouped, wide = (replace(SMALL, attention=Attention(n_kv_head=n)) for n in (2, 4))
    assert memory(grouped, 4, 1, 1, 8) == memory(wide, 4, 1, 1, 8)
    assert memory(grouped, 2, 1, 1, 8) < memory(wide, 2, 1, 1, 8)
    single = replace(SMALL, attention=Attention(n_kv_head=1))
    one, all_ranks = (stage_model(single, 4, tp) for tp in (1, 4))
    replicas = 4 * 3 * 2 * (96 + 1) * 8
    assert cost.num_params(all_ranks) - cost.num_params(one) == replicas


def test_the_heaviest_stage_has_the_most_experts_and_one_table():
    experts = Experts(8, 2, d_ff=48, dense_layers=(0, 1, 2))
    config = replace(SMALL, experts=experts, tied=False)
    assert [stage_model(config, n, 1).n_expert_layers for n in (1, 2, 4)] == [1, 1, 1]
    last, whole = stage_model(config, 2, 1), stage_model(config, 4, 1)
    assert whole == config
    dense = cost.num_params(config) - cost.num_params(last) - 1000 * 96
    assert dense == 2 * layer_params(replace(config, experts=None))


@pytest.mark.parametrize(
    ("config", "tp", "error"),
    [
        (
            replace(SMALL, attention=Attention(n_kv_head=6)),
            4,
            "tp=4: expected a divisor or a multiple of n_kv_head=6",
        ),
        (replace(SMALL, experts=Experts(4, 1, d_ff=50)), 4, "tp=4: expected a divisor of d_ff=50"),
        (
            replace(SMALL, experts=Experts(4, 1, d_ff=48, d_shared=18)),
            4,
            "tp=4: expected a divisor of d_ff=6",
        ),
        (replace(SMALL, attention=Attention(n_kv_head=2)), 8, "tp=8: expected a divisor of n_head"),
    ],
)
def test_what_tensor_ranks_cannot_divide_is_refused(config, tp, error):
    with pytest.raises(ValueError, match=re.escape(error)):
        memory(config, tp, 1, 1, 8)


def test_a_plan_tries_no_split_that_is_refused():
    config = replace(SMALL, attention=Attention(n_kv_head=6), experts=Experts(4, 1, d_ff=48))
    plan = best_plan(config, 8, H100, global_batch=64, seq_len=128)
    assert plan.tp in (1, 2)
