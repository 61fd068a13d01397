"""GPTQ (Frantar et al. 2023): round one column at a time, and correct the others for its error.

Rounding to nearest minimizes the error of the weights. What matters is the error of the layer's
output, |W X - Q X|^2 over calibration inputs X, a quadratic form with Hessian H = X X^T for every
row of W. Optimal brain surgery (Hassibi & Stork 1993) gives the best correction of the columns
that are still free, and one Cholesky factor of the inverse Hessian holds every step's correction.
"""

from collections.abc import Iterable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from efflab.arguments import check_module, unchecked
from efflab.base.hooks import linear_layers, linear_places, watch_inputs
from efflab.compression.affine import (
    QuantizedTensor,
    check_grid,
    from_rows,
    grid,
    round_to_grid,
    to_rows,
)
from efflab.compression.values import (
    Hessian,
    Samples,
    Weight,
    finite_hessian,
    finite_values,
    require_each,
    require_shape,
)
from efflab.errors import require
from efflab.rules import Count, NonNegative, Size
from efflab.tensors import Ids, Mask, Matrix, Numbers, require_finite

BLOCK_SIZE = 32
"""Columns in a lazy batch. The paper takes 128, for GPUs. On a CPU 32 is as fast, and its operators
are small enough for torch to run them on one thread."""


@dataclass(frozen=True)
class Settings:
    """How `gptq` quantizes; invalid values are refused here, before any work.

    `group_size`: columns that share a scale, None for one scale per row. `damp`: this share of the
    mean diagonal is added to the diagonal. `act_order`: columns with the largest inputs first; the
    codes stay in the original order. `block_size`: columns whose corrections are applied to the
    rest in one product; it changes the speed, not the result.
    """

    bits: int
    group_size: int | None = None
    damp: NonNegative = 0.01
    symmetric: bool = False
    act_order: bool = False
    block_size: Size = BLOCK_SIZE

    def __post_init__(self):
        check_grid(self.bits, group_size=self.group_size)


def gptq(weight: Weight, inputs: Samples, bits: int, **options) -> QuantizedTensor:
    """Quantize weight (out, in) so that its outputs on inputs (n, in) change little.

    `options`: those of `Settings`. With fewer samples than inputs the Hessian is singular, and only
    damping makes it invertible.

    >>> x = torch.randn(64, 8) @ torch.randn(8, 8)  # correlated, as activations are
    >>> gptq(torch.randn(4, 8), x, 3, group_size=4).codes().shape
    torch.Size([4, 8])
    """
    settings = Settings(bits, **options)
    finite_values("weight", weight)
    width, actual = weight.shape[1], tuple(inputs.shape)
    require(actual[1] == width, "inputs.shape", actual, f"(n, {width}), the weight's own width")
    return _quantize(weight, hessian(inputs), settings)


def hessian(inputs: Samples) -> Tensor:
    """X^T X of inputs X (n, in), float64: (in, in). Sum it over batches.

    The Hessian of the squared output error is twice this, the same for every row; no step of the
    method depends on the factor 2.
    """
    require(len(inputs) > 0, "inputs.shape", tuple(inputs.shape), "at least one sample")
    x = inputs.detach().double()
    total = x.T @ x
    require_finite("inputs", total)
    return total


def gptq_hessian(weight: Weight, hessian: Hessian, bits: int, **options) -> QuantizedTensor:
    """`gptq` from an accumulated Hessian (in, in), without the calibration data.

    `options`: those of `Settings`.
    """
    settings = Settings(bits, **options)
    finite_values("weight", weight)
    H = finite_hessian("hessian", hessian, weight.shape[1])
    return _quantize(weight, H, settings)


