"""MX: blocks of 32 numbers that share one scale, a power of two (OCP Microscaling Formats 1.0).

Loss scaling has one scale for all gradients of a model; MX has an 8-bit exponent for every 32
values, so that four or eight bits are enough for each value.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from efflab.acceleration.precision import FORMATS, FloatFormat
from efflab.arguments import check_module
from efflab.errors import require, require_one_of
from efflab.tensors import Numbers

BLOCK = 32
SCALE_BIAS = 127  # E8M0: eight bits of exponent, from 2^-127 to 2^127; 255 is NaN

ELEMENTS: dict[str, FloatFormat] = {
    "mxfp4": FloatFormat(2, 1, "none", saturates=True),
    "mxfp8_e4m3": FORMATS["fp8_e4m3fn"],
    "mxfp8_e5m2": FORMATS["fp8_e5m2"],
}
"""Name of a block format -> format of one value."""


class BlockTensor(NamedTuple):
    """A tensor in blocks along its last dimension: `value = element * 2^exponent`."""

    elements: Tensor  # float32 in x's shape, each a value of `element`
    exponents: Numbers  # (..., n_blocks) int64, -127 to 127; 128 where a block held NaN
    element: FloatFormat

    def dequantize(self) -> Tensor:
        """The values (float32) in the tensor's shape."""
        blocks = self.elements.unflatten(-1, (-1, BLOCK)).double()
        scale = torch.where(self.exponents > SCALE_BIAS, torch.nan, _power_of_two(self.exponents))
        return (blocks * scale[..., None]).flatten(-2).float()

    @property
    def nbytes(self) -> int:
        """Bytes of the packed elements and of one scale a block."""
        return self.elements.numel() * self.element.bits // 8 + self.exponents.numel()


def quantize(x: Tensor, name: str = "mxfp4", *, exponents: Numbers | None = None) -> BlockTensor:
    """`x` (..., multiple of 32), rounded to a block format.

    Each block's scale is the largest power of two in it over the largest one of an element
    (section 6.3), so that a block's largest value may be clipped: in e2m1 at most from just under 8
    to 6. `exponents` (..., n_blocks): scales to use instead, -127 to 127. Finite values must be
    finite in float32 too; infinities are clipped, NaN stays NaN.
    """
    require_one_of("name", name, ELEMENTS)
    size = x.shape[-1] if x.dim() else 0
    require(size > 0 and size % BLOCK == 0, "x.shape", tuple(x.shape), f"blocks of {BLOCK} at last")
    values = x.detach().float()
    fits = torch.equal(values.isfinite(), x.isfinite())
    require(fits, "x", "values above the largest float32", "values that float32 can hold")
    element, blocks = ELEMENTS[name], values.unflatten(-1, (-1, BLOCK))
    exponents = block_exponents(blocks, element) if exponents is None else exponents.detach()
    _require_exponents(exponents, blocks.shape[:-1])
    scale = _power_of_two(exponents.clamp(min=1 - SCALE_BIAS))  # as torchao: no subnormal scale
    elements = element.cast(blocks.double() / scale[..., None], saturate=True)
    return BlockTensor(elements.flatten(-2), exponents, element)


def _require_exponents(exponents: Numbers, shape: Sequence[int]) -> None:
    """There must be one integer for each block, in E8M0's range, or 128 for NaN."""
    fits = tuple(exponents.shape) == tuple(shape)
    require(fits, "exponents.shape", tuple(exponents.shape), f"{tuple(shape)}, one for each block")
    whole = not (exponents.is_floating_point() or exponents.is_complex())
    require(whole, "exponents.dtype", exponents.dtype, "whole numbers")
    in_range = bool(((exponents >= -SCALE_BIAS) & (exponents <= SCALE_BIAS + 1)).all())
    require(in_range, "exponents", "one out of range inside", f"-{SCALE_BIAS} to {SCALE_BIAS}")


def block_exponents(blocks: Tensor, element: FloatFormat) -> Tensor:
    """Scales (log2) by the standard for blocks (..., 32): floor(log2(largest)) - element's own."""
    filled = blocks.dim() > 0 and blocks.numel() > 0
    require(filled, "blocks.shape", tuple(blocks.shape), "at least one value")
    largest = blocks.abs().amax(-1)
    _, exponent = torch.frexp(torch.where(largest.isfinite(), largest, 1))
    exponent = torch.where(largest.isinf(), 129, exponent)  # as if one above the largest number
    _, top = torch.frexp(torch.tensor(element.max))
    scales = torch.where(largest == 0, -SCALE_BIAS, exponent.long() - top.long())
    scales = scales.clamp(-SCALE_BIAS, SCALE_BIAS)
    return torch.where(largest.isnan(), SCALE_BIAS + 1, scales)


def _power_of_two(exponents: Numbers) -> Tensor:
    """2^exponents (float64), exactly."""
    return ((exponents.long() + 1023) << 52).view(torch.float64)


check_module(__name__)
