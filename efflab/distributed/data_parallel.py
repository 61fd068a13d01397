"""Data parallelism: every rank has the whole model and a share of the batch.

After the backward pass all ranks average their gradients, so that all take the same step and stay
equal: the step of one process on the whole batch (Li et al. 2020, "PyTorch Distributed",
section 2). `average_gradients` does that in a few lines; `DistributedDataParallel` sends gradients
in buckets while the backward pass still runs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from efflab.arguments import check_module
from efflab.config import ModelConfig
from efflab.distributed.ring import ring_all_reduce, sent_bytes
from efflab.distributed.values import MOST_RANKS, Batch, Counts, require_as_many, require_share
from efflab.errors import require, require_int
from efflab.model import Transformer
from efflab.rules import Count, Size
from efflab.tensors import Integers, Matrix, Numbers, require_finite
from efflab.train import classification_loss, gradient_norm, language_model_loss

METHODS = ("ddp", "by hand", "none")
LEARNING_RATE, MOMENTUM = 0.1, 0.9
"""SGD with momentum: a step is linear in the gradient. Adam divides by the gradient's size, which
turns a rounding error in a zero gradient into a whole step."""
MOST_ROWS = 2**24
"""Most rows of an epoch in `sampled_rows`."""


class Run(NamedTuple):
    """The result of training: the first step's gradients, the last weights, losses, bytes sent.

    `sent` is the bytes per step that this rank sent (0.0 for one process), without the first step,
    in which DDP rebuilds its buckets.
    """

    gradients: dict[str, Tensor]
    weights: dict[str, Tensor]
    losses: list[float]
    sent: float


def average_gradients(model: nn.Module) -> None:
    """Make every rank's gradients their mean over all ranks: one ring all-reduce of all of them."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    flat = torch.cat([gradient(p).flatten() for p in parameters])
    ring_all_reduce(flat)
    flat /= dist.get_world_size()
    for p, mean in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.grad = mean.view_as(p)


