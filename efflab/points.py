"""A technique's point on the board, measured in every chapter in the same way.

Quality is taken on the same held-out windows or functions. Time is a ratio to the unchanged
model's, interleaved with it, so that points measured under different loads are comparable.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from efflab import bench, data, evaluate, pretrained
from efflab.arguments import check_module
from efflab.estimate import Estimate, bootstrap
from efflab.rules import Size
from efflab.tensors import Ids, Mask

N_WINDOWS = 16  # held-out windows of 512 tokens on which a change is judged
N_FUNCTIONS, MAX_TOKENS = 60, 64  # documented functions to retrieve by their docstrings
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


@lru_cache(maxsize=1)
def shipped_quality() -> float:
    """`stdlib-gpt`'s own bits per byte over all held-out windows, as its card says."""
    return pretrained.read_card()["held_out_bits_per_byte"]["mean"]


def language_quality(
    model: evaluate.LanguageModel, n_windows: int = N_WINDOWS, seq_len: Size | None = None
) -> Estimate:
    """Held-out bits per byte of a changed `stdlib-gpt`, comparable between notebooks.

    The shipped model's value over all windows, plus the paired difference on `n_windows` of
    `seq_len` tokens (512 by default), whose interval it takes. The unchanged model so has the same
    value in every notebook.
    """
    baseline = language_model()
    if model is baseline:
        return Estimate(*[shipped_quality()] * 3)
    bits, n_bytes = evaluate.window_bits(model, n_windows, seq_len=seq_len)
    difference = bootstrap(bits - _baseline_bits(n_windows, seq_len), n_bytes)
    base = shipped_quality()
    return Estimate(base + difference.mean, base + difference.low, base + difference.high)


@lru_cache(maxsize=4)
def _baseline_bits(n_windows: int, seq_len: int | None) -> np.ndarray:
    return evaluate.window_bits(language_model(), n_windows, seq_len=seq_len)[0]


@torch.no_grad()
def language_point(
    model: evaluate.LanguageModel,
    n_bytes: int | None = None,
    quality: Estimate | None = None,
    repeats: Size = 7,
) -> dict:
    """The arguments of `board.add` for a changed `stdlib-gpt`.

    `n_bytes`: its stored size, if not that of its parameters; `quality`: its `language_quality`,
    if known already.
    """
    baseline = language_model()
    ids = torch.zeros(1, baseline.config.max_len, dtype=torch.long)
    return dict(
        model="stdlib-gpt",
        bytes=weight_bytes(model) if n_bytes is None else n_bytes,
        quality=language_quality(model) if quality is None else quality,
        **_time(model, baseline, (ids,), repeats),
    )


@torch.no_grad()
def encoder_point(encode: Encode, n_bytes: int, repeats: Size = 7) -> dict:
    """The arguments of `board.add` for a changed MiniLM, a function from ids to embeddings.

    Its MRR is the unchanged model's over the same functions, plus the paired difference.
    """
    unchanged, base = encode is encode_minilm, _baseline_ranks()
    difference = Estimate(0.0, 0.0, 0.0) if unchanged else bootstrap(_ranks(encode) - base)
    mrr = float(base.mean())
    ids = torch.ones(TEXTS, MAX_TOKENS, dtype=torch.long)
    quality = Estimate(mrr + difference.mean, mrr + difference.low, mrr + difference.high)
    time = _time(encode, encode_minilm, (ids, ids), repeats)
    return dict(model="MiniLM-L6", bytes=n_bytes, quality=quality, **time)


def _time(model: Callable, baseline: Callable, inputs: tuple, repeats: int) -> dict:
    """A point's time over the unchanged model's, whose own is 1 exactly, and the noise."""
    times = bench.compare(lambda: baseline(*inputs), {"new": lambda: model(*inputs)}, 1, repeats)
    ratio = Estimate(1.0, 1.0, 1.0) if model is baseline else times.ratios["new"]
    return dict(time=ratio, band=times.band)


@lru_cache(maxsize=1)
def _baseline_ranks() -> np.ndarray:
    return _ranks(encode_minilm)


def _ranks(encode: Encode) -> np.ndarray:
    """Reciprocal ranks of `N_FUNCTIONS` functions, retrieved by their docstrings."""
    tokenizer = encoder()[1]
    functions = data.documented_functions()
    sample = functions[:: len(functions) // N_FUNCTIONS][:N_FUNCTIONS]
    vectors = []
    for texts in ([f.query for f in sample], [f.code for f in sample]):
        options = dict(padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        batches = [tokenizer(texts[i : i + 20], **options) for i in range(0, len(texts), 20)]
        vectors.append(torch.cat([encode(b["input_ids"], b["attention_mask"]) for b in batches]))
    return evaluate.reciprocal_ranks(*vectors)


def encode_with(model: nn.Module) -> Encode:
    """The `Encode` of a Transformer: its hidden states, averaged over real tokens."""
    if model is encoder()[0]:
        return encode_minilm
    return lambda ids, mask: _pool(model, ids, mask)


def encode_minilm(ids: Ids, mask: Mask) -> Tensor:
    """The unchanged MiniLM."""
    return _pool(encoder()[0], ids, mask)


def _pool(model: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    return pretrained.mean_pool(model.encode(ids, mask), mask)


check_module(__name__)
