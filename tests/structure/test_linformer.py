"""Linformer: a naive reference, its limits, what it replaces and what it cannot."""

import pytest
import torch
from scipy.stats import spearmanr
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from efflab.config import ModelConfig
from efflab.data import read_published
from efflab.model import Attention, Transformer
from efflab.structure.linformer import (
    LinformerAttention,
    attention_flops,
    from_attention,
    linformer,
    linformer_attention,
    linformer_flops,
    linformer_params,
    segment_means,
)


def make(share="none", d_model=12, n_head=3, max_len=16, k=5):
    torch.manual_seed(0)
    return LinformerAttention(d_model, n_head, max_len, k, share).double()


def naive(layer, x, mask=None):
    """Equation 7, one head, one query and one summary at a time."""
    B, T, C = x.shape
    H, D = layer.n_head, C // layer.n_head
    y = torch.zeros(B, T, C, dtype=x.dtype)
    weight, bias = layer.qkv.weight, layer.qkv.bias
    parts = []
    for b in range(B):
        rows = []
        for h in range(H):
            q, k, v = (
                x[b] @ weight[i * C + h * D : i * C + (h + 1) * D].T
                + bias[i * C + h * D : i * C + (h + 1) * D]
                for i in range(3)
            )
            E = layer.E[h if layer.E.shape[0] > 1 else 0]
            F = layer.F[h if layer.F.shape[0] > 1 else 0]
            real = range(T) if mask is None else [t for t in range(T) if mask[b, 0, 0, t]]
            keys = torch.stack([sum(E[j, t] * k[t] for t in real) for j in range(layer.k)])
            values = torch.stack([sum(F[j, t] * v[t] for t in real) for j in range(layer.k)])
            weights = torch.stack([(keys @ q[t] / D**0.5).exp() for t in range(T)])
            rows.append(weights / weights.sum(1, keepdim=True) @ values)
        parts.append(torch.cat(rows, 1))
    y = torch.stack(parts)
    return y @ layer.out.weight.T + layer.out.bias


@pytest.mark.parametrize("share", ["none", "heads", "kv"])
@pytest.mark.parametrize("seq_len", [16, 9])
@pytest.mark.parametrize("masked", [False, True])
def test_values_and_gradients_equal_the_naive_reference(share, seq_len, masked):
    layer = make(share)
    x = torch.randn(2, seq_len, 12, dtype=torch.double, requires_grad=True)
    mask = None
    if masked:
        mask = torch.ones(2, 1, 1, seq_len, dtype=torch.bool)
        mask[1, ..., 6:] = False
    targets = [x, *layer.parameters()]
    ours, theirs = layer(x, mask), naive(layer, x, mask)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(ours.square().sum(), targets),
        torch.autograd.grad(theirs.square().sum(), targets),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("share", ["none", "heads", "kv"])
def test_identity_projections_are_full_attention(share):
    torch.manual_seed(0)
    full = Attention(12, 3).double()
    layer = from_attention(full, max_len=16, k=16, share=share)
    with torch.no_grad():
        layer.E.copy_(torch.eye(16).expand_as(layer.E))
        layer.F.copy_(torch.eye(16).expand_as(layer.F))
    x = torch.randn(2, 16, 12, dtype=torch.double)
    torch.testing.assert_close(layer(x), full(x))


@pytest.mark.parametrize("share", ["none", "heads", "kv"])
def test_parameters(share):
    plain = sum(p.numel() for p in Attention(12, 3).parameters())
    layer = make(share)
    added = sum(p.numel() for p in layer.parameters()) - plain
    assert added == linformer_params(3, 16, 5, share)
    assert added == {"none": 6, "heads": 2, "kv": 1}[share] * 5 * 16
    assert (layer.E is layer.F) == (share == "kv")


@pytest.mark.parametrize("share", ["none", "heads", "kv"])
def test_projected_keys_and_values_start_at_a_keys_size(share):
    torch.manual_seed(0)
    layer = LinformerAttention(16, 2, 256, 64, share)
    keys = torch.randn(256, 4)
    for matrix in (layer.E, layer.F):
        assert (matrix @ keys).std().item() == pytest.approx(keys.std().item(), rel=0.2)


@pytest.mark.parametrize(("seq_len", "k"), [(64, 8), (64, 32), (48, 3)])
def test_flops(seq_len, k):
    q, key, value = torch.randn(3, 1, 2, seq_len, 8)
    E, F = torch.randn(2, 1, k, seq_len)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        linformer_attention(q, key, value, E.expand(2, -1, -1), F.expand(2, -1, -1))
    assert counter.get_total_flops() == linformer_flops(seq_len, k, 16)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        torch.nn.functional.scaled_dot_product_attention(q, key, value)
    assert counter.get_total_flops() == attention_flops(seq_len, 16)
    assert linformer_flops(64, 32, 16) == attention_flops(64, 16)  # break-even at half


