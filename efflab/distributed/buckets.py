"""DDP's buckets: gradients are sent while the backward pass still computes.

The backward pass finishes the last layer's gradients first. DDP collects them into buckets, and
starts a bucket's all-reduce as soon as it is full (Li et al. 2020, section 3.2.3). Small buckets
pay the latency often; one large bucket starts when everything is computed. `transfers` predicts
the times; `trace_on_rank` measures them, on this machine or emulating a slower wire.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from efflab.arguments import check_module
from efflab.config import ModelConfig
from efflab.distributed.data_parallel import new_model, own, shares
from efflab.distributed.ring_cost import ring_bytes, ring_steps, tree_bytes, tree_steps
from efflab.distributed.sleep import sleeping
from efflab.distributed.values import Batch, Counts, Times, require_as_many, require_times
from efflab.errors import require
from efflab.rules import Count, Infinite, NonNegative, Positive, Size
from efflab.tensors import Ids
from efflab.train import language_model_loss

WARMUP = 2
"""Backward passes before the traced one: DDP rebuilds its buckets after the first."""
WAYS = {"ring": (ring_steps, ring_bytes), "tree": (tree_steps, tree_bytes)}
"""How ranks sum: functions that count the steps, each of which pays the latency, and the bytes."""


@dataclass(frozen=True)
class Wire:
    """Time of an all-reduce: each step's latency, and a rank's bytes over the bandwidth."""

    latency_seconds: NonNegative = 0.0
    bytes_per_second: Infinite = float("inf")
    way: Annotated[str, tuple(WAYS)] = "ring"

    def __post_init__(self):
        speed = self.bytes_per_second
        require(speed > 0, "bytes_per_second", speed, "a number above {low}", low=0)

    def seconds(self, n_bytes: float, n_ranks: Size) -> float:
        """Time of one all-reduce of `n_bytes` among `n_ranks`."""
        count_steps, count_bytes = WAYS[self.way]
        waits = count_steps(n_ranks) * self.latency_seconds
        return waits + count_bytes(n_bytes, n_ranks) / self.bytes_per_second


class Transfer(NamedTuple):
    """A bucket: when its gradients were ready, and its all-reduce, in seconds from the start."""

    n_bytes: Count
    ready: float
    start: float
    end: float


class Trace(NamedTuple):
    """A backward pass that took `backward` seconds, and its transfers."""

    backward: float
    transfers: tuple[Transfer, ...]

    @property
    def seconds(self) -> float:
        """Seconds until the last gradient is averaged."""
        return max([self.backward, *(t.end for t in self.transfers)])

    @property
    def hidden(self) -> float:
        """Share (0..1) of the transfers' time that overlaps the backward pass."""
        total = sum(t.end - t.start for t in self.transfers)
        inside = sum(max(0.0, min(t.end, self.backward) - t.start) for t in self.transfers)
        return inside / total if total else 1.0


def fill(
    layer_bytes: Counts, bucket_bytes: Positive, first_bytes: Positive | None = None
) -> list[list[int]]:
    """Layers by bucket, from the last layer to the first: a bucket closes once it is full.

    `first_bytes`: size of the first bucket, if it is another.

    >>> fill([4, 4, 4, 4], 8)
    [[3, 2], [1, 0]]
    """
    limit = bucket_bytes if first_bytes is None else first_bytes
    buckets: list[list[int]] = [[]]
    waiting_bytes = 0
    for layer in reversed(range(len(layer_bytes))):
        if waiting_bytes >= limit:
            buckets.append([])
            waiting_bytes, limit = 0, bucket_bytes
        buckets[-1].append(layer)
        waiting_bytes += layer_bytes[layer]
    return buckets


def predict(
    layer_seconds: Times,
    layer_bytes: Counts,
    bucket_bytes: Positive,
    wire: Wire,
    n_ranks: Size,
    first_bytes: Positive | None = None,
) -> Trace:
    """Predict the backward pass of layers with these seconds and gradient bytes; see `fill`."""
    require_times("layer_seconds", layer_seconds)
    require_as_many("layer_bytes", layer_bytes, len(layer_seconds), "layer")
    finish = list(accumulate(reversed(layer_seconds), initial=0.0))[::-1]  # of each layer
    buckets = fill(layer_bytes, bucket_bytes, first_bytes)
    sizes = [sum(layer_bytes[i] for i in bucket) for bucket in buckets]
    return Trace(finish[0], transfers([finish[b[-1]] for b in buckets], sizes, wire, n_ranks))


