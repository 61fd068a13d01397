"""What the tests of pipelines run on ranks."""

import torch
from torch import nn

from efflab.distributed.schedules import Task


def zero_bubble_order(rank, world_size, n_microbatches):
    """This rank's tasks in PyTorch's zero-bubble schedule with one stage a rank."""
    from torch.distributed.pipelining import PipelineStage, ScheduleInterleavedZeroBubble

    stage = PipelineStage(nn.Linear(1, 1), rank, world_size, torch.device("cpu"))
    schedule = ScheduleInterleavedZeroBubble([stage], n_microbatches, loss_fn=nn.MSELoss())
    actions = filter(None, schedule.pipeline_order[rank])
    return [Task(a.computation_type.value, a.microbatch_index) for a in actions]
