"""Notebook 05's numbers: what each technique costs, what follows the input, and learned spans."""

import math
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor, nn

from efflab import bench, data, train
from efflab.base.significant import RAISED
from efflab.errors import require, require_one_of
from efflab.experiments import dynamic_attention as experiment
from efflab.experiments import dynamic_attention_2 as used_range
from efflab.experiments.record import expected_repeat, read_record, same_python
from efflab.lab import tr
from efflab.model import Attention, Transformer
from efflab.structure import adaptive_span, dynamic_conv

# --- The record ------------------------------------------------------------------------------

NAMES = {
    "attention": "attention",
    "lightweight": "LightweightConv",
    "dynamic": "DynamicConv",
    "span": "adaptive span",
}
KERNELS = [s["kernel_size"] for s in experiment.VARIANTS.values() if s["technique"] == "dynamic"]
PENALTIES = [s["penalty"] for s in experiment.VARIANTS.values() if s["technique"] == "span"]


@lru_cache(maxsize=1)
def record() -> dict[str, dict]:
    """The recorded experiment, by variant."""
    return experiment.by_variant()


def full_name(spec: dict) -> str:
    """A variant as tables and figures call it."""
    name = tr(NAMES[spec["technique"]])
    if "kernel_size" in spec:
        return tr("{name}, {k} tokens", name=name, k=spec["kernel_size"])
    if "penalty" in spec:
        return tr("{name}, penalty {w}", name=name, w=penalty_name(spec["penalty"]))
    return name


def penalty_name(penalty: float) -> str:
    """0 or a power of ten, 10⁻⁴ as well as 10⁻⁵."""
    return "10" + str(round(math.log10(penalty))).translate(RAISED) if penalty else "0"


def span_record(penalty: float) -> dict:
    """The recorded variant of adaptive spans with this penalty."""
    require_one_of("penalty", penalty, PENALTIES)
    return record()[f"span-{penalty:g}"]


# --- Arithmetic and time of one layer at stdlib-gpt's width ----------------------------------

D_MODEL, N_HEAD = 192, 6
RAMP = 32  # the paper's


def mixers(kernel_size: int, reach: int, max_span: int) -> dict[str, nn.Module]:
    """One layer of each technique, with spans so that `reach` keys count."""
    require(reach >= RAMP, "reach", reach, f"at least the ramp of {RAMP} tokens")
    shape, initial = (D_MODEL, N_HEAD), (reach - RAMP) / max_span
    layers = {
        "attention": Attention(*shape, causal=True),
        "LightweightConv": dynamic_conv.LightweightConv(*shape, kernel_size),
        "DynamicConv": dynamic_conv.DynamicConv(*shape, kernel_size),
        "adaptive span": adaptive_span.AdaptiveSpanAttention(*shape, max_span, initial=initial),
    }
    return {name: layer.eval() for name, layer in layers.items()}


def flops_of(technique: str, kernel_size: int, reach: int, seq_len: int) -> int:
    """The method's own FLOPs of one layer on `seq_len` tokens."""
    if "Conv" in technique:
        dynamic = technique == "DynamicConv"
        return dynamic_conv.conv_flops(D_MODEL, N_HEAD, kernel_size, seq_len, dynamic=dynamic)
    keys = seq_len if technique == "attention" else reach
    return adaptive_span.span_flops(D_MODEL, keys, seq_len)


