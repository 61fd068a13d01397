"""Sliding windows against dense attention; Swin's window attention against `transformers`."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from efflab.bench import peak_bytes
from efflab.config import ModelConfig
from efflab.data import read_published
from efflab.model import Transformer
from efflab.profile import Counter
from efflab.structure.swin import relative_position_index, shift_mask, swin_counts
from efflab.structure.window import (
    BLOCK,
    SHARED_FROM,
    WindowAttention,
    computed_pairs,
    sliding_window_attention,
    visible_pairs,
    window_mask,
    with_windows,
)


def heads(B, H, T, D, seed=0, **options):
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(B, H, T, D, generator=rng, **options) for _ in range(3)]


def dense(q, k, v, window_size, causal):
    """The definition, written out: all scores, then what the window hides."""
    at = torch.arange(q.shape[2])
    seen = (at[:, None] - at).abs() <= window_size
    if causal:
        seen = seen & (at <= at[:, None])
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v


@settings(max_examples=60, deadline=None)
@given(
    T=st.integers(1, 5 * BLOCK + 3),
    window_size=st.integers(0, 6 * BLOCK),
    causal=st.booleans(),
    B=st.integers(1, 2),
)
def test_equals_dense_attention(T, window_size, causal, B):
    q, k, v = heads(B, 2, T, 8)
    y = sliding_window_attention(q, k, v, window_size, causal)
    torch.testing.assert_close(y, dense(q, k, v, window_size, causal))


@settings(max_examples=30, deadline=None)
@given(T=st.integers(1, 5 * BLOCK), window_size=st.integers(0, 6 * BLOCK), causal=st.booleans())
def test_computed_pairs_are_those_of_the_products(T, window_size, causal):
    """Counted by torch: 4 FLOPs a pair and channel; never fewer than the window lets through."""
    q, k, v = heads(1, 1, T, 8)
    with Counter() as counter:
        sliding_window_attention(q, k, v, window_size, causal)
    pairs = computed_pairs(T, window_size, causal)
    assert sum(counter.flops.values()) == 4 * 8 * pairs
    assert visible_pairs(T, window_size, causal) <= pairs <= T * min(T, 2 * window_size + BLOCK)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("T", "window_size"), [(300, 20), (256, 64), (333, 100), (130, 500), (9, 0)]
)
def test_gradients_equal_dense_attention(T, window_size, causal):
    ours = [x.requires_grad_() for x in heads(2, 2, T, 8, dtype=torch.float64)]
    theirs = [x.detach().clone().requires_grad_() for x in ours]
    weight = torch.randn(2, 2, T, 8, dtype=torch.float64)
    (sliding_window_attention(*ours, window_size, causal) * weight).sum().backward()
    (dense(*theirs, window_size, causal) * weight).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("H", [1, 2, 5])
def test_a_long_input_on_several_threads_is_the_same(H):
    """Heads of its own for each of three threads, as far as they go; and one thread's values."""
    q, k, v = heads(1, H, -(-SHARED_FROM // (64 * H)), 64)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        shared = sliding_window_attention(q, k, v, 20)
        recorded = sliding_window_attention(q.requires_grad_(), k, v, 20)
        torch.set_num_threads(1)
        torch.testing.assert_close(shared, sliding_window_attention(q.detach(), k, v, 20))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(shared, recorded.detach())
    recorded.sum().backward()
    assert q.grad.shape == q.shape


def test_reads_the_models_strided_heads_and_half_precision():
    x = torch.randn(2, 200, 3, 4, 8)
    q, k, v = x.permute(2, 0, 3, 1, 4)
    y = sliding_window_attention(q, k, v, 30)
    torch.testing.assert_close(y, dense(q, k, v, 30, False))
    half = sliding_window_attention(*(t.bfloat16() for t in (q, k, v)), 30)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), y, atol=0.05, rtol=0.05)


def test_a_token_depends_on_its_window_and_on_nothing_else():
    q, k, v = heads(1, 1, 500, 4)
    k, v = k.requires_grad_(), v.requires_grad_()
    sliding_window_attention(q, k, v, 70, causal=True)[0, 0, 300].sum().backward()
    touched = v.grad[0, 0].abs().sum(-1).nonzero()[:, 0].tolist()
    assert touched == list(range(230, 301))