def shares(n_rows: Size, world_size: Size) -> list[int]:
    """Rows of each rank, as equal as they can be.

    >>> shares(10, 4)
    [3, 3, 2, 2]
    """
    require_int("world_size", world_size, 1, MOST_RANKS)
    require(n_rows >= world_size, "n_rows", n_rows, f"at least one for each of {world_size} ranks")
    return [n_rows // world_size + (rank < n_rows % world_size) for rank in range(world_size)]


def own(sizes: Counts, rank: Count) -> slice:
    """A rank's slice of rows (or layers) that are dealt out in order, `sizes` to each.

    >>> own([3, 3, 2, 2], 2)
    slice(6, 8, None)
    """
    require_share(rank, len(sizes))
    start = sum(sizes[:rank])
    return slice(start, start + sizes[rank])


def new_model(config: ModelConfig, seed: Count = 0) -> Transformer:
    """A new model without pooler, its weights fixed by `seed`; torch's global seed is unchanged.

    Every job of this chapter starts from it. A language model's loss does not reach the pooler, and
    DDP would wait for its gradient for ever.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        return Transformer(replace(config, pooler=False))


def train(
    model: nn.Module,
    inputs: Numbers,
    targets: Numbers,
    n_steps: Size,
    *,
    loss_of: Callable[[nn.Module, Tensor, Tensor], Tensor] = language_model_loss,
    weight: float = 1.0,
    synchronize: Callable[[nn.Module], None] | None = None,
) -> Run:
    """`n_steps` of SGD on the same rows (B, ...); the loop for one process as for a rank.

    `weight` multiplies the loss before the backward pass; `synchronize(model)` is called between
    the backward pass and the step.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    first: dict[str, Tensor] = {}
    losses, before = [], 0
    for step in range(n_steps):
        if step == 1 and dist.is_initialized():
            before = sent_bytes()
        optimizer.zero_grad()
        loss = loss_of(model, inputs, targets)
        (weight * loss).backward()
        if synchronize is not None:
            synchronize(model)
        gradient_norm(model, loss, step)
        first = first or {name: gradient(p) for name, p in _by_name(model)}
        optimizer.step()
        losses.append(loss.item())
    sent = (sent_bytes() - before) / (n_steps - 1) if dist.is_initialized() and n_steps > 1 else 0.0
    weights = {name: p.detach().clone() for name, p in _by_name(model)}
    return Run(first, weights, losses, sent)


def gradient(parameter: nn.Parameter) -> Tensor:
    """A copy of the parameter's gradient; zeros if the loss did not reach it."""
    grad = parameter.grad
    return torch.zeros_like(parameter) if grad is None else grad.clone()


def _by_name(model: nn.Module):
    """Parameters by name, without DDP's own prefix."""
    return getattr(model, "module", model).named_parameters()


@dataclass(frozen=True)
class Job(Batch):
    """The batch, and by which method it is trained.

    `rows`: number for each rank, in order (default: `shares`). DDP averages over ranks, not over
    rows; if `weighted`, each loss is multiplied by world_size * its rows / all rows to correct
    that. `seeds`: of each rank's new model (default: 0 for all).
    """

    n_steps: Size = 3
    method: Annotated[str, METHODS] = "ddp"
    rows: tuple[Size, ...] | None = None
    weighted: bool = True
    seeds: tuple[Count, ...] | None = None

    def __post_init__(self):
        super().__post_init__()
        fits = self.rows is None or sum(self.rows) == len(self.ids)
        allowed = f"positive numbers that add up to the {len(self.ids)} rows"
        require(fits, "rows", self.rows, allowed)

    def alone(self) -> Run:
        """Train in one process on the whole batch."""
        return train(new_model(self.config), self.ids, self.targets, self.n_steps)


def on_rank(rank: Count, world_size: Size, job: Job) -> Run:
    """A rank's part of a job, to be started with `launch(on_rank, n, job, timeout=...)`."""
    rows = job.rows or shares(len(job.ids), world_size)
    require_as_many("rows", rows, world_size, "rank")
    require_as_many("seeds", job.seeds or rows, world_size, "rank")
    my_rows = own(rows, rank)
    model = new_model(job.config, job.seeds[rank] if job.seeds else 0)
    weight = world_size * rows[rank] / len(job.ids) if job.weighted else 1.0
    batch = job.ids[my_rows], job.targets[my_rows]
    return _train_with(job.method, model, *batch, job.n_steps, weight=weight)


def _train_with(method: str, model: nn.Module, inputs, targets, n_steps, **options) -> Run:
    """`train`, with the gradients averaged in one of the `METHODS`."""
    by_hand = average_gradients if method == "by hand" else None
    model = DistributedDataParallel(model) if method == "ddp" else model
    dist.all_reduce(torch.ones(1))  # connects the ranks before bytes are counted
    return train(model, inputs, targets, n_steps, synchronize=by_hand, **options)


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Largest difference between two sets of tensors, relative to the largest value in them."""
    require(a.keys() == b.keys(), "b", sorted(b), f"the names {sorted(a)}")
    require(len(a) > 0, "a", sorted(a), "one tensor at least")
    for name in a:
        expected, shape = tuple(a[name].shape), tuple(b[name].shape)
        fits = shape == expected and a[name].numel() > 0
        require(fits, f"b[{name!r}].shape", shape, f"that in a, {expected}")
        require_finite(f"a[{name!r}]", a[name])
        require_finite(f"b[{name!r}]", b[name])
    largest = max(t.abs().max().item() for t in (*a.values(), *b.values()))
    difference = max((a[name] - b[name]).abs().max().item() for name in a)
    return difference / largest if largest else 0.0


# --- A model that looks across the batch -----------------------------------------------------


class _SharedBatchNorm(nn.BatchNorm1d):
    """Batch norm over the rows of all ranks (training, equal shares): (B,C) -> (B,C).

    `torch.nn.SyncBatchNorm` does this on GPUs only. `torch.distributed.nn` sums the statistics,
    since its backward pass sums the gradients over ranks as well.
    """

    def forward(self, x: Matrix) -> Tensor:
        from torch.distributed.nn.functional import all_reduce

        sums = torch.stack([x.mean(0), x.square().mean(0)])
        mean, square = all_reduce(sums) / dist.get_world_size()
        normal = (x - mean) * (square - mean.square() + self.eps).rsqrt()
        return normal * self.weight + self.bias


def batch_norm_model(n_in: Size, n_classes: Size, norm: type[nn.Module]) -> nn.Module:
    """A small classifier with a norm that depends on the batch; the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, last = nn.Linear(n_in, 32), nn.Linear(32, n_classes)
    return nn.Sequential(first, norm(32), nn.ReLU(), last)


def batch_norm_on_rank(
    rank: Count, world_size: Size, inputs: Matrix, labels: Integers, shared: bool
):
    """A rank's `Run` of one step of `batch_norm_model`, its norm local or over all ranks."""
    norm = _SharedBatchNorm if shared else nn.BatchNorm1d
    model = batch_norm_model(inputs.shape[1], int(labels.max()) + 1, norm)
    my_rows = own(shares(len(inputs), world_size), rank)
    batch = inputs[my_rows], labels[my_rows]
    return _train_with("ddp", model, *batch, 1, loss_of=classification_loss)


def sampled_rows(n_rows: Size, world_size: Size, sampler: bool, seed: Count = 0) -> list[list[int]]:
    """Rows that each rank's loader reads in an epoch, with or without a `DistributedSampler`.

    Without it every rank shuffles all rows with the same seed: all ranks do the same work.
    """
    from torch.utils.data import DistributedSampler, RandomSampler

    require_int("n_rows", n_rows, 1, MOST_ROWS)
    require_int("world_size", world_size, 1, MOST_RANKS)
    data = range(n_rows)
    ranks, seed = range(world_size), int(seed)
    if sampler:
        return [list(DistributedSampler(data, world_size, rank, seed=seed)) for rank in ranks]
    generators = (torch.Generator().manual_seed(seed) for _ in ranks)
    return [list(RandomSampler(data, generator=generator)) for generator in generators]


check_module(__name__)
