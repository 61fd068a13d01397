"""Removes a share of the FLOPs from attention, by windows (chapter 1) and fewer heads (chapter 3).

A window, whose width may differ by layer, only makes the scores cheaper; removing a head also
removes its projections. The added loss of each single change is measured on training text, and
changes are made in order of loss per FLOP saved. L layers, H heads, T tokens.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from efflab.compression.pruning import prune_heads
from efflab.config import ModelConfig
from efflab.cost import forward_flops as plain_flops
from efflab.errors import require, require_int, require_one_of
from efflab.model import Attention, Transformer
from efflab.structure.window import SlidingAttention, computed_pairs, visible_pairs
from efflab.train import language_model_loss

WIDTHS = (256, 128, 64, 32, 16)
"""Possible windows of a layer, in tokens before the query."""
COUNTS = ("computed", "visible")
"""Which pairs cost FLOPs: all that are computed (without a window T x T, as `cost.forward_flops`
has them), or only those that are visible."""


@dataclass(frozen=True)
class Recipe:
    """Each layer's window (None: all tokens before), and its removed heads."""

    windows: tuple[int | None, ...]
    removed: tuple[tuple[int, ...], ...]

    def at(self, layer: int, **parts) -> "Recipe":
        """The recipe with that layer's `windows` or `removed` changed."""
        own = {k: getattr(self, k) for k in parts}
        changed = {k: (*own[k][:layer], v, *own[k][layer + 1 :]) for k, v in parts.items()}
        return replace(self, **changed)

    def heads_left(self, n_head: int) -> list[int]:
        """Heads that each layer keeps of `n_head`."""
        return [n_head - len(heads) for heads in self.removed]


@dataclass(frozen=True)
class Damage:
    """The loss that a single change adds, in nats per token.

    `windows`: (layer, width) -> by that window; `heads`: (layer, head) -> by removing that head.
    """

    windows: dict[tuple[int, int], float]
    heads: dict[tuple[int, int], float]


# --- FLOPs -----------------------------------------------------------------------------------


@lru_cache(maxsize=256)  # a search for the cheapest change asks for few of them, many times
def pairs(seq_len: int, window: int | None, count: str = "computed") -> int:
    """(query, key) pairs of a causal head over `seq_len` tokens.

    >>> pairs(512, None), pairs(512, None, "visible"), pairs(512, 64), pairs(512, 64, "visible")
    (262144, 131328, 61440, 31200)
    """
    require_one_of("count", count, COUNTS)
    require_int("seq_len", seq_len)
    if count == "visible":
        return visible_pairs(seq_len, seq_len if window is None else window, causal=True)
    return seq_len**2 if window is None else computed_pairs(seq_len, window, causal=True)


def attention_flops(
    config: ModelConfig, seq_len: int, n_head: int, window: int | None, count: str = "computed"
) -> int:
    """One layer's attention with `n_head` heads left, projections and scores."""
    width = n_head * config.head_dim
    return 4 * width * (2 * seq_len * config.d_model + pairs(seq_len, window, count))


def removed_share(
    config: ModelConfig, recipe: Recipe, seq_len: int, count: str = "computed"
) -> float:
    """Share (0..1) of the plain model's FLOPs on `seq_len` tokens that the recipe removes."""
    whole = attention_flops(config, seq_len, config.n_head, None, count)
    not_counted = attention_flops(config, seq_len, config.n_head, None) - whole
    total = plain_flops(config, seq_len) - config.n_layer * not_counted
    left = zip(recipe.heads_left(config.n_head), recipe.windows, strict=True)
    saved = sum(whole - attention_flops(config, seq_len, n, window, count) for n, window in left)
    return saved / total


def forward_flops(model: Transformer, seq_len: int, count: str = "computed") -> int:
    """FLOPs of a causal model's logits by its real shapes and windows, 2 per multiply-accumulate.

    Equals `cost.forward_flops` where nothing is changed.
    """
    maps = [m for layer in model.layers for m in layer.modules() if isinstance(m, nn.Linear)]
    weights = sum(m.weight.numel() for m in maps) + model.embedding.token.weight.numel()
    scores = sum(
        a.n_head * a.head_dim * pairs(seq_len, window, count) for a, window in attentions(model)
    )
    return 2 * seq_len * weights + 4 * scores


