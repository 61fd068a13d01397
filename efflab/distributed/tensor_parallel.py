"""Tensor parallelism: every layer's matrices cut over the ranks (Shoeybi et al. 2019, section 3).

A product is cut by its outputs (columns of A in X A) or by its inputs (rows). With columns first
and rows second, each rank computes a summand of the result from its own heads or hidden units, and
one all-reduce per sub-block is enough. The other way round needs a sum before the activation, since
GELU(a + b) is not GELU(a) + GELU(b). `parallelize` uses the modules below, `parallelize_with_torch`
`torch.distributed.tensor.parallel`. Embeddings and norms stay whole.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Annotated, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from efflab.arguments import check_module
from efflab.config import ModelConfig
from efflab.distributed.data_parallel import distance, new_model
from efflab.distributed.pairs import copy_to_ranks, sum_over_ranks
from efflab.distributed.ring import sent_bytes
from efflab.distributed.ring_cost import ring_bytes
from efflab.distributed.values import Batch, require_share
from efflab.errors import require
from efflab.model import Attention, FeedForward, Transformer
from efflab.rules import Count, NonNegative, Size
from efflab.tensors import Numbers
from efflab.train import language_model_loss, token_loss

METHODS = ("ours", "torch")


# --- The two layers ------------------------------------------------------------------------------


def rows_of(tensor: Numbers, rank: Count, n_ranks: Size, blocks: Size = 1) -> Tensor:
    """A rank's share of the first dimension: the same share of each of `blocks` equal blocks.

    >>> rows_of(torch.arange(12), 1, 2, blocks=3)
    tensor([ 2,  3,  6,  7, 10, 11])
    """
    require_share(rank, n_ranks)
    _require_whole("tensor", tensor, 0, n_ranks * blocks)
    return tensor.unflatten(0, (blocks, n_ranks, -1))[:, rank].flatten(0, 1)


def columns_of(weight: Numbers, rank: Count, n_ranks: Size) -> Tensor:
    """A rank's share of the second dimension."""
    require_share(rank, n_ranks)
    _require_whole("weight", weight, 1, n_ranks)
    return weight.chunk(n_ranks, 1)[rank]


def _require_whole(name: str, tensor: Tensor, dimension: int, n_parts: int) -> None:
    size = tensor.size(dimension) if tensor.dim() > dimension else 0
    allowed = f"{n_parts} equal parts along dimension {dimension}"
    require(size > 0 and size % n_parts == 0, f"{name}.shape", tuple(tensor.shape), allowed)


