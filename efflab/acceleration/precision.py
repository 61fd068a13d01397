"""Floating-point formats, and rounding to them.

A format is given by the bits of its exponent and of its mantissa. Rounding is to the nearest value,
ties to even (IEEE 754); below the smallest normal number the step is constant (subnormals).
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from efflab.arguments import check_module
from efflab.errors import require_int, require_one_of


@dataclass(frozen=True)
class FloatFormat:
    """A sign bit, `exponent_bits` and `mantissa_bits`.

    `specials`: what the largest exponent means. "ieee": only infinity and NaN; "nan": numbers,
    except the last code, which is NaN (e4m3fn); "none": only numbers (MX's e2m1). A number too
    large becomes infinity, NaN, or, with `saturates` (as torch casts to e4m3fn), the largest one.

    >>> fp16 = FloatFormat(5, 10)
    >>> fp16.max, fp16.smallest_normal, fp16.cast(torch.tensor([0.1, 70000.0])).tolist()
    (65504.0, 6.103515625e-05, [0.0999755859375, inf])
    """

    exponent_bits: int
    mantissa_bits: int
    specials: Annotated[str, ("ieee", "nan", "none")] = "ieee"
    saturates: bool = False

    def __post_init__(self):
        require_int("exponent_bits", self.exponent_bits, 2, 8)
        require_int("mantissa_bits", self.mantissa_bits, 1, 23)

    @property
    def bits(self) -> int:
        """Bits of a number, its sign included."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def bias(self) -> int:
        """The number added to the exponent when it is stored."""
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def max(self) -> float:
        """The largest finite number."""
        step = 2.0**-self.mantissa_bits
        if self.specials == "ieee":
            return (2 - step) * 2.0**self.bias
        return (2 - step * (2 if self.specials == "nan" else 1)) * 2.0 ** (self.bias + 1)

    @property
    def smallest_normal(self) -> float:
        """The smallest normal number: below it, precision decreases."""
        return 2.0 ** (1 - self.bias)

    @property
    def smallest(self) -> float:
        """The smallest number above zero; anything below half of it rounds to zero."""
        return self.smallest_normal * 2.0**-self.mantissa_bits

    @property
    def epsilon(self) -> float:
        """The distance from 1 to the next number; the relative rounding error is at most half."""
        return 2.0**-self.mantissa_bits

    def cast(self, x: Tensor, *, saturate: bool | None = None) -> Tensor:
        """`x` (any shape, at most 32 bits a value) rounded to this format, as float32.

        `saturate`: whether what is too large becomes the largest number; None: as torch casts. OCP
        (OFP8 1.0, section 5.2.1) describes both, and NaN is what e4m3fn has without saturation.
        """
        exact = x.double()
        step = self._step(exact)
        rounded = torch.where(exact.isfinite(), torch.round(exact / step) * step, exact)
        saturate = self.saturates if saturate is None else saturate
        if saturate or self.specials == "none":
            return rounded.clamp(-self.max, self.max).float()
        beyond = torch.inf if self.specials == "ieee" else torch.nan
        too_large = rounded.abs() > self.max
        return torch.where(too_large, rounded.sign() * beyond, rounded).float()

    def encode(self, x: Tensor) -> Tensor:
        """The bits of `cast(x)` as int64, sign bit first; NaN is all ones with sign 0."""
        value = self.cast(x).double()
        step, ones = self._step(value), 2 ** (self.bits - 1) - 1
        # a normal number's magnitude includes the leading 1, which raises the exponent field by 1
        exponent = torch.log2(step).long() + self.mantissa_bits + self.bias - 1
        finite = value.isfinite()
        magnitude = torch.where(finite, value / step, 0).abs().long()
        code = (exponent << self.mantissa_bits) + magnitude
        infinity = ones - (2**self.mantissa_bits - 1)
        code = torch.where(finite, code, torch.where(value.isnan(), ones, infinity))
        return code + (value.signbit() & ~value.isnan()).long() * 2 ** (self.bits - 1)

    def _step(self, exact: Tensor) -> Tensor:
        """The distance between representable numbers at each value (float64), a power of two."""
        _, exponent = torch.frexp(torch.where(exact.isfinite(), exact, 1))  # |x| < 2^exponent
        exponent = torch.where(exact == 0, -(10**4), exponent.long() - 1)
        exponent = exponent.clamp(min=1 - self.bias) - self.mantissa_bits
        return ((exponent + 1023) << 52).view(torch.float64)  # 2^exponent, exactly


FORMATS: dict[str, FloatFormat] = {
    "fp32": FloatFormat(8, 23),
    "tf32": FloatFormat(8, 10),
    "bf16": FloatFormat(8, 7),
    "fp16": FloatFormat(5, 10),
    "fp8_e4m3fn": FloatFormat(4, 3, "nan", saturates=True),
    "fp8_e5m2": FloatFormat(5, 2),
}
"""By name: IEEE 754 fp32 and fp16, NVIDIA's tf32 (19 bits), Google's bf16, OCP's two fp8."""

TORCH_DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}
"""torch's dtype of each format that it can store; tf32 exists inside tensor cores only."""


def every_value(name: str) -> Tensor:
    """All values of a 16- or 8-bit format, in order of their bit patterns, in torch's dtype."""
    require_one_of("name", name, [n for n in TORCH_DTYPES if FORMATS[n].bits <= 16])
    bits = FORMATS[name].bits
    patterns = torch.arange(2**bits, dtype=torch.int32)
    return patterns.to(torch.uint16 if bits == 16 else torch.uint8).view(TORCH_DTYPES[name])


check_module(__name__)
