"""Which heads and FFN neurons matter least to a Transformer, by the gradient of a gate on each."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from efflab.arguments import check_module
from efflab.compression.values import require_each, require_filled
from efflab.errors import require
from efflab.model import Transformer
from efflab.rules import Count
from efflab.tensors import AnyTensor, Matrix, require_finite
from efflab.train import language_model_loss


def head_importance(
    model: Transformer, batches: Iterable, loss_fn: Callable = language_model_loss
) -> Tensor:
    """|d loss / d gate| of each head, mean over the examples: (n_layer, n_head).

    Michel et al. 2019, equation 2: a gate of 1 multiplies each head's output, and its gradient
    estimates the change of the loss without the head. `batches` yields (inputs, targets) for
    `loss_fn(model, inputs, targets)`, which must return the mean over the B examples.
    """
    bodies = [layer.attention.body for layer in model.layers]
    counts = {body.n_head for body in bodies}
    require(len(counts) == 1, "model", sorted(counts), "a model with as many heads in each layer")
    return _gate_gradients(model, [body.out for body in bodies], counts.pop(), batches, loss_fn)


def neuron_importance(
    model: Transformer, batches: Iterable, loss_fn: Callable = language_model_loss
) -> Tensor:
    """The same for the FFN's neurons, a gate on each activation: (n_layer, d_ff).

    It is |activation x gradient|, the Taylor criterion of Molchanov et al. 2017, equation 7.
    """
    downs = [layer.ffn.body.down for layer in model.layers]
    counts = {down.in_features for down in downs}
    require(len(counts) == 1, "model", sorted(counts), "a model with as many neurons in each layer")
    return _gate_gradients(model, downs, counts.pop(), batches, loss_fn)


def _gate_gradients(model, readers: Sequence[nn.Linear], n_units: int, batches, loss_fn) -> Tensor:
    """Mean |d loss / d gate| of the units that each of `readers` has as input: (layers, units)."""
    distinct = len({id(reader) for reader in readers})
    require(distinct == len(readers), "model", f"{distinct} sub-blocks", "one for each layer")
    total, n_examples = torch.zeros(len(readers), n_units), 0
    for inputs, targets in require_each("batches", batches, tuple[AnyTensor, AnyTensor]):
        require(inputs.dim() > 0 and len(inputs) > 0, "batches", inputs, "one example at least")
        B = len(inputs)
        gates = torch.ones(len(readers), B, n_units, requires_grad=True)
        with ExitStack() as stack, torch.enable_grad():
            for reader, gate in zip(readers, gates, strict=True):
                hook = reader.register_forward_pre_hook(_gate_units(gate))
                stack.callback(hook.remove)
            loss = B * loss_fn(model, inputs, targets)  # the sum over the examples
            (gradient,) = torch.autograd.grad(loss, gates)
        total += gradient.abs().sum(1)
        n_examples += B
    return total / n_examples


def _gate_units(gate: Tensor):
    """A hook that multiplies each unit's channels in (B,T,units x D) by its gate (B,units)."""

    def hook(_module, args):
        x = args[0].unflatten(-1, (gate.shape[1], -1))
        return (x * gate[:, None, :, None].to(x.dtype)).flatten(2)

    return hook


def least_important(importance: Matrix, ratio: float, keep: Count = 1) -> dict[int, list[int]]:
    """The `ratio` (0 to 1) least important units over all layers, as {layer: units}.

    `importance` (n_layer, units). The `keep` best units of each layer stay, so with a ratio close
    to 1 fewer are returned.
    """
    require(0 <= ratio <= 1, "ratio", ratio, "a share from {low} to {high}", low=0, high=1)
    require_filled("importance", importance)
    require_finite("importance", importance)
    n_units = importance.shape[1]
    require(keep <= n_units, "keep", keep, f"at most the {n_units} units of a layer")
    score = importance.clone()
    protected = importance.argsort(dim=1, descending=True, stable=True)[:, :keep]
    score.scatter_(1, protected, torch.inf)
    n_removed = min(round(ratio * score.numel()), score.numel() - protected.numel())
    lowest = score.flatten().argsort(stable=True)[:n_removed].tolist()
    removed: dict[int, list[int]] = {}
    for i in sorted(lowest):
        removed.setdefault(i // n_units, []).append(i % n_units)
    return removed


check_module(__name__)
