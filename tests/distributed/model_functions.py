"""What the tests of parallel training run on ranks with models of their own.

Apart from `rank_functions`, whose ranks have two seconds and should not import all of this.
"""

import torch

from efflab.distributed.data_parallel import average_gradients, distance, new_model
from efflab.distributed.tensor_parallel import parallelize, parallelize_with_torch, share_of
from efflab.structure.sharing import share_qkv
from efflab.train import language_model_loss


def shared_map(rank, world_size, config, ids, method):
    """Errors of a model with one map in two layers, cut over ranks, against one process."""
    whole, cut = (share_qkv(new_model(config), 2) for _ in range(2))
    cut = {"ours": parallelize, "torch": parallelize_with_torch}[method](cut)
    for model in (whole, cut):
        language_model_loss(model, ids, ids).backward()
    expected = {
        name: share_of(name, p.grad, rank, world_size) for name, p in whole.named_parameters()
    }
    found = {name: getattr(p.grad, "_local_tensor", p.grad) for name, p in cut.named_parameters()}
    return distance(found, expected)


def unreached(rank, world_size):
    """Gradients after averaging where the loss reached one parameter on rank 0 alone, one never."""
    model = torch.nn.ParameterDict({n: torch.nn.Parameter(torch.ones(3)) for n in "abc"})
    used = model["a"] + model["b"] if rank == 0 else model["a"]
    used.sum().backward()
    average_gradients(model)
    return {name: p.grad.tolist() for name, p in model.items()}
