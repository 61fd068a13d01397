"""INT8 layers against exact arithmetic and torch's quantized kernels; calibration; outliers."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from efflab.base.hooks import linear_layers
from efflab.compression import int8
from efflab.compression.affine import quantize
from efflab.compression.engines import torch_dynamic_int8
from efflab.compression.openvino import smooth_for_nncf
from efflab.config import Attention, Latent, ModelConfig
from efflab.data import read_published
from efflab.decoding.latent import latent_model
from efflab.model import Transformer

CONFIG = ModelConfig(2, 2, 32, 64, 100, 16)
IDS = torch.arange(48).view(4, 12)


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return nn.Linear(96, 40)


@pytest.fixture
def x():
    return torch.randn(24, 96, generator=torch.Generator().manual_seed(1)) + 0.3


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Transformer(CONFIG).eval()


def packed(linear, per_channel=True):
    """The layer's weight as torch's kernels take it, on the same grid as ours."""
    q = quantize(linear.weight.detach(), 8, axis=0 if per_channel else None)
    if per_channel:
        zeros = torch.zeros(len(q.scale), dtype=torch.long)
        weight = torch.quantize_per_channel(linear.weight.detach(), q.scale, zeros, 0, torch.qint8)
    else:
        weight = torch.quantize_per_tensor(linear.weight.detach(), q.scale.item(), 0, torch.qint8)
    return torch.ops.quantized.linear_prepack(weight, linear.bias.detach())


@pytest.mark.parametrize("per_channel", [True, False])
def test_dynamic_is_torchs(linear, x, per_channel):
    # 7-bit inputs are torch's default, so that pairs of products fit into 16 bits on any CPU.
    ours = int8.Int8Linear(linear, bits=7, per_channel=per_channel)(x)
    theirs = torch.ops.quantized.linear_dynamic(x, packed(linear, per_channel), True)
    step = (x.max() - x.min()) / 127
    assert (ours - theirs).abs().max() < 0.02 * step * linear.weight.abs().sum(1).max()
    # and a code that rounds the other way at a tie is rare
    assert ((ours - theirs).abs() > 1e-4).float().mean() < 0.05


def test_static_is_torchs(linear, x):
    span = x.min().item(), x.max().item()
    scale, zero = int8.input_grid(*span, bits=7)
    codes = torch.quantize_per_tensor(x, scale.item(), int(zero), torch.quint8)
    ours = int8.Int8Linear(linear, span, bits=7)(x)
    out_scale = (ours.max() - ours.min()).item() / 250
    out_zero = int(-ours.min() / out_scale) + 2
    theirs = torch.ops.quantized.linear(codes, packed(linear), out_scale, out_zero).dequantize()
    assert (ours - theirs).abs().max() <= 0.51 * out_scale  # torch rounds its output as well


def test_integer_arithmetic_is_exact(linear, x):
    layer = int8.Int8Linear(linear)
    grid = dict(symmetric=False)
    values = quantize(x, 8, **grid).dequantize().double()
    weight = quantize(linear.weight.detach(), 8, axis=0).dequantize().double()
    expected = (values @ weight.T + linear.bias).float()
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [1, 1024, 3000])
def test_the_product_is_exact_at_its_limits(k):
    a, b = torch.full((2, k), -128, dtype=torch.int8), torch.full((k, 3), -127, dtype=torch.int8)
    assert torch.equal(int8.int_matmul(a, b), torch.full((2, 3), 128 * 127 * k))
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randint(-128, 128, s, generator=rng).to(torch.int8) for s in ((5, k), (k, 7)))
    assert torch.equal(int8.int_matmul(a, b), torch._int_mm(a, b))


def test_shapes_and_no_bias(x):
    layer = int8.Int8Linear(nn.Linear(96, 8, bias=False))
    assert layer(x.view(2, 3, 4, 96)).shape == (2, 3, 4, 8)
    assert layer(torch.zeros(1, 96)).abs().max() == 0


def test_int8_is_a_quarter_of_the_layer(linear):
    layer = int8.Int8Linear(linear)
    assert layer.weight.nbytes * 4 == linear.weight.nbytes
    assert layer.weight.dtype == torch.int8


def test_dynamic_model_is_close_and_needs_no_data(model):
    exact, ours = model.encode(IDS), int8.dynamic_int8(model).encode(IDS)
    assert 0 < int8.relative_error(ours, exact) < 0.02
    assert not any(isinstance(m, int8.Int8Linear) for m in model.modules())


def test_static_model_is_calibrated_then_converted(model):
    ranges = int8.calibrate(model.encode, model, [IDS])
    assert set(ranges) == set(linear_layers(model))
    exact, ours = model.encode(IDS), int8.static_int8(model, ranges).encode(IDS)
    assert 0 < int8.relative_error(ours, exact) < 0.02


def test_a_range_from_other_data_clips(linear, x):
    errors = [
        int8.relative_error(int8.Int8Linear(linear, (low, high))(x), linear(x))
        for low, high in ((x.min().item(), x.max().item()), (-0.3, 0.3))
    ]
    assert errors[0] < 0.02
    assert errors[1] > 0.3


def test_observers():
    layer, x = nn.Sequential(nn.Linear(8, 2)), torch.randn(1000, 8)
    x[0, 0] = 500.0
    wide = int8.calibrate(layer, layer, [x, -x])["0"]
    assert wide == (-500.0, 500.0)
    low, high = int8.calibrate(layer, layer, [x], observer="percentile")["0"]
    assert -5 < low < -2 < 2 < high < 5
    with pytest.raises(ValueError, match="observer='median'"):
        int8.calibrate(layer, layer, [x], observer="median")


def test_watching_leaves_no_hooks(model):
    int8.calibrate(model.encode, model, [IDS])
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_layers_without_a_range_are_named(model):
    with pytest.raises(ValueError, match=r"layers\.0\.attention\.body\.qkv"):
        int8.static_int8(model, {})


def test_an_outlier_spoils_one_scale_and_smoothing_mends_it(linear, x):
    x[:, 5] *= 200
    peaks = int8.channel_peaks(linear, nn.Sequential(linear), [])
    assert peaks == {}
    wrapped = nn.Sequential(linear)
    peaks = int8.channel_peaks(wrapped, wrapped, [x])["0"]
    assert peaks.argmax() == 5
    assert int8.outlier_ratio(peaks) > 50
    factors = int8.smoothing(peaks, linear.weight, 0.75)
    same = int8.smooth_linear(linear, factors)
    torch.testing.assert_close(same(x), linear(x), rtol=1e-4, atol=1e-3)
    quiet = x[:, torch.arange(96) != 5].std()  # what the other channels say
    spoiled = (int8.Int8Linear(linear)(x) - linear(x)).norm()
    inner = int8.Int8Linear(same[1])
    mended = (inner(same[0](x)) - linear(x)).norm()
    assert mended < spoiled / 2
    assert quiet > 0


def test_smoothing_shares_the_range_between_input_and_weight():
    """Equation 4 by hand: all of it into the weight, none of it, and the root of either."""
    peaks, weight = torch.tensor([16.0, 1.0]), torch.tensor([[4.0, -1.0], [-1.0, 0.25]])
    expected = {1.0: [16.0, 1.0], 0.0: [0.25, 1.0], 0.5: [2.0, 1.0]}
    for alpha, factors in expected.items():
        assert int8.smoothing(peaks, weight, alpha).tolist() == pytest.approx(factors)
    assert torch.equal(int8.smoothing(peaks, weight), int8.smoothing(peaks, weight, 0.5))
    assert int8.smoothing(torch.zeros(2), torch.zeros(2, 2)).tolist() == pytest.approx([1, 1])


def test_layer_error_falls_with_bits(linear, x):
    errors = [
        int8.layer_error(linear, quantize(linear.weight.detach(), b, axis=0).dequantize(), x)
        for b in (2, 4, 8)
    ]
    assert errors[0] > 4 * errors[1] > 16 * errors[2] > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: int8.Int8Linear(nn.Linear(2, 2), bits=9), "bits=9"),
        (lambda: int8.Int8Linear(nn.Linear(2, 2), bits=1), "bits=1"),
        (lambda: int8.input_grid(2.0, 1.0), r"low=2\.0"),
        (lambda: int8.smoothing(torch.ones(2), torch.ones(2, 2), 1.5), r"alpha=1\.5"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


PUBLISHED = """
width    768  1024 1536 2048 2560 4096 5140 12288
product  0.99 1.08 1.43 1.61 1.63 1.67 2.13 2.29
vectors  0.43 0.49 0.74 0.91 0.94 1.18 1.59 2.00
llm.int8 0.14 0.20 0.36 0.51 0.64 0.86 1.22 1.81
"""
"""LLM.int8's Table 5 as printed, its rows "Int8 without overhead", "Vector-wise", "LLM.int8()"."""


