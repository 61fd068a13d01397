"""What a tensor argument holds and its shape, as annotations say it: `efflab.rules` checks both.

B, T, H, D, C: batch, time, heads, channels of a head, channels.
"""

from typing import Annotated

import torch
from torch import Tensor

from efflab.errors import require

Ids = Annotated[Tensor, "indices", "(B, T)"]
Visible = Annotated[Tensor, "booleans", "(B, 1, T, T)"]
Mask = Annotated[Tensor, "numbers", "(B, T)"]
Heads = Annotated[Tensor, "floats", "(B, H, T, D)"]
Hidden = Annotated[Tensor, "floats", "(B, T, C)"]
Images = Annotated[Tensor, "floats", "(B, channels, height, width)"]
Maps = Annotated[Tensor, "floats", "(B, height, width, C)"]
NumberMaps = Annotated[Tensor, "numbers", "(B, height, width, C)"]
Matrix = Annotated[Tensor, "floats", "(rows, columns)"]
Vector = Annotated[Tensor, "floats", "(n,)"]
IntegerMatrix = Annotated[Tensor, "integers", "(rows, columns)"]
Layout = Annotated[Tensor, "booleans", "(rows, columns)"]
Integers = Annotated[Tensor, "integers"]
Booleans = Annotated[Tensor, "booleans"]
Numbers = Annotated[Tensor, "numbers"]
"""Floats, integers or booleans."""
AnyTensor = Annotated[Tensor, "anything"]
"""Complex numbers and tensors without a memory (on "meta") as well."""


def require_finite(name: str, values: Tensor) -> None:
    """Refuse infinities and NaN; the message counts them, and says in which type they are."""
    bad = int((~values.isfinite()).sum())
    if bad:
        kind = str(values.dtype).removeprefix("torch.")
        allowed = f"finite values only, but {bad} of {values.numel()} are not in {kind}"
        require(False, name, "inf or nan inside", allowed)


def require_channels(name: str, x: Tensor, channels: int) -> None:
    """So many at last; torch.jit's traces have no sizes to compare."""
    if not torch.jit.is_tracing() and (x.dim() == 0 or x.size(-1) != channels):
        require(False, f"{name}.shape", tuple(x.shape), f"{channels} channels at last")
