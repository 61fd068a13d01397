"""Affine quantization: against torch's own, its bounds, its packing, and what it refuses."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.ao.quantization.observer import MinMaxObserver, PerChannelMinMaxObserver

from efflab.compression.affine import (
    QuantizedTensor,
    check_grid,
    code_range,
    grid,
    pack,
    quantize,
    unpack,
)

WEIGHT = torch.randn(24, 40, generator=torch.Generator().manual_seed(0))


def test_agrees_with_torch_per_tensor():
    observer = MinMaxObserver(dtype=torch.quint8, qscheme=torch.per_tensor_affine)
    observer(WEIGHT)
    scale, zero = observer.calculate_qparams()
    theirs = torch.quantize_per_tensor(WEIGHT, scale.item(), zero.item(), torch.quint8)
    ours = quantize(WEIGHT, 8, symmetric=False)
    assert torch.allclose(ours.scale, scale)
    assert ours.zero_point.item() == zero.item()
    assert torch.equal(ours.codes(), theirs.int_repr().int())
    assert torch.allclose(ours.dequantize(), theirs.dequantize(), atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_agrees_with_torch_per_channel(axis):
    ch_axis = axis % 2
    observer = PerChannelMinMaxObserver(
        ch_axis=ch_axis, dtype=torch.quint8, qscheme=torch.per_channel_affine
    )
    observer(WEIGHT)
    scale, zero = observer.calculate_qparams()
    ours = quantize(WEIGHT, 8, symmetric=False, axis=axis)
    theirs = torch.quantize_per_channel(WEIGHT, scale, zero, ch_axis, torch.quint8)
    assert torch.allclose(ours.scale, scale)
    assert torch.equal(ours.codes(), theirs.int_repr().int())


@pytest.mark.parametrize("bits", range(2, 17))
def test_symmetric_agrees_with_torch_fake_quantize(bits):
    ours = quantize(WEIGHT, bits, axis=0)
    zero = torch.zeros(24, dtype=torch.int32)
    low, high = code_range(bits, True)
    theirs = torch.fake_quantize_per_channel_affine(WEIGHT, ours.scale, zero, 0, low, high)
    # torch multiplies by 1 / scale, which at 16 bits sends a value in 10,000 to the next level.
    apart = (ours.dequantize() - theirs).abs()
    assert (apart > 1e-6).float().mean() < 2e-3
    assert (apart <= 1.01 * ours.scale[:, None]).all()


def test_groups_agree_with_torchao():
    from torchao.quantization.quant_primitives import (
        MappingType,
        choose_qparams_affine,
        dequantize_affine,
        quantize_affine,
    )

    x, block = torch.randn(16, 64, generator=torch.Generator().manual_seed(1)), (1, 32)
    scale, zero = choose_qparams_affine(
        x, MappingType.ASYMMETRIC, block, torch.uint8, 0, 15, eps=1e-9
    )
    codes = quantize_affine(x, block, scale, zero, torch.uint8, 0, 15)
    theirs = dequantize_affine(codes, block, scale, zero, torch.uint8, 0, 15)
    ours = quantize(x, 4, symmetric=False, group_size=32)
    assert torch.equal(ours.codes(), codes.int())
    assert torch.allclose(ours.dequantize(), theirs, atol=1e-6)


GRIDS = [{}, {"axis": 0}, {"axis": 1}, {"group_size": 8}, {"group_size": 7}, {"group_size": 999}]


@pytest.mark.parametrize("layout", GRIDS, ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 8, 16])
def test_error_is_at_most_half_a_step(bits, symmetric, layout):
    q = quantize(WEIGHT, bits, symmetric=symmetric, **layout)
    error = (q.dequantize() - WEIGHT).abs().max()
    # A zero point is rounded too, which may push the range's end out by another half.
    steps = 0.5 if symmetric else 1.0
    assert error <= (steps + 1e-3) * q.scale.max() + 1e-6


@pytest.mark.parametrize("layout", GRIDS, ids=str)
def test_quantizing_again_changes_nothing(layout):
    once = quantize(WEIGHT, 5, **layout).dequantize()
    assert torch.allclose(quantize(once, 5, **layout).dequantize(), once, atol=1e-6)


def test_more_scales_less_error():
    x = WEIGHT * torch.logspace(-2, 0, 24)[:, None]  # rows of very different size
    errors = [
        (quantize(x, 4, **g).dequantize() - x).norm() for g in ({}, {"axis": 0}, {"group_size": 8})
    ]
    assert errors[0] > errors[1] > errors[2]


def test_nbytes_counts_what_is_stored():
    n = WEIGHT.numel()
    assert quantize(WEIGHT, 8).nbytes == n + 4
    assert quantize(WEIGHT, 4, axis=0).nbytes == n // 2 + 24 * 4
    assert quantize(WEIGHT, 3, axis=0, symmetric=False).nbytes == 3 * n // 8 + 24 * (4 + 1)
    assert quantize(WEIGHT, 4, group_size=8).nbytes == n // 2 + 24 * 5 * 4
    assert quantize(torch.ones(3), 3).packed.numel() == 2  # 9 bits


def test_three_dimensions_and_one():
    x = torch.randn(3, 4, 10, generator=torch.Generator().manual_seed(2))
    assert quantize(x, 8, axis=1).scale.shape == (4,)
    assert quantize(x, 8, group_size=5).scale.shape == (3 * 4 * 2,)
    for layout in ({"axis": 1}, {"axis": 0, "group_size": 5}, {"axis": -1}):
        assert torch.allclose(quantize(x, 16, **layout).dequantize(), x, atol=1e-3)
    assert quantize(x[0, 0], 8, axis=0).dequantize().shape == (10,)


@pytest.mark.parametrize("symmetric", [True, False])
def test_constant_and_tiny_values(symmetric):
    zeros = quantize(torch.zeros(4, 4), 4, symmetric=symmetric, axis=0)
    assert torch.equal(zeros.dequantize(), torch.zeros(4, 4))
    same = quantize(torch.full((4,), -3.0), 4, symmetric=symmetric)
    assert torch.allclose(same.dequantize(), torch.full((4,), -3.0))
    assert quantize(torch.full((4,), 1e-44), 8, symmetric=symmetric).dequantize().isfinite().all()


def test_half_precision_input():
    assert quantize(WEIGHT.half(), 8, axis=0).dequantize().dtype == torch.float32


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 16), st.integers(1, 70), st.integers(0, 2**31))
def test_packing_is_lossless_and_tight(bits, n, seed):
    values = torch.from_numpy(np.random.default_rng(seed).integers(0, 2**bits, n).astype(np.int32))
    packed = pack(values, bits)
    assert packed.numel() == -(-n * bits // 8)
    assert torch.equal(unpack(packed, bits, n), values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 1}, "bits=1"),
        ({"bits": 17}, "bits=17"),
        ({"bits": 8, "axis": 2}, "axis=2"),
        ({"bits": 8, "group_size": 0}, "group_size=0"),
        ({"bits": 8, "group_size": 8, "axis": 1}, "axis=1"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        quantize(WEIGHT, **arguments)


def test_a_grid_is_a_matrixs_unless_its_dimensions_are_told():
    check_grid(4, axis=1)
    with pytest.raises(ValueError, match="axis=2: expected a dimension of the 2 there are"):
        check_grid(4, axis=2)
    check_grid(4, axis=2, n_dims=3)


def test_refuses_values():
    with pytest.raises(TypeError, match=r"bits=4\.0"):
        quantize(WEIGHT, 4.0)
    with pytest.raises(ValueError, match="x="):
        quantize(torch.tensor([1.0, float("nan")]), 8)
    with pytest.raises(ValueError, match=r"x\.shape"):
        quantize(torch.empty(0), 8)
    with pytest.raises(ValueError, match=r"x\.dtype"):
        quantize(torch.arange(4), 8)


LARGEST = torch.finfo(torch.float32).max
WIDE = {
    "over the whole range": torch.tensor([-LARGEST, 0.0, LARGEST]),
    "a span that overflows": torch.tensor([-0.6 * LARGEST, 0.0, 0.6 * LARGEST]),
    "masked scores": torch.tensor([-LARGEST, 1.0, 0.5e38]),
    "one side": torch.tensor([LARGEST, 0.9 * LARGEST, 0.0]),
    "half precision's largest": torch.tensor([-65504.0, 1.0, 65504.0]).half(),
    "bfloat16's largest": torch.tensor([-3.3e38, 0.0, 3.3e38]).bfloat16(),
    "float64 in float32's range": torch.tensor([-1e38, 0.0, 3e38], dtype=torch.float64),
}


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 8, 16])
@pytest.mark.parametrize("case", WIDE)
def test_finite_values_stay_finite_and_within_a_step(case, bits, symmetric):
    x = WIDE[case]
    q = quantize(x, bits, symmetric=symmetric)
    error = (q.dequantize().double() - x.double()).abs().max()
    assert error <= 0.5001 * (1 if symmetric else 2) * q.scale.double()
    assert torch.isfinite(q.dequantize()).all()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("value", [1e39, -1e300, float("inf"), float("nan")])
def test_what_float32_cannot_hold_is_refused(value, symmetric):
    x = torch.tensor([value, 1.0, -2.0], dtype=torch.float64)
    with pytest.raises(ValueError, match="x='inf or nan inside': expected finite values only"):
        quantize(x, 8, symmetric=symmetric)
    with pytest.raises(ValueError, match="inf or nan inside"):  # whoever makes a grid itself
        grid(x.float()[None], 8, symmetric)


@pytest.mark.parametrize("options", [{}, {"axis": 0}, {"group_size": 3, "symmetric": False}])
def test_what_is_stored_is_data(options):
    weight = torch.nn.Linear(6, 4).weight
    q = quantize(weight, 4, **options)
    assert not any(t.requires_grad for t in vars(q).values() if isinstance(t, torch.Tensor))
    assert torch.equal(deepcopy(q).dequantize(), q.dequantize())
    assert q.dequantize().numpy().shape == (4, 6)
    own = QuantizedTensor.from_codes(q.codes(), weight[:, :1].abs(), None, 8, axis=0)
    assert not own.scale.requires_grad


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_group_longer_than_the_row_is_the_row(symmetric):
    whole = quantize(WEIGHT, 4, symmetric=symmetric, group_size=40)
    huge = quantize(WEIGHT, 4, symmetric=symmetric, group_size=10**12)
    assert torch.equal(huge.dequantize(), whole.dequantize())
    assert huge.nbytes == whole.nbytes


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int64])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("layout", [{"axis": 0}, {"group_size": 7}])
def test_numpys_numbers_are_numbers(layout, symmetric, kind):
    x = WEIGHT.repeat(1, 8)  # rows of more values than a small type counts
    expected = quantize(x, 8, symmetric=symmetric, **layout)
    theirs = {name: kind(value) for name, value in layout.items()}
    ours = quantize(x, kind(8), symmetric=np.bool_(symmetric), **theirs)
    assert torch.equal(ours.codes(), expected.codes())
    assert torch.equal(ours.dequantize(), expected.dequantize())


@pytest.mark.parametrize("bits", [3, 8, 16])
def test_the_first_numbers_alone_may_be_unpacked(bits):
    values = torch.arange(7, dtype=torch.int32)
    for n in range(8):
        assert torch.equal(unpack(pack(values, bits), bits, n), values[:n])
    assert torch.equal(unpack(pack(values, bits).repeat_interleave(2)[::2], bits, 7), values)
