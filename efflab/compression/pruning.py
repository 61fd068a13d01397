"""Pruning: weights set to zero by a mask, or heads and FFN neurons taken out.

A mask leaves every shape as it is: the zeros are stored and multiplied like any other number.
`prune_heads` and `prune_ffn` make smaller matrices. All of them return a changed copy. Shapes as in
`efflab.model`: B batch, T tokens, H heads, D channels of a head, F neurons of the FFN.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from efflab.arguments import check_module
from efflab.base.hooks import linear_places
from efflab.compression.importance import head_importance as head_importance
from efflab.compression.importance import least_important as least_important
from efflab.compression.importance import neuron_importance as neuron_importance
from efflab.compression.values import require_ordered
from efflab.errors import require, require_int
from efflab.grouped import GroupedAttention
from efflab.model import Attention, FeedForward, Transformer
from efflab.rules import Size
from efflab.tensors import Booleans

Masks = dict[str, Booleans]
"""Name of a weight -> bool tensor of its shape, True = kept."""
Units = Mapping[int, Iterable[int]]
"""Layer -> heads or neurons in it, all counted from 0."""
MOST_ROUNDS = 100_000

# --- Weights: masks --------------------------------------------------------------------------


def magnitude_mask(weight: Tensor, ratio: float) -> Tensor:
    """Bool mask that removes the `ratio` (0 to 1) smallest weights (Han et al. 2015).

    round(ratio x size) weights go, the same as with `torch.nn.utils.prune.l1_unstructured`; among
    equal magnitudes the first go first.

    >>> magnitude_mask(torch.tensor([3.0, -1.0, 0.5, -2.0]), 0.5).tolist()
    [True, False, False, True]
    """
    require(0 <= ratio <= 1, "ratio", ratio, "a share from {low} to {high}", low=0, high=1)
    require_ordered("weight", weight)
    mask = torch.ones(weight.numel(), dtype=torch.bool)
    order = weight.detach().abs().flatten().argsort(stable=True)
    mask[order[: round(ratio * weight.numel())]] = False
    return mask.view(weight.shape)


def n_m_mask(weight: Tensor, n: int, m: int) -> Tensor:
    """Bool mask that keeps the n largest of each m weights in a row (Mishra et al. 2021: 2 of 4).

    The m stand next to one another along the last dimension, which they must divide; among equal
    magnitudes the first are kept.
    """
    require_int("n", n, 0)
    require_int("m", m)
    require(n <= m, "n", n, f"at most m={m}")
    require(weight.dim() > 0, "weight.shape", tuple(weight.shape), "one dimension at least")
    last = weight.shape[-1]
    require(last % m == 0, "m", m, f"a divisor of the last dimension, {last}")
    require_ordered("weight", weight)
    groups = weight.detach().abs().unflatten(-1, (-1, m))
    largest = groups.argsort(dim=-1, descending=True, stable=True)[..., :n]
    mask = torch.zeros(groups.shape, dtype=torch.bool).scatter(-1, largest, True)
    return mask.view(weight.shape)


def weight_masks(model: nn.Module, make: Callable[[Tensor], Tensor]) -> Masks:
    """`make(weight)` for every linear map inside the layers, not for embeddings and biases.

    A shared weight is listed once, under its first name.
    """
    masks = {}
    for name, (where, *_) in linear_places(model).items():
        weight = model.get_submodule(where).weight
        masks[name] = make(weight)
        _require_mask("make(weight)", weight, masks[name])
    return masks


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Masks) -> nn.Module:
    """A copy with zeros where a mask is False; bytes and FLOPs do not change."""
    pruned = deepcopy(model)
    for module, name, mask in _resolve_masks(pruned, masks):
        getattr(module, name).masked_fill_(~mask, 0.0)
    return pruned


@contextmanager
def hold_masks(model: nn.Module, masks: Masks) -> Iterator[nn.Module]:
    """While open, each weight is 0 where its mask is False: what was removed stays so, in place.

    No gradient reaches it and no optimizer's momentum or decay brings it back. Make the optimizer
    inside. Afterwards the weights are ordinary ones, with zeros.
    """
    places = list(_resolve_masks(model, masks))
    for module, name, mask in places:
        parametrize.register_parametrization(module, name, _MaskedWeight(mask))
    try:
        yield model
    finally:
        for module, name, _ in places:
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)


class _MaskedWeight(nn.Module):
    def __init__(self, mask: Tensor):
        super().__init__()
        self.register_buffer("removed", ~mask, persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        return weight.masked_fill(self.removed, 0.0)  # a product would keep an infinity as NaN


def _resolve_masks(model: nn.Module, masks: Masks) -> list[tuple[nn.Module, str, Tensor]]:
    """(module, parameter's name in it, mask) for each use; all are checked before any is used."""
    known = dict(model.named_parameters())
    masked: dict[nn.Parameter, Tensor] = {}
    for path, mask in masks.items():
        require(path in known, "masks", path, "names of the model's parameters")
        _require_mask(f"masks[{path!r}]", known[path], mask)
        masked[known[path]] = mask
    parameters = (
        (module, *item) for module in model.modules() for item in module._parameters.items()
    )
    return [(module, name, masked[p]) for module, name, p in parameters if p in masked]


def _require_mask(name: str, weight: Tensor, mask) -> None:
    is_mask = isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.shape == weight.shape
    require(is_mask, name, mask, f"a bool tensor of the weight's shape {tuple(weight.shape)}")


def gradual_schedule(initial: float, final: float, n_rounds: int) -> list[float]:
    """The ratio to have removed in all after each round, from `initial` to `final`.

    Zhu & Gupta 2017, equation 1: s = final + (initial - final) (1 - t)^3, t from 0 to 1, so that
    most goes early, while there is much to spare. A single round prunes to `final` at once.

    >>> [round(s, 3) for s in gradual_schedule(0.1, 0.9, 3)]
    [0.1, 0.8, 0.9]
    """
    require_int("n_rounds", n_rounds)
    require(n_rounds <= MOST_ROUNDS, "n_rounds", n_rounds, "at most {high}", high=MOST_ROUNDS)
    require(0 <= initial <= 1, "initial", initial, "a share from {low} to {high}", low=0, high=1)
    require(initial <= final <= 1, "final", final, f"a share from initial={initial} to 1")
    if n_rounds == 1:
        return [final]
    times = [i / (n_rounds - 1) for i in range(n_rounds)]
    return [final + (initial - final) * (1 - t) ** 3 for t in times]


# --- Heads and neurons: removal --------------------------------------------------------------


def prune_heads(model: Transformer, heads: Units) -> Transformer:
    """A copy without these heads: fewer rows of `qkv`, fewer columns of `out`.

    The output is that of the model with the same heads masked. A layer may lose all its heads: its
    attention then adds only the output bias. Heads that are not there, and layers that share their
    attention with others, are a `ValueError`. `config` keeps the original shape.
    """
    pruned = deepcopy(model)
    for body, removed in _choose_units(pruned, "attention", heads):
        remaining = [h for h in range(body.n_head) if h not in removed]
        columns = _channels(remaining, body.head_dim)
        width = body.n_head * body.head_dim
        rows = torch.cat([columns + part * width for part in range(3)])  # of q, k and v
        _shrink(body.qkv, rows=rows)
        _shrink(body.out, columns=columns)
        body.n_head = len(remaining)
    return pruned


def prune_ffn(model: Transformer, neurons: Units) -> Transformer:
    """A copy without these FFN neurons: fewer rows of `up`, fewer columns of `down`.

    Refuses what `prune_heads` refuses; an FFN may lose all its neurons too.
    """
    pruned = deepcopy(model)
    for body, removed in _choose_units(pruned, "ffn", neurons):
        remaining = _channels([i for i in range(body.up.out_features) if i not in removed], 1)
        _shrink(body.up, rows=remaining)
        _shrink(body.down, columns=remaining)
    return pruned


def head_masks(model: Transformer, heads: Units) -> Masks:
    """Masks that silence these heads: zeros in the columns of `out` that read them."""
    masks = {}
    for i, (body, removed) in zip(heads, _choose_units(model, "attention", heads), strict=True):
        mask = torch.ones(body.out.weight.shape, dtype=torch.bool)
        mask[:, _channels(sorted(removed), body.head_dim)] = False
        masks[f"layers.{i}.attention.body.out.weight"] = mask
    return masks


def _choose_units(
    model: Transformer, part: str, units: Units
) -> list[tuple[Attention | FeedForward, set[int]]]:
    """(body, units to remove) of each layer in `units`, all checked before any is changed."""
    bodies = [getattr(layer, part).body for layer in model.layers]
    parameters = [set(body.parameters()) for body in bodies]
    choices = []
    for layer, removed in units.items():
        require_int("layer", layer, 0)
        require(layer < len(bodies), "layer", layer, f"0 to {len(bodies) - 1}")
        uses = sum(bool(parameters[layer] & other) for other in parameters)
        require(uses == 1, "layer", layer, f"a layer whose {part} no other layer shares")
        body = bodies[layer]
        is_plain = type(body) in (Attention, FeedForward)  # a kind of them computes otherwise
        require(is_plain, part, type(body).__name__, "the plain Transformer's")
        name, n = ("head", body.n_head) if part == "attention" else ("neuron", body.up.out_features)
        choices.append((body, _checked_units(name, removed, n, layer)))
    return choices


def _checked_units(name: str, removed: Iterable[int], n: int, layer: int) -> set[int]:
    """The units as a set; the first invalid one raises, so that an endless iterable ends."""
    units = set()
    for unit in removed:
        require_int(name, unit, 0)
        require(unit < n, name, unit, f"0 to {n - 1} in layer {layer}")
        units.add(unit)
    return units


def _channels(units: Sequence[int], width: int) -> Tensor:
    """The channels of these units, `width` each, in order."""
    starts = torch.tensor(units, dtype=torch.long)[:, None] * width
    return (starts + torch.arange(width)).flatten()


def _shrink(linear: nn.Linear, rows: Tensor | None = None, columns: Tensor | None = None) -> None:
    """Make a linear map smaller in place: fewer outputs (`rows`) or fewer inputs (`columns`)."""
    if rows is not None:
        linear.weight = nn.Parameter(linear.weight.detach()[rows])
        if linear.bias is not None:
            linear.bias = nn.Parameter(linear.bias.detach()[rows])
    if columns is not None:
        linear.weight = nn.Parameter(linear.weight.detach()[:, columns])
    linear.out_features, linear.in_features = linear.weight.shape


def forward_flops(model: Transformer, seq_len: Size, batch_size: Size = 1) -> int:
    """FLOPs of logits by the layers' real shapes, 2 per multiply-accumulate, scores in full.

    Equals `cost.forward_flops` where nothing is removed. Zeros of a mask count: a dense kernel
    multiplies them too.
    """
    for body in (layer.attention.body for layer in model.layers):
        is_full = type(body) in (Attention, GroupedAttention)
        require(is_full, "attention", type(body).__name__, "the Transformer's, scores in full")
    E = model.embedding
    every = model.layers.named_modules(remove_duplicate=False)  # a shared map runs in each place
    maps = [module for _, module in every if isinstance(module, nn.Linear)]
    # a factorized embedding's projection runs twice: after the table and before the logits
    maps += [E.projection] * 2 if isinstance(E.projection, nn.Linear) else []
    products = sum(m.weight.numel() for m in maps) + E.token.weight.numel()
    scores = sum(a.body.n_head * a.body.head_dim for a in (x.attention for x in model.layers))
    return 2 * batch_size * seq_len * (products + 2 * seq_len * scores)


check_module(__name__)
