"""INT8 linear layers that really compute in integers, with dynamic or static input ranges.

Dynamic: the range is that of the current input. Static: it was observed beforehand on calibration
data. Weights: one symmetric scale per output channel; inputs: one affine grid per tensor
(Jacob et al. 2018, section 2; Wu et al. 2020, sections 3 and 5).
"""

from collections.abc import Callable, Iterable
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab.arguments import check_module
from efflab.base.hooks import Look, as_rows, replaceable_linears, watching
from efflab.compression.affine import check_grid, grid, quantize, round_to_grid
from efflab.compression.values import (
    Samples,
    Weight,
    finite_values,
    require_broadcast,
    require_magnitudes,
    require_ordered,
    require_shape,
    require_width,
)
from efflab.errors import require, require_one_of
from efflab.tensors import IntegerMatrix, Matrix, Vector, require_finite

Ranges = dict[str, tuple[float, float]]
"""Name of a linear layer -> least and largest value of its input."""


def input_grid(low: float, high: float, bits: int = 8) -> tuple[Tensor, Tensor]:
    """Scale and zero point, each (1,1), of the affine grid that covers low to high, and 0."""
    check_grid(bits)
    require(low <= high, "low", low, f"at most high={high}")
    ends = torch.tensor([[float(low), float(high)]], dtype=torch.float32)
    require(bool(ends.isfinite().all()), "low, high", (low, high), "finite numbers, in float32 too")
    return grid(ends, bits, symmetric=False)


def int_matmul(a: IntegerMatrix, b: IntegerMatrix) -> Tensor:
    """Product of int8 (n,k) and int8 (k,m) with int32 sums, as an INT8 unit computes it.

    Computed in fp32, but exact: sums of 1,024 products of 8 bits stay within 2^24, up to which
    fp32 holds every integer. (`torch._int_mm` is a plain loop on CPUs without INT8 instructions.)
    """
    for name, x in (("a", a), ("b", b)):
        require(x.dtype == torch.int8, f"{name}.dtype", x.dtype, "int8")
    require_shape("b", b, (a.shape[1], b.shape[1]))
    parts = zip(a.float().split(1024, dim=1), b.float().split(1024, dim=0), strict=True)
    return sum((x @ y).to(torch.int32) for x, y in parts)


