"""Rotary positions: a score depends on how far apart query and key stand (Su et al. 2021).

Channels i and i + D/2 of a head are a point in the plane, turned by position times frequency.
"""

from math import pi

import torch
from torch import Tensor

from efflab.arguments import check_module
from efflab.blocks import Rope
from efflab.errors import require, require_one_of
from efflab.rules import Count, Size
from efflab.tensors import Heads

SCALINGS = ("none", "linear", "llama3")
"""What of `Rope.scaling` is computed here."""


def frequencies(rope: Rope, head_dim: Size, local: bool = False) -> list[float]:
    """Radians a token of each of the `head_dim` / 2 pairs; `local`: of a layer with a window."""
    require(head_dim % 2 == 0, "head_dim", head_dim, "an even number, for pairs of channels")
    is_own = local and rope.local_base is not None
    base, scaling = (rope.local_base, "none") if is_own else (rope.base, rope.scaling)
    require_one_of("rope.scaling", scaling, SCALINGS)
    # in fp32, as the released models were trained
    plain = 1 / base ** (torch.arange(0, head_dim, 2, device="cpu") / head_dim)
    if scaling == "llama3":
        turns = rope.original_len * plain / (2 * pi)
        share = (turns - rope.low_turns) / (rope.high_turns - rope.low_turns)
        share = share.clamp(0, 1)  # of the frequency that stays as it is
        plain = (1 - share) * plain / rope.factor + share * plain
    return (plain / rope.factor if scaling == "linear" else plain).tolist()


def turns(radians: list[float], start: Count, n_tokens: Count, like: Tensor) -> Tensor:
    """Cosine and sine (2,T,D/2) of each pair at the positions from `start` on."""
    positions = torch.arange(start, start + n_tokens, device=like.device, dtype=torch.float32)
    angles = positions[:, None] * torch.tensor(radians, device=like.device)
    return torch.stack([angles.cos(), angles.sin()]).to(like.dtype)


def turn(x: Heads, by: Tensor) -> Tensor:
    """Each pair of channels turned by its angle, whose cosine and sine are `by`: (B,H,T,D)."""
    expected = 2, x.shape[2], x.shape[3] // 2
    require(by.shape == expected, "by.shape", tuple(by.shape), f"{expected}")
    (cos, sin), (a, b) = by, x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


check_module(__name__)
