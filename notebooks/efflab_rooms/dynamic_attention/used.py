"""How much of its range a layer uses, position by position: does that follow the input?

Softmax weights are never zero, so that by its gradient every kernel reaches as far as it is wide,
whatever it is given. What can move is the distance within which most of the weight lies.
"""

import numpy as np
import torch
from torch import Tensor

from efflab import data
from efflab.estimate import Estimate
from efflab.lab import figures, tr
from efflab.model import Transformer, attention_weights
from efflab_rooms.dynamic_attention.ranges import input_of

SHARE = 0.9  # of the weight
N_POSITIONS, N_RESAMPLES = 1000, 200


def used_distances(weights: Tensor, share: float = SHARE) -> Tensor:
    """Tokens back within which `share` of the weight lies: (..., k), newest last -> (...).

    >>> used_distances(torch.tensor([0.05, 0.05, 0.9]), 0.9).item()  # the newest alone
    0
    """
    # a hair less than the share, lest a sum of rounded weights miss it
    return (weights.flip(-1).cumsum(-1) < share - 1e-6).sum(-1)


@torch.no_grad()
def convolution_distances(model: Transformer, n_positions: int = N_POSITIONS) -> np.ndarray:
    """(positions, layers x heads) of a model of convolutions, on held-out text."""
    k, T = model.layers[0].attention.body.kernel_size, model.config.max_len
    ids = _held_out(-(-n_positions // (T - k)), T)
    found = []
    for i, layer in enumerate(model.layers):
        body = layer.attention.body
        kernels = body.kernels(body.gated(input_of(model, i, ids)))
        kernels = kernels.expand(*ids.shape, *kernels.shape[2:])[:, k:]  # the kernel is all text
        found.append(used_distances(kernels).flatten(0, 1))
    return torch.cat(found, -1).numpy()[:n_positions]


@torch.no_grad()
def attention_distances(model: Transformer, n_positions: int = N_POSITIONS) -> np.ndarray:
    """(positions, layers x heads) of a causal model's attention, later half of each window."""
    T = model.config.max_len
    ids = _held_out(-(-n_positions // (T // 2)), T)
    hidden = torch.ones(T, T, dtype=torch.bool).triu(1)
    found = []
    for i, layer in enumerate(model.layers):
        q, k, _ = layer.attention.body.heads(input_of(model, i, ids))
        weights = attention_weights(q, k).masked_fill(hidden, 0)[:, :, T // 2 :]
        weights = weights / weights.sum(-1, keepdim=True)  # of the visible keys
        # the newest token of position i is column i: turn each row so that it comes last
        rows = torch.arange(T // 2, T)
        columns = (torch.arange(T)[None] + rows[:, None] + 1) % T
        turned = weights.gather(-1, columns.expand_as(weights))
        found.append(used_distances(turned).transpose(1, 2).flatten(0, 1))
    return torch.cat(found, -1).numpy()[:n_positions]


def _held_out(n_windows: int, seq_len: int) -> Tensor:
    tokens = data.stdlib_tokens("held-out")
    return data.random_windows(tokens, n_windows, seq_len, seed=0)[0]


def moved_share(distances: np.ndarray, width: int, seed: int = 0) -> Estimate:
    """From the 5th to the 95th percentile over positions, mean over heads, of the width (0..1).

    The interval is the bootstrap's over positions.
    """
    rng = np.random.default_rng(seed)
    n = len(distances)
    picks = [rng.integers(0, n, n) for _ in range(N_RESAMPLES)]
    resampled = [_spread(distances[chosen], width) for chosen in picks]
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Estimate.widened(_spread(distances, width), low, high)


def _spread(distances: np.ndarray, width: int) -> float:
    low, high = np.percentile(distances, [5, 95], axis=0)
    return float((high - low).mean()) / (width - 1)


def distance_figure(distances: np.ndarray, width: int):
    """How often each distance is the used one, over positions and heads."""
    counts = np.bincount(distances.ravel(), minlength=width)
    moved = moved_share(distances, width)
    meta = {tr("5th to 95th percentile (% of the width)"): 100 * moved.mean}
    title = tr("Tokens back that hold {share}% of a kernel's weight", share=round(100 * SHARE))
    percent = (100 * counts / counts.sum()).tolist()
    names = [str(i) for i in range(width)]
    axes = (tr("tokens back"), tr("positions and heads (%)"))
    return figures.bars(names, percent, title, *axes, meta=meta, height=320)


def moved_rows(moved: Estimate, control: Estimate, plain: Estimate) -> list[dict]:
    """The used range's movement of three kinds of weights, in per cent of their width."""
    named = {"DynamicConv, trained": moved, "attention of stdlib-gpt": control}
    named["LightweightConv"] = plain
    return [
        dict(what=name, moved=100 * e.mean, low=100 * e.low, high=100 * e.high, kind="measured")
        for name, e in named.items()
    ]


MOVED_COLUMNS = {
    "what": "technique",
    "moved": "used range, 5th to 95th percentile (% of the width)",
    "low": "interval, low",
    "high": "interval, high",
    "kind": "kind",
}
