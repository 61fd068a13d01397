"""A whole model on few bits: its weight matrices quantized, on disk as small as they say.

Biases and norms stay as they are; they are about a thousandth of the parameters.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from math import prod
from pathlib import Path

from torch import Tensor, nn

from efflab.compression.affine import QuantizedTensor, check_grid, quantize
from efflab.errors import require_int
from efflab.json_files import parse_json
from efflab.weights import Tensors, fill, named_tensors, read_tensors, save_tensors
from efflab.weights import digest as digest  # whoever compares quantized models looks here

Quantized = dict[str, QuantizedTensor]


def weight_matrices(model: nn.Module, *, embeddings: bool = True) -> dict[str, Tensor]:
    """Name -> matrix of every linear map and, if `embeddings`, every table; shared ones once."""
    tables = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Embedding)}
    return {
        name: p.detach()
        for name, p in model.named_parameters()
        if p.dim() == 2 and (embeddings or name not in tables)
    }


def quantize_weights(model: nn.Module, bits: int, *, embeddings: bool = True, **grid) -> Quantized:
    """Every weight matrix rounded to nearest; `grid` as for `affine.quantize`."""
    matrices = weight_matrices(model, embeddings=embeddings)
    return {name: quantize(w, bits, **grid) for name, w in matrices.items()}


def with_weights(model: nn.Module, quantized: Quantized) -> nn.Module:
    """A copy that computes with the quantized weights' values: for judging quality."""
    changed = deepcopy(model)
    own = named_tensors(changed)
    values = {name: _like(own.get(name), q.dequantize()) for name, q in quantized.items()}
    return fill(changed, own | values, "quantized")


def _like(own: Tensor | None, value: Tensor) -> Tensor:
    return value if own is None else value.to(own.dtype)


def model_bytes(model: nn.Module, quantized: Quantized) -> int:
    """Bytes of the model with these weights packed and all other tensors as they are."""
    rest = [t for name, t in named_tensors(model).items() if name not in quantized]
    return sum(q.nbytes for q in quantized.values()) + sum(t.nbytes for t in rest)


def save_quantized(model: nn.Module, quantized: Quantized, path: Path) -> int:
    """Write codes, scales and the other tensors to `path` (safetensors); returns its bytes."""
    tensors = {n: t for n, t in named_tensors(model).items() if n not in quantized}
    layouts = {}
    for name, q in quantized.items():
        parts = {"packed": q.packed, "scale": q.scale, "zero_point": q.zero_point}
        tensors |= {f"{name}.{part}": t for part, t in parts.items() if t is not None}
        layouts[name] = [q.bits, q.shape, q.axis, q.group_size]
    save_tensors(Path(path), tensors, {"quantized": json.dumps(layouts)})
    return Path(path).stat().st_size


REMEDY = "save the model anew with `packed.save_quantized`"


def load_quantized(path: Path) -> tuple[Quantized, Tensors]:
    """(quantized, the other tensors) from a file of `save_quantized`.

    A file that is cut short, changed or of another kind is a `ValueError`.
    """
    tensors, metadata = read_tensors(path, REMEDY)
    try:
        layouts = parse_json(metadata["quantized"])
        made = {name: _restored(name, tensors, *layout) for name, layout in layouts.items()}
    except (KeyError, TypeError, ValueError) as error:
        problem = f"does not describe its tensors as save_quantized does: {error}"
        raise ValueError(f"{path} {problem}; {REMEDY}") from None
    return made, tensors


def _restored(name: str, tensors: Tensors, bits, shape, axis, group_size) -> QuantizedTensor:
    """The matrix `name`, its parts taken out of `tensors`, which must be as long as it says."""
    check_grid(bits, axis, group_size, len(shape))
    for size in shape:
        require_int(f"{name}.shape", size)
    packed, scale = tensors.pop(f"{name}.packed"), tensors.pop(f"{name}.scale")
    zero_point = tensors.pop(f"{name}.zero_point", None)
    n_rows = 1 if axis is None else shape[axis]
    if group_size is not None:
        n_rows = prod(shape[:-1]) * -(-shape[-1] // group_size)
    lengths = {"packed": -(-prod(shape) * bits // 8), "scale": n_rows, "zero_point": n_rows}
    parts = {"packed": packed, "scale": scale, "zero_point": zero_point}
    for part, t in parts.items():
        if t is not None and tuple(t.shape) != (lengths[part],):
            found = f"{tuple(t.shape)}: expected ({lengths[part]},)"
            raise ValueError(f"{name}.{part} has the shape {found}")
    return QuantizedTensor(packed, scale, zero_point, bits, tuple(shape), axis, group_size)


def load_model(path: Path, build: Callable[[], nn.Module]) -> nn.Module:
    """The model of `build()` with the weights at `path`, in evaluation mode.

    A file that lacks one of the model's tensors, or has another, is a `ValueError`.
    """
    quantized, rest = load_quantized(path)
    model = build()
    own = named_tensors(model)
    values = {name: _like(own.get(name), q.dequantize()) for name, q in quantized.items()}
    return fill(model, values | rest, str(path)).eval()
