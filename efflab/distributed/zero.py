"""ZeRO: data parallelism without the replicas' redundant model states (Rajbhandari et al. 2020).

Every rank still runs the whole model on its own rows. Stage 1 shards the optimizer's state over the
ranks (`ZeroRedundancyOptimizer`, by whole parameters), stage 2 the gradients too, stage 3 the
weights too (both with FSDP2's `fully_shard`, which cuts every tensor; at stage 2 it gathers the
weights once per step, at stage 3 once for the forward and once for the backward pass).
`cost.model_state_bytes` is the paper's formula; here a rank's bytes are counted.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from efflab.arguments import check_module
from efflab.bench import peak_bytes
from efflab.distributed.data_parallel import new_model, own, shares
from efflab.distributed.ring import sent_bytes
from efflab.distributed.values import Batch
from efflab.errors import require_one_of
from efflab.model import Transformer
from efflab.rules import Count, Size
from efflab.train import gradient_norm, language_model_loss

STAGES = (0, 1, 2, 3)
LEARNING_RATE = 1e-3
TRIES = 3
"""Steps whose peak is measured; the lowest counts, since a missed release can only raise it."""
PAUSE = 0.002
"""Seconds after a collective until gloo's threads release its buffers (`_watch_releases`)."""
FP32_ADAM = dict(param_bytes=4, grad_bytes=4, optimizer_bytes=8)
"""Bytes per parameter here, for `cost.model_state_bytes`: all in fp32, two moments in Adam."""


class RankState(NamedTuple):
    """What a rank holds between two steps, in bytes, and what training did.

    `gathered`: weights held in addition to its shard between the forward and the backward pass;
    `step`: peak of a step beyond what was held before (activations, gathered weights); `sent`:
    bytes sent per step.
    """

    weights: Count
    gradients: Count
    optimizer: Count
    gathered: Count
    step: Count
    sent: Count
    losses: list[float]

    @property
    def state(self) -> int:
        """Weights, gradients and optimizer state: what the paper's formula counts."""
        return self.weights + self.gradients + self.optimizer


@dataclass(frozen=True)
class Job(Batch):
    """The batch, and by which stage it is trained (0 is plain DDP)."""

    stage: Annotated[int, STAGES]
    n_steps: Size = 3


def shard_model(model: Transformer, stage: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model and AdamW for it, set up for a stage on this rank."""
    require_one_of("stage", stage, STAGES)
    if stage >= 2:
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        uses = Counter(p for layer in model.layers for p in set(layer.parameters()))
        alone = (layer for layer in model.layers if all(uses[p] == 1 for p in layer.parameters()))
        for group in (*alone, model):  # each gathered and dropped together; what is shared, at last
            fully_shard(group, mesh=mesh, reshard_after_forward=stage == 3)
        return model, torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    ddp = DistributedDataParallel(model)
    if stage == 0:
        return ddp, torch.optim.AdamW(ddp.parameters(), lr=LEARNING_RATE)
    options = dict(optimizer_class=torch.optim.AdamW, lr=LEARNING_RATE)
    return ddp, ZeroRedundancyOptimizer(ddp.parameters(), **options)


def on_rank(rank: Count, world_size: Size, job: Job) -> RankState:
    """A rank's part of a job, to be started with `launch(on_rank, n, job, timeout=...)`."""
    mine = own(shares(len(job.ids), world_size), rank)
    ids, targets = job.ids[mine], job.targets[mine]
    model, optimizer = shard_model(new_model(job.config), job.stage)
    losses: list[float] = []

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)  # so that gradients stay allocated
        loss = language_model_loss(model, ids, targets)
        loss.backward()
        gradient_norm(model, loss, len(losses))
        optimizer.step()
        losses.append(loss.item())

    for _ in range(max(1, job.n_steps - 2)):
        step()
    before = sent_bytes()
    step()
    sent = sent_bytes() - before
    with _watch_releases():
        most = min(peak_bytes(step) for _ in range(TRIES))
    inner = optimizer.optim if isinstance(optimizer, ZeroRedundancyOptimizer) else optimizer
    return RankState(
        weights=_bytes(model.parameters()),
        gradients=_bytes(p.grad for p in model.parameters()),
        optimizer=_bytes(v for s in inner.state.values() for v in s.values()),
        gathered=_gathered_bytes(model, ids),
        step=most,
        sent=sent,
        losses=losses[: job.n_steps],
    )


@contextmanager
def _watch_releases() -> Iterator[None]:
    """Inside the block, a collective's buffers are released where the profiler sees it.

    The profiler only follows threads that run Python. A thread of gloo's holds a collective's
    buffers a moment longer than `wait` takes; if it is the last to release one, the profiler misses
    that, and counts the buffer to the end of the step. A pause after each `wait` prevents it.
    """
    wait = dist.Work.wait

    def wait_and_pause(work, *args, **kwargs):
        result = wait(work, *args, **kwargs)
        time.sleep(PAUSE)
        return result

    dist.Work.wait = wait_and_pause
    try:
        yield
    finally:
        dist.Work.wait = wait


def _bytes(tensors) -> int:
    """Bytes of this rank's parts of tensors, without scalars (Adam's step counts)."""
    local = (t.to_local() if isinstance(t, DTensor) else t for t in tensors)
    return sum(t.nbytes for t in local if torch.is_tensor(t) and t.dim() > 0)


def _gathered_bytes(model: nn.Module, ids: Tensor) -> int:
    """Bytes of weights that a forward pass leaves gathered for the backward pass.

    FSDP2 then has whole tensors in the place of the model's shards (DTensors).
    """
    if not any(isinstance(p, DTensor) for p in model.parameters()):
        return 0
    with torch.no_grad():
        model(ids)
    return _bytes(p for p in model.parameters() if not isinstance(p, DTensor))


check_module(__name__)
