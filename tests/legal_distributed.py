"""Legal arguments of the distributed chapter: see `legal_calls`."""

from collections.abc import Callable
from typing import Any

import torch
from legal_calls import ids, just, make, tensor
from torch import nn

from efflab.distributed import buckets, schedules, tensor_parallel, values


def bare(owner: type) -> Callable[[], Any]:
    """Makes one without its weights, which are cut by the number of ranks."""
    return lambda: object.__new__(owner)


TASKS = just([[schedules.Task("F", 0), schedules.Task("B", 0)]])
PARAMETERS = just({"weight": torch.ones(2)})
SPLIT = make("distributed.split.Split", dp=1)

BY_TYPE: dict[Any, Callable[[], Any]] = {
    values.Times: just([1.0, 2.0]),
    values.PositiveTimes: just([1.0, 2.0]),
    values.Counts: just([1, 1]),
    nn.Parameter: lambda: nn.Parameter(torch.ones(2)),
}
BY_NAME: dict[str, Callable[[], Any]] = {}
BY_FUNCTION: dict[str, dict[str, Callable[[], Any]]] = {
    "distributed.data_parallel.batch_norm_on_rank": {"inputs": tensor(4, 4), "labels": ids(4)},
    "distributed.data_parallel.distance": {"a": PARAMETERS, "b": PARAMETERS},
    "distributed.data_parallel.own": {"rank": just(0)},
    "distributed.data_parallel.train": {"model": lambda: nn.Linear(4, 4)},
    "distributed.partition.best_split": {"layer_seconds": just([1.0, 2.0, 3.0])},
    "distributed.pipeline.run": {
        "orders": TASKS,
        "n_microbatches": just(1),
        "forward_seconds": just([1.0]),
        "backward_seconds": just([1.0]),
    },
    "distributed.partition.stage_seconds": {"split": just([1, 1])},
    "distributed.plan.best_plan": {"seq_len": just(8), "global_batch": just(8)},
    "distributed.sleep.sleeping": {"forward_seconds": just(0.0), "backward_seconds": just(0.0)},
    "distributed.split.Training": {"global_batch": just(8), "seq_len": just(8)},
    "distributed.split.Training.evaluate": {"split": SPLIT},
    "distributed.split.Training.memory_bytes": {"split": SPLIT},
    "distributed.stages.Job": {"n_microbatches": just(1)},
    "distributed.tensor_orders.on_rank": {"order": just("column-row")},
    "distributed.tensor_orders.traffic": {"order": just("column-row")},
    "distributed.tensor_parallel.columns_of": {"weight": tensor(4, 4), "rank": just(0)},
    "distributed.tensor_parallel.rows_of": {"rank": just(0)},
    "distributed.tensor_parallel.share_of": {"rank": just(0)},
    "distributed.timeline.Timeline": {
        "orders": TASKS,
        "starts": just([[0.0, 1.0]]),
        "ends": just([[1.0, 2.0]]),
    },
    "distributed.zero.Job": {"stage": just(0)},
    "distributed.zero.shard_model": {"stage": just(0)},
}
BY_OWNER: dict[str, Callable[[], Any]] = {
    "distributed.buckets.Wire": buckets.Wire,
    "distributed.tensor_parallel.ColumnParallelLinear": bare(tensor_parallel.ColumnParallelLinear),
    "distributed.tensor_parallel.RowParallelLinear": bare(tensor_parallel.RowParallelLinear),
}
