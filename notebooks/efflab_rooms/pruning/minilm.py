"""Notebook 11's second model: MiniLM-L6 without some of its heads, judged by retrieval."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from efflab import data, evaluate, points, pretrained
from efflab.compression import pruning
from efflab.model import Transformer

N_EXAMPLES, MAX_TOKENS = 16, points.MAX_TOKENS


def texts(functions) -> tuple[list[str], list[str]]:
    """Docstrings and codes of functions."""
    return [f.query for f in functions], [f.code for f in functions]


def token_ids(strings: list[str]) -> Tensor:
    """Ids (N,64) of texts, filled with 0."""
    options = dict(padding="max_length", truncation=True, max_length=MAX_TOKENS)
    return points.encoder()[1](strings, return_tensors="pt", **options)["input_ids"]


def retrieval_loss(model: Transformer, queries: Tensor, codes: Tensor) -> Tensor:
    """Cross-entropy in nats of finding each docstring's code among the batch's, cosines x 20."""
    a, b = (pretrained.mean_pool(model.encode(x, x != 0), x != 0) for x in (queries, codes))
    return F.cross_entropy(20 * a @ b.T, torch.arange(len(a)))


@lru_cache(maxsize=1)
def minilm_importance() -> Tensor:
    """Importance (6, 12) of MiniLM's heads for retrieval, on functions not used for judging."""
    functions = data.documented_functions()
    step = max(1, len(functions) // points.N_FUNCTIONS)
    picked = functions[step // 2 :: step][:N_EXAMPLES]
    pair = [token_ids(strings) for strings in texts(picked)]
    return pruning.head_importance(points.encoder()[0], [pair], retrieval_loss)


def minilm_points(shares=(0.0, 1 / 3), repeats: int = 3) -> dict[float, dict]:
    """MiniLM with a share of its heads removed: share -> what the board wants, and more.

    `heads` that are left, and `mean` and `p5` of the cosine to the whole model's embeddings.
    """
    model, tokenizer = points.encoder()
    every = data.documented_functions()
    step = max(2, len(every) // points.N_FUNCTIONS)
    queries = texts(every[1::step][: 2 * N_EXAMPLES])[0]  # none that importance was measured on
    whole = pretrained.embed(model, tokenizer, queries, max_len=MAX_TOKENS)
    found = {}
    for share in shares:
        heads = pruning.least_important(minilm_importance(), share)
        small = pruning.prune_heads(model, heads)
        encode = points.encode_with(small)
        found[share] = points.encoder_point(encode, points.weight_bytes(small), repeats)
        embedded = pretrained.embed(small, tokenizer, queries, max_len=MAX_TOKENS)
        found[share] |= evaluate.cosines(whole, embedded)
        found[share]["heads"] = sum(layer.attention.body.n_head for layer in small.layers)
    return found


def minilm_rows(found: dict[float, dict]) -> list[dict]:
    """The same as a table."""
    return [
        {
            "heads left": point["heads"],
            "size (MB)": point["bytes"] / 1e6,
            "cosine, mean": round(point["mean"], 3),
            "cosine, 5th percentile": round(point["p5"], 3),
            "MRR": round(point["quality"].mean, 3),
            "MRR, low": round(point["quality"].low, 3),
            "MRR, high": round(point["quality"].high, 3),
            "time, ratio": round(point["time"].mean, 3),
            "A/A band (±%)": round(100 * point["band"], 1),
            "kind": "measured",
        }
        for point in found.values()
    ]


def for_board(point: dict) -> dict:
    """What `board.add` takes of a point."""
    extra = {"heads", "mean", "p5", "min"}
    return {name: value for name, value in point.items() if name not in extra}