def test_memory_grows_with_the_length_and_not_with_its_square():
    def peak(T):
        q, k, v = heads(1, 4, T, 32)
        return peak_bytes(lambda: sliding_window_attention(q, k, v, 128))

    assert peak(8192) <= 4**1.15 * peak(2048)


def test_gradient_memory_is_linear_too():
    def peak(T):
        q, k, v = (x.requires_grad_() for x in heads(1, 4, T, 32))
        return peak_bytes(lambda: sliding_window_attention(q, k, v, 128).sum().backward())

    assert peak(8192) <= 4**1.15 * peak(2048)


@given(T=st.integers(1, 60), window_size=st.integers(0, 80), causal=st.booleans())
def test_visible_pairs_counts_the_mask(T, window_size, causal):
    assert visible_pairs(T, window_size, causal) == window_mask(T, window_size, causal).sum()


def test_a_window_has_two_sides_unless_it_is_causal():
    q, k, v = heads(1, 1, 70, 4)
    both = sliding_window_attention(q, k, v, 3)
    torch.testing.assert_close(both, dense(q, k, v, 3, causal=False))
    assert torch.equal(window_mask(70, 3), window_mask(70, 3).T)
    assert visible_pairs(70, 3) == window_mask(70, 3).sum() == 7 * 70 - 12
    assert computed_pairs(70, 3) == 64 * 67 + 6 * 9


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"window_size": -1}, "window_size=-1"),
        ({"q": torch.zeros(2, 3, 4)}, "q.shape"),
        ({"k": torch.zeros(1, 2, 9, 4)}, "k.shape"),
        ({"k": torch.zeros(1, 2, 7, 4)}, "k.shape"),
        ({"v": torch.zeros(1, 2, 8, 5)}, "v.shape"),
        ({"v": torch.zeros(1, 2, 8, 3)}, "v.shape"),
        ({name: torch.zeros(1, 2, 0, 4) for name in "qkv"}, "q.shape"),
    ],
)
def test_refuses_bad_arguments(change, named):
    x = torch.zeros(1, 2, 8, 4)
    with pytest.raises(ValueError, match=named):
        sliding_window_attention(**({"q": x, "k": x, "v": x, "window_size": 2} | change))
    with pytest.raises(TypeError, match="window_size"):
        sliding_window_attention(x, x, x, 2.5)


def swin_layer(window_size, shift, d_model=24, n_head=3):
    """`transformers`' layer with random weights, and our attention with the same."""
    from transformers import SwinConfig
    from transformers.models.swin.modeling_swin import SwinLayer

    torch.manual_seed(1)
    config = SwinConfig(window_size=window_size, drop_path_rate=0.0)
    config._attn_implementation = "eager"
    layer = SwinLayer(config, d_model, (0, 0), n_head, shift_size=shift)
    theirs = layer.attention
    torch.nn.init.normal_(theirs.relative_position_bias.relative_position_bias_table)
    ours = WindowAttention(d_model, n_head, window_size, shift)
    projections = (theirs.q_proj, theirs.k_proj, theirs.v_proj)
    ours.load_state_dict(
        {
            "qkv.weight": torch.cat([p.weight for p in projections]),
            "qkv.bias": torch.cat([p.bias for p in projections]),
            "out.weight": theirs.o_proj.weight,
            "out.bias": theirs.o_proj.bias,
            "bias_table": theirs.relative_position_bias.relative_position_bias_table,
        }
    )
    return layer, ours


@pytest.mark.parametrize("shift", [0, 1, 2])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 20), (12, 16)])
def test_equals_the_swin_layer_of_transformers(height, width, shift):
    layer, ours = swin_layer(4, shift)
    x = torch.randn(2, height * width, 24)
    x1, x2 = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected, _ = layer(x1, (height, width))

    attended = ours(layer.layernorm_before(x2).view(2, height, width, 24)).flatten(1, 2)
    y = x2 + attended
    y = y + layer.mlp(layer.layernorm_after(y))
    torch.testing.assert_close(y, expected)

    weight = torch.randn_like(y)
    layer.zero_grad()
    (expected * weight).sum().backward()
    attention = layer.attention
    theirs = {
        "qkv.weight": torch.cat([getattr(attention, f"{p}_proj").weight.grad for p in "qkv"]),
        "out.weight": attention.o_proj.weight.grad.clone(),
        "bias_table": attention.relative_position_bias.relative_position_bias_table.grad,
    }
    (y * weight).sum().backward()
    torch.testing.assert_close(x2.grad, x1.grad, atol=1e-4, rtol=1e-4)
    for name, grad in theirs.items():
        torch.testing.assert_close(ours.get_parameter(name).grad, grad, atol=1e-4, rtol=1e-4)


