"""Affine quantization (Jacob et al. 2018, equation 1): a float becomes scale * (code - zero_point).

Codes are integers of 2 to 16 bits, packed without gaps. One scale may serve the whole tensor, one
entry of an axis (a channel), or a run of values (a group): the finer, the smaller the rounding
error and the more scales there are to store.
"""

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from efflab.errors import require, require_int
from efflab.tensors import require_finite


@dataclass(frozen=True)
class QuantizedTensor:
    """Packed codes with their scales; made by `quantize`, `gptq` or `from_codes`.

    Every scale owns one row of the tensor's `rows` view: (R, values of one scale).
    """

    packed: Tensor  # uint8, `bits` bits a value, first value in the lowest bits
    scale: Tensor  # (R,) float32
    zero_point: Tensor | None  # (R,) uint8 or int32; None: symmetric, zero is code 0
    bits: int
    shape: tuple[int, ...]
    axis: int | None = None
    group_size: int | None = None

    @classmethod
    def from_codes(
        cls, codes: Tensor, scale: Tensor, zero_point: Tensor | None, bits: int, **layout
    ) -> "QuantizedTensor":
        """Pack integer `codes`, in the tensor's own shape, on a grid that is already known."""
        low, _ = code_range(bits, zero_point is None)
        if zero_point is not None:
            zero_point = zero_point.flatten().to(torch.uint8 if bits <= 8 else torch.int32)
        packed = pack(codes.flatten() - low, bits)
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
        largest = torch.finfo(values.dtype).max  # half a step above it stands for it
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
    each (`ch_axis` of torch's observers); None: one for the tensor. `group_size`: one scale for
    every so many values along the last dimension, in each row; a last group may be shorter.

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


def finite_values(name: str, x: Tensor) -> Tensor:
    """x as data to be stored: float32, at least one value, all finite, and off the autograd graph.

    Finite in float64 is not enough: what float32 cannot hold has no scale either.
    """
    require(x.is_floating_point(), f"{name}.dtype", x.dtype, "a floating-point tensor")
    require(x.numel() > 0, f"{name}.shape", tuple(x.shape), "a tensor with at least one value")
    values = x.detach().float()
    require_finite(name, values)
    return values


def check_grid(
    bits: int, axis: int | None = None, group_size: int | None = None, n_dims: int = 2
) -> None:
    """Refuse a grid that does not exist for a tensor of `n_dims` dimensions, or for any."""
    require_int("bits", bits, 2)
    require(bits <= 16, "bits", bits, "2 to 16")
    if axis is not None:
        require(-n_dims <= axis < n_dims, "axis", axis, f"a dimension of the {n_dims} there are")
    if group_size is not None:
        require_int("group_size", group_size)
        last = (-1, n_dims - 1)
        require(n_dims == 1 or axis not in last, "axis", axis, "not the last, where groups run")


def code_range(bits: int, symmetric: bool) -> tuple[int, int]:
    """Lowest and highest code. Symmetric leaves out -2^(bits-1), so that -x has the code of x."""
    high = 2 ** (bits - 1) - 1
    return (-high, high) if symmetric else (0, 2**bits - 1)


def grid(rows: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor | None]:
    """Scale (R,1) and zero point (R,1), None if symmetric, that cover each of the rows (R,n).

    Rows with infinities or NaN are a `ValueError`.
    """
    low, high = code_range(bits, symmetric)
    if symmetric:
        scale = rows.abs().amax(1, keepdim=True) / high
    else:
        least = rows.amin(1, keepdim=True).clamp(max=0)  # 0 must have a code of its own
        most, steps = rows.amax(1, keepdim=True).clamp(min=0), high - low
        span = most - least
        scale = torch.where(span.isfinite(), span / steps, most / steps - least / steps)
    require_finite("x", scale)
    # All zero, or so small that the division underflows: any scale will do.
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    if symmetric:
        return scale, None
    return scale, (-least / scale).round().clamp(low, high)


def round_to_grid(x: Tensor, scale: Tensor, zero_point: Tensor | None, bits: int) -> Tensor:
    """Codes (int32) of x, clamped to the range; scale and zero point broadcast against x."""
    low, high = code_range(bits, zero_point is None)
    codes = (x / scale).round() + (0 if zero_point is None else zero_point)
    return codes.clamp(low, high).to(torch.int32)


def to_rows(x: Tensor, axis: int | None, group_size: int | None) -> Tensor:
    """The view (R, n) of x in which each row shares a scale; short groups are filled with zeros.

    Zero lies on every grid and widens none, so the filling changes no scale.
    """
    if group_size is not None:
        return F.pad(x, (0, -x.shape[-1] % group_size)).reshape(-1, group_size)
    if axis is not None:
        return x.movedim(axis, 0).flatten(1) if x.dim() > 1 else x[:, None]
    return x.reshape(1, -1)


def from_rows(
    rows: Tensor, shape: tuple[int, ...], axis: int | None, group_size: int | None
) -> Tensor:
    """Inverse of `to_rows`."""
    if group_size is not None:
        filled = -(-shape[-1] // group_size) * group_size
        return rows.reshape(*shape[:-1], filled)[..., : shape[-1]].contiguous()
    if axis is not None:
        axis %= len(shape)
        moved = (shape[axis], *shape[:axis], *shape[axis + 1 :])
        return rows.reshape(moved).movedim(0, axis).contiguous()
    return rows.reshape(shape)


def pack(values: Tensor, bits: int) -> Tensor:
    """Whole numbers 0..2^bits - 1, (n,) -> ceil(n bits / 8) bytes, lowest bit first."""
    n_bytes = -(-bits // 8)
    raw = values.numpy().astype(f"<u{n_bytes}").view(np.uint8).reshape(-1, n_bytes)
    if bits in (8, 16):  # whole bytes: no need to take them apart
        return torch.from_numpy(raw.flatten())
    each = np.unpackbits(raw, axis=1, bitorder="little")[:, :bits]
    return torch.from_numpy(np.packbits(each, bitorder="little"))


def unpack(packed: Tensor, bits: int, n: int) -> Tensor:
    """The first n numbers (int32) of what `pack` made."""
    raw = packed.numpy()
    if bits in (8, 16):
        return torch.from_numpy(raw.view(f"<u{bits // 8}").astype(np.int32))
    each = np.unpackbits(raw, count=n * bits, bitorder="little").reshape(n, bits)
    # packbits fills the last byte of each number with zeros
    whole = np.packbits(each, axis=1, bitorder="little").view(f"<u{-(-bits // 8)}")
    return torch.from_numpy(whole[:, 0].astype(np.int32))
