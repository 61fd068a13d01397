"""How good a model is: bits per byte of held-out source, and retrieval of functions by docstring.

Every estimate comes with its 95 % interval, by bootstrap over windows or functions.
"""

from collections.abc import Callable
from functools import cache
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from efflab import data
from efflab.arguments import check_module
from efflab.config import ModelConfig
from efflab.errors import require, require_int
from efflab.estimate import Estimate, bootstrap
from efflab.rules import Size
from efflab.tensors import Ids, Matrix, require_finite

BATCH_SIZE = 8
"""Windows that a model scores at a time."""


@runtime_checkable
class LanguageModel(Protocol):
    """What can be evaluated: a `Transformer`, or an engine that runs one."""

    config: ModelConfig

    def __call__(self, ids: Tensor) -> Tensor:
        """Logits (B,T,V) of ids (B,T)."""


@cache
def token_bytes() -> np.ndarray:
    """Bytes of source text per token id; 0 for the file marker."""
    vocabulary = data.tokenizer().get_vocab()
    lengths: np.ndarray = np.zeros(len(vocabulary), dtype=np.int64)
    for text, i in vocabulary.items():
        lengths[i] = len(text)  # byte-level BPE writes every byte as one character
    lengths[0] = 0
    return lengths


def held_out_windows(n_windows: Size | None, seq_len: int) -> np.ndarray:
    """Windows (N, seq_len + 1) of held-out tokens whose second halves do not overlap.

    All of them in order, or `n_windows` spread evenly: the same ones on every call.
    """
    tokens = data.stdlib_tokens("held-out")
    require_int("seq_len", seq_len, 2, len(tokens) - 2)
    starts = np.arange(0, len(tokens) - seq_len - 1, seq_len - seq_len // 2)
    if n_windows is not None:
        starts = starts[np.linspace(0, len(starts) - 1, min(n_windows, len(starts))).astype(int)]
    return np.stack([tokens[s : s + seq_len + 1] for s in starts])


@torch.no_grad()
def half_window_nats(model: Callable, windows: Ids) -> Tensor:
    """Nats that each token of the second half of windows (N,T+1) costs: (N, T - T // 2)."""
    half, nats = (windows.shape[1] - 1) // 2, []
    for batch in windows.split(BATCH_SIZE):
        logits = model(batch[:, :-1])[:, half:]
        nats.append(F.cross_entropy(logits.mT, batch[:, half + 1 :], reduction="none"))
    return torch.cat(nats)


def half_window_bits(model: Callable, windows: Ids) -> tuple[np.ndarray, np.ndarray]:
    """Bits that the second half of each window (N,T+1) costs (N,), and its size in bytes (N,)."""
    half = (windows.shape[1] - 1) // 2
    bits = half_window_nats(model, windows).sum(1) / np.log(2)
    return bits.numpy(), token_bytes()[windows[:, half + 1 :].numpy()].sum(1)


def window_bits(
    model: LanguageModel, n_windows: int | None, *, seq_len: Size | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Cost in bits of each held-out window's second half (N,), and its size in bytes (N,).

    Every token is predicted from at least half a window of `seq_len` tokens (default: the model's
    `max_len`). The windows are those of `held_out_windows`, the same for every model.
    """
    seq_len = model.config.max_len if seq_len is None else seq_len
    return half_window_bits(model, torch.from_numpy(held_out_windows(n_windows, seq_len)))


def bits_per_byte(
    model: LanguageModel, n_windows: int | None = 64, *, seq_len: Size | None = None
) -> Estimate:
    """Bits per byte of held-out standard-library source under a causal model with our tokenizer.

    Scored as `window_bits` says; the interval is over windows.
    """
    return bootstrap(*window_bits(model, n_windows, seq_len=seq_len))


def reciprocal_ranks(queries: Matrix, documents: Matrix) -> np.ndarray:
    """1 / rank of document i among all for query i (N,), both (N,C) of unit length.

    Equal scores share the mean of their ranks: vectors that are all alike rank like a guess.
    """
    _require_pairs(queries=queries, documents=documents)
    scores = queries @ documents.T
    own = scores.diagonal()[:, None]
    better, alike = (scores > own).sum(1), (scores == own).sum(1)
    return (1 / (better + (alike + 1) / 2)).numpy()


def retrieval_mrr(queries: Matrix, documents: Matrix) -> Estimate:
    """Mean reciprocal rank of document i for query i, both (N,C) of unit length."""
    return bootstrap(reciprocal_ranks(queries, documents))


def cosines(a: Matrix, b: Matrix) -> dict[str, float]:
    """Cosine of corresponding rows of (N,C) and (N,C): mean, 5th percentile, minimum."""
    _require_pairs(a=a, b=b)
    cosine = F.cosine_similarity(a, b, dim=-1)
    figures = {"mean": cosine.mean(), "p5": cosine.quantile(0.05), "min": cosine.min()}
    return {name: figure.item() for name, figure in figures.items()}


def _require_pairs(**sides: Matrix) -> None:
    """Refuse two that are not both (N,C), with at least one row, all finite."""
    (_, a), (name, b) = sides.items()
    shapes = tuple(a.shape), tuple(b.shape)
    fits = shapes[0] == shapes[1] and len(a) > 0
    require(fits, f"{name}.shape", shapes[1], f"(N,C) as the other's {shapes[0]}, N at least 1")
    for side, values in sides.items():
        require_finite(side, values)


check_module(__name__)
