"""How good a model is: bits per byte of held-out source, and retrieval of functions by docstring.

Every figure comes with the 95 % interval that its sample gives, by bootstrap over its units.
"""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab import data
from efflab.errors import require_int
from efflab.estimate import Estimate, bootstrap


@lru_cache(maxsize=1)
def token_bytes() -> np.ndarray:
    """Bytes of source that each token stands for; the file marker stands for none."""
    vocabulary = data.tokenizer().get_vocab()
    lengths = np.zeros(len(vocabulary), dtype=np.int64)
    for text, i in vocabulary.items():
        lengths[i] = len(text)  # byte-level BPE writes every byte as one character
    lengths[0] = 0
    return lengths


def held_out_windows(n_windows: int | None, seq_len: int) -> np.ndarray:
    """Windows (N, seq_len + 1) of held-out tokens whose second halves do not overlap.

    All of them in order, or `n_windows` spread evenly: the same ones on every call.
    """
    tokens = data.stdlib_tokens("held-out")
    starts = np.arange(0, len(tokens) - seq_len - 1, seq_len // 2)
    if n_windows is not None:
        require_int("n_windows", n_windows)
        starts = starts[np.linspace(0, len(starts) - 1, min(n_windows, len(starts))).astype(int)]
    return np.stack([tokens[s : s + seq_len + 1] for s in starts])


@torch.no_grad()
def bits_per_byte(
    model: nn.Module, n_windows: int | None = 64, *, seq_len: int | None = None, batch_size: int = 8
) -> Estimate:
    """Bits per byte of held-out standard-library source under a causal model with our tokenizer.

    Each window of `seq_len` tokens (default: the model's `max_len`) is scored on its second half,
    so that every token is predicted from at least half a window.
    """
    seq_len = seq_len or model.config.max_len
    windows = torch.from_numpy(held_out_windows(n_windows, seq_len))
    half, bits = seq_len // 2, []
    for batch in windows.split(batch_size):
        logits = model(batch[:, :-1])[:, half:]
        nats = F.cross_entropy(logits.transpose(1, 2), batch[:, half + 1 :], reduction="none")
        bits.append(nats.sum(1) / np.log(2))
    n_bytes = token_bytes()[windows[:, half + 1 :].numpy()].sum(1)
    return bootstrap(torch.cat(bits).numpy(), n_bytes)


def retrieval_mrr(queries: Tensor, documents: Tensor) -> Estimate:
    """Mean reciprocal rank of document i for query i, both (N,C) of unit length."""
    scores = queries @ documents.T
    ranks = (scores > scores.diagonal()[:, None]).sum(1) + 1
    return bootstrap((1 / ranks).numpy())


def cosines(a: Tensor, b: Tensor) -> dict[str, float]:
    """Cosine of corresponding rows of (N,C) and (N,C): mean, 5th percentile, minimum."""
    cosine = F.cosine_similarity(a, b, dim=-1)
    return {
        "mean": cosine.mean().item(),
        "p5": cosine.quantile(0.05).item(),
        "min": cosine.min().item(),
    }
