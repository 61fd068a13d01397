"""Real pipelines: PyTorch's schedules on ranks, with their tasks traced.

`on_rank` trains our Transformer, cut by layers; `sleep_on_rank` has stages that sleep instead of
computing, so that four ranks on two cores show the bubble of the schedule, not the lack of cores.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from efflab.arguments import check_module
from efflab.distributed.data_parallel import new_model, own, shares
from efflab.distributed.schedules import Task
from efflab.distributed.sleep import sleeping
from efflab.distributed.timeline import Timeline
from efflab.distributed.values import Batch, PositiveTimes, require_as_many
from efflab.errors import require, require_int
from efflab.model import Transformer
from efflab.rules import Count, Size
from efflab.tensors import Numbers
from efflab.train import language_model_loss, token_loss

SCHEDULES = ("gpipe", "1f1b", "interleaved")
"""The schedules of `torch.distributed.pipelining` that run on a CPU."""


@dataclass
class Trace:
    """A rank's tasks with their times in seconds, on a clock that all processes share.

    `held` is the most micro-batches whose activations the rank had at once, counted in the caches
    of PyTorch's stages (one in two chunks counts twice).
    """

    tasks: list[Task] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    held: Count = 0

    def wrap(self, kind: str, method: Callable, chunk: Count, caches: list[dict]) -> Callable:
        """A stage's method, whose first argument is the micro-batch, with its calls recorded."""

        def recorder(microbatch: int, *args, **kwargs):
            start = time.monotonic()
            result = method(microbatch, *args, **kwargs)
            self.ends.append(time.monotonic())
            self.starts.append(start)
            self.tasks.append(Task(kind, microbatch, chunk))
            self.held = max(self.held, sum(map(len, caches)))
            return result

        return recorder


def timeline(traces: Sequence[Trace], chunks_per_stage: Size = 1) -> Timeline:
    """Traces of all ranks, in order, as a timeline that begins at 0."""
    is_traced = len(traces) > 0 and all(len(trace.starts) > 0 for trace in traces)
    require(is_traced, "traces", traces, "one at least, and a task in each")
    zero = min(min(trace.starts) for trace in traces)
    return Timeline(
        [trace.tasks for trace in traces],
        [[start - zero for start in trace.starts] for trace in traces],
        [[end - zero for end in trace.ends] for trace in traces],
        chunks_per_stage,
    )


# --- PyTorch's pipeline -----------------------------------------------------------------------


def step(
    chunks: Sequence[nn.Module],
    schedule: str,
    n_microbatches: Size,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    inputs: Numbers,
    targets: Numbers,
    before: Callable[[], None],
) -> tuple[list[float], Trace]:
    """Forward and backward of a batch, with the rank's chunks as stages rank, rank + n_ranks, ...

    Returns the micro-batches' losses (on the last stage's rank) and the rank's trace. A warm-up
    step first connects the ranks and fixes the shapes; then `before()` is called.
    """
    from torch.distributed import pipelining

    rank, n_ranks = dist.get_rank(), dist.get_world_size()
    cpu = torch.device("cpu")
    stages = [
        pipelining.PipelineStage(module, rank + i * n_ranks, len(chunks) * n_ranks, cpu)
        for i, module in enumerate(chunks)
    ]
    is_interleaved = schedule == "interleaved"
    name = "interleaved1f1b" if is_interleaved else schedule
    kind = pipelining.schedules.get_schedule_class(name)
    pipeline = kind(stages if is_interleaved else stages[0], n_microbatches, loss_fn=loss_of)
    has_first, has_last = stages[0].is_first, stages[-1].is_last

    def run_step() -> list[float]:
        losses: list[Tensor] = []
        arguments = [inputs] if has_first else []
        pipeline.step(*arguments, target=targets if has_last else None, losses=losses)
        return [loss.item() for loss in losses]

    run_step()
    before()
    trace, caches = Trace(), [stage.fwd_cache for stage in stages]
    for i, stage in enumerate(stages):
        stage.forward_one_chunk = trace.wrap("F", stage.forward_one_chunk, i, caches)
        stage.backward_one_chunk = trace.wrap("B", stage.backward_one_chunk, i, caches)
    dist.barrier()
    return run_step(), trace


def _require_schedule(schedule: str, n_microbatches: int, n_ranks: int) -> None:
    """PyTorch's 1F1B needs a micro-batch per stage; its interleaved one differs from ours unless
    the number of micro-batches is a multiple of the ranks."""
    require_int("n_microbatches", n_microbatches, n_ranks if schedule == "1f1b" else 1)
    whole = schedule != "interleaved" or n_microbatches % n_ranks == 0
    require(whole, "n_microbatches", n_microbatches, f"a multiple of {n_ranks} ranks")


# --- Our Transformer, cut by layers -----------------------------------------------------------