def attentions(model: Transformer) -> Iterator[tuple[Attention, int | None]]:
    """Each layer's attention and its window."""
    for layer in model.layers:
        body = layer.attention.body
        if isinstance(body, SlidingAttention):
            yield body.attention, body.window_size
        else:
            yield body, None


# --- What each change costs ------------------------------------------------------------------


def lighten(model: Transformer, recipe: Recipe) -> Transformer:
    """A copy of a plain model without the recipe's heads and with its windows; not trained."""
    is_plain = all(window is None for _, window in attentions(model))
    require(is_plain, "model", "already windowed", "a model whose attention is plain")
    light = prune_heads(model, dict(enumerate(recipe.removed)))
    set_windows(light, recipe.windows)
    return light


def set_windows(model: Transformer, windows: Iterable[int | None]) -> None:
    """Give each layer of a plain model its window, in place; None leaves the layer as it is."""
    for layer, window in zip(model.layers, windows, strict=True):
        if window is not None:
            layer.attention.body = SlidingAttention(layer.attention.body, window)


def identity_recipe(config: ModelConfig) -> Recipe:
    """The recipe that changes nothing."""
    return windows_alone((None,) * config.n_layer)


def windows_alone(windows: tuple[int | None, ...]) -> Recipe:
    """A recipe of windows, one per layer, that keeps every head."""
    return Recipe(windows, ((),) * len(windows))


@torch.no_grad()
def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Loss in nats per token on (ids, targets), (B,T) each."""
    return language_model_loss(model, *batch).item()


def damage(model: Transformer, batch: tuple[Tensor, Tensor]) -> Damage:
    """The damage of every window and every head alone: L (5 + H) passes over `batch`."""
    config, base = model.config, loss(model, batch)
    plain = identity_recipe(config)

    def added(layer: int, **change) -> float:
        return loss(lighten(model, plain.at(layer, **change)), batch) - base

    layers, widths = range(config.n_layer), [w for w in WIDTHS if w < batch[0].shape[1]]
    return Damage(
        windows={(i, w): added(i, windows=w) for i in layers for w in widths},
        heads={(i, h): added(i, removed=(h,)) for i in layers for h in range(config.n_head)},
    )


# --- Recipes ---------------------------------------------------------------------------------


def by_layer(config: ModelConfig, costs: Damage, share: float, seq_len: int) -> Recipe:
    """Changes, the cheapest in loss for the FLOPs that it saves first, until `share` is gone.

    Costs are taken as adding up; one below zero is noise and counts as none. Each layer keeps a
    head.
    """
    recipe = identity_recipe(config)
    while removed_share(config, recipe, seq_len) < share:
        now = removed_share(config, recipe, seq_len)
        ranked = []
        for cost, changed in _moves(config, recipe, costs):
            saved = removed_share(config, changed, seq_len) - now
            if saved > 0:
                ranked.append((max(cost, 0.0) / saved, -saved, len(ranked), changed))
        require(bool(ranked), "share", share, f"at most {now:.3f}, all that attention may lose")
        recipe = min(ranked)[-1]
    return recipe


def _moves(config: ModelConfig, recipe: Recipe, costs: Damage) -> Iterator[tuple[float, Recipe]]:
    """(added loss, the recipe with it) of each single change that is possible next."""
    for (i, width), cost in costs.windows.items():
        before = recipe.windows[i]
        if before is None or width < before:
            paid = 0.0 if before is None else costs.windows[i, before]
            yield cost - paid, recipe.at(i, windows=width)
    for (i, head), cost in costs.heads.items():
        gone = recipe.removed[i]
        if head not in gone and len(gone) < config.n_head - 1:
            yield cost, recipe.at(i, removed=tuple(sorted((*gone, head))))


def evenly(
    config: ModelConfig, costs: Damage, window: int | None, share: float, seq_len: int
) -> Recipe:
    """One window for all layers, then the heads with the least added loss, until `share`."""
    most = attention_flops(config, seq_len, config.n_head, None) * config.n_layer
    most /= plain_flops(config, seq_len)
    require(0 <= share <= most, "share", share, f"0 to {most:.3f}, all of attention")
    recipe = windows_alone((window,) * config.n_layer)
    for i, head in sorted(costs.heads, key=costs.heads.__getitem__):
        if removed_share(config, recipe, seq_len) >= share:
            break
        recipe = recipe.at(i, removed=tuple(sorted((*recipe.removed[i], head))))
    return recipe
