"""Saves and loads weights: what is loaded is exactly what was saved, or a `ValueError`.

Files are safetensors, from which nothing is unpickled. Their metadata describe the tensors, and
hold one hash over themselves and the tensors' names, types, shapes and bytes.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from efflab.arguments import check_module
from efflab.base.files import write_atomically
from efflab.tensors import Numbers, require_finite

Tensors = dict[str, Numbers]
SHOWN = 3
"""Number of names that an error lists before it counts the rest."""


def named_tensors(model: nn.Module) -> Tensors:
    """The parameters and buffers, one name each: a shared sub-block counts once."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


# --- To disk ---------------------------------------------------------------------------------


def save_tensors(path: Path, tensors: Tensors, metadata: dict[str, str]) -> None:
    """Write tensors and their metadata, with a hash, atomically.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     save_tensors(Path(folder) / "a", {"a": torch.ones(2)}, {"unit": "m"})
    ...     read_tensors(Path(folder) / "a", "save it anew")
    ({'a': tensor([1., 1.])}, {'unit': 'm'})
    """
    write_atomically(path, to_bytes(tensors, metadata | {"sha256": digest(tensors, metadata)}))


def to_bytes(tensors: Tensors, metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file."""
    return save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata)


def digest(tensors: Tensors, metadata: dict[str, str] | None = None) -> str:
    """SHA-256 over the metadata and each tensor's name, type, shape and bytes."""
    h = hashlib.sha256(json.dumps(metadata or {}, sort_keys=True).encode())
    for name in sorted(tensors):
        t = tensors[name].detach().cpu().contiguous()
        h.update(json.dumps([name, str(t.dtype), list(t.shape)]).encode())
        h.update(t.reshape(-1).view(torch.uint8).numpy())
    return h.hexdigest()


def narrow(tensors: Tensors, dtype: torch.dtype) -> Tensors:
    """Each tensor in a narrower type; one that does not stay finite there is a `ValueError`."""
    cast = {name: t.detach().to(dtype) for name, t in tensors.items()}
    for name, t in cast.items():
        require_finite(name, t)
    return cast


# --- From disk -------------------------------------------------------------------------------


def read_tensors(path: Path, remedy: str) -> tuple[Tensors, dict[str, str]]:
    """(tensors, metadata) that `save_tensors` wrote.

    A file that is cut short, changed, of another kind or of an older efflab is a `ValueError`
    naming it and the remedy.
    """
    tensors, metadata = read_unhashed(path, remedy)
    expected = metadata.pop("sha256", None)
    if expected is None:
        raise ValueError(f"{path} holds no hash, so it is no file that efflab saved; {remedy}")
    if digest(tensors, metadata) != expected:
        problem = "is damaged, or an older efflab saved it: its hash is another"
        raise ValueError(f"{path} {problem}; {remedy}")
    return tensors, metadata


def read_unhashed(path: Path, remedy: str) -> tuple[Tensors, dict[str, str]]:
    """(tensors, metadata) of any safetensors file; checking a hash is left to the caller."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {remedy}")
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}; {remedy}") from None


@torch.no_grad()
def fill(model: nn.Module, tensors: Tensors, source: str = "tensors") -> nn.Module:
    """Copy the tensors over the model's own, all or none; returns the model.

    Names and shapes must be the same on both sides, types too, but a file may hold a narrower
    floating-point type. Parameters must be finite. `source` is what an error calls the tensors.
    """
    own = named_tensors(model)
    missing, unknown = own.keys() - tensors.keys(), tensors.keys() - own.keys()
    if missing or unknown:
        problems = [("missing", missing), ("unknown", unknown)]
        details = "; ".join(f"{what}: {some(names)}" for what, names in problems if names)
        raise ValueError(f"{source}: expected the model's own tensors, but {details}")
    for name, tensor in tensors.items():
        _require_alike(f"{source}: {name}", own[name], tensor)
    for name, _ in model.named_parameters():
        require_finite(f"{source}: {name}", tensors[name])
    for name, tensor in tensors.items():
        own[name].copy_(tensor)
    return model


def _require_alike(name: str, own: Tensor, tensor: Tensor) -> None:
    ours, theirs = tuple(own.shape), tuple(tensor.shape)
    if ours != theirs:
        raise ValueError(f"{name} has the shape {theirs}: expected the model's shape {ours}")
    are_floats = own.is_floating_point() and tensor.is_floating_point()
    is_widened = are_floats and torch.promote_types(own.dtype, tensor.dtype) == own.dtype
    if own.dtype != tensor.dtype and not is_widened:
        raise ValueError(f"{name} is {tensor.dtype}: expected the model's {own.dtype}")


def some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    names = sorted(names)
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest


check_module(__name__)
