"""Lightweight and dynamic convolutions against the paper's formula written as loops."""

import math

import pytest
import torch
import torch.nn.functional as F

from efflab.config import ModelConfig
from efflab.model import Attention, Transformer
from efflab.structure.dynamic_conv import (
    BLOCK,
    DynamicConv,
    LightweightConv,
    band_matrix,
    conv_flops,
    convolve,
    replace_attention,
)


def naive(x, kernels, causal):
    """Equation 1 tap by tap; kernels (B,T,H,k)."""
    B, T, C = x.shape
    H, k = kernels.shape[2:]
    y = torch.zeros(B, T, C, dtype=x.dtype)
    for i in range(T):
        for c in range(C):
            head = c * H // C
            for j in range(k):
                # the paper counts j from 1 and reads i + j - ceil((k + 1) / 2)
                at = i - k + 1 + j if causal else i + (j + 1) - math.ceil((k + 1) / 2)
                if 0 <= at < T:
                    y[:, i, c] = y[:, i, c] + kernels[:, i, head, j] * x[:, at, c]
    return y


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("T", "k"), [(1, 3), (9, 1), (9, 4), (9, 5), (BLOCK + 3, 7), (5, 11)])
def test_convolve_equals_the_loop_in_values_and_gradients(T, k, causal):
    torch.manual_seed(0)
    x = torch.randn(2, T, 6, dtype=torch.double, requires_grad=True)
    kernels = torch.rand(2, T, 3, k, dtype=torch.double, requires_grad=True)
    weight = torch.randn(2, T, 6, dtype=torch.double)
    results = []
    for fn in (convolve, naive):
        y = fn(x, kernels, causal)
        results.append((y, *torch.autograd.grad((y * weight).sum(), (x, kernels))))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("causal", [True, False])
def test_lightweight_is_a_grouped_convolution_between_projections(causal):
    torch.manual_seed(0)
    layer = LightweightConv(12, 3, 5, causal).double()
    x = torch.randn(2, 40, 12, dtype=torch.double)
    values = layer.into(x)
    values = (values[..., :12] * torch.sigmoid(values[..., 12:])).transpose(1, 2)
    weight = layer.weight.softmax(-1).repeat_interleave(4, 0)  # one kernel for a head's channels
    pad = (4, 0) if causal else (2, 2)
    expected = layer.out(F.conv1d(F.pad(values, pad), weight, groups=12).transpose(1, 2))
    torch.testing.assert_close(layer(x), expected)
    names = [n for n, _ in layer.named_parameters()]
    parameters = list(layer.parameters())
    ours = torch.autograd.grad(layer(x).square().sum(), parameters)
    theirs = torch.autograd.grad(expected.square().sum(), parameters)
    for name, a, b in zip(names, ours, theirs, strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_dynamic_kernels_come_from_the_token_alone_and_sum_to_one():
    torch.manual_seed(0)
    layer = DynamicConv(12, 3, 5)
    x = torch.randn(1, 20, 12)
    kernels = layer.kernels(layer.gated(x))
    assert kernels.shape == (1, 20, 3, 5)
    torch.testing.assert_close(kernels.sum(-1), torch.ones(1, 20, 3))
    changed = x.clone()
    changed[:, 7] += 1
    same = (layer.kernels(layer.gated(changed)) == kernels).flatten(2).all(-1)[0]
    assert same.tolist() == [i != 7 for i in range(20)]
    expected = layer.out(naive(layer.gated(x), kernels, True))
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("make", [LightweightConv, DynamicConv])
def test_reach_is_the_kernel_whatever_the_input(make):
    for seed in range(3):
        torch.manual_seed(seed)
        layer = make(8, 2, 5)
        x = (10**seed * torch.randn(1, 30, 8)).requires_grad_()
        grad = torch.autograd.grad(layer(x)[0, 20].sum(), x)[0][0].abs().sum(-1)
        assert grad.nonzero().flatten().tolist() == [16, 17, 18, 19, 20]


@pytest.mark.parametrize("make", [LightweightConv, DynamicConv])
def test_padding_counts_as_zero(make):
    torch.manual_seed(0)
    layer = make(8, 2, 5, causal=False)
    x = torch.randn(1, 10, 8)
    mask = (torch.arange(10) < 6).view(1, 1, 1, 10)
    other = x.clone()
    other[:, 6:] = 99
    torch.testing.assert_close(layer(x, mask)[:, :6], layer(other, mask)[:, :6])
    with pytest.raises(ValueError, match="mask"):
        layer(x, torch.ones(1, 1, 10, 10, dtype=torch.bool))


def test_banded_places_each_row_one_further():
    kernels = torch.arange(1.0, 7).view(3, 2)
    expected = [[1, 2, 0, 0], [0, 3, 4, 0], [0, 0, 5, 6]]
    assert band_matrix(kernels).tolist() == expected


def test_replace_attention_keeps_shared_layers_shared():
    config = ModelConfig(3, 2, 16, 32, 50, 24, causal=True, share="attention")
    model = Transformer(config)
    given = []

    def make(attention):
        given.append(attention)
        return DynamicConv(16, attention.n_head, 3, attention.causal)

    assert replace_attention(model, make) is model
    assert len(given) == 1
    assert isinstance(given[0], Attention)
    bodies = {layer.attention.body for layer in model.layers}
    assert len(bodies) == 1
    ids = torch.randint(0, 50, (2, 24))
    logits = model(ids)
    changed = ids.clone()
    changed[:, 20] = (changed[:, 20] + 1) % 50
    torch.testing.assert_close(model(changed)[:, :20], logits[:, :20])  # still causal


def test_conv_flops_are_what_torch_counts_but_for_the_blocks():
    from torch.utils.flop_counter import FlopCounterMode

    C, H, k, T = 32, 4, 5, 2 * BLOCK
    for make, dynamic in ((LightweightConv, False), (DynamicConv, True)):
        with FlopCounterMode(display=False) as counter:
            make(C, H, k)(torch.randn(1, T, C))
        blocks = 2 * T * C * (BLOCK + k - 1)  # of which k - the method's own - are needed
        formula = conv_flops(C, H, k, T, dynamic=dynamic)
        assert counter.get_total_flops() - blocks == formula - 2 * T * C * k


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((0, 1, 3), "d_model"), ((8, 3, 3), "n_head"), ((8, 2, 0), "kernel_size")],
)
def test_bad_arguments_are_named(arguments, name):
    for make in (LightweightConv, DynamicConv):
        with pytest.raises(ValueError, match=name):
            make(*arguments)
    with pytest.raises(TypeError, match="kernel_size"):
        DynamicConv(8, 2, 3.5)
    with pytest.raises(ValueError, match="n_tokens"):
        conv_flops(8, 2, 3, 0)