class Int8Linear(nn.Module):
    """x (..., in) -> (..., out) with both operands in 8 bits and the sum in 32 (Jacob, equation 7).

    x = s_x (q - z) and W = s_w c with one s_w per row, so x W^T = s_x s_w (q c^T - z sum(c)): the
    product is one of integers, and the zero point needs one precomputed sum per output channel.
    `span`: (low, high) of the input (static), or None: that of each x (dynamic). `bits`: of the
    input's codes. `per_channel=False` gives all of W one scale. It takes every shape that
    `nn.Linear` takes and returns x's dtype. There is no gradient.
    """

    def __init__(
        self,
        linear: nn.Linear,
        span: tuple[float, float] | None = None,
        *,
        bits: int = 8,
        per_channel: bool = True,
    ):
        super().__init__()
        check_grid(bits)
        require(bits <= 8, "bits", bits, "2 to 8: the product takes int8")
        weight = quantize(linear.weight.detach(), 8, axis=0 if per_channel else None)
        codes = weight.codes()
        self.bits = bits
        self.out_features, self.in_features = linear.weight.shape
        self.register_buffer("weight", codes.to(torch.int8))
        self.register_buffer("sums", codes.sum(1, dtype=torch.int32))
        self.register_buffer("scale", weight.scale)  # (out,) or (1,)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())
        self.fixed = None if span is None else input_grid(*span, bits)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        require_width("x", x, self.weight.shape[1])
        y = self.product(as_rows(x), *self.grid_of(x))
        return y.view(*x.shape[:-1], len(self.weight)).to(x.dtype)

    def grid_of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point of x: (1,1) for all of it, or (N,1) for each of its rows."""
        if self.fixed is not None:
            require_finite("x", x)
            return self.fixed
        low, high = (x.min().item(), x.max().item()) if x.numel() else (0.0, 0.0)
        return input_grid(low, high, self.bits)

    def product(self, rows: Samples, scale: Matrix, zero: Matrix) -> Tensor:
        """rows (N, in) -> (N, out) on the affine grid of scale and zero point, (1,1) or (N,1)."""
        _require_product(self.weight, rows, scale, zero)
        codes = round_to_grid(rows, scale, zero, self.bits)  # int32, from 0
        middle = 2 ** (self.bits - 1)  # unsigned codes into the range of int8
        total = int_matmul((codes - middle).to(torch.int8), self.weight.T)
        total = total - (zero.to(torch.int32) - middle) * self.sums
        y = total.float() * (scale * self.scale)
        return y if self.bias is None else y + self.bias


def _require_product(weight: Tensor, rows: Tensor, scale: Tensor, zero: Tensor) -> None:
    require_width("rows", rows, weight.shape[1])
    require_ordered("rows", rows)
    for name, part in (("scale", scale), ("zero", zero)):
        require_broadcast(name, part, (len(rows), 1))
        require_finite(name, part)


# --- Whole models ----------------------------------------------------------------------------


def replace_linears(model: nn.Module, make: Callable[[str, nn.Linear], nn.Module]) -> nn.Module:
    """A copy of the model with every linear layer replaced by `make(name, layer)`.

    One whose weight its parent reads stays (`hooks.replaceable_linears`).
    A shared layer is replaced once, and its replacement is shared in the same places.
    """
    copy = deepcopy(model)
    linears = replaceable_linears(copy)
    replacements: dict[nn.Module, nn.Module] = {m: make(n, m) for n, m in linears.items()}
    for module in replacements.values():
        require(isinstance(module, nn.Module), "make(name, layer)", module, "a module")
    for parent in list(copy.modules()):
        for name, child in list(parent._modules.items()):  # named_children skips duplicates
            if child in replacements:
                setattr(parent, name, replacements[child])
    return replacements.get(copy, copy)


def dynamic_int8(model: nn.Module, **options) -> nn.Module:
    """Every linear layer in INT8, with the range of each current input. No data needed."""
    return replace_linears(model, lambda name, linear: Int8Linear(linear, **options))


def static_int8(model: nn.Module, ranges: Ranges, **options) -> nn.Module:
    """Every linear layer in INT8 with the fixed input ranges that `calibrate` returned.

    A layer that calibration never reached is a `ValueError`.
    """
    missing = sorted(set(replaceable_linears(model)) - set(ranges))
    require(not missing, "ranges", sorted(ranges), f"a range for {missing} too")
    return replace_linears(model, lambda name, m: Int8Linear(m, ranges[name], **options))


@torch.no_grad()
def calibrate(
    run: Callable,
    model: nn.Module,
    batches: Iterable,
    *,
    observer: str = "minmax",
    cut: float = 1e-3,
) -> Ranges:
    """The range of each linear layer's input while `run(batch)` passes over `batches`.

    `observer`: "minmax" covers every value; "percentile" drops the share `cut` at either end of
    each batch, in whole values, and averages over batches (Wu et al. 2020, section 5.2, take the
    percentile of all batches together). Layers that no batch
    reached are left out; an input that is not finite is a `ValueError`.
    """
    require_one_of("observer", observer, ("minmax", "percentile"))
    require(0 <= cut < 0.5, "cut", cut, "a share from 0 to below 0.5")
    spans: dict[str, list[tuple[float, float]]] = {}

    def look(name: str, x: Tensor) -> None:
        if observer == "minmax":
            span = x.min().item(), x.max().item()
        else:
            values, n = x.flatten().sort().values, x.numel()
            n_cut = int(n * cut)
            span = values[n_cut].item(), values[n - 1 - n_cut].item()
        spans.setdefault(name, []).append(span)

    _observe(run, model, batches, look)
    if observer == "minmax":
        return {n: (min(a for a, _ in s), max(b for _, b in s)) for n, s in spans.items()}
    return {n: tuple(torch.tensor(s).mean(0).tolist()) for n, s in spans.items()}


def _observe(run: Callable, model: nn.Module, batches: Iterable, look: Look) -> None:
    """`look(name, x)` at each linear layer's input in `run(batch)`: finite, and not empty."""

    def look_at(name: str, x: Tensor) -> None:
        if x.numel():
            require_finite(f"batches, the input of {name}", x)
            look(name, x)

    with watching(model, look_at):
        for batch in batches:
            run(batch)


