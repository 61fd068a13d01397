"""Checks of tensors that are quantized, masked, stored or read, and of batches of them.

All files of the chapter use these, so that an error reads the same everywhere.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from torch import Tensor

from efflab.arguments import check_module
from efflab.errors import require
from efflab.rules import require_type
from efflab.tensors import AnyTensor, Numbers, require_finite

Weight = Annotated[Tensor, "floats", "(out, in)"]
Samples = Annotated[Tensor, "floats", "(n, in)"]
Hessian = Annotated[Tensor, "floats", "(in, in)"]
NumberMatrix = Annotated[Tensor, "numbers", "(rows, columns)"]
IntegerVector = Annotated[Tensor, "integers", "(n,)"]


def finite_values(name: str, x: Tensor) -> Tensor:
    """x as data to be stored: float32, detached, at least one value, all finite.

    Values that are finite only in float64 are refused too.
    """
    require_filled(name, x)
    values = x.detach().float()
    require_finite(name, values)
    return values


def require_filled(name: str, x: AnyTensor) -> None:
    """Refuse a tensor without a value."""
    require(x.numel() > 0, f"{name}.shape", tuple(x.shape), "a tensor with at least one value")


def require_ordered(name: str, values: Numbers) -> None:
    """Refuse NaN, which can be neither compared nor rounded."""
    require(not values.isnan().any(), name, "nan inside", "numbers, which have an order")


def require_magnitudes(name: str, values: Tensor) -> None:
    """Refuse negative numbers, and what `finite_values` refuses."""
    finite_values(name, values)
    require(bool((values >= 0).all()), name, "a negative one inside", "magnitudes")


def require_whole(name: str, values: Numbers, low: int, high: int) -> None:
    """Every value must be a whole number from `low` to `high`."""
    # small types overflow on a large int
    x = values if values.is_floating_point() else values.long()
    fits = (x >= low) & (x <= high) & (x.round() == x)
    require(bool(fits.all()), name, "another inside", f"whole numbers from {low} to {high}")


def require_shape(name: str, x: AnyTensor, shape: tuple) -> None:
    """x must be of this shape."""
    require(tuple(x.shape) == tuple(shape), f"{name}.shape", tuple(x.shape), f"{tuple(shape)}")


def require_width(name: str, x: Tensor, width: int) -> None:
    """x must be (..., width), any dimensions before the last, of any size."""
    fits = x.dim() > 0 and x.shape[-1] == width
    require(fits, f"{name}.shape", tuple(x.shape), f"(..., {width})")


def require_broadcast(name: str, x: AnyTensor, shape: tuple) -> None:
    """x must fit this shape by the rules of broadcasting, without making it larger."""
    missing = len(shape) - x.dim()
    fits = missing >= 0 and all(
        n in (1, m) for n, m in zip(x.shape, tuple(shape)[missing:], strict=True)
    )
    require(fits, f"{name}.shape", tuple(x.shape), f"what broadcasts to {tuple(shape)}")


def finite_hessian(name: str, hessian: Hessian, width: int | None = None) -> Tensor:
    """The Hessian as float64; it must be square, of `width` rows if given, and all finite."""
    require_shape(name, hessian, (len(hessian) if width is None else width,) * 2)
    require_filled(name, hessian)
    require_finite(name, hessian)
    return hessian.detach().double()


def require_each(name: str, batches: Iterable, annotation: Any) -> Iterator[Any]:
    """The batches one by one, each checked by the annotation; no batch is a `ValueError`.

    A list counts as a tuple, since data loaders return lists.
    """
    n = 0
    for n, batch in enumerate(batches, 1):
        item = tuple(batch) if isinstance(batch, list) else batch
        yield require_type(f"{name}[{n - 1}]", item, annotation)
    require(n > 0, name, [], "at least one batch")


check_module(__name__)
