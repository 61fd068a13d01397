"""Annotations for tensor arguments, by content and shape; `efflab.rules` checks both.

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
"""Any type, complex too, and tensors on "meta"."""


def require_finite(name: str, values: Tensor) -> None:
    """Refuse infinities and NaN; the message gives their number and the dtype."""
    bad = int((~values.isfinite()).sum())
    if bad:
        kind = str(values.dtype).removeprefix("torch.")
        allowed = f"finite values only, but {bad} of {values.numel()} are not in {kind}"
        require(False, name, "inf or nan inside", allowed)


def require_channels(name: str, x: Tensor, channels: int) -> None:
    """The last dimension must be `channels`; under torch.jit tracing sizes are not ints."""
    if not torch.jit.is_tracing() and (x.dim() == 0 or x.size(-1) != channels):
        require(False, f"{name}.shape", tuple(x.shape), f"{channels} channels at last")
