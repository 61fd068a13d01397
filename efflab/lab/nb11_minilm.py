"""Notebook 11's second model: MiniLM-L6 without some of its heads, judged by retrieval."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from efflab import bench, data, evaluate, pretrained
from efflab.compression import pruning
from efflab.lab.nb11_measure import MB, model_bytes
from efflab.model import Transformer

N_EXAMPLES, N_FUNCTIONS, MAX_TOKENS = 16, 60, 64


@lru_cache(maxsize=1)
def minilm():
    """MiniLM-L6 and its tokenizer, loaded once in a kernel."""
    return pretrained.load_minilm()


def texts(functions) -> tuple[list[str], list[str]]:
    """Docstrings and codes of functions."""
    return [f.query for f in functions], [f.code for f in functions]


def token_ids(strings: list[str]) -> Tensor:
    """Ids (N,64) of texts, filled with 0."""
    options = dict(padding="max_length", truncation=True, max_length=MAX_TOKENS)
    return minilm()[1](strings, return_tensors="pt", **options)["input_ids"]


def retrieval_loss(model: Transformer, queries: Tensor, codes: Tensor) -> Tensor:
    """Cross-entropy in nats of finding each docstring's code among the batch's, cosines x 20."""
    a, b = (pretrained.mean_pool(model.encode(x, x != 0), x != 0) for x in (queries, codes))
    return F.cross_entropy(20 * a @ b.T, torch.arange(len(a)))


@lru_cache(maxsize=1)
def minilm_importance() -> Tensor:
    """Importance (6, 12) of MiniLM's heads for retrieval, on functions not used for judging."""
    functions = data.documented_functions()
    step = max(1, len(functions) // N_FUNCTIONS)
    picked = functions[step // 2 :: step][:N_EXAMPLES]
    pair = [token_ids(strings) for strings in texts(picked)]
    return pruning.head_importance(minilm()[0], [pair], retrieval_loss)


def minilm_rows(shares=(0.0, 1 / 3, 1 / 2)) -> list[dict]:
    """MiniLM with a share of its heads removed: cosine to the whole model, MRR, bytes, time."""
    (model, tokenizer), functions = minilm(), data.documented_functions()
    picked = functions[:: max(1, len(functions) // N_FUNCTIONS)][:N_FUNCTIONS]
    ids = torch.zeros(8, MAX_TOKENS, dtype=torch.long)
    rows, models, whole = [], {}, None
    for share in shares:
        heads = pruning.least_important(minilm_importance(), share)
        models[share] = small = pruning.prune_heads(model, heads)
        embedded = [pretrained.embed(small, tokenizer, t, max_len=MAX_TOKENS)
                    for t in texts(picked)]  # fmt: skip
        whole = embedded[0] if whole is None else whole
        cosine = evaluate.cosines(whole, embedded[0])
        kept = sum(layer.attention.body.n_head for layer in small.layers)
        rows.append({
            "heads left": kept,
            "size (MB)": model_bytes(small) / MB,
            "cosine, mean": round(cosine["mean"], 3),
            "cosine, 5th percentile": round(cosine["p5"], 3),
            "MRR": round(evaluate.retrieval_mrr(*embedded).mean, 3),
        })  # fmt: skip
    with torch.no_grad():
        calls = {s: lambda m=m: m.encode(ids) for s, m in models.items()}
        times = bench.interleaved(calls, warmup=1, repeats=3)
    for row, share in zip(rows, shares, strict=True):
        row |= {"milliseconds": 1e3 * times[share].median,
                "time, ratio": round(times[share].ratio(times[shares[0]]), 3),
                "kind": "measured"}  # fmt: skip
    return rows
