"""Why column first, row second: a feed-forward cut over ranks in every order, with its traffic.

Y = GELU(X A) B, with X and Y whole on every rank (Shoeybi et al. 2019, section 3). If A is cut by
rows, each rank has a summand of X A, and the activation must wait for an all-reduce of the hidden
units. Skipping that is cheap and wrong: GELU(a + b) is not GELU(a) + GELU(b).
"""

from typing import Annotated, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from efflab.arguments import check_module
from efflab.distributed.data_parallel import distance
from efflab.distributed.pairs import gather_from_ranks, split_to_ranks, sum_over_ranks
from efflab.distributed.ring import sent_bytes
from efflab.distributed.ring_cost import ring_bytes
from efflab.distributed.tensor_parallel import ColumnParallelLinear, RowParallelLinear, columns_of
from efflab.errors import require
from efflab.model import FeedForward
from efflab.rules import Count, Size

ORDERS = ("column-row", "column-column", "row-column", "row-row", "summed late")
Order = Annotated[str, ORDERS]


def _forward_in_order(ffn: FeedForward, x: Tensor, order: str) -> Tensor:
    """The feed-forward of x (..., C), whole on every rank, with its two matrices cut in this order.

    "summed late" is row-row without the sum before the activation: its output is wrong.
    """
    if order == "summed late":
        n = dist.get_world_size()
        part = F.linear(split_to_ranks(x), columns_of(ffn.up.weight, dist.get_rank(), n))
        part = part + ffn.up.bias / n
        return sum_over_ranks(F.linear(ffn.act(part), ffn.down.weight)) + ffn.down.bias
    first, second = order.split("-")
    hidden = ffn.act(_cut(ffn.up, x, first))
    if order == "column-row":  # each rank already has the inputs that it needs
        return RowParallelLinear(ffn.down)(hidden)
    y = _cut(ffn.down, gather_from_ranks(hidden) if first == "column" else hidden, second)
    return gather_from_ranks(y) if second == "column" else y


def _cut(whole: nn.Linear, x: Tensor, how: str) -> Tensor:
    """The linear map of x, which is whole on every rank: its whole output, or a rank's columns."""
    if how == "row":
        return RowParallelLinear(whole)(split_to_ranks(x))
    return ColumnParallelLinear(whole)(x)


class Traffic(NamedTuple):
    """Collectives of one pass, forward and backward, and the bytes that a rank sends for them."""

    all_reduces: Count
    all_gathers: Count
    n_bytes: float


def traffic(order: Order, d_model: Size, d_ff: Size, n_tokens: Size, n_ranks: Size) -> Traffic:
    """Traffic of a feed-forward in fp32 by formula: an all-reduce of n values sends
    2 n (t - 1) / t per rank, an all-gather half of that.

    >>> best, reversed = (traffic(order, 64, 256, 32, 4) for order in ("column-row", "row-column"))
    >>> reversed.n_bytes / best.n_bytes
    4.5
    """
    summed, gathered = {
        "column-row": ((d_model, d_model), ()),
        "column-column": ((d_ff, d_model), (d_ff, d_model)),
        "row-column": ((d_ff, d_ff), (d_model, d_model)),
        "row-row": ((d_ff, d_model), (d_ff, d_model)),
        "summed late": ((d_model,), (d_model,)),
    }[order]
    values = sum(summed) + sum(gathered) / 2
    return Traffic(len(summed), len(gathered), ring_bytes(4 * n_tokens * values, n_ranks))


class OrderResult(NamedTuple):
    """A rank's errors against one process (relative to the largest value) and its sent bytes."""

    output_error: float
    gradient_error: float
    sent: Count


def on_rank(
    rank: Count, world_size: Size, order: Order, d_model: Size, d_ff: Size, n_tokens: Size
) -> OrderResult:
    """One forward and backward pass in this order, on the same random values on all ranks."""
    for name, value in dict(d_model=d_model, d_ff=d_ff).items():
        require(value % world_size == 0, name, value, f"a multiple of {world_size} ranks")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ffn = FeedForward(d_model, d_ff)
        x, toward = torch.randn(2, n_tokens, d_model)
    expected = _pass(ffn, x, toward)
    _pass(ffn, x, toward, order)  # connects the ranks
    before = sent_bytes()
    result = _pass(ffn, x, toward, order)
    sent = sent_bytes() - before
    output_error, gradient_error = (
        distance({"": ours}, {"": theirs}) for ours, theirs in zip(result, expected, strict=True)
    )
    return OrderResult(output_error, gradient_error, sent)


def _pass(ffn: FeedForward, x: Tensor, toward: Tensor, order: str | None = None):
    """Output and gradient of x, in one process (no order) or on the ranks."""
    x = x.clone().requires_grad_()
    y = ffn(x) if order is None else _forward_in_order(ffn, x, order)
    (y * toward).sum().backward()
    return y.detach(), x.grad


check_module(__name__)
