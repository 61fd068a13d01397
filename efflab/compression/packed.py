"""A whole model with quantized weight matrices, stored as packed codes.

Biases and norms are not quantized; they are about a thousandth of the parameters.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

from torch import Tensor, nn

from efflab.arguments import check_module
from efflab.base.json_files import parse_json
from efflab.compression.affine import QuantizedTensor, quantize
from efflab.errors import require
from efflab.tensors import require_finite
from efflab.weights import Tensors, fill, named_tensors, read_tensors, save_tensors

Quantized = dict[str, QuantizedTensor]


def weight_matrices(model: nn.Module, *, embeddings: bool = True) -> dict[str, Tensor]:
    """Name -> matrix of every linear map and, if `embeddings`, every table; shared ones once."""
    tables = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Embedding)}
    kinds = nn.Linear | nn.Embedding
    own = {p for m in model.modules() if isinstance(m, kinds) for p in m.parameters()}
    return {
        name: p.detach()
        for name, p in model.named_parameters()
        if p in own and p.dim() == 2 and (embeddings or name not in tables)
    }


def quantize_weights(model: nn.Module, bits: int, *, embeddings: bool = True, **grid) -> Quantized:
    """Every weight matrix rounded to nearest; `grid` as for `affine.quantize`."""
    matrices = weight_matrices(model, embeddings=embeddings)
    return {name: quantize(w, bits, **grid) for name, w in matrices.items()}


def with_weights(model: nn.Module, quantized: Quantized) -> nn.Module:
    """A copy with the dequantized weights, for evaluating quality."""
    model_copy = deepcopy(model)
    own = named_tensors(model_copy)
    return fill(model_copy, own | _values(own, quantized), "quantized")


def _values(own: Tensors, quantized: Quantized) -> Tensors:
    """The dequantized weights, in the types of the model's own."""
    values = {name: q.dequantize() for name, q in quantized.items()}
    return {name: v.to(own[name].dtype) if name in own else v for name, v in values.items()}


def model_bytes(model: nn.Module, quantized: Quantized) -> int:
    """Bytes of the model with these weights packed and all other tensors as they are."""
    rest = _rest(model, quantized).values()
    return sum(q.nbytes for q in quantized.values()) + sum(t.nbytes for t in rest)


def _rest(model: nn.Module, quantized: Quantized) -> Tensors:
    """The model's tensors that are not quantized; refuses quantized ones of other shapes."""
    own = named_tensors(model)
    for name, q in quantized.items():
        require(name in own, "quantized", name, "names of the model's tensors")
        actual, shape = tuple(q.shape), tuple(own[name].shape)
        require(actual == shape, f"quantized[{name!r}].shape", actual, f"the model's {shape}")
    return {name: t for name, t in own.items() if name not in quantized}


def save_quantized(model: nn.Module, quantized: Quantized, path: Path) -> int:
    """Write codes, scales and the other tensors to `path` (safetensors); returns its bytes.

    Weights of another model, or not finite ones, could not be loaded again: a `ValueError`.
    """
    tensors = _rest(model, quantized)
    for name, parameter in model.named_parameters():
        if name in tensors:
            require_finite(f"model: {name}", parameter)
    layouts = {}
    for name, q in quantized.items():
        parts = {"packed": q.packed, "scale": q.scale, "zero_point": q.zero_point}
        tensors |= {f"{name}.{part}": t for part, t in parts.items() if t is not None}
        layouts[name] = [q.bits, q.shape, q.axis, q.group_size]
    description = json.dumps(layouts, default=int)  # int: numpy's integers
    save_tensors(path, tensors, {"quantized": description})
    return path.stat().st_size


REMEDY = "save the model anew with `packed.save_quantized`"


def load_quantized(path: Path) -> tuple[Quantized, Tensors]:
    """(quantized, the other tensors) from a file of `save_quantized`.

    A file that is cut short, changed or of another kind is a `ValueError`.
    """
    tensors, metadata = read_tensors(path, REMEDY)
    try:
        layouts = parse_json(metadata["quantized"])
        matrices = {name: _restore(name, tensors, *layout) for name, layout in layouts.items()}
    except (KeyError, TypeError, ValueError) as error:
        problem = f"does not describe its tensors as save_quantized does: {error}"
        raise ValueError(f"{path} {problem}; {REMEDY}") from None
    return matrices, tensors


def _restore(name: str, tensors: Tensors, bits, shape, axis, group_size) -> QuantizedTensor:
    """The matrix `name`, its parts popped from `tensors`; parts that do not fit are refused."""
    packed, scale = tensors.pop(f"{name}.packed"), tensors.pop(f"{name}.scale")
    zero_point = tensors.pop(f"{name}.zero_point", None)
    try:
        return QuantizedTensor(packed, scale, zero_point, bits, tuple(shape), axis, group_size)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def load_model(path: Path, build: Callable[[], nn.Module]) -> nn.Module:
    """The model of `build()` with the weights at `path`, in evaluation mode.

    A file that lacks one of the model's tensors, or has another, is a `ValueError`.
    """
    quantized, rest = load_quantized(path)
    model = build()
    require(isinstance(model, nn.Module), "build()", model, "a module")
    values = _values(named_tensors(model), quantized)
    return fill(model, values | rest, str(path)).eval()


check_module(__name__)
