"""Affine quantization (Jacob et al. 2018, equation 1): a float becomes scale * (code - zero_point).

Codes are integers of 2 to 16 bits, packed without gaps. There is one scale per tensor, per channel
(entry of an axis) or per group (run of values): finer scales round better and need more storage.
"""

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from efflab.arguments import check_module
from efflab.compression.values import (
    IntegerVector,
    NumberMatrix,
    finite_values,
    require_broadcast,
    require_filled,
    require_ordered,
    require_shape,
    require_whole,
)
from efflab.errors import require, require_int
from efflab.rules import Count, Size
from efflab.tensors import Integers, Matrix, Numbers, require_finite

MOST_BITS = 16


@dataclass(frozen=True)
class QuantizedTensor:
    """Packed codes with their scales; made by `quantize`, `gptq` or `from_codes`.

    The values that share a scale are one row of the view (R, n) of `to_rows`. Parts that do not
    fit each other are a `ValueError`.
    """

    packed: Integers  # uint8, `bits` bits a value, first value in the lowest bits
    scale: Tensor  # (R,) float32
    zero_point: Integers | None  # (R,) uint8 or int32; None: symmetric, zero is code 0
    bits: int
    shape: tuple[Size, ...]
    axis: int | None = None
    group_size: int | None = None

    def __post_init__(self):
        check_grid(self.bits, self.axis, self.group_size, len(self.shape))
        n_scales = (_n_scales(self.shape, self.axis, self.group_size),)
        require_shape("packed", self.packed, (_n_bytes(prod(self.shape), self.bits),))
        require(self.packed.dtype == torch.uint8, "packed.dtype", self.packed.dtype, "bytes")
        require_shape("scale", self.scale, n_scales)
        require_finite("scale", self.scale)
        if self.zero_point is not None:
            require_shape("zero_point", self.zero_point, n_scales)
            require_whole("zero_point", self.zero_point, *code_range(self.bits, False))

    @classmethod
    def from_codes(
        cls, codes: Integers, scale: Tensor, zero_point: Numbers | None, bits: int, **layout
    ) -> "QuantizedTensor":
        """Pack integer `codes`, in the tensor's own shape, on a grid that is already known."""
        low, high = code_range(bits, zero_point is None)
        require_filled("codes", codes)
        require_whole("codes", codes, low, high)
        if zero_point is not None:
            require_whole("zero_point", zero_point, low, high)
            zero_point = zero_point.flatten().to(torch.uint8 if bits <= 8 else torch.int32)
        packed = pack(codes.flatten().to(torch.int32) - low, bits)
        scale = scale.detach().flatten().float()
        return cls(packed, scale, zero_point, bits, tuple(codes.shape), **layout)

    def codes(self) -> Tensor:
        """The integer codes (int32) in the tensor's shape: signed if symmetric, else from 0."""
        low, _ = code_range(self.bits, self.zero_point is None)
        return unpack(self.packed, self.bits, prod(self.shape)).view(self.shape) + low

    def dequantize(self) -> Tensor:
        """The values (float32) that the codes stand for, in the tensor's shape."""
        zero = 0 if self.zero_point is None else self.zero_point.to(torch.int32)[:, None]
        codes = to_rows(self.codes(), self.axis, self.group_size)
        values = self.scale[:, None] * (codes - zero).float()
        largest = torch.finfo(values.dtype).max  # a code may overshoot it by half a step
        values = values.clamp(-largest, largest)
        return from_rows(values, self.shape, self.axis, self.group_size)

    @property
    def nbytes(self) -> int:
        """Bytes of packed codes, scales and zero points: what a file has to hold."""
        parts = (self.packed, self.scale, self.zero_point)
        return sum(t.numel() * t.element_size() for t in parts if t is not None)


def quantize(
    x: Tensor,
    bits: int,
    *,
    symmetric: bool = True,
    axis: int | None = None,
    group_size: int | None = None,
) -> QuantizedTensor:
    """Round x to the nearest of the levels that its own range gives.

    `symmetric`: 2^bits - 1 levels around 0, no zero point; otherwise 2^bits levels from the least
    to the largest value, 0 always among them. `axis`: the dimension whose entries have a scale
    each (`ch_axis` of torch's observers); None: one for the tensor. `group_size`: number of
    consecutive values along the last dimension that share a scale; the last group may be shorter.

    >>> q = quantize(torch.tensor([[-1.0, 0.5], [0.0, 100.0]]), 8, axis=0)
    >>> q.codes().tolist(), q.nbytes  # 4 codes of a byte, 2 scales of 4 bytes
    ([[-127, 64], [0, 127]], 12)
    """
    check_grid(bits, axis, group_size, x.dim())
    rows = to_rows(finite_values("x", x), axis, group_size)
    scale, zero_point = grid(rows, bits, symmetric)
    codes = from_rows(round_to_grid(rows, scale, zero_point, bits), x.shape, axis, group_size)
    layout = dict(axis=axis, group_size=group_size)
    return QuantizedTensor.from_codes(codes, scale, zero_point, bits, **layout)


def check_grid(
    bits: int, axis: int | None = None, group_size: int | None = None, n_dims: Count = 2
) -> None:
    """Refuse bits, axis or group size that no tensor of `n_dims` dimensions can have."""
    require_int("bits", bits, 2)
    require(bits <= MOST_BITS, "bits", bits, f"2 to {MOST_BITS}")
    _require_layout(axis, group_size, n_dims)


def _require_layout(axis: int | None, group_size: int | None, n_dims: int) -> None:
    if axis is not None:
        require(-n_dims <= axis < n_dims, "axis", axis, f"a dimension of the {n_dims} there are")
    if group_size is not None:
        require_int("group_size", group_size)
        require(n_dims > 0, "group_size", group_size, "None for a number without dimensions")
        last = (-1, n_dims - 1)
        require(n_dims == 1 or axis not in last, "axis", axis, "not the last, where groups run")