def _quantize(weight: Tensor, hessian: Tensor, settings: Settings) -> QuantizedTensor:
    """The method itself, on checked arguments.

    Scales are those of rounding to nearest: per row or per group, taken from the original weights
    before any correction ("static groups"). A column whose input was always zero is rounded to
    nearest. (The authors' code sets it to zero, which is worse if the input is ever nonzero.)
    """
    bits, group_size = settings.bits, settings.group_size
    layout = dict(axis=0 if group_size is None else None, group_size=group_size)
    weight = weight.detach().float()
    rows = to_rows(weight, **layout)
    scale, zero_point = grid(rows, bits, settings.symmetric)

    H = add_damping(hessian, settings.damp)
    order = torch.arange(len(H))
    if settings.act_order:
        order = H.diagonal().argsort(descending=True, stable=True)

    def per_weight(x: Tensor) -> Tensor:  # (R,1) -> (out, in), columns in that order
        return from_rows(x.expand_as(rows), weight.shape, **layout)[:, order]

    zeros = None if zero_point is None else per_weight(zero_point)
    factor = inverse_factor(H[order][:, order], settings.damp)
    size = settings.block_size
    _, codes = sweep(weight[:, order], per_weight(scale), zeros, bits, factor, block_size=size)
    codes = codes[:, order.argsort()].contiguous()
    return QuantizedTensor.from_codes(codes, scale, zero_point, bits, **layout)


def add_damping(hessian: Hessian, damp: float) -> Tensor:
    """The Hessian with `damp` times its mean diagonal added to the diagonal, as float64.

    A dead input (zero row and column) gets the mean, whatever the unit of the inputs, and is tied
    to no other. Where all are dead any number will do.
    """
    H = finite_hessian("hessian", hessian)
    diagonal = H.diagonal()
    mean = diagonal.mean()
    extra = float(damp) * mean
    own = torch.where(mean > 0, mean, 1.0) - extra
    return H + torch.diag(torch.where(diagonal == 0, own, 0) + extra)


def inverse_factor(H: Hessian, damp: float = 0.0) -> Tensor:
    """Upper triangular U with U^T U = H^-1 (section 3.3, step 3).

    Row i, divided by its diagonal, is the correction that rounding column i asks of the columns
    after it. H = R R^T with R upper triangular is the Cholesky factor of H read backwards, and
    U = R^-1: the inverse itself is never made. A singular H is a `ValueError` that names `damp`.
    """
    H = finite_hessian("H", H)
    lower, failed = torch.linalg.cholesky_ex(H.flip(0, 1))
    pivots = lower.diagonal().square()
    sound = not failed and bool(pivots.min() > len(H) * torch.finfo(H.dtype).eps * pivots.max())
    require(sound, "damp", damp, "more than that: the Hessian is singular (too few samples?)")
    eye = torch.eye(len(H), dtype=H.dtype)
    return torch.linalg.solve_triangular(lower.flip(0, 1), eye, upper=True)


def sweep(
    weight: Weight,
    scale: Matrix,
    zero_point: Numbers | None,
    bits: int,
    factor: Hessian,
    *,
    block_size: Size = BLOCK_SIZE,
    stop: Count | None = None,
) -> tuple[Tensor, Tensor]:
    """Round the first `stop` columns (default all), left to right (Algorithm 1).

    `weight`, `scale` and `zero_point` are (out, in). Returns (values, codes), both (out, in):
    rounded columns hold their dequantized values, the others the weights as corrected so far.
    """
    _check_sweep(weight, scale, zero_point, factor, stop)
    w = weight.detach().T.double().clone()  # (in, out): a column is a run of memory
    scale, factor = scale.T.double(), factor.double()
    zero = torch.zeros_like(scale) if zero_point is None else zero_point.T.double()
    stop = len(w) if stop is None else stop
    codes = torch.zeros_like(w, dtype=torch.int32)
    for start in range(0, stop, block_size):
        end = min(start + block_size, stop)
        errors = w.new_empty(end - start, w.shape[1])
        for i in range(start, end):
            offset = None if zero_point is None else zero[i]
            codes[i] = unchecked(round_to_grid)(w[i], scale[i], offset, bits)
            rounded = scale[i] * (codes[i] - zero[i])
            error = errors[i - start] = (w[i] - rounded) / factor[i, i]
            w[i] = rounded
            w[i + 1 : end].addr_(factor[i, i + 1 : end], error, alpha=-1)
        w[end:] -= factor[start:end, end:].T @ errors  # the lazy batch: one product a block
    return w.T, codes.T


