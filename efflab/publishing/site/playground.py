"""What the playground's page runs: `stdlib-gpt` as a graph with its weights as inputs, and texts.

`score` is the reference: what the page shows for a setting is what it returns.
"""

import ast
import inspect
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import product
from math import ceil, log, prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from efflab import cost, data, evaluate, points
from efflab.base.files import write_atomically
from efflab.base.json_files import parse_json
from efflab.base.places import DATA_DIR, ROOT
from efflab.compression import packed, pruning
from efflab.structure.window import window_mask
from efflab_rooms.pruning.measure import importance

GROUP = 64
SCALES: dict[str, dict] = {"tensor": {}, "row": {"axis": 0}, "group": {"group_size": GROUP}}
"""Which values share a scale: arguments of `affine.quantize`."""
MOST_TOKENS = 256
"""Tokens of a text that are scored."""
RECORD_FILE = DATA_DIR / "playground.json"
SAMPLES = {
    "textwrap.py": ("dedent", "shorten"),
    "heapq.py": ("heapify", "nsmallest"),
    "shlex.py": ("quote", "join"),
    "statistics.py": ("harmonic_mean", "pvariance"),
    "json/__init__.py": ("detect_encoding",),
}
"""Held-out functions among which the first three short enough ones are the page's texts."""


@dataclass(frozen=True)
class Settings:
    """One position of the sliders; 0 is off."""

    bits: int = 0
    scale: str = "row"
    prune: float = 0.0
    heads: int = 0
    window: int = 0
    sinks: int = 0


# --- The model -------------------------------------------------------------------------------


class Graph(nn.Module):
    """`Transformer` written out: ids (1,T), visible pairs (T,T) -> logits, attention of each layer."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, visible: Tensor) -> tuple[Tensor, ...]:
        x, maps = self.model.embedding(ids), []
        for layer in self.model.layers:
            block = layer.attention
            q, k, v = block.body.heads(block.norm(x))
            scores = q @ k.mT * block.body.head_dim**-0.5
            maps.append(scores.masked_fill(~visible, -torch.inf).softmax(-1))
            x = layer.ffn(x + block.body.out((maps[-1] @ v).transpose(1, 2).flatten(2)))
        return self.model.embedding.logits(self.model.final_norm(x)), *maps


def head_order() -> list[tuple[int, int]]:
    """(layer, head) from the least important on, as `pruning.least_important` takes them."""
    scores = importance("heads")
    n, order = scores.numel(), []
    for i in range(1, n):
        taken = pruning.least_important(scores, i / n)
        order += [(a, h) for a in taken for h in taken[a] if (a, h) not in order]
    return order


def lighten(settings: Settings) -> nn.Module:
    """`stdlib-gpt` without the heads, then pruned, then rounded, as the settings say."""
    model = points.language_model()
    n_heads = model.config.n_layer * model.config.n_head
    units = pruning.least_important(importance("heads"), settings.heads / n_heads)
    model = pruning.prune_heads(model, units)
    prune = lambda weight: pruning.magnitude_mask(weight, settings.prune)  # noqa: E731
    model = pruning.apply_masks(model, pruning.weight_masks(model, prune))
    if not settings.bits:
        return model
    grid = SCALES[settings.scale]
    codes = packed.quantize_weights(model, settings.bits, embeddings=False, **grid)
    return packed.with_weights(model, codes)


def stored_bytes(model: nn.Module, settings: Settings) -> int:
    """Bytes of a model of `lighten`: packed codes and scales, all else in 32 bits.

    Of a pruned matrix, only what stays, and one bit for each place, where that is smaller.
    """
    total = points.weight_bytes(model)
    for shape in (w.shape for w in packed.weight_matrices(model, embeddings=False).values()):
        n, width = prod(shape), settings.bits or 32
        n_scales = {"tensor": 1, "row": shape[0], "group": shape[0] * ceil(shape[1] / GROUP)}
        scales = 4 * n_scales[settings.scale] if settings.bits else 0
        dense, some = ceil(n * width / 8), ceil((n - round(settings.prune * n)) * width / 8)
        sparse = ceil(n / 8) + some if settings.prune else dense
        total += min(dense, sparse) + scales - 4 * n
    return total


def visible_pairs(n: int, settings: Settings) -> Tensor:
    """Which token (row) sees which (n,n): itself, `window` before it, and the first `sinks`."""
    causal = torch.ones(n, n, dtype=torch.bool).tril()
    if not settings.window:
        return causal
    return causal & (window_mask(n, settings.window, True) | (torch.arange(n) < settings.sinks))


# --- The reference ---------------------------------------------------------------------------


@torch.no_grad()
def token_bits(model: nn.Module, settings: Settings, ids) -> Tensor:
    """Bits of each of the ids after the first."""
    ids = torch.as_tensor(ids)
    logits, *_ = Graph(model)(ids[None, :-1], visible_pairs(len(ids) - 1, settings))
    return F.cross_entropy(logits[0], ids[1:], reduction="none") / log(2)


def score(settings: Settings, text: str) -> float:
    """Bits per byte of the text's first `MOST_TOKENS` tokens, after the mark that begins a file."""
    ids = data.tokens_of([text])[: MOST_TOKENS + 1]
    bits = token_bits(lighten(settings), settings, ids)
    return bits.sum().item() / evaluate.token_bytes()[ids[1:]].sum()


# --- The challenge ---------------------------------------------------------------------------


def challenge() -> dict:
    """{"name", "prompt", "target", "settings", "bytes", "tried"} as `find_record` wrote it."""
    return parse_json(RECORD_FILE.read_bytes())


@torch.no_grad()
def completes(model: nn.Module, settings: Settings, prompt: str, target: str) -> bool:
    """Whether greedy decoding after the prompt gives the target."""
    n = len(data.tokens_of([prompt]))
    ids = torch.as_tensor(data.tokens_of([prompt + target]))
    logits, *_ = Graph(model)(ids[None, :-1], visible_pairs(len(ids) - 1, settings))
    return bool((logits[0, n - 1 :].argmax(-1) == ids[n:]).all())
