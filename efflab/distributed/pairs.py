"""Conjugate operators of tensor parallelism: each one's backward pass is its partner's forward.

Shoeybi et al. 2019, section 3, call the first two f and g.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from efflab.arguments import check_module
from efflab.errors import require


def _sum(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def _gather(x: Tensor) -> Tensor:
    """Every rank's (..., n) side by side: (..., ranks * n)."""
    x = x.contiguous()
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x)
    return torch.cat(parts, -1)


def _own(x: Tensor) -> Tensor:
    """This rank's share of the last dimension, which the ranks have to divide."""
    n, shape = dist.get_world_size(), tuple(x.shape)
    require(x.shape[-1] % n == 0, "x.shape", shape, f"a last dimension that {n} ranks divide")
    return x.chunk(n, -1)[dist.get_rank()]


def _identity(x: Tensor) -> Tensor:
    return x.view_as(x)


class _Pair(torch.autograd.Function):
    """Applies `ahead` in the forward pass and `back` to the gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, ahead: Callable, back: Callable) -> Tensor:
        ctx.back = back
        return ahead(x)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        return ctx.back(grads[0]), None, None


def copy_to_ranks(x: Tensor) -> Tensor:
    """The paper's f: identity forward; backward the sum, since every rank used x for its part."""
    return _Pair.apply(x, _identity, _sum)


def sum_over_ranks(x: Tensor) -> Tensor:
    """The paper's g: the sum forward; backward identity, since each summand has that gradient."""
    return _Pair.apply(x, _sum, _identity)


def split_to_ranks(x: Tensor) -> Tensor:
    """This rank's share of the last dimension; backward the shares' gradients, side by side."""
    return _Pair.apply(x, _own, _gather)


def gather_from_ranks(x: Tensor) -> Tensor:
    """All ranks' shares side by side; backward this rank's share."""
    return _Pair.apply(x, _gather, _own)


check_module(__name__)
