"""A whole model on few bits: its weight matrices quantized, on disk as small as they say.

Biases and norms stay as they are; they are about a thousandth of the parameters.
"""

import hashlib
import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from efflab.compression.affine import QuantizedTensor, quantize
from efflab.errors import require
from efflab.train import named_tensors, save_tensors

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
    """A copy that computes in fp32 with the quantized weights' values: for judging quality."""
    return fill(deepcopy(model), {name: q.dequantize() for name, q in quantized.items()})


@torch.no_grad()
def fill(model: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """Copy each tensor over the model's tensor of that name; returns the model."""
    own = named_tensors(model)
    unknown = sorted(set(tensors) - set(own))
    require(not unknown, "tensors", unknown, "names that the model has")
    for name, tensor in tensors.items():
        shapes = tuple(own[name].shape), tuple(tensor.shape)
        require(shapes[0] == shapes[1], name, shapes[1], f"the model's shape {shapes[0]}")
        own[name].copy_(tensor)
    return model


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
    metadata = {"quantized": json.dumps(layouts), "sha256": digest(tensors)}
    save_tensors(Path(path), tensors, metadata)
    return Path(path).stat().st_size


def load_quantized(path: Path) -> tuple[Quantized, dict[str, Tensor]]:
    """(quantized, the other tensors) from a file of `save_quantized`.

    A file that is cut short, changed or of another kind is a `ValueError`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    require("quantized" in metadata, "path", str(path), "a file that save_quantized wrote")
    if digest(tensors) != metadata["sha256"]:
        raise ValueError(f"{path} is damaged: its tensors do not have the hash it was saved with")
    quantized = {}
    for name, (bits, shape, axis, group_size) in json.loads(metadata["quantized"]).items():
        packed, scale = tensors.pop(f"{name}.packed"), tensors.pop(f"{name}.scale")
        zero_point = tensors.pop(f"{name}.zero_point", None)
        layout = (bits, tuple(shape), axis, group_size)
        quantized[name] = QuantizedTensor(packed, scale, zero_point, *layout)
    return quantized, tensors


def load_model(path: Path, build: Callable[[], nn.Module]) -> nn.Module:
    """The model of `build()` with the weights at `path`, in evaluation mode."""
    quantized, rest = load_quantized(path)
    values = {name: q.dequantize() for name, q in quantized.items()}
    return fill(build(), values | rest).eval()


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names and bytes, in the order of the names."""
    h = hashlib.sha256()
    for name in sorted(tensors):
        h.update(name.encode())
        h.update(tensors[name].detach().contiguous().numpy().tobytes())
    return h.hexdigest()
