"""Today's layers: counts of released models, and what each option adds."""

from dataclasses import replace

import pytest

from efflab import cost, inference, layers
from efflab.config import PRESETS, Attention, Experts, FeedForward, Latent, ModelConfig, Norms

# name -> parameters, active ones, bytes of a cached token in 16 bits (released checkpoints)
RELEASED = {
    "qwen3-8b": (8_190_735_360, 8_190_735_360, 147_456),
    "llama-3.1-70b": (70_553_706_496, 70_553_706_496, 327_680),
    "deepseek-v3": (671_026_404_352, 37_552_282_624, 70_272),
    "gpt-oss-20b": (20_914_757_184, 4_187_440_704, 49_152),
}
PLAIN = ModelConfig(4, 4, 64, 256, 1000, 128, causal=True)


@pytest.mark.parametrize("name", RELEASED)
def test_released_counts(name):
    config = PRESETS[name]
    found = cost.num_params(config), cost.active_params(config), cost.kv_cache_bytes(config, 1)
    assert found == RELEASED[name]


def params(**options):
    return cost.num_params(replace(PLAIN, **options)) - cost.num_params(PLAIN)


def test_each_option_adds_its_parameters():
    C, L, V, F = 64, 4, 1000, 256
    assert params(attention=Attention(n_kv_head=1)) == -L * 2 * (C + 1) * 48
    assert params(attention=Attention(head_dim=32)) == L * (4 * C * C + 3 * C)
    assert params(attention=Attention(bias="qkv")) == -L * C
    assert params(attention=Attention(qk_norm="head")) == L * 2 * 16
    assert params(attention=Attention(qk_norm="width", bias="none")) == L * (2 * C - 4 * C)
    assert params(attention=Attention(sinks=True, windows=(8, None))) == L * 4
    assert params(feed_forward=FeedForward(gated=True)) == L * (C * F + F)
    assert params(feed_forward=FeedForward(bias=False)) == -L * (F + C)
    assert params(norms=Norms("rms")) == -(2 * L + 1) * C
    assert params(norms=Norms("plain", per_layer=1)) == -(2 * L + 1) * 2 * C
    assert params(norms=Norms(per_layer=4, embedding=True)) == (2 * L + 1) * 2 * C
    assert params(positions="rotary") == -128 * C
    assert params(positions="relative", position_rows=16) == (16 - 128) * C + 2 * C
    assert params(tied=False, head_bias=True) == V * C + V


def test_experts_replace_the_feed_forward():
    experts = Experts(8, 2, d_ff=32, d_shared=16, shared_gate=True, dense_layers=(0,))
    config = replace(PLAIN, experts=experts, feed_forward=FeedForward(gated=True, bias=False))
    one, C = 3 * 64 * 32, 64
    assert cost.num_params(config) - cost.active_params(config) == 3 * 6 * one
    layer = layers.expert_layer_params(config, 8)
    assert layer == 8 * one + 3 * C * 16 + 8 * C + C + 2 * C
    assert config.n_expert_layers == 3
    none = replace(config, experts=replace(experts, dense_layers=(0, 1, 2, 3)))
    assert cost.num_params(none) == cost.num_params(replace(config, experts=None))


def test_windows_repeat_and_bound_the_cache():
    config = replace(PLAIN, attention=Attention(windows=(8, 8, None)))
    assert config.windows == (8, 8, None, 8)
    a_token = 2 * 64 * 2
    assert cost.kv_cache_bytes(config, 5) == 4 * 5 * a_token
    assert cost.kv_cache_bytes(config, 1000, 3) == 3 * (3 * 8 + 1000) * a_token
    assert cost.kv_cache_bytes(config, 10, value_bytes=0.5) == (3 * 8 + 10) * 64
    with pytest.raises(ValueError, match="causal=False: expected a causal model"):
        cost.kv_cache_bytes(PRESETS["bert-base"], 10)


def test_a_prompt_is_its_tokens_one_by_one_but_for_logits():
    for attention in (
        Attention(n_kv_head=2, windows=(3, None)),
        Attention(latent=Latent(8, 4, 2, 6)),
    ):
        config = replace(PLAIN, attention=attention, positions="rotary")
        steps = sum(inference.decode_flops(config, n, absorbed=False) for n in range(10))
        # each token expands all cached vectors again
        steps -= 2 * 4 * sum(range(10)) * layers.expansion_weights(config)
        logits = cost.flops_by_part(config, 1)["logits"]
        assert steps - 9 * logits == inference.prefill_flops(config, 10)
        assert inference.prefill_flops(config, 10) < cost.forward_flops(config, 10)


def test_a_step_reads_the_weights_in_use_and_the_cache():
    config = PRESETS["gpt-oss-20b"]
    table = 201_088 * 2880
    read = inference.decode_bytes(config, 4096)
    assert read == 2 * (cost.active_params(config) - table) + cost.kv_cache_bytes(config, 4096)
    tied = replace(config, tied=True)
    assert inference.decode_bytes(tied, 0) == 2 * cost.active_params(tied)
    assert inference.decode_bytes(tied, 0, format="int8") == cost.active_params(tied)
    weights, cache = inference.decode_bytes(tied, 0), cost.kv_cache_bytes(tied, 64)
    for read in (inference.decode_bytes, inference.prefill_bytes):
        assert read(tied, 64, value_bytes=0.5) == weights + cache / 4


def test_formats():
    n = cost.num_params(PLAIN)
    bits = {"fp32": 32, "bf16": 16, "fp8": 8, "int8": 8, "int4": 4.125}
    for name, width in bits.items():
        assert cost.weight_bytes(PLAIN, name) == -(-n * width // 8)
    with pytest.raises(ValueError, match="format='fp4': expected one of 'fp32', 'bf16'"):
        cost.weight_bytes(PLAIN, "fp4")


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ValueError, match="n_kv_head=3: expected a divisor of n_head=4"):
        replace(PLAIN, attention=Attention(n_kv_head=3))
    with pytest.raises(ValueError, match="n_active=3: expected at most n_expert=2"):
        Experts(2, 3, d_ff=8)
    with pytest.raises(ValueError, match="windows=\\(\\): expected at least one window"):
        Attention(windows=())


def test_what_single_families_have_besides():
    C, V = 64, 1000
    assert params(attention=Attention(bias="out")) == -4 * 3 * C
    assert params(attention=Attention(qk_norm="each", qk_norm_bias=True)) == 4 * 4 * C
    assert params(attention=Attention(distance_buckets=32)) == 32 * 4
    assert params(norms=Norms(first=False)) == -2 * C
    assert params(activation="xielu") == 4 * 2
    assert params(d_embed=32) == -(V + 128) * 32 + 32 * C + C
    assert params(d_embed=32, embed_maps="both") == -V * 32 + 2 * 32 * C