@torch.no_grad()
def time_rows(kernel_size: int = 15, reach: int = 64, seq_len: int = 1024) -> list[dict]:
    """Forward time of one layer against self-attention's, side by side, at three lengths."""
    rows = []
    for T in (seq_len // 4, seq_len, 2 * seq_len):
        x = torch.randn(1, T, D_MODEL)
        calls = {name: partial(m, x) for name, m in mixers(kernel_size, reach, T).items()}
        comparison = bench.compare(calls.pop("attention"), calls, repeats=7)
        base = flops_of("attention", kernel_size, reach, T)
        for name, ratio in comparison.ratios.items():
            share = flops_of(name, kernel_size, reach, T) / base
            row = {
                "sequence length (tokens)": T,
                "technique": name,
                "FLOPs / attention's (formula)": share,
                "time / attention's (measured)": ratio.mean,
                "interval, low": ratio.low,
                "interval, high": ratio.high,
                "A/A band (±%)": 100 * comparison.band,
                "measured / formula": ratio.mean / share,
            }
            rows.append(row)
    return rows


# --- What follows the input ------------------------------------------------------------------

SNIPPETS = (
    "def mean(values):\n    total = sum(values)\n    count = len(values)\n    return total / count",
    "class Stack:\n    def __init__(self):\n        self.items = []\n    def push(self, item):\n",
)
POSITION = 20  # of the token whose kernels are compared


def kernels_at(model: Transformer, layer: int, text: str, position: int) -> Tensor:
    """The kernels (H,k) of a DynamicConv layer at one position of a text, newest token last."""
    ids = torch.tensor([data.tokenizer().encode(text).ids])
    require(position < ids.shape[1], "position", position, f"below {ids.shape[1]} tokens")
    return used_range.kernels_of(model, layer, ids)[0, position]


def most_different(model: Transformer, position: int = POSITION, texts=SNIPPETS):
    """The layer whose kernels at one position differ most between two texts.

    (layer, its two kernels (H,k), share of the weight that moved: half the summed difference).
    """
    pairs = [[kernels_at(model, i, t, position) for t in texts] for i in range(len(model.layers))]
    shares = [float((a - b).abs().sum(-1).mean() / 2) for a, b in pairs]
    layer = shares.index(max(shares))
    return layer, pairs[layer], shares[layer]


def farthest(fn: nn.Module, x: Tensor) -> int:
    """How many tokens back the farthest lies that the last position of fn(x) depends on.

    By the gradient, not by the formula: (1,T,C) -> distance in tokens.
    """
    x = x.detach().requires_grad_()
    (grad,) = torch.autograd.grad(fn(x)[0, -1].square().sum(), x)
    positions = grad[0].abs().sum(-1).nonzero()
    return x.shape[1] - 1 - int(positions.min())


def reaches(kernel_size: int, spans: list[float], seed: int = 0) -> dict[str, tuple[int, int]]:
    """Farthest token of one layer of each kind for two random inputs, by gradient."""
    torch.manual_seed(seed)
    T = experiment.CONFIG.max_len
    shape = experiment.CONFIG.d_model, len(spans)
    inputs = torch.randn(2, 1, T, shape[0])
    spanned = partial(adaptive_span.AdaptiveSpanAttention, *shape, T, ramp=experiment.RAMP)
    static = spanned()
    static.share.data = torch.tensor(spans) / T
    by_token = spanned(initial=0.3, dynamic=True)
    layers = {
        "attention": Attention(*shape, causal=True),
        "LightweightConv": dynamic_conv.LightweightConv(*shape, kernel_size),
        "DynamicConv": dynamic_conv.DynamicConv(*shape, kernel_size),
        "adaptive span": static,
        "adaptive span per token (untrained)": by_token,
    }
    return {
        name: (farthest(layer.eval(), inputs[0]), farthest(layer, inputs[1]))
        for name, layer in layers.items()
    }


# --- How much of its range a layer uses ------------------------------------------------------
# Softmax weights are never zero, so that by its gradient every kernel reaches as far as it is
# wide, whatever it is given. What can move is the distance within which most of the weight lies.

N_TEXTS = 32


def held_out_texts(seq_len: int, n_texts: int = N_TEXTS, seed: int = 0) -> Tensor:
    """Windows (n,T) of held-out source."""
    return data.random_windows(data.stdlib_tokens("held-out"), n_texts, seq_len, seed)[0]


def ranges_of(model: Transformer, n_texts: int = N_TEXTS) -> Tensor:
    """`used_range.distances` of a model on held-out texts of its own length."""
    return used_range.distances(model, held_out_texts(model.config.max_len, n_texts))


def repeat_used_range(
    model: Transformer, kernel_size: int, seed: int
) -> tuple[float, float, float | None]:
    """Tokens between two texts of a model trained here, the recorded ones, their allowed distance.

    The distance follows `record.expected_repeat`; None for another kernel or Python's library.
    """
    stored, variant = read_record(used_range.NAME), used_range.MIXERS["dynamic"][0]
    tokens = {r["seed"]: r["tokens"] for r in stored["runs"] if r["mixer"] == "dynamic"}
    recorded, spread = expected_repeat(tokens, seed)
    alike = kernel_size == experiment.VARIANTS[variant]["kernel_size"] and same_python(stored)
    return used_range.tokens_apart(model, seed), recorded, spread if alike else None


def uniform_ranges(seq_len: int, n_texts: int = N_TEXTS) -> Tensor:
    """The same of attention that weighs all visible tokens alike and does not look at them."""
    alike = torch.ones(seq_len, seq_len).tril() / torch.arange(1, seq_len + 1)[:, None]
    distances = used_range.used_distances(used_range.newest_last(alike))
    return distances[None, :, None].expand(n_texts, -1, 1)


def without_trend(distances: Tensor) -> Tensor:
    """Distances (texts, positions, heads) less each head's straight line over the position."""
    position = torch.arange(distances.shape[1]) - (distances.shape[1] - 1) / 2
    slope = (distances.double().mean(0) * position[:, None]).sum(0) / position.square().sum()
    return distances - position[:, None] * slope


def spread(distances: Tensor) -> float:
    """Tokens from the 5th to the 95th percentile over texts and positions, mean over heads."""
    low, high = np.percentile(distances.flatten(0, 1).numpy(), [5, 95], axis=0)
    return float((high - low).mean())


# --- Spans of a trained model ----------------------------------------------------------------

SPAN_PENALTY, SPAN_STEPS, SPAN_LR = 1e-4, 20, 0.08


def learn_spans(
    model: Transformer, penalty: float = SPAN_PENALTY, n_steps: int = SPAN_STEPS, seed: int = 0
) -> Transformer:
    """Give a trained model adaptive spans, wide open, and learn these spans alone, in place."""
    spanned = partial(adaptive_span.from_attention, max_span=model.config.max_len, initial=1.0)
    dynamic_conv.replace_attention(model, spanned)
    model.requires_grad_(False)
    shares = [layer.share.requires_grad_() for layer in adaptive_span.span_layers(model)]
    tokens = data.stdlib_tokens("train")
    train.fit(
        model,
        lambda step: data.random_windows(tokens, 1, model.config.max_len, seed * 10**6 + step),
        n_steps,
        optimizers=[torch.optim.Adam(shares, lr=SPAN_LR)],
        loss_fn=experiment.loss_with_penalty(penalty),
    )
    return model


def span_floor(max_len: int, n_steps: int = SPAN_STEPS) -> float:
    """The shortest span, in tokens, that `learn_spans` can reach from wide open.

    A step of Adam's whose gradient keeps its sign moves a share by the step's rate.
    """
    rates = (SPAN_LR * train.learning_rate_factor(step, n_steps) for step in range(n_steps))
    return max_len * max(0.0, 1 - sum(rates))