def test_windows_are_closed_until_they_shift():
    """What pixel (0,0) hears from: its window; shifted, the pixels around its corner."""
    for shift, heard in ((0, {0, 1, 2, 3}), (2, {0, 1})):
        attention = WindowAttention(8, 2, 4, shift)
        x = torch.randn(1, 8, 12, 8, requires_grad=True)
        attention(x)[0, 0, 0].sum().backward()
        rows, columns = x.grad[0].abs().sum(-1).nonzero().unbind(1)
        assert set(rows.tolist()) == set(columns.tolist()) == heard


def test_bias_index_and_shift_mask():
    index = relative_position_index(2)
    assert index.tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    # only the windows at the seam hide anything: 2 x 3 windows, of which the last row and column
    closed = ~shift_mask(8, 12, 4, 2).flatten(1).all(1)
    assert closed.tolist() == [False, False, True, True, True, True]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((7, 2, 4), "n_head=2: expected a divisor of d_model=7"),
        ((8, 2, 4, 4), "shift=4: expected less than window_size=4"),
        ((8, 2, 4, -1), "shift=-1: expected an int"),
        ((0, 2, 4), "d_model=0: expected an int"),
        ((8, 0, 4), "n_head=0: expected an int"),
        ((8, 2, 0), "window_size=0: expected an int"),
    ],
)
def test_window_attention_refuses_bad_sizes(arguments, named):
    with pytest.raises(ValueError, match=named):
        WindowAttention(*arguments)


@pytest.mark.parametrize(
    ("shape", "named"),
    [
        ((8, 8, 8), "x.shape"),
        ((1, 6, 8, 8), "height=6"),
        ((1, 0, 8, 8), "height=0"),
        ((1, 8, 9, 8), "width=9"),
        ((1, 8, 8, 4), "channels=4"),
    ],
)
def test_window_attention_refuses_bad_images(shape, named):
    with pytest.raises(ValueError, match=named):
        WindowAttention(8, 2, 4)(torch.zeros(shape))


def test_counts_equal_the_published_rows():
    for row in read_published("swin"):
        depths = tuple(map(int, row["depths"].split(",")))
        params, macs = swin_counts(row["channels"], depths, row["window"], row["image"])
        assert params == row["torchvision_params"]
        assert round(macs / 1e9, 3) == row["torchvision_gmacs"]
        assert round(macs / 1e9, 1) == row["gmacs"]  # the paper's own digits
        assert abs(params / 1e6 - row["params_millions"]) < 1  # Swin-T's 28.3 stands there as 29


def test_counts_equal_transformers_for_another_shape():
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig(
        embed_dim=64, depths=[1, 3], num_heads=[2, 4], window_size=4, image_size=64, num_labels=10
    )
    n_params = sum(p.numel() for p in SwinForImageClassification(config).parameters())
    assert swin_counts(64, (1, 3), 4, 64, n_classes=10)[0] == n_params


@pytest.mark.parametrize("causal", [False, True])
def test_a_model_with_windows_equals_the_model_under_the_mask(causal):
    model = Transformer(ModelConfig(3, 2, 16, 32, 50, 40, causal=causal, share="attention"))
    ids = torch.arange(40)[None]
    windowed = with_windows(model, 5)
    x = model.embedding(ids)
    for layer in model.layers:
        x = layer(x, window_mask(40, 5, causal)[None, None])
    torch.testing.assert_close(windowed.encode(ids), model.final_norm(x))
    assert len({id(layer.attention.body) for layer in windowed.layers}) == 1
    assert not torch.equal(model.encode(ids), windowed.encode(ids))
