"""Layers that take their time and no processor: devices emulated by more ranks than cores."""

import time

import torch
from torch import Tensor


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
    return _Sleep.apply(x, forward_seconds, backward_seconds)