def test_published_speeds_are_the_papers_and_cross_fp16_s_at_a_width():
    """Short products gain nothing, and taking outliers apart costs width."""
    rows = read_published("llm_int8")
    columns = [[float(x) for x in row.split()[1:]] for row in PUBLISHED.strip().splitlines()]
    names = ("d_model", "int8_without_overhead", "vector_wise", "llm_int8")
    assert rows == [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    widths = [min(r["d_model"] for r in rows if r[name] > 1) for name in names[1:]]
    assert widths == [1024, 4096, 5140]
    for row in rows:
        assert row["llm_int8"] < row["vector_wise"] < row["int8_without_overhead"]


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1e39), (-float("inf"), 0.0), (float("nan"), 1.0), (-1.0, float("nan"))]
)
def test_a_grid_needs_finite_ends(low, high):
    with pytest.raises(ValueError, match=r"^(low|high)\b"):
        int8.input_grid(low, high)


def test_a_grid_over_all_of_float32_is_finite():
    largest = torch.finfo(torch.float32).max
    scale, zero = int8.input_grid(-largest, largest)
    assert scale.isfinite()
    assert zero.item() in (127, 128)
    assert scale.item() == pytest.approx(2 * (largest / 255))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("span", [None, (-1.0, 1.0)])
def test_an_input_that_is_not_finite_is_refused_and_not_rounded(linear, x, span, value):
    x[3, 4] = value
    with pytest.raises(ValueError, match=r"inf|nan"):
        int8.Int8Linear(linear, span)(x)