def code_range(bits: int, symmetric: bool) -> tuple[int, int]:
    """Lowest and highest code. Symmetric leaves out -2^(bits-1), so that -x has the code of x."""
    check_grid(bits)
    bits = int(bits)  # in one of numpy's small types the power would overflow
    high = 2 ** (bits - 1) - 1
    return (-high, high) if symmetric else (0, 2**bits - 1)


def grid(rows: Matrix, bits: int, symmetric: bool) -> tuple[Tensor, Tensor | None]:
    """Scale (R,1) and zero point (R,1), None if symmetric, that cover each of the rows (R,n).

    Rows without values, or with infinities or NaN, are a `ValueError`.
    """
    require(rows.shape[1] > 0, "rows.shape", tuple(rows.shape), "at least one value in each row")
    low, high = code_range(bits, symmetric)
    if symmetric:
        scale = rows.abs().amax(1, keepdim=True) / high
    else:
        least = rows.amin(1, keepdim=True).clamp(max=0)  # 0 must have a code of its own
        most, steps = rows.amax(1, keepdim=True).clamp(min=0), high - low
        span = most - least
        scale = torch.where(span.isfinite(), span / steps, most / steps - least / steps)
    require_finite("rows", scale)
    # All zero, or so small that the division underflows: any scale will do.
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    if symmetric:
        return scale, None
    return scale, (-least / scale).round().clamp(low, high)


def round_to_grid(x: Tensor, scale: Tensor, zero_point: Numbers | None, bits: int) -> Tensor:
    """Codes (int32) of x, clamped to the range; scale and zero point broadcast against x."""
    for name, part in (("scale", scale), ("zero_point", zero_point)):
        if part is not None and part.shape != x.shape:
            require_broadcast(name, part, x.shape)
    low, high = code_range(bits, zero_point is None)
    codes = (x / scale).round() + (0 if zero_point is None else zero_point)
    require_ordered("x", codes)
    return codes.clamp(low, high).to(torch.int32)


def to_rows(x: Numbers, axis: int | None, group_size: int | None) -> Tensor:
    """The view (R, n) of x in which each row shares a scale; short groups are padded with zeros.

    Zero lies on every grid and widens none, so the padding changes no scale.
    """
    _require_layout(axis, group_size, x.dim())
    require_filled("x", x)
    if group_size is not None:
        size = min(int(group_size), x.shape[-1])
        return F.pad(x, (0, -x.shape[-1] % size)).reshape(-1, size)
    if axis is not None:
        return x.movedim(axis, 0).flatten(1) if x.dim() > 1 else x[:, None]
    return x.reshape(1, -1)


def from_rows(
    rows: NumberMatrix, shape: tuple[Size, ...], axis: int | None, group_size: int | None
) -> Tensor:
    """Inverse of `to_rows`."""
    _require_layout(axis, group_size, len(shape))
    n_rows = _n_scales(shape, axis, group_size)
    size = prod(shape) // n_rows if group_size is None else min(int(group_size), shape[-1])
    require_shape("rows", rows, (n_rows, size))
    if group_size is not None:
        padded = -(-shape[-1] // size) * size
        return rows.reshape(*shape[:-1], padded)[..., : shape[-1]].contiguous()
    if axis is not None:
        axis %= len(shape)
        moved = (shape[axis], *shape[:axis], *shape[axis + 1 :])
        return rows.reshape(moved).movedim(0, axis).contiguous()
    return rows.reshape(shape)


def _n_scales(shape: tuple[int, ...], axis: int | None, group_size: int | None) -> int:
    if group_size is not None:
        return prod(shape[:-1]) * -(-shape[-1] // int(group_size))
    return 1 if axis is None else shape[axis]


def _n_bytes(n: int, bits: int) -> int:
    return -(-int(n) * int(bits) // 8)


def pack(values: IntegerVector, bits: int) -> Tensor:
    """Whole numbers 0..2^bits - 1, (n,) -> ceil(n bits / 8) bytes, lowest bit first."""
    require_int("bits", bits, 1, MOST_BITS)
    require_whole("values", values, 0, 2 ** int(bits) - 1)
    n_bytes = -(-int(bits) // 8)
    raw = values.numpy().astype(f"<u{n_bytes}").view(np.uint8).reshape(-1, n_bytes)
    if bits in (8, 16):  # whole bytes: no need to take them apart
        return torch.from_numpy(raw.flatten())
    each = np.unpackbits(raw, axis=1, bitorder="little")[:, :bits]
    return torch.from_numpy(np.packbits(each, bitorder="little"))


def unpack(packed: IntegerVector, bits: int, n: Count) -> Tensor:
    """The first n numbers (int32) of what `pack` made."""
    require_int("bits", bits, 1, MOST_BITS)
    bits, n_bytes = int(bits), _n_bytes(n, bits)
    require(packed.dtype == torch.uint8, "packed.dtype", packed.dtype, "bytes")
    require(n_bytes <= len(packed), "packed.shape", tuple(packed.shape), f"{n_bytes} bytes or more")
    raw = packed[:n_bytes].contiguous().numpy()
    if bits in (8, 16):
        return torch.from_numpy(raw.view(f"<u{bits // 8}").astype(np.int32))
    each = np.unpackbits(raw, count=n * bits, bitorder="little").reshape(n, bits)
    # packbits fills the last byte of each number with zeros
    whole = np.packbits(each, axis=1, bitorder="little").view(f"<u{-(-bits // 8)}")
    return torch.from_numpy(whole[:, 0].astype(np.int32))


check_module(__name__)
