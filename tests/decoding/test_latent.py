"""Latent attention, expanded and absorbed, against `transformers`' DeepSeek-V3."""

from dataclasses import replace

import pytest
import torch
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as deepseek

from efflab import cost
from efflab.config import Attention, FeedForward, Latent, ModelConfig, Norms
from efflab.decoding.latent import LatentAttention, latent_model
from efflab.model import n_parameters

SIZES = dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=4, kv_lora_rank=12)
SIZES |= dict(qk_nope_head_dim=8, qk_rope_head_dim=6, v_head_dim=10, attention_bias=False)


def config(q_rank=16):
    attention = Attention(bias="none", latent=Latent(12, 8, 6, 10, q_rank=q_rank))
    parts = dict(feed_forward=FeedForward(True, False), norms=Norms("rms", False), tied=False)
    sizes = dict(activation="silu", norm_eps=1e-6, positions="rotary", causal=True)
    return ModelConfig(2, 4, 32, 48, 50, 64, attention=attention, **parts, **sizes)


def pairs_apart(weight, n_heads, nope_dim):
    """DeepSeek's rotary channels stand in pairs; ours have one half after the other."""
    whole = weight.view(n_heads, -1, weight.shape[-1])
    plain, turned = whole[:, :nope_dim], whole[:, nope_dim:]
    return torch.cat([plain, turned[:, 0::2], turned[:, 1::2]], dim=1).flatten(0, 1)


def theirs_and_ours(q_rank, absorbed):
    torch.manual_seed(0)
    options = DeepseekV3Config(**SIZES, q_lora_rank=q_rank, num_hidden_layers=1)
    options._attn_implementation = "eager"
    theirs = deepseek.DeepseekV3Attention(options, 0).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = LatentAttention(config(q_rank), absorbed).eval()
    up = theirs.q_proj if q_rank is None else theirs.q_b_proj
    weights = {"q_up.weight": pairs_apart(up.weight.detach(), 4, 8)}
    if q_rank is not None:
        weights |= {"q_down.weight": theirs.q_a_proj.weight}
        weights |= {"q_norm.weight": theirs.q_a_layernorm.weight}
    down = theirs.kv_a_proj_with_mqa.weight.detach()
    weights |= {"kv_down.weight": torch.cat([down[:12], pairs_apart(down[12:], 1, 0)])}
    weights |= {"kv_norm.weight": theirs.kv_a_layernorm.weight}
    weights |= {"kv_up.weight": theirs.kv_b_proj.weight, "out.weight": theirs.o_proj.weight}
    ours.load_state_dict(weights)
    return theirs, ours, deepseek.DeepseekV3RotaryEmbedding(options)


@pytest.mark.parametrize("q_rank", [16, None])
@pytest.mark.parametrize("absorbed", [False, True, None])
def test_values_and_gradients_are_those_of_transformers(q_rank, absorbed):
    theirs, ours, rotary = theirs_and_ours(q_rank, absorbed)
    x = torch.randn(2, 20, 32, requires_grad=True)
    mask = torch.full((20, 20), -torch.inf).triu(1)[None, None]
    expected, _ = theirs(x, rotary(x, torch.arange(20)[None]), mask)
    y = ours(x)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)
    given = torch.randn_like(y)
    (wanted,) = torch.autograd.grad(expected, x, given, retain_graph=True)
    (mine,) = torch.autograd.grad(y, x, given, retain_graph=True)
    torch.testing.assert_close(mine, wanted, atol=2e-5, rtol=1e-4)
    for own, other in ((ours.kv_up, theirs.kv_b_proj), (ours.kv_norm, theirs.kv_a_layernorm)):
        (wanted,) = torch.autograd.grad(expected, other.weight, given, retain_graph=True)
        (mine,) = torch.autograd.grad(y, own.weight, given, retain_graph=True)
        torch.testing.assert_close(mine, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("absorbed", [False, True, None])
def test_a_model_counts_caches_and_generates(absorbed):
    torch.manual_seed(0)
    model = latent_model(config(), absorbed).eval()
    assert sum(p.numel() for p in model.parameters()) == cost.num_params(config())
    ids = torch.randint(50, (2, 30), generator=torch.Generator().manual_seed(0))
    cache = model.new_cache()
    parts = [model(part, cache=cache) for part in ids.split([9, 1, 1, 19], dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), model(ids), atol=1e-5, rtol=1e-5)
    assert cache.nbytes == cost.kv_cache_bytes(config(), 30, 2, value_bytes=4)
    greedy = model.generate(ids, 20, temperature=0)
    assert torch.equal(greedy, model.generate(ids, 20, temperature=0, cache=False))


def test_padding_is_not_seen():
    torch.manual_seed(0)
    model, ids = latent_model(config()).eval(), torch.arange(12).view(2, 6)
    mask = torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0]])
    torch.testing.assert_close(model(ids, mask)[1, :4], model(ids[1:, :4])[0])


@pytest.mark.parametrize("norms", [Norms("rms"), Norms(), Norms(bias=False)])
def test_parameters_are_those_of_the_formula(norms):
    of_norms = replace(config(), norms=norms)
    assert n_parameters(latent_model(of_norms)) == cost.num_params(of_norms)


@pytest.mark.parametrize("change", [dict(windows=(3,)), dict(soft_cap=1.0), dict(bias="all")])
def test_what_it_does_not_compute_is_refused(change):
    attention = replace(config().attention, **change)
    with pytest.raises(ValueError, match=r"attention=Attention.*: expected Attention.*the rest"):
        latent_model(replace(config(), attention=attention))
    with pytest.raises(ValueError, match="causal=False: expected a causal model"):
        latent_model(replace(config(), causal=False))


def test_what_is_not_latent_is_refused():
    with pytest.raises(ValueError, match=r"attention.latent=None: expected a Latent"):
        LatentAttention(ModelConfig(1, 1, 4, 4, 4, 4))
