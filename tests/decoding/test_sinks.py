"""Sinks against gpt-oss; first tokens: what is seen, by mask and by cache, and what it is worth."""

from dataclasses import replace

import pytest
import torch
from transformers import GptOssConfig
from transformers.models.gpt_oss import modeling_gpt_oss as gpt_oss

from efflab import cost
from efflab.config import Attention, ModelConfig, Rope
from efflab.decoding import sinks
from efflab.model import Transformer

GROUPED = Attention(n_kv_head=2, head_dim=8, windows=(5, None))
CONFIG = ModelConfig(2, 4, 32, 48, 50, 64, causal=True, positions="rotary", attention=GROUPED)
WITHOUT_WINDOWS = replace(GROUPED, windows=(None,))
CONFIG = replace(CONFIG, rope=Rope(150_000.0))
GPT = ModelConfig(2, 4, 32, 64, 50, 64, causal=True)


def make(config, seed=0):
    torch.manual_seed(seed)
    return Transformer(config).eval()


@pytest.mark.parametrize("layer", [0, 1])
def test_values_and_gradients_are_those_of_gpt_oss(layer):
    torch.manual_seed(0)
    kinds = ["sliding_attention", "full_attention"]
    sizes = dict(hidden_size=32, head_dim=8, num_attention_heads=4, num_key_value_heads=2)
    rope = dict(rope_type="default", rope_theta=150_000.0)
    options = dict(sliding_window=5, num_hidden_layers=2, layer_types=kinds, rope_parameters=rope)
    options = GptOssConfig(**sizes, **options)
    options._attn_implementation = "eager"
    theirs = gpt_oss.GptOssAttention(options, layer).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = sinks.SinkAttention(CONFIG, CONFIG.windows[layer])
    maps = (theirs.q_proj, theirs.k_proj, theirs.v_proj)
    weights = {f"qkv.{k}": torch.cat([getattr(m, k) for m in maps]) for k in ("weight", "bias")}
    weights |= {f"out.{k}": getattr(theirs.o_proj, k) for k in ("weight", "bias")}
    ours.load_state_dict(weights | {"sinks": theirs.sinks})
    x = torch.randn(2, 20, 32, requires_grad=True)
    far = torch.arange(20)[:, None] - torch.arange(20)
    hidden = (far < 0) | (far >= (CONFIG.windows[layer] or 20))
    mask = torch.zeros(20, 20).masked_fill(hidden, -torch.inf)[None, None]
    rotary = gpt_oss.GptOssRotaryEmbedding(options)
    expected, _ = theirs(x, rotary(x, torch.arange(20)[None]), mask)
    y = ours(x)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)
    given = torch.randn_like(y)
    wanted = torch.autograd.grad(expected, (x, theirs.sinks), given)
    for mine, other in zip(torch.autograd.grad(y, (x, ours.sinks), given), wanted, strict=True):
        torch.testing.assert_close(mine, other, atol=2e-5, rtol=1e-4)


def test_a_model_with_sinks_counts_caches_and_forgets_them_far_down():
    plain = make(CONFIG)
    model, ids = sinks.with_sinks(plain), torch.arange(20).view(1, 20)
    described = replace(CONFIG, attention=replace(GROUPED, sinks=True))
    assert sum(p.numel() for p in model.parameters()) == cost.num_params(described)
    assert not torch.allclose(model(ids), plain(ids), atol=1e-5)
    greedy = model.generate(ids, 20, temperature=0)
    assert torch.equal(greedy, model.generate(ids, 20, temperature=0, cache=False))
    for layer in model.layers:
        layer.attention.body.sinks.data.fill_(-1e4)
    torch.testing.assert_close(model(ids), plain(ids))
    with pytest.raises(ValueError, match="attention='Attention': expected GroupedAttention"):
        sinks.with_sinks(make(GPT))


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("share", ["none", "attention"])
@pytest.mark.parametrize("soft_cap", [None, 0.05])
def test_sinks_stand_beside_a_cap_in_an_encoder_and_in_shared_attention(causal, share, soft_cap):
    attention = replace(WITHOUT_WINDOWS, soft_cap=soft_cap)
    plain = make(replace(CONFIG, causal=causal, share=share, attention=attention))
    model, ids = sinks.with_sinks(plain), torch.arange(20).view(1, 20)
    for sink, is_equal in ((-1e4, True), (50.0, False)):
        for layer in model.layers:
            layer.attention.body.sinks.fill_(sink)
        assert torch.allclose(model(ids), plain(ids), atol=1e-5) == is_equal
    n_blocks = 1 if share == "attention" else 2
    assert len({layer.attention.body for layer in model.layers}) == n_blocks


@pytest.mark.parametrize(
    "config", [GPT, replace(CONFIG, attention=replace(GROUPED, windows=(None,)))]
)
@pytest.mark.parametrize("n_first", [0, 1, 4])
def test_first_and_last_tokens_are_seen_by_mask_and_by_cache(config, n_first):
    model = sinks.with_streaming(make(config), 6, n_first)
    ids = torch.randint(50, (2, 30), generator=torch.Generator().manual_seed(1))
    cache = sinks.streaming_cache(model)
    parts = [model(part, cache=cache) for part in ids.split([9, 1, 20], dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), model(ids), atol=1e-5, rtol=1e-5)
    assert {layer.n_kept for layer in cache.layers} == {6 + n_first}
    greedy = model.generate(ids, 20, temperature=0, cache=sinks.streaming_cache(model))
    assert torch.equal(greedy, model.generate(ids, 20, temperature=0, cache=False))
    with pytest.raises(ValueError, match="cache='LayerCache': expected one of `streaming_cache`"):
        model.generate(ids, 2)
    with pytest.raises(ValueError, match="n_tokens=29: expected 30, all that it saw"):
        cache.truncate(29)


def test_what_lies_between_is_not_seen():
    layer, x = sinks.with_streaming(make(GPT), 3, 2).layers[0].attention.body, torch.randn(1, 9, 32)
    seen = torch.autograd.functional.jacobian(lambda x: layer(x)[0, 8].sum(), x)[0].abs().sum(-1)
    assert (seen > 0).tolist() == [True] * 2 + [False] * 4 + [True] * 3


def test_a_window_over_the_whole_text_changes_nothing():
    model, ids = make(GPT), torch.arange(20)[None]
    torch.testing.assert_close(sinks.with_streaming(model, 20, 0)(ids), model(ids))


def test_bad_arguments_are_named():
    model = make(GPT)
    with pytest.raises(ValueError, match="model='Attention': expected StreamingAttention"):
        sinks.streaming_cache(model)
    with pytest.raises(ValueError, match="causal=False: expected a causal model"):
        sinks.with_streaming(make(replace(GPT, causal=False)), 4)
    with pytest.raises(ValueError, match=r"keys.shape=\(1, 1, 2, 4\): expected one token"):
        sinks.StreamingLayerCache(4, 1).extend(*(torch.zeros(1, 1, 2, 4),) * 2)
    with pytest.raises(ValueError, match=r"mask=.*: expected None"):
        sinks.with_streaming(model, 4)(torch.arange(4)[None], torch.ones(1, 4))
