"""Block formats against torchao's: scales, elements and values, bit for bit."""

import pytest
import torch

from efflab.acceleration import block_formats
from efflab.acceleration.block_formats import ELEMENTS
from efflab.pretrained import transformers

DTYPES = {
    "mxfp4": torch.float4_e2m1fn_x2,
    "mxfp8_e4m3": torch.float8_e4m3fn,
    "mxfp8_e5m2": torch.float8_e5m2,
}


def torchao_mx(x, name):
    """(biased scales, elements as float32, values) by torchao."""
    transformers()  # which keeps torchao's import quiet
    from torchao.prototype.mx_formats.kernels import f4_unpacked_to_f32, unpack_uint4
    from torchao.prototype.mx_formats.mx_tensor import to_dtype, to_mx

    scale, data = to_mx(x, DTYPES[name], block_formats.BLOCK)
    back = to_dtype(data, scale, DTYPES[name], block_formats.BLOCK, torch.float32)
    packed = name == "mxfp4"
    elements = f4_unpacked_to_f32(unpack_uint4(data.view(torch.uint8))) if packed else data.float()
    return scale.view(torch.uint8).long(), elements.reshape(x.shape), back


def inputs():
    """Normal values, blocks of every size, single values of every size, zeros, infinity."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(64, 256, generator=rng)
    sizes = torch.randint(-140, 126, (64, 8), generator=rng).float()
    bits = torch.randint(-(2**31), 2**31, (64, 256), generator=rng).to(torch.int32)
    bits = bits.view(torch.float32)
    infinite = x.clone()
    infinite[1, 1] = torch.inf
    return {
        "normal": x,
        "blocks": x * torch.exp2(sizes).repeat_interleave(32, 1),
        "bits": torch.where(bits.isfinite(), bits, 0),
        "zeros": torch.zeros_like(x),
        "infinite": infinite,
    }


@pytest.mark.parametrize("name", ELEMENTS)
@pytest.mark.parametrize("case", inputs())
def test_equal_to_torchao(name, case):
    x = inputs()[case]
    ours, (scales, elements, values) = block_formats.quantize(x, name), torchao_mx(x, name)
    assert torch.equal(ours.exponents + block_formats.SCALE_BIAS, scales)
    assert torch.equal(ours.elements, elements)
    assert torch.equal(ours.dequantize(), values)


@pytest.mark.parametrize("name", ELEMENTS)
def test_nan_spoils_its_block_alone(name):
    x = torch.ones(1, 64)
    x[0, 3] = torch.nan
    ours, (scales, _, values) = block_formats.quantize(x, name), torchao_mx(x, name)
    assert (ours.exponents + block_formats.SCALE_BIAS).tolist() == scales.tolist()
    assert scales[0, 0] == 255
    assert ours.dequantize().isnan().tolist() == values.isnan().tolist()
    assert ours.dequantize()[0, 32:].tolist() == [1.0] * 32


def test_bytes():
    x = torch.zeros(16, 320)
    bits = {name: 8 * block_formats.quantize(x, name).nbytes / x.numel() for name in ELEMENTS}
    assert bits == {"mxfp4": 4.25, "mxfp8_e4m3": 8.25, "mxfp8_e5m2": 8.25}


def test_one_block_by_hand():
    """Largest 7 = 2^2 and more, e2m1's largest power is 2^2: scale 1, and 7 is cut to 6."""
    x = torch.tensor([7.0, 5.0, -0.3, 0.24] + [0.0] * 28)
    block = block_formats.quantize(x)
    assert block.exponents.tolist() == [0]
    assert block.dequantize()[:4].tolist() == [6.0, 4.0, -0.5, 0.0]
    wider = block_formats.quantize(x, exponents=torch.tensor([1]))
    assert wider.dequantize()[:4].tolist() == [8.0, 4.0, -0.0, 0.0]


def own(exponents):
    """A block of zeros on scales of its own."""
    return block_formats.quantize(torch.zeros(32), exponents=exponents)


def test_what_is_stored_is_data():
    x = torch.randn(2, 64, requires_grad=True)
    block = block_formats.quantize(x)
    assert not block.elements.requires_grad
    assert not block.dequantize().requires_grad


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: block_formats.quantize(torch.zeros(3, 33)), r"x.shape=\(3, 33\)"),
        (lambda: block_formats.quantize(torch.tensor(1.0)), r"x.shape=\(\)"),
        (lambda: block_formats.quantize(torch.zeros(32), "mxint8"), "name='mxint8'"),
        (lambda: own(torch.zeros(3).long()), r"exponents\.shape=\(3,\): expected \(1,\)"),
        (lambda: own(torch.zeros(1, 1).long()), r"exponents\.shape=\(1, 1\)"),
        (lambda: own(torch.zeros(1)), r"exponents\.dtype=torch\.float32"),
        (lambda: own(torch.tensor([129])), "exponents='one out of range inside'"),
        (lambda: own(torch.tensor([-128])), "exponents='one out of range inside'"),
        (
            lambda: block_formats.quantize(torch.full((32,), 1e300, dtype=torch.float64)),
            "x='values above the largest float32'",
        ),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
