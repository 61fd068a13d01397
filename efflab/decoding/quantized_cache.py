"""A cache in few bits: keys quantized by channel, values by token (Liu et al. 2024, KIVI).

Some channels of keys are large in every token, so each has a scale of its own, over a group of
tokens; values have no such channels. The last tokens, less than a group, stay as they are.
"""

from typing import Annotated

import torch
from torch import Tensor

from efflab.arguments import check_module
from efflab.cache import Cache, LayerCache
from efflab.errors import require
from efflab.model import Transformer
from efflab.rules import Size
from efflab.tensors import Heads

Bits = Annotated[int, (2, 4, 8)]


class Codes:
    """A tensor in 2, 4 or 8 bits a value: a scale and a least value for each line along `dim`.

    Both are kept in fp16; a line that goes beyond it is a `ValueError`.
    """

    def __init__(self, x: Heads, bits: Bits, dim: Annotated[int, (2, 3)]):
        is_whole = x.numel() > 0 and x.numel() * bits % 8 == 0
        require(is_whole, "x.shape", tuple(x.shape), "whole bytes")
        self.bits, self.shape, self.dtype = bits, x.shape, x.dtype
        self.low = x.amin(dim, keepdim=True).half()
        steps = (x.amax(dim, keepdim=True) - self.low.float()) / (2**bits - 1)
        self.scale = steps.clamp(min=torch.finfo(torch.half).smallest_normal).half()
        fits = self.low.isfinite().all() and self.scale.isfinite().all()
        limit = torch.finfo(torch.half).max
        require(bool(fits), "x", "too large for 16 bits", f"values within {limit:,.0f}")
        codes = ((x - self.low) / self.scale).round().clamp(0, 2**bits - 1).to(torch.uint8)
        self.packed = (codes.reshape(-1, 8 // bits) << self._shifts()).sum(-1, dtype=torch.uint8)

    def _shifts(self) -> Tensor:
        return torch.arange(0, 8, self.bits, dtype=torch.uint8)

    def dequantize(self) -> Tensor:
        """The values that the codes stand for."""
        codes = (self.packed[:, None] >> self._shifts()) & (2**self.bits - 1)
        values = codes.view(self.shape).to(self.dtype) * self.scale + self.low
        return values.to(self.dtype)  # bf16 by fp16 is fp32

    @property
    def nbytes(self) -> int:
        """Bytes of the codes and of their 16-bit scales and least values."""
        return self.packed.nbytes + self.scale.nbytes + self.low.nbytes


class QuantizedLayerCache(LayerCache):
    """A layer's keys and values, all but the last tokens in groups of `group_size` as codes."""

    def __init__(self, bits: Bits = 4, group_size: Size = 32):
        super().__init__()
        require(group_size % 4 == 0, "group_size", group_size, "a multiple of 4")
        self.bits, self.group_size = bits, group_size
        self.groups: list[tuple[Codes, Codes]] = []

    def extend(self, keys: Heads, values: Heads) -> tuple[Tensor, Tensor]:
        """The earlier groups as they were stored, and the rest exactly."""
        recent = super().extend(keys, values)
        earlier = [[codes.dequantize() for codes in pair] for pair in self.groups]
        while self.n_kept >= self.group_size:
            key, value = (t[:, :, : self.group_size] for t in (self.keys, self.values))
            self.groups.append((Codes(key, self.bits, dim=2), Codes(value, self.bits, dim=3)))
            self.keys, self.values = (t[:, :, self.group_size :] for t in (self.keys, self.values))
        keys, values = (torch.cat(parts, dim=2) for parts in zip(*earlier, recent, strict=True))
        return keys, values

    @property
    def nbytes(self) -> int:
        """Bytes of codes with scales, and of what is not in a group yet."""
        return super().nbytes + sum(key.nbytes + value.nbytes for key, value in self.groups)


def quantized_cache(model: Transformer, bits: Bits = 4, group_size: Size = 32) -> Cache:
    """An empty cache for the model; its last tokens, up to a group, can be taken back."""
    cache = model.new_cache()
    has_none = set(model.config.windows) == {None}
    require(has_none, "model", model.config.windows, "a model without windows")
    cache.layers = [QuantizedLayerCache(bits, group_size) for _ in cache.layers]
    return cache


check_module(__name__)