def test_a_later_token_changes_an_earlier_answer():
    layer, causal = make(), Attention(12, 3, causal=True).double()
    x = torch.randn(1, 16, 12, dtype=torch.double)
    changed = x.clone()
    changed[:, -1] += 1
    assert (causal(x) - causal(changed))[:, :-1].abs().max() == 0
    assert ((layer(x) - layer(changed)).abs().amax(-1) > 1e-4).all()


def test_encoder_with_linformer_ignores_padding_and_keeps_its_weights():
    torch.manual_seed(0)
    model = Transformer(ModelConfig(2, 3, 12, 24, 50, 16, share="all")).eval()
    compressed = linformer(model, 16, 4, "heads")
    assert compressed.layers[0].attention is compressed.layers[1].attention  # still shared
    assert isinstance(model.layers[0].attention.body, Attention)
    assert not isinstance(model.layers[0].attention.body, LinformerAttention)
    added = sum(p.numel() for p in compressed.parameters()) - sum(
        p.numel() for p in model.parameters()
    )
    assert added == 2 * 4 * 16
    ids = torch.randint(50, (1, 10))
    padded = torch.cat([ids, torch.randint(50, (1, 6))], 1)
    mask = torch.arange(16)[None] < 10
    short, long = compressed.encode(ids), compressed.encode(padded, mask)[:, :10]
    torch.testing.assert_close(short, long, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_summary_of_no_real_token_is_left_out():
    """One summary for every two tokens: a text of 8 fills four of eight, padded or not."""
    layer = make("kv", max_len=16, k=8)
    layer.E.copy_(torch.eye(8).repeat_interleave(2, 1) / 2)
    half = make("kv", max_len=8, k=4)
    half.load_state_dict(layer.state_dict() | dict(E=layer.E[:, :4, :8], F=layer.E[:, :4, :8]))
    x = torch.randn(2, 16, 12, dtype=torch.double)
    mask = torch.arange(16).expand(2, 1, 1, 16) < 8
    expected = half(x[:, :8])
    torch.testing.assert_close(layer(x, mask)[:, :8], expected)
    torch.testing.assert_close(layer(x[:, :8]), expected)
    nothing = layer(x, torch.zeros(2, 1, 1, 16, dtype=torch.bool))  # not one token is real
    torch.testing.assert_close(nothing, layer.out.bias.expand(2, 16, 12))


def test_published_rows_are_ordered_as_the_arithmetic_says():
    """Another machine's seconds and bytes: what can agree is how they move with n and k."""
    rows = read_published("linformer")
    assert len(rows) == 10
    n, k = ([row[name] for row in rows] for name in ("seq_len", "k"))
    # a layer of width 768: 24 n C^2 for projections and FFN, and the attention core
    ratios = [
        (24 * a * 768**2 + attention_flops(a, 768)) / (24 * a * 768**2 + linformer_flops(a, b, 768))
        for a, b in zip(n, k, strict=True)
    ]
    for column in ("speedup", "memory_saving"):
        assert spearmanr(ratios, [row[column] for row in rows]).statistic > 0.9


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (dict(k=17), ValueError, "k=17: expected at most max_len=16"),
        (dict(k=0), ValueError, "k=0"),
        (dict(k=2.5), TypeError, "k=2.5"),
        (dict(n_head=5), ValueError, "n_head=5: expected a divisor of d_model=12"),
        (dict(share="layers"), ValueError, "share='layers': expected one of 'none', 'heads', 'kv'"),
    ],
)
def test_bad_arguments_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        make(**changes)


def test_bad_inputs_are_refused():
    layer = make()
    with pytest.raises(ValueError, match="sequence length=17: expected at most max_len=16"):
        layer(torch.randn(1, 17, 12).double())
    with pytest.raises(ValueError, match=r"mask\.shape"):
        layer(torch.randn(1, 16, 12).double(), torch.ones(1, 1, 16, 16).tril().bool())
    with pytest.raises(ValueError, match=r"attention\.causal=True"):
        from_attention(Attention(12, 3, causal=True), 16, 4)
    with pytest.raises(ValueError, match=r"attention\.causal=True"):
        linformer(Transformer(ModelConfig(1, 3, 12, 24, 50, 16, causal=True)), 16, 4)
    with pytest.raises(ValueError, match="head_dim"):
        from_attention(Attention(12, 2, head_dim=4), 16, 4)
    with pytest.raises(ValueError, match="share='rows'"):
        linformer_params(3, 16, 5, "rows")


def test_segment_means():
    E = segment_means(4, 12)
    torch.testing.assert_close(E @ torch.arange(12.0), torch.tensor([1.0, 4, 7, 10]))
    with pytest.raises(ValueError, match="k=5: expected a divisor of 12"):
        segment_means(5, 12)
