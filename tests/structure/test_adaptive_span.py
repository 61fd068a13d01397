"""Adaptive spans against dense attention with the same soft mask, written as loops."""

from copy import deepcopy

import pytest
import torch

from efflab.config import ModelConfig
from efflab.model import Attention, Transformer
from efflab.structure.adaptive_span import (
    BLOCK,
    AdaptiveSpanAttention,
    from_attention,
    learned_spans,
    soft_mask,
    span_flops,
    span_layers,
)
from efflab.structure.dynamic_conv import replace_attention


def dense(layer, x):
    """a = m(i - j) exp(s) / sum of the same over j, for every query, key and head."""
    T = x.shape[1]
    q, k, v = layer.heads(x)
    spans = layer.find_spans(x).expand(x.shape[0], T, -1)  # (B,T,H)
    distance = torch.arange(T)[:, None] - torch.arange(T)
    m = soft_mask(distance, spans.transpose(1, 2)[..., None], layer.ramp)
    m = m * (distance >= 0) * (distance < layer.max_span)
    weights = m * (q @ k.mT / layer.head_dim**0.5).exp()
    y = weights / weights.sum(-1, keepdim=True) @ v
    return layer.out(y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("T", "max_span", "ramp", "shares"),
    [
        (20, 20, 4, (0.21, 0.53)),  # no span a whole number: there the mask has a kink
        (20, 8, 4, (1.0, 0.03)),  # cut off at max_span
        (3 * BLOCK + 5, 100, 6, (0.03, 0.1)),  # trimmed, the last block padded
        (3 * BLOCK, 90, 1, (0.001, 0.004)),
        (1, 5, 2, (0.5, 0.5)),
    ],
)
def test_equals_dense_attention_under_the_soft_mask(T, max_span, ramp, shares, dynamic):
    torch.manual_seed(0)
    layer = AdaptiveSpanAttention(8, 2, max_span, ramp=ramp, dynamic=dynamic).double()
    layer.share.data = torch.tensor(shares).double()
    x = torch.randn(2, T, 8, dtype=torch.double, requires_grad=True)
    weight = torch.randn(2, T, 8, dtype=torch.double)
    inputs = {"x": x, **dict(layer.named_parameters())}
    results = []
    for fn in (layer, lambda x: dense(layer, x)):
        y = fn(x)
        grads = torch.autograd.grad((y * weight).sum(), inputs.values(), allow_unused=True)
        results.append({"values": y} | dict(zip(inputs, grads, strict=True)))
    for name, ours in results[0].items():
        torch.testing.assert_close(ours, results[1][name], msg=lambda m, n=name: f"{n}: {m}")


def test_trimming_follows_the_widest_head():
    layer = AdaptiveSpanAttention(8, 2, 512, ramp=8).eval()
    layer.share.data = torch.tensor([10 / 512, 40 / 512])
    layer(torch.randn(1, 512, 8))
    assert layer.reach == 48
    layer.share.data = torch.tensor([1.0, 0.0])
    layer(torch.randn(1, 512, 8))
    assert layer.reach == 512


def test_trimmed_arithmetic_is_linear_in_the_tokens():
    from torch.utils.flop_counter import FlopCounterMode

    layer = AdaptiveSpanAttention(16, 2, 1024, ramp=17).eval()  # 17 keys and no span
    counts = []
    for n_blocks in (8, 16):
        with FlopCounterMode(display=False) as counter:
            layer(torch.randn(1, n_blocks * BLOCK, 16))
        counts.append(counter.get_total_flops())
        extra = 2 * n_blocks * BLOCK * 2 * 16 * (BLOCK - 1)  # keys that only a block's others see
        assert counts[-1] - extra == span_flops(16, 17, n_blocks * BLOCK)
    assert counts[1] == 2 * counts[0]


def test_a_sequence_with_nothing_to_leave_out_is_one_block():
    from torch.utils.flop_counter import FlopCounterMode

    layer = AdaptiveSpanAttention(16, 2, 1024, ramp=17).eval()
    for T in (BLOCK - 1, BLOCK + 16):  # from BLOCK + 17 on a second window is smaller
        with FlopCounterMode(display=False) as counter:
            layer(torch.randn(1, T, 16))
        assert counter.get_total_flops() == span_flops(16, T, T)