def _check_sweep(weight, scale, zero_point, factor, stop) -> None:
    finite_values("weight", weight)
    for name, part in (("scale", scale), ("zero_point", zero_point)):
        if part is not None:
            require_shape(name, part, weight.shape)
            require_finite(name, part)
    width = weight.shape[1]
    diagonal = finite_hessian("factor", factor, width).diagonal()
    require(bool((diagonal != 0).all()), "factor", "0 on its diagonal", "an invertible one")
    require(stop is None or stop <= width, "stop", stop, f"at most the {width} columns")


def output_error(weight: Weight, quantized: QuantizedTensor | Tensor, hessian: Hessian) -> float:
    """Squared error of the layer's output over its squared norm, on the Hessian's inputs."""
    values = quantized if isinstance(quantized, Tensor) else quantized.dequantize()
    require_shape("quantized", values, weight.shape)
    H = finite_hessian("hessian", hessian, weight.shape[1])
    W, D = weight.detach().double(), (weight.detach() - values).double()
    whole = ((W @ H) * W).sum()
    require(bool(whole > 0), "weight", "an output of 0", "one whose square the error is a share of")
    return (((D @ H) * D).sum() / whole).item()


@torch.no_grad()
def gptq_model(
    model: nn.Module, batches: Iterable, bits: int, **options
) -> dict[str, QuantizedTensor]:
    """Quantize every linear map inside a Transformer's layers, in the order of computation.

    Each map is fitted to the inputs that it will really get: those from already quantized earlier
    maps. `batches`: token ids (B,T), or pairs (ids, attention mask), whose masked tokens do not
    count. `options`: those of `Settings`. Embeddings, biases and norms are not touched
    (`affine.quantize` suits tables). A shared map is fitted once, when its first place is reached,
    to the inputs of all its places. Returns {parameter name: tensor}; the model is not changed.
    """
    settings = Settings(bits, **options)
    checked = require_each("batches", batches, Ids | tuple[Ids, Mask])
    pairs = [batch if isinstance(batch, tuple) else (batch, None) for batch in checked]
    for ids, mask in pairs:
        fits = mask is None or mask.shape == ids.shape
        require(fits, "batches", mask, f"a mask of the shape of its ids, {tuple(ids.shape)}")
    for linear in linear_layers(model.layers).values():
        finite_values("weight", linear.weight)
    masks = [None if m is None else m.bool()[:, None, None, :] for _, m in pairs]
    real = [... if m is None else m.bool() for _, m in pairs]  # `...` selects all tokens
    states = [model.embedding(ids) for ids, _ in pairs]
    layers, at = deepcopy(model.layers), 0
    quantized = {}
    for name, places in linear_places(model).items():
        first, last = (int(place.split(".")[1]) for place in (places[0], places[-1]))
        for layer in layers[at:first]:
            states = [layer(x, mask) for x, mask in zip(states, masks, strict=True)]
        at = first
        users = [layers.get_submodule(place.removeprefix("layers.")) for place in places]
        H = _collect_hessian(layers[first : last + 1], users, states, masks, real)
        quantized[name] = _quantize(users[0].weight, H, settings)
        users[0].weight.copy_(quantized[name].dequantize())
    return quantized


class _Stop(Exception):
    """Ends a forward pass early, once the inputs of interest are collected."""


def _collect_hessian(layers: nn.ModuleList, users: list[nn.Linear], states, masks, real) -> Tensor:
    """The Hessian over the inputs of all `users` of a weight when the layers run on `states`."""
    width = users[0].in_features
    total = torch.zeros(width, width, dtype=torch.float64)
    for x, mask, tokens in zip(states, masks, real, strict=True):
        for inputs in _inputs(layers, users, x, mask):
            total.add_(hessian(inputs[tokens].reshape(-1, width)))
    return total


def _inputs(layers: nn.ModuleList, users: list[nn.Linear], x: Tensor, mask) -> list[Tensor]:
    """The inputs of all `users` when the layers run on x (B,T,C), in order of computation."""
    inputs: list[Tensor] = []
    distinct = {str(i): module for i, module in enumerate(dict.fromkeys(users))}

    def look(_, x: Tensor) -> None:
        inputs.append(x)
        if len(inputs) == len(users):
            raise _Stop

    with suppress(_Stop), watch_inputs(distinct, look):
        for layer in layers:
            x = layer(x, mask)
    return inputs


check_module(__name__)