# --- Outliers --------------------------------------------------------------------------------


@torch.no_grad()
def channel_peaks(run: Callable, model: nn.Module, batches: Iterable) -> dict[str, Tensor]:
    """Name -> largest magnitude (in,) of each input channel of each linear layer."""
    peaks: dict[str, Tensor] = {}

    def look(name: str, x: Tensor) -> None:
        peak = x.abs().amax(0)
        peaks[name] = torch.maximum(peaks[name], peak) if name in peaks else peak

    _observe(run, model, batches, look)
    return peaks


def outlier_ratio(peaks: Vector) -> float:
    """Largest channel's peak over the median channel's: 1 where all channels are alike.

    A median of 0 is a `ValueError`, since there is no ratio to it.
    """
    require_magnitudes("peaks", peaks)
    require(peaks.median() > 0, "peaks", "a median of 0", "more channels alive than dead")
    return (peaks.max() / peaks.median()).item()


def smoothing(peaks: Vector, weight: Weight, alpha: float = 0.5) -> Tensor:
    """Factors (in,) by which SmoothQuant divides the input's channels (Xiao et al. 2023, eq. 4).

    The weight's columns are multiplied by them, so that the product stays the same. A weight's
    scales belong to outputs and isolate no input channel either; it helps because weights are flat
    and take over a part of the difficulty, so that neither side has all of it.
    """
    require(0 <= alpha <= 1, "alpha", alpha, "a number from {low} to {high}", low=0, high=1)
    finite_values("weight", weight)
    require_magnitudes("peaks", peaks)
    require_shape("peaks", peaks, weight.shape[1:])
    columns = weight.detach().abs().amax(0).clamp(min=1e-5)
    return peaks.detach().clamp(min=1e-5) ** alpha / columns ** (1 - alpha)


def smooth_linear(linear: nn.Linear, factors: Vector) -> nn.Module:
    """The same map as `linear`, as x / factors followed by a linear layer on that."""
    require_shape("factors", factors, (linear.in_features,))
    inner = deepcopy(linear)
    with torch.no_grad():
        inner.weight.mul_(factors)
    return nn.Sequential(Divide(factors.to(linear.weight)), inner)


class Divide(nn.Module):
    """x / factors, channel by channel; an engine folds it into the norm before."""

    def __init__(self, factors: Vector):
        super().__init__()
        require_finite("factors", factors)
        require(bool((factors != 0).all()), "factors", "0 inside", "what can be divided by")
        self.register_buffer("factors", factors.detach())

    def forward(self, x: Tensor) -> Tensor:
        require_width("x", x, len(self.factors))
        return x / self.factors


# --- Errors ----------------------------------------------------------------------------------


def relative_error(approximate: Tensor, exact: Tensor) -> float:
    """Norm of the difference over the norm of `exact`, which must not be 0."""
    require_shape("approximate", approximate, exact.shape)
    require(exact.norm() > 0, "exact", "a norm of 0 or nan", "numbers that are not all 0")
    return ((approximate - exact).norm() / exact.norm()).item()


@torch.no_grad()
def layer_error(linear: nn.Linear, weight: Weight, x: Samples) -> float:
    """Relative error of the layer's output on x (n, in) when its weight is `weight` instead."""
    require_shape("weight", weight, linear.weight.shape)
    require_width("x", x, linear.in_features)
    for name, values in (("weight", weight), ("x", x)):
        finite_values(name, values)
    exact = F.linear(x, linear.weight)
    return relative_error(F.linear(x, weight), exact)


check_module(__name__)