@pytest.mark.parametrize("observer", ["minmax", "percentile"])
def test_batches_without_values_say_nothing(observer):
    net, x = nn.Sequential(nn.Linear(8, 2)), torch.randn(5, 8)
    few = [torch.zeros(0, 8), x, torch.zeros(2, 0, 8), x[0]]
    expected = int8.calibrate(net, net, [x, x[0]], observer=observer)
    assert int8.calibrate(net, net, few, observer=observer) == expected
    peaks = int8.channel_peaks(net, net, few)["0"]
    assert torch.equal(peaks, x.abs().amax(0))
    assert int8.calibrate(net, net, few[:1], observer=observer) == {}
    assert int8.channel_peaks(net, net, few[:1]) == {}


SMALLER = {
    "ours": int8.dynamic_int8,
    "static": lambda m: int8.static_int8(m, int8.calibrate(m, m, [IDS])),
    "torch": torch_dynamic_int8,
    "smoothed": lambda m: smooth_for_nncf(m, [(IDS,)]),
}


@torch.no_grad()
@pytest.mark.parametrize("make", SMALLER)
def test_a_weight_that_is_read_by_itself_stays(make):
    torch.manual_seed(0)
    factorized = Transformer(replace(CONFIG, d_embed=16)).eval()
    rotary = replace(CONFIG, causal=True, positions="rotary")
    alone = Attention(bias="none", latent=Latent(16, 8, 8, 8))
    for net in (factorized, latent_model(replace(rotary, attention=alone), True).eval()):
        net.embedding.token.weight.data *= 10
        small = SMALLER[make](net) if make != "smoothed" or net is factorized else net
        error = int8.relative_error(small(IDS), net(IDS))
        assert error < 0.05


@torch.no_grad()
def test_positions_without_a_table_are_smoothed_too():
    net = Transformer(replace(CONFIG, causal=True, positions="rotary")).eval()
    smooth = smooth_for_nncf(net, [(IDS,)])
    torch.testing.assert_close(smooth(IDS), net(IDS), atol=1e-4, rtol=1e-3)


def test_a_smoothed_layer_has_the_layers_type(linear, x):
    same = int8.smooth_linear(linear.bfloat16(), torch.full((96,), 2.0))
    torch.testing.assert_close(same(x.bfloat16()), linear(x.bfloat16()))