def test_spans_cost_a_number_a_head_and_dynamic_ones_a_row():
    sizes = [
        sum(p.numel() for p in layer.parameters())
        for layer in (
            Attention(8, 2),
            AdaptiveSpanAttention(8, 2, 16),
            AdaptiveSpanAttention(8, 2, 16, dynamic=True),
        )
    ]
    assert sizes[1] - sizes[0] == 2
    assert sizes[2] - sizes[1] == 2 * 8


def test_open_spans_are_plain_attention_with_the_same_weights():
    torch.manual_seed(0)
    model = Transformer(ModelConfig(2, 2, 16, 32, 50, 40, causal=True)).eval()
    ids = torch.randint(0, 50, (2, 40))
    expected = model(ids)

    replace_attention(model, lambda a: from_attention(a, 40, initial=1.0)).eval()
    torch.testing.assert_close(model(ids), expected)
    assert learned_spans(model).shape == (2, 2)


def test_the_penalty_shortens_and_the_need_lengthens():
    """A head that must copy the token 12 back grows its span; with only the penalty it shrinks."""
    torch.manual_seed(0)
    layer = AdaptiveSpanAttention(8, 1, 32, ramp=4, initial=0.25)
    layer.qkv.weight.data[:16] *= 0.1
    x = torch.randn(8, 32, 8)
    y = layer(x)[:, 12:]
    (y - layer.out(layer.heads(x)[2].transpose(1, 2).flatten(2))[:, :20]).square().mean().backward()
    assert layer.share.grad.item() < 0
    layer.share.grad = None
    layer(x)
    layer.spans.mean().backward()
    assert layer.share.grad.item() > 0


def test_spans_stay_within_bounds_while_training():
    layer = AdaptiveSpanAttention(8, 2, 16, ramp=4)
    layer.share.data = torch.tensor([-0.3, 1.7])
    layer(torch.randn(1, 16, 8))
    assert layer.spans.flatten().tolist() == [0.0, 16.0]
    assert layer.share.tolist() == [0.0, 1.0]


def test_static_spans_ignore_the_input_and_dynamic_ones_follow_it():
    torch.manual_seed(0)
    a, b = torch.randn(2, 1, 24, 8)
    for dynamic in (False, True):
        layer = AdaptiveSpanAttention(8, 2, 24, initial=0.5, dynamic=dynamic)
        layer(a)
        first = layer.spans
        layer(b)
        assert torch.equal(first, layer.spans) != dynamic
    assert layer.spans.shape == (1, 24, 2)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (dict(n_head=3), "n_head"),
        (dict(max_span=0), "max_span"),
        (dict(ramp=0), "ramp"),
        (dict(initial=1.5), "initial"),
    ],
)
def test_bad_arguments_are_named(change, name):
    with pytest.raises(ValueError, match=name):
        AdaptiveSpanAttention(**(dict(d_model=8, n_head=2, max_span=16) | change))


def test_a_layer_that_has_run_can_be_copied():
    layer, x = AdaptiveSpanAttention(8, 2, 16), torch.randn(1, 5, 8)
    y = layer(x)
    copy = deepcopy(layer)
    assert copy.spans is None
    assert layer.spans is not None
    assert torch.equal(copy(x), y)


def test_a_converted_layer_has_the_originals_type():
    layer = from_attention(Attention(8, 2, causal=True).bfloat16(), 16, initial=1.0)
    assert {p.dtype for p in layer.parameters()} == {torch.bfloat16}
    narrow = Attention(8, 1, causal=True, head_dim=4)  # as pruning one of two heads leaves it
    with pytest.raises(ValueError, match=r"attention.head_dim=4: expected heads that fill"):
        from_attention(narrow, 16)


def test_misuse_is_named():
    layer = AdaptiveSpanAttention(8, 2, 16)
    with pytest.raises(ValueError, match="mask"):
        layer(torch.randn(1, 4, 8), torch.ones(1, 1, 1, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="not run yet"):
        learned_spans(layer)
    with pytest.raises(ValueError, match="AdaptiveSpanAttention"):
        learned_spans(torch.nn.Linear(2, 2))
    assert span_layers(layer) == [layer]
    with pytest.raises(ValueError, match=r"attention\.causal=False: expected a causal"):
        from_attention(Attention(8, 2), 16)
    with pytest.raises(ValueError, match="reach"):
        span_flops(8, 5, 4)
