"""What a pruned matrix takes once its zeros are left out: three layouts, real bytes.

A zero costs as much as any number in a dense matrix. Leaving it out needs a note of where the
others stand, and that note is what decides when sparse storage starts to pay.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from efflab.compression.affine import pack, unpack
from efflab.errors import require, require_one_of

LAYOUTS = ("dense", "csr", "bitmap", "2:4")
INDEX = torch.int32
"""Of CSR's columns and starts; more nonzeros than it counts are a `ValueError`."""


def to_layout(weight: Tensor, layout: str) -> dict[str, Tensor]:
    """The tensors that hold the matrix (R,C) in one of `LAYOUTS`.

    csr: values, an int32 column for each, an int32 start for each row (as `torch.sparse_csr`).
    bitmap: values, and one bit for each place. 2:4: of each four in a row two values and their two
    2-bit places (Mishra et al. 2021, figure 2); more than two nonzeros of four are a `ValueError`.
    """
    require_one_of("layout", layout, LAYOUTS)
    require(weight.dim() == 2, "weight.shape", tuple(weight.shape), "two dimensions")
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
    most = int((groups != 0).sum(1).max())
    require(most <= 2, "weight", f"{most} nonzeros of four", "at most two nonzeros of each four")
    places = (groups != 0).int().argsort(dim=1, descending=True, stable=True)[:, :2].sort(1).values
    return {"places": pack(places.flatten(), 2), "values": groups.gather(1, places).flatten()}


def from_layout(parts: dict[str, Tensor], layout: str, shape: tuple[int, int]) -> Tensor:
    """The matrix (R,C) that `to_layout` took apart."""
    require_one_of("layout", layout, LAYOUTS)
    values = parts["values"]
    if layout == "dense":
        return values
    if layout == "csr":
        weight = torch.zeros(shape, dtype=values.dtype)
        rows = torch.arange(shape[0]).repeat_interleave(parts["rows"].long().diff())
        weight[rows, parts["columns"].long()] = values
        return weight
    n = shape[0] * shape[1]
    if layout == "bitmap":
        weight = torch.zeros(n, dtype=values.dtype)
        weight[unpack(parts["bits"], 1, n).bool()] = values
        return weight.view(shape)
    places = unpack(parts["places"], 2, n // 2).long().view(-1, 2)
    groups = torch.zeros(n // 4, 4, dtype=values.dtype)
    return groups.scatter(1, places, values.view(-1, 2)).view(shape)


def layout_bytes(weight: Tensor, layout: str) -> int:
    """Bytes of the tensors of `to_layout`."""
    return sum(part.nbytes for part in to_layout(weight, layout).values())


def break_even(value_bytes: float, index_bytes: float, place_bits: float = 0) -> float:
    """The share of zeros from which a sparse layout is smaller than dense.

    A nonzero costs value and index, each place `place_bits`; dense costs the value for each place:
    (1 - s) (value + index) + bits / 8 = value. CSR's starts of rows are left out. 1 or more means
    never.

    >>> break_even(4, 4), break_even(4, 0, place_bits=1)
    (0.5, 0.03125)
    """
    require(value_bytes > 0, "value_bytes", value_bytes, "a number above 0")
    require(index_bytes >= 0, "index_bytes", index_bytes, "a number of at least 0")
    require(place_bits >= 0, "place_bits", place_bits, "a number of at least 0")
    return (index_bytes + place_bits / 8) / (value_bytes + index_bytes)