def transfers(ready: Times, sizes: Counts, wire: Wire, n_ranks: Size) -> tuple[Transfer, ...]:
    """One all-reduce after the other, none before its bucket is ready (seconds, bytes)."""
    require_times("ready", ready)
    require_as_many("sizes", sizes, len(ready), "bucket")
    transfers: list[Transfer] = []
    for at, n_bytes in zip(ready, sizes, strict=True):
        start = max(at, transfers[-1].end) if transfers else at
        transfers.append(Transfer(n_bytes, at, start, start + wire.seconds(n_bytes, n_ranks)))
    return tuple(transfers)


# --- The real thing --------------------------------------------------------------------------


class _WireHook:
    """DDP's communication hook: times all-reduces on its own thread, slowed down to `wire`."""

    def __init__(self, wire: Wire):
        self.wire = wire
        self.thread = ThreadPoolExecutor(1)
        self.transfers: list[Transfer] = []

    def hook(self, state: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        self.thread.submit(self._send, bucket.buffer(), time.perf_counter(), future)
        return future

    def _send(self, buffer: Tensor, ready: float, future: torch.futures.Future[Tensor]) -> None:
        try:
            # from ready, or the end of the one before: the time until this thread runs is no wait
            start = max([ready, *(transfer.end for transfer in self.transfers[-1:])])
            dist.all_reduce(buffer)
            buffer /= dist.get_world_size()
            # this machine is faster than the emulated wire: sleep for the rest of its time
            seconds = self.wire.seconds(buffer.nbytes, dist.get_world_size())
            time.sleep(max(0.0, start + seconds - time.perf_counter()))
            self.transfers.append(Transfer(buffer.nbytes, ready, start, time.perf_counter()))
            future.set_result(buffer)
        except BaseException as error:  # the backward pass waits for this future
            future.set_exception(error)


def _trace(model: nn.Module, backward: Callable[[nn.Module], Tensor], bucket_mb, wire) -> Trace:
    """The trace of the backward pass of `backward(ddp)`, a loss, on this rank."""
    ddp = DistributedDataParallel(model, bucket_cap_mb=bucket_mb)
    comm = _WireHook(wire)
    ddp.register_comm_hook(None, comm.hook)
    for _ in range(WARMUP):
        backward(ddp).backward()
    loss = backward(ddp)
    comm.transfers.clear()
    finished: list[float] = []
    last = next(model.parameters())  # the first layer's gradient comes last
    watch = last.register_post_accumulate_grad_hook(lambda p: finished.append(time.perf_counter()))
    dist.barrier()
    start = time.perf_counter()
    loss.backward()
    watch.remove()
    comm.thread.shutdown()
    transfers = (
        Transfer(t.n_bytes, t.ready - start, t.start - start, t.end - start) for t in comm.transfers
    )
    return Trace(finished[-1] - start, tuple(transfers))


def trace_on_rank(
    rank: Count,
    world_size: Size,
    config: ModelConfig,
    ids: Ids,
    targets: Ids,
    bucket_mb: Positive | None,
    wire: Wire,
) -> Trace:
    """A rank's `Trace` of one backward pass of a fresh Transformer; ids and targets (B,T).

    `bucket_mb` None is DDP's own choice: 25 MB after a first bucket of 1 MB, so that transfers
    begin early.
    """
    whole, mine = Batch(config, ids, targets), own(shares(len(ids), world_size), rank)
    batch = whole.ids[mine], whole.targets[mine]
    return _trace(new_model(config), lambda m: language_model_loss(m, *batch), bucket_mb, wire)


class _SleepingLayers(nn.Module):
    """Layers that emulate a device's: the backward pass sleeps, and gradients have a given size."""

    def __init__(self, layer_seconds: Times, layer_bytes: Counts):
        require_times("layer_seconds", layer_seconds)
        require_as_many("layer_bytes", layer_bytes, len(layer_seconds), "layer")
        super().__init__()
        self.seconds = tuple(layer_seconds)
        self.layers = nn.ParameterList(torch.zeros(n // 4) for n in layer_bytes)

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape, unchanged, since the weights are zeros."""
        for weight, seconds in zip(self.layers, self.seconds, strict=True):
            x = sleeping(x + weight.sum(), 0.0, seconds)  # its gradient comes after the sleep
        return x


def sleep_on_rank(
    rank: Count,
    world_size: Size,
    layer_seconds: Times,
    layer_bytes: Counts,
    bucket_mb: Positive | None,
    wire: Wire,
) -> Trace:
    """A rank's `Trace` of sleeping layers, whose times hold with more ranks than cores."""
    model = _SleepingLayers(layer_seconds, layer_bytes)
    x = torch.ones(1, requires_grad=True)
    return _trace(model, lambda m: m(x).sum(), bucket_mb, wire)


check_module(__name__)
