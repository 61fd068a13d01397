"""Layers that sleep instead of computing, to emulate more devices than there are cores."""

import time

import torch
from torch import Tensor

from efflab.arguments import check_module
from efflab.errors import require

MOST_SECONDS = 3600.0
"""Longest emulated step or layer."""


class _Sleep(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, forward_seconds: float, backward_seconds: float) -> Tensor:
        ctx.seconds = backward_seconds
        time.sleep(forward_seconds)
        return x.clone()

    @staticmethod
    def backward(ctx, *grads: Tensor):
        time.sleep(ctx.seconds)
        return grads[0], None, None


def sleeping(x: Tensor, forward_seconds: float, backward_seconds: float) -> Tensor:
    """x of any shape, unchanged, after a sleep; its gradient is passed on after another."""
    for name, seconds in dict(forward=forward_seconds, backward=backward_seconds).items():
        allowed = f"0 to {MOST_SECONDS:.0f} seconds"
        require(0 <= seconds <= MOST_SECONDS, f"{name}_seconds", seconds, allowed)
    return _Sleep.apply(x, float(forward_seconds), float(backward_seconds))


check_module(__name__)