class ColumnParallelLinear(nn.Module):
    """A rank's outputs of a Linear: (..., in), the same on all ranks -> (..., out / ranks).

    torch keeps A transposed, so that A's columns are the weight's rows. `blocks` 3 for queries,
    keys and values that lie one after the other: a rank takes its heads of each.
    """

    def __init__(self, whole: nn.Linear, blocks: Size = 1):
        super().__init__()
        share = (dist.get_rank(), dist.get_world_size(), blocks)
        self.weight = nn.Parameter(rows_of(whole.weight.detach(), *share).clone())
        self.bias = nn.Parameter(rows_of(whole.bias.detach(), *share).clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(copy_to_ranks(x), self.weight, self.bias)


class RowParallelLinear(nn.Module):
    """A Linear over a rank's inputs: (..., in / ranks) -> (..., out), the same on all ranks.

    The bias is added after the sum: every rank has it whole, and it counts once.
    """

    def __init__(self, whole: nn.Linear):
        super().__init__()
        own = columns_of(whole.weight.detach(), dist.get_rank(), dist.get_world_size())
        self.weight = nn.Parameter(own.clone())
        self.bias = nn.Parameter(whole.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return sum_over_ranks(F.linear(x, self.weight)) + self.bias


# --- The whole model -----------------------------------------------------------------------------


def require_split(config: ModelConfig, n_ranks: int) -> None:
    """`n_ranks` must divide the heads and the hidden units."""
    require(not config.extensions, "config", config.extensions, "a plain Transformer's")
    for name in ("n_head", "d_ff"):
        size = getattr(config, name)
        require(size % n_ranks == 0, "n_ranks", n_ranks, f"a divisor of {name}={size}")


def parallelize(model: Transformer) -> Transformer:
    """Cut the model's layers over the ranks of the group, in place; a shared map only once."""
    n = dist.get_world_size()
    require_split(model.config, n)

    @cache
    def cut(whole: nn.Linear, kind: type[nn.Module], *blocks: int) -> nn.Module:
        return kind(whole, *blocks)

    for module in list(model.modules()):
        if isinstance(module, Attention):
            module.qkv = cut(module.qkv, ColumnParallelLinear, 3)
            module.out = cut(module.out, RowParallelLinear)
            module.n_head //= n  # the module now has this rank's heads only
        elif isinstance(module, FeedForward):
            module.up = cut(module.up, ColumnParallelLinear)
            module.down = cut(module.down, RowParallelLinear)
    return model


def parallelize_with_torch(model: Transformer) -> Transformer:
    """The same by `parallelize_module`, in place; parameters that were cut become DTensors.

    torch gives each rank one run of rows. The rows of queries, keys and values are therefore first
    sorted by rank, or rank 0 of 2 would take all queries and half of the keys.
    """
    n = dist.get_world_size()
    require_split(model.config, n)
    mesh = init_device_mesh("cpu", (n,))
    plans: dict = {}  # a shared map is cut once
    for module in list(model.modules()):
        if isinstance(module, Attention):
            if module.qkv not in plans:
                for p in (module.qkv.weight, module.qkv.bias):
                    p.data = torch.cat([rows_of(p.data, rank, n, blocks=3) for rank in range(n)])
            plans |= {module.qkv: ColwiseParallel(), module.out: RowwiseParallel()}
            module.n_head //= n
        elif isinstance(module, FeedForward):
            plans |= {module.up: ColwiseParallel(), module.down: RowwiseParallel()}
    for linear, plan in plans.items():
        parallelize_module(linear, mesh, plan)
    return model


SHARES: dict[str, Callable[..., Tensor]] = {
    "qkv.weight": partial(rows_of, blocks=3),
    "qkv.bias": partial(rows_of, blocks=3),
    "up.weight": rows_of,
    "up.bias": rows_of,
    "out.weight": columns_of,
    "down.weight": columns_of,
}


def share_of(name: str, whole: Numbers, rank: Count, n_ranks: Size) -> Tensor:
    """A rank's part of the parameter (or gradient) of that name: its share, or all of it."""
    require_share(rank, n_ranks)
    share = SHARES.get(".".join(name.split(".")[-2:]))
    return whole if share is None else share(whole, rank, n_ranks)


# --- What it costs -------------------------------------------------------------------------------


def wire_bytes(
    config: ModelConfig, n_tokens: Size, n_ranks: Size, value_bytes: NonNegative = 4
) -> float:
    """Bytes a rank sends in a forward pass, and again in the backward pass.

    Two all-reduces per layer, each of `n_tokens` x C values over a ring, where a rank sends
    2 (t - 1) / t of them: with the backward pass 8 b s h (t - 1) / t values per layer (Narayanan et
    al. 2021, section 3.2).
    """
    n_bytes = value_bytes * n_tokens * config.d_model
    return config.n_layer * 2 * ring_bytes(n_bytes, n_ranks)


# --- On the ranks --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job(Batch):
    """What the ranks run: one forward and backward pass of the batch."""

    method: Annotated[str, METHODS] = "ours"


class Result(NamedTuple):
    """A rank's errors against one process, relative to the largest value, of logits and gradients.

    `params`: number that it holds; `forward`, `backward`: bytes that it sent; its own `gradients`.
    """

    logits_error: float
    gradients_error: float
    params: Count
    forward: Count
    backward: Count
    gradients: dict[str, Tensor]


def on_rank(rank: Count, world_size: Size, job: Job) -> Result:
    """A rank's part of a job, to be started with `launch(on_rank, n, job, timeout=...)`."""
    whole = new_model(job.config)
    language_model_loss(whole, job.ids, job.targets).backward()
    cut = {"ours": parallelize, "torch": parallelize_with_torch}[job.method]
    model = cut(new_model(job.config))
    language_model_loss(model, job.ids, job.targets).backward()  # connects the ranks
    model.zero_grad()
    before = sent_bytes()
    logits = model(job.ids)
    middle = sent_bytes()
    token_loss(logits, job.targets).backward()
    after = sent_bytes()
    gradients = {name: _local(p.grad) for name, p in model.named_parameters()}
    expected = {
        name: share_of(name, p.grad, rank, world_size) for name, p in whole.named_parameters()
    }
    return Result(
        logits_error=distance({"logits": logits.detach()}, {"logits": whole(job.ids).detach()}),
        gradients_error=distance(gradients, expected),
        params=sum(_local(p).numel() for p in model.parameters()),
        forward=middle - before,
        backward=after - middle,
        gradients=gradients,
    )


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


check_module(__name__)
