"""A technique's point on the board, measured in every chapter in the same way.

Quality on the same held-out windows or functions, and time beside the unchanged model's, turn and
turn about: points of different notebooks, measured under different loads, compare by that ratio.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn

from efflab import bench, data, evaluate, pretrained

N_WINDOWS = 16  # held-out windows of 512 tokens
N_FUNCTIONS, MAX_TOKENS = 60, 64  # documented functions to find each other's docstrings among
TEXTS = 8  # in the batch that is timed

Encode = Callable[[Tensor, Tensor], Tensor]  # ids (B,T), attention mask (B,T) -> (B,C), length 1


def weight_bytes(model: nn.Module) -> int:
    """Bytes of a model's parameters; a shared one counts once."""
    return sum(p.nbytes for p in model.parameters())


@lru_cache(maxsize=1)
def language_model():
    """`stdlib-gpt` as shipped, loaded once in a kernel."""
    return pretrained.load_stdlib_gpt()


@lru_cache(maxsize=1)
def encoder():
    """MiniLM-L6 and its tokenizer, loaded once in a kernel."""
    return pretrained.load_minilm()


@torch.no_grad()
def language_point(
    model: nn.Module,
    n_bytes: int | None = None,
    quality: float | None = None,
    repeats: int = 5,
) -> dict:
    """What `board.add` wants of a changed `stdlib-gpt`.

    `n_bytes`: if it is stored smaller than its parameters; `quality`: its bits per byte of
    `N_WINDOWS` windows, where they are known already.
    """
    baseline = language_model()
    ids = torch.zeros(1, baseline.config.max_len, dtype=torch.long)
    calls = {"new": lambda: model(ids), "old": lambda: baseline(ids)}
    return dict(
        model="stdlib-gpt",
        bytes=weight_bytes(model) if n_bytes is None else n_bytes,
        **_times(calls, repeats),
        quality=evaluate.bits_per_byte(model, N_WINDOWS).mean if quality is None else quality,
    )


@torch.no_grad()
def encoder_point(encode: Encode, n_bytes: int, repeats: int = 5) -> dict:
    """What `board.add` wants of a changed MiniLM, given as a function from ids to embeddings."""
    tokenizer = encoder()[1]
    functions = data.documented_functions()
    picked = functions[:: len(functions) // N_FUNCTIONS][:N_FUNCTIONS]
    vectors = []
    for texts in ([f.query for f in picked], [f.code for f in picked]):
        options = dict(padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        batches = [tokenizer(texts[i : i + 20], **options) for i in range(0, len(texts), 20)]
        vectors.append(torch.cat([encode(b["input_ids"], b["attention_mask"]) for b in batches]))
    ids = torch.ones(TEXTS, MAX_TOKENS, dtype=torch.long)
    calls = {"new": lambda: encode(ids, ids), "old": lambda: encode_minilm(ids, ids)}
    return dict(
        model="MiniLM-L6",
        bytes=n_bytes,
        **_times(calls, repeats),
        quality=evaluate.retrieval_mrr(*vectors).mean,
    )


def encode_with(model: nn.Module) -> Encode:
    """The `Encode` of a Transformer: its hidden states, averaged over real tokens."""
    return lambda ids, mask: pretrained.mean_pool(model.encode(ids, mask), mask)


def encode_minilm(ids: Tensor, mask: Tensor) -> Tensor:
    """The unchanged MiniLM."""
    return encode_with(encoder()[0])(ids, mask)


def _times(calls: dict, repeats: int) -> dict[str, float]:
    times = bench.interleaved(calls, warmup=1, repeats=repeats)
    new = 1e3 * times["new"].median
    return dict(milliseconds=new, baseline_milliseconds=new / times["new"].ratio(times["old"]))
