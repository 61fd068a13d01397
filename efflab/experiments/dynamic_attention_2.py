"""By how much the used range differs between two texts: DynamicConv and attention trained alike.

The range that a head uses at a position is the number of tokens back within which `SHARE` of its
weight lies. Two texts are compared at the same position: weights that do not look at their input
then differ by nothing, however their range grows with the position. Every seed trains its own
models and reads its own texts, so that an interval over seeds covers both.
"""

from collections.abc import Iterable, Mapping
from itertools import product

import torch
from torch import Tensor

from efflab import data
from efflab.bench import one_thread
from efflab.errors import require
from efflab.estimate import Estimate, of_mean, paired_difference
from efflab.experiments import dynamic_attention
from efflab.experiments.record import by_seed, run_cases
from efflab.experiments.registration import rules_for
from efflab.model import Attention, Transformer, attention_weights

NAME = "dynamic-attention-2"
SEEDS = (100, 101, 102, 103, 104)
SHARE, N_TEXTS = 0.9, 64
MIXERS = {
    "dynamic": ("dynamic-15", dynamic_attention.N_STEPS),
    "untrained": ("dynamic-15", 0),
    "fixed": ("lightweight-15", dynamic_attention.N_STEPS),
    "attention": ("attention", dynamic_attention.N_STEPS),
}
"""Name -> variant of `dynamic_attention` and steps of training."""
CASES: dict[str, tuple[str, str | None]] = {
    "range-over-untrained": ("dynamic", "untrained"),
    "range-over-fixed": ("dynamic", "fixed"),
    **{f"range-{mixer}": (mixer, None) for mixer in MIXERS},
}
"""Id of evidence -> whose tokens between two texts, less whose."""


@torch.no_grad()
def input_of(model: Transformer, layer: int, ids: Tensor) -> Tensor:
    """What layer `layer`'s mixing body is given for ids (B,T): (B,T,C)."""
    x = model.embedding(ids)
    for earlier in model.layers[:layer]:
        x = earlier(x)
    return model.layers[layer].attention.norm(x)


@torch.no_grad()
def kernels_of(model: Transformer, layer: int, ids: Tensor) -> Tensor:
    """The kernels (B,T,H,k) of a layer of convolutions for ids (B,T), newest token last."""
    body = model.layers[layer].attention.body
    kernels = body.kernels(body.gated(input_of(model, layer, ids)))
    return kernels.expand(*ids.shape, *kernels.shape[2:])


@torch.no_grad()
def weights_of(model: Transformer, layer: int, ids: Tensor) -> Tensor:
    """What a layer weighs at each position of the later half: (B,T/2,H,k), newest token last."""
    body = model.layers[layer].attention.body
    if not isinstance(body, Attention):
        return kernels_of(model, layer, ids)[:, ids.shape[1] // 2 :]
    q, k, _ = body.heads(input_of(model, layer, ids))
    weights = attention_weights(q, k).tril()
    return newest_last(weights / weights.sum(-1, keepdim=True)).transpose(1, 2)


def newest_last(weights: Tensor) -> Tensor:
    """Rows of the later half of weights (...,T,T), each turned so that its own token is last."""
    T = weights.shape[-1]
    columns = (torch.arange(T) + torch.arange(T // 2, T)[:, None] + 1) % T
    rows = weights[..., T // 2 :, :]
    return rows.gather(-1, columns.expand_as(rows))


def used_distances(weights: Tensor, share: float = SHARE) -> Tensor:
    """Tokens back within which `share` of the weight lies: (..., k), newest last -> (...).

    >>> used_distances(torch.tensor([0.05, 0.05, 0.9]), 0.9).item()  # the newest alone
    0
    """
    # a hair less than the share, lest a sum of rounded weights miss it
    return (weights.flip(-1).cumsum(-1) < share - 1e-6).sum(-1)


def distances(model: Transformer, ids: Tensor) -> Tensor:
    """`used_distances` of texts (B,T) in the later half: (B, T/2, layers x heads)."""
    layers = range(len(model.layers))
    return torch.cat([used_distances(weights_of(model, i, ids)) for i in layers], -1)


def between_texts(distances: Tensor) -> list[float]:
    """Tokens by which two texts differ at the same position, mean over positions and heads.

    One number for each pair of texts in (texts, positions, heads): the first two, the next two.
    """
    n = distances.shape[0]
    require(n >= 2 and n % 2 == 0, "texts", n, "an even number of texts")
    return (distances[::2] - distances[1::2]).abs().double().mean((1, 2)).tolist()


def tokens_apart(model: Transformer, seed: int) -> float:
    """`between_texts` of a model on the seed's texts, mean over the pairs."""
    tokens, length = data.stdlib_tokens("held-out"), model.config.max_len
    ids, _ = data.random_windows(tokens, N_TEXTS, length, seed)
    pairs = between_texts(distances(model.eval(), ids))
    return sum(pairs) / len(pairs)


def run_one(mixer: str, seed: int) -> dict:
    """Mean tokens between two of this seed's texts, and the held-out loss."""
    variant, n_steps = MIXERS[mixer]
    if n_steps:
        model, _ = dynamic_attention.train_variant(variant, seed, n_steps)
    else:
        model = dynamic_attention.make_model(variant, seed)
    return dict(tokens=tokens_apart(model, seed), loss=dynamic_attention.held_out_loss(model))


def cases(runs: Iterable[Mapping]) -> dict[str, Estimate]:
    """`CASES` in tokens, paired by seed; each seed has its own models and its own texts."""
    tokens = by_seed(runs, "mixer", "tokens")
    return {
        key: paired_difference(tokens[a], tokens[b]) if b else of_mean(tokens[a])
        for key, (a, b) in CASES.items()
    }


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Every mixer with every seed; recorded as data/experiments/dynamic-attention-2."""
    cases = [dict(mixer=mixer, seed=seed) for seed, mixer in product(SEEDS, MIXERS)]
    settings = dynamic_attention.settings() | dict(share=SHARE, n_texts=N_TEXTS, mixers=MIXERS)
    options = dict(settings=settings, rules=rules_for(NAME), fresh=fresh)
    return run_cases(NAME, cases, run_one, **options)