class Part(nn.Module):
    """Layers `begin` to `end` of a Transformer, with the embedding before the first of its layers.

    The last part also has a copy of the embedding, for the logits. Parameters keep their names in
    the whole model. Layers that share weights with another part's are a `ValueError`.
    """

    def __init__(self, model: Transformer, begin: Count, end: Size):
        super().__init__()
        n_layer = len(model.layers)
        require(begin < end <= n_layer, "begin, end", (begin, end), f"layers among {n_layer}")
        inside, others = model.layers[begin:end], (*model.layers[:begin], *model.layers[end:])
        outside = {p for layer in others for p in layer.parameters()}
        is_separate = outside.isdisjoint(inside.parameters())
        allowed = "layers that share nothing with the others"
        require(is_separate, "begin, end", (begin, end), allowed)
        self.is_first, self.is_last = begin == 0, end == n_layer
        self.embedding: Any = model.embedding if self.is_first or self.is_last else None
        self.layers = nn.ModuleDict({str(i): model.layers[i] for i in range(begin, end)})
        self.final_norm: Any = model.final_norm if self.is_last else None

    def forward(self, x: Numbers) -> Tensor:
        """Ids (B,T) or hidden states (B,T,C) -> hidden states or logits (B,T,V)."""
        if self.is_first:
            x = self.embedding(x)
        for layer in self.layers.values():
            x = layer(x)
        return self.embedding.logits(self.final_norm(x)) if self.is_last else x


@dataclass(frozen=True)
class Job(Batch):
    """The batch, cut into equal micro-batches.

    `split`: layers of each rank, in order (default: `shares`).
    """

    n_microbatches: Size
    schedule: Annotated[str, ("gpipe", "1f1b")] = "gpipe"
    split: tuple[Size, ...] | None = None

    def __post_init__(self):
        super().__post_init__()
        whole = len(self.ids) % self.n_microbatches == 0
        require(whole, "n_microbatches", self.n_microbatches, f"a divisor of {len(self.ids)} rows")
        shared = "'none': a layer that several stages use is no stage's own"
        require(self.config.share == "none", "config.share", self.config.share, shared)
        ends = "True: first and last stage have one token table"
        require(self.config.tied, "config.tied", self.config.tied, ends)

    def alone(self) -> "PassResult":
        """Run in one process on the whole batch."""
        model = new_model(self.config)
        loss = language_model_loss(model, self.ids, self.targets)
        loss.backward()
        return _run_pass(model, loss.item(), Trace())


class PassResult(NamedTuple):
    """What a forward and a backward pass left on a rank.

    `loss` is the batch's on the last stage's rank, else None; `weight_bytes` is of the rank's part.
    """

    loss: float | None
    gradients: dict[str, Tensor]
    weight_bytes: Count
    trace: Trace


def on_rank(rank: Count, world_size: Size, job: Job) -> PassResult:
    """A rank's part of a job, to be started with `launch(on_rank, n, job, timeout=...)`."""
    split = job.split or shares(job.config.n_layer, world_size)
    fits = len(split) == world_size and sum(split) == job.config.n_layer
    allowed = f"{world_size} positive numbers that add up to the {job.config.n_layer} layers"
    require(fits, "split", split, allowed)
    _require_schedule(job.schedule, job.n_microbatches, world_size)
    layers = own(split, rank)
    part = Part(new_model(job.config), layers.start, layers.stop)
    how = job.schedule, job.n_microbatches, token_loss
    losses, trace = step([part], *how, job.ids, job.targets, part.zero_grad)
    _sum_tied_gradients(part, world_size)
    return _run_pass(part, sum(losses) / len(losses) if losses else None, trace)


def _sum_tied_gradients(part: Part, world_size: int) -> None:
    """Sum the gradients of the embedding's two copies, which are one parameter in the model."""
    if world_size == 1:
        return
    ends = dist.new_group([0, world_size - 1])
    if part.embedding is not None:
        for table in (part.embedding.token, part.embedding.projection):
            if not isinstance(table, nn.Identity):
                dist.all_reduce(table.weight.grad, group=ends)
        dist.destroy_process_group(ends)


def _run_pass(module: nn.Module, loss: float | None, trace: Trace) -> PassResult:
    named = dict(module.named_parameters())
    gradients = {name: p.grad for name, p in named.items() if p.grad is not None}
    return PassResult(loss, gradients, sum(p.nbytes for p in named.values()), trace)


# --- Stages that sleep ------------------------------------------------------------------------


class _Sleeper(nn.Module):
    """A stage that sleeps instead of computing: x to x times a weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.forward_seconds = self.backward_seconds = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return sleeping(x * self.weight, self.forward_seconds, self.backward_seconds)


def sleep_on_rank(
    rank: Count,
    world_size: Size,
    forward_seconds: PositiveTimes,
    backward_seconds: PositiveTimes,
    n_microbatches: Size,
    schedule: Annotated[str, SCHEDULES] = "gpipe",
    n_chunks: Size = 2,
) -> Trace:
    """A rank's trace of a step in which stage `rank` sleeps for its times per micro-batch.

    The arguments are those of `pipeline.simulate`, one time for each rank.
    """
    _require_schedule(schedule, n_microbatches, world_size)
    require_as_many("forward_seconds", forward_seconds, world_size, "rank")
    require_as_many("backward_seconds", backward_seconds, world_size, "rank")
    n = n_chunks if schedule == "interleaved" else 1
    sleepers = [_Sleeper() for _ in range(n)]

    def wake_up() -> None:
        for sleeper in sleepers:
            sleeper.forward_seconds = forward_seconds[rank] / n
            sleeper.backward_seconds = backward_seconds[rank] / n

    rows = torch.ones(n_microbatches, 1)
    return step(sleepers, schedule, n_microbatches, F.mse_loss, rows, rows, wake_up)[1]


check_module(__name__)
