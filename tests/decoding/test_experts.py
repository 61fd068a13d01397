"""Experts against Mixtral's, and a model whose feed-forwards were copied."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from efflab import cost
from efflab.config import Experts, FeedForward, ModelConfig
from efflab.decoding.experts import ExpertFeedForward, with_experts
from efflab.grouped import GatedFeedForward
from efflab.model import Transformer

CONFIG = ModelConfig(2, 4, 32, 48, 50, 64, causal=True, feed_forward=FeedForward(True, False))


@pytest.mark.parametrize("n_active", [1, 2, 6])
def test_values_and_gradients_are_those_of_mixtral(n_active):
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=48, num_local_experts=6)
    options = MixtralConfig(**sizes, num_experts_per_tok=n_active)
    options._experts_implementation = "eager"
    theirs = MixtralSparseMoeBlock(options).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    experts = nn.ModuleList(GatedFeedForward(32, 48, nn.SiLU()) for _ in range(6))
    ours = ExpertFeedForward(experts, 32, n_active)
    ours.router.weight.data.copy_(theirs.gate.weight)
    for i, expert in enumerate(experts):
        gate, up = theirs.experts.gate_up_proj[i].detach().chunk(2)
        expert.gate.weight.data.copy_(gate)
        expert.up.weight.data.copy_(up)
        expert.down.weight.data.copy_(theirs.experts.down_proj[i].detach())
    x = torch.randn(2, 10, 32, requires_grad=True)
    expected, y = theirs(x), ours(x)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)
    given = torch.randn_like(y)
    wanted = torch.autograd.grad(expected, (x, theirs.gate.weight), given, retain_graph=True)
    mine = torch.autograd.grad(y, (x, ours.router.weight), given, retain_graph=True)
    for own, other in zip(mine, wanted, strict=True):
        torch.testing.assert_close(own, other, atol=1e-4, rtol=1e-4)
    (wanted,) = torch.autograd.grad(expected, theirs.experts.down_proj, given)
    y.backward(given)
    for i, expert in enumerate(experts):
        own = torch.zeros(32, 48) if expert.down.weight.grad is None else expert.down.weight.grad
        torch.testing.assert_close(own, wanted[i], atol=1e-4, rtol=1e-4)


def test_copies_compute_what_one_did_until_they_learn():
    torch.manual_seed(0)
    plain, ids = Transformer(CONFIG).eval(), torch.arange(20)[None]
    model = with_experts(plain, n_expert=4, n_active=2)
    torch.testing.assert_close(model(ids), plain(ids), atol=1e-5, rtol=1e-5)
    described = replace(CONFIG, experts=Experts(4, 2, d_ff=48))
    assert sum(p.numel() for p in model.parameters()) == cost.num_params(described)
    chosen, weights = model.layers[0].ffn.body.route(torch.randn(1, 200, 32))
    assert chosen.shape == weights.shape == (1, 200, 2)
    assert set(chosen.flatten().tolist()) == {0, 1, 2, 3}
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 200))
    greedy = model.generate(ids, 10, temperature=0)
    assert torch.equal(greedy, plain.generate(ids, 10, temperature=0, cache=False))


def test_routers_are_drawn_layer_by_layer():
    torch.manual_seed(0)
    model = with_experts(Transformer(replace(CONFIG, n_layer=12)), 4, 2)
    torch.manual_seed(0)
    Transformer(replace(CONFIG, n_layer=12))
    for layer in model.layers:
        expected = nn.Linear(32, 4, bias=False).weight
        nn.init.normal_(expected, std=0.02)
        assert torch.equal(layer.ffn.body.router.weight, expected)


def test_more_active_experts_than_there_are_is_refused():
    with pytest.raises(ValueError, match="n_active=5: expected at most 4 experts"):
        with_experts(Transformer(CONFIG), 4, 5)
