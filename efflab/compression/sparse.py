"""Sparse storage of a pruned matrix: three layouts, and their real bytes.

A dense matrix stores zeros like any number. Leaving them out means storing the positions of the
others, and that overhead decides when sparse storage starts to pay.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from efflab.arguments import check_module
from efflab.compression.affine import pack, unpack
from efflab.compression.values import NumberMatrix, require_shape, require_whole
from efflab.errors import require, require_one_of
from efflab.rules import Count, NonNegative, Positive
from efflab.tensors import Numbers

PARTS = {
    "dense": ("values",),
    "csr": ("rows", "columns", "values"),
    "bitmap": ("bits", "values"),
    "2:4": ("places", "values"),
}
"""Names of the tensors by layout."""
LAYOUTS = tuple(PARTS)
MOST_VALUES = 2**30
"""Upper bound of a matrix's values, zeros too: sparse parts can claim any size to be allocated."""
INDEX = torch.int32
"""Type of CSR's columns and starts; more nonzeros than it can count are a `ValueError`."""


def to_layout(weight: NumberMatrix, layout: str) -> dict[str, Tensor]:
    """The tensors that hold the matrix (R,C) in one of `LAYOUTS`.

    csr: values, an int32 column for each, an int32 start for each row (as `torch.sparse_csr`).
    bitmap: values, and one bit for each place. 2:4: of each four in a row two values and their two
    2-bit places (Mishra et al. 2021, figure 2); more than two nonzeros of four are a `ValueError`.
    """
    require_one_of("layout", layout, LAYOUTS)
    weight = weight.detach()
    if layout == "dense":
        return {"values": weight}
    if layout == "csr":
        nonzero = weight != 0
        starts = F.pad(nonzero.sum(1).cumsum(0), (1, 0))
        most = torch.iinfo(INDEX).max
        for name, n in (("nonzeros", int(starts[-1])), ("columns", weight.shape[1])):
            require(n <= most, name, n, f"at most {most}, the largest {INDEX}")
        columns = nonzero.nonzero()[:, 1].to(INDEX)
        return {"rows": starts.to(INDEX), "columns": columns, "values": weight[nonzero]}
    if layout == "bitmap":
        return {"bits": pack((weight != 0).flatten().int(), 1), "values": weight[weight != 0]}
    require(weight.shape[1] % 4 == 0, "weight.shape", tuple(weight.shape), "columns in fours")
    groups = weight.reshape(-1, 4)
    most = int((groups != 0).sum(1).max()) if len(groups) else 0
    require(most <= 2, "weight", f"{most} nonzeros of four", "at most two nonzeros of each four")
    places = (groups != 0).int().argsort(dim=1, descending=True, stable=True)[:, :2].sort(1).values
    return {"places": pack(places.flatten(), 2), "values": groups.gather(1, places).flatten()}


def from_layout(parts: Mapping[str, Numbers], layout: str, shape: tuple[Count, Count]) -> Tensor:
    """The matrix (R,C) from the parts of `to_layout`; invalid parts are a `ValueError`."""
    require_one_of("layout", layout, LAYOUTS)
    fits = set(parts) == set(PARTS[layout])
    require(fits, "parts", list(parts), f"the parts of {layout}: {', '.join(PARTS[layout])}")
    shape = int(shape[0]), int(shape[1])
    require(shape[0] * shape[1] <= MOST_VALUES, "shape", shape, f"at most {MOST_VALUES} values")
    values = parts["values"]
    if layout == "dense":
        require_shape("parts['values']", values, shape)
        return values
    for name, part in parts.items():
        require(part.dim() == 1, f"parts[{name!r}].shape", tuple(part.shape), "one dimension")
    read = {"csr": _from_csr, "bitmap": _from_bitmap, "2:4": _from_fours}[layout]
    return read(parts, *shape)


def _from_csr(parts: Mapping[str, Tensor], R: int, C: int) -> Tensor:
    for name in ("rows", "columns"):
        is_index = parts[name].dtype in (INDEX, torch.int64)
        require(is_index, f"parts[{name!r}].dtype", parts[name].dtype, f"{INDEX} or int64")
    starts, columns, values = parts["rows"].long(), parts["columns"].long(), parts["values"]
    require_shape("parts['rows']", starts, (R + 1,))
    require_shape("parts['columns']", columns, values.shape)
    rising = starts[0] == 0 and starts[-1] == len(values) and bool((starts.diff() >= 0).all())
    require(rising, "parts['rows']", parts["rows"], f"starts that rise from 0 to {len(values)}")
    require_whole("parts['columns']", columns, 0, C - 1)
    rows = torch.arange(R).repeat_interleave(starts.diff())
    ordered = bool(((rows * C + columns).diff() > 0).all())
    require(ordered, "parts['columns']", parts["columns"], "columns that rise within each row")
    weight = torch.zeros((R, C), dtype=values.dtype)
    weight[rows, columns] = values
    return weight


def _from_bitmap(parts: Mapping[str, Tensor], R: int, C: int) -> Tensor:
    is_stored = unpack(_bytes(parts, "bits", R * C), 1, R * C).bool()
    require_shape("parts['values']", parts["values"], (int(is_stored.sum()),))
    weight = torch.zeros(R * C, dtype=parts["values"].dtype)
    weight[is_stored] = parts["values"]
    return weight.view(R, C)


def _from_fours(parts: Mapping[str, Tensor], R: int, C: int) -> Tensor:
    require(C % 4 == 0, "shape", (R, C), "columns in fours")
    n, values = R * C // 2, parts["values"]
    require_shape("parts['values']", values, (n,))
    places = unpack(_bytes(parts, "places", 2 * n), 2, n).long().view(-1, 2)
    rising = bool((places[:, 0] < places[:, 1]).all())
    require(rising, "parts['places']", parts["places"], "two places of each four, in order")
    groups = torch.zeros(R * C // 4, 4, dtype=values.dtype)
    return groups.scatter(1, places, values.view(-1, 2)).view(R, C)


def _bytes(parts: Mapping[str, Tensor], name: str, n_bits: int) -> Tensor:
    """The part of that name, which must be the bytes that hold `n_bits`."""
    part = parts[name]
    require(part.dtype == torch.uint8, f"parts[{name!r}].dtype", part.dtype, "bytes")
    require_shape(f"parts[{name!r}]", part, (-(-n_bits // 8),))
    return part


def layout_bytes(weight: NumberMatrix, layout: str) -> int:
    """Bytes of the tensors of `to_layout`."""
    return sum(part.nbytes for part in to_layout(weight, layout).values())


def break_even(
    value_bytes: Positive, index_bytes: NonNegative, place_bits: NonNegative = 0
) -> float:
    """The share of zeros from which a sparse layout is smaller than dense.

    A nonzero costs value and index, and each position `place_bits`; dense costs a value for each
    position: (1 - s) (value + index) + bits / 8 = value. CSR's row starts are neglected. A result
    of 1 or more means never.

    >>> break_even(4, 4), break_even(4, 0, place_bits=1)
    (0.5, 0.03125)
    """
    return (index_bytes + place_bits / 8) / (value_bytes + index_bytes)


check_module(__name__)
