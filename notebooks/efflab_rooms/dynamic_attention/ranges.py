"""Notebook 05's measurements: kernels and reach by input, one training, a trained model's spans."""

import torch
from torch import Tensor, nn

from efflab import data, train
from efflab.errors import require, require_one_of
from efflab.estimate import Estimate
from efflab.experiments import dynamic_attention as experiment
from efflab.experiments.record import agrees, expected, recorded, same_python
from efflab.lab import figures, number, tr
from efflab.model import Attention, Transformer
from efflab.structure.adaptive_span import (
    AdaptiveSpanAttention,
    from_attention,
    learned_spans,
    span_layers,
)
from efflab.structure.dynamic_conv import (
    DynamicConv,
    LightweightConv,
    replace_attention,
)

SNIPPETS = (
    "def mean(values):\n    total = sum(values)\n    count = len(values)\n    return total / count",
    "class Stack:\n    def __init__(self):\n        self.items = []\n    def push(self, item):\n",
)
POSITION = 20  # of the token whose kernels are compared
SPAN_PENALTY, SPAN_STEPS, SPAN_LR = 1e-4, 20, 0.08


# --- What follows the input ------------------------------------------------------------------


@torch.no_grad()
def input_of(model: Transformer, layer: int, ids: Tensor) -> Tensor:
    """What layer `layer`'s mixing body is given for ids (B,T): (B,T,C)."""
    x = model.embedding(ids)
    for earlier in model.layers[:layer]:
        x = earlier(x)
    return model.layers[layer].attention.norm(x)


@torch.no_grad()
def kernels_at(model: Transformer, layer: int, text: str, position: int) -> Tensor:
    """The kernels (H,k) of a DynamicConv layer at one position of a text, newest token last."""
    ids = torch.tensor([data.tokenizer().encode(text).ids])
    require(position < ids.shape[1], "position", position, f"below {ids.shape[1]} tokens")
    body = model.layers[layer].attention.body
    return body.kernels(body.gated(input_of(model, layer, ids)))[0, position]


def token_at(text: str, position: int) -> str:
    """The token at a position, as text with visible spaces."""
    ids = data.tokenizer().encode(text).ids
    return data.tokenizer().decode([ids[position]]).replace(" ", "·").replace("\n", "↵")


def most_different(model: Transformer, position: int = POSITION, texts=SNIPPETS):
    """(layer, the two inputs' kernels (H,k) there, share of the weight that moved): the layer
    whose kernels at the same position differ most. The share is half the summed difference.
    """
    pairs = [[kernels_at(model, i, t, position) for t in texts] for i in range(len(model.layers))]
    moved = [float((a - b).abs().sum(-1).mean() / 2) for a, b in pairs]
    layer = moved.index(max(moved))
    return layer, pairs[layer], moved[layer]


def kernel_figure(model: Transformer, position: int = POSITION, texts=SNIPPETS):
    """The same position's kernels for two inputs, one panel a head, in the layer that differs most.

    Key numbers: the share of the weight that moved, and the mean distance looked back.
    """
    layer, pair, moved = most_different(model, position, texts)
    H, k = pair[0].shape
    back = torch.arange(k - 1, -1, -1)
    means = [float((kernel * back).sum(-1).mean()) for kernel in pair]
    names = [tr("input {name}, token {token}", name="AB"[i], token=repr(token_at(text, position)))
             for i, text in enumerate(texts)]  # fmt: skip
    titles = [tr("head {h}", h=h + 1) for h in range(H)]
    meta = {tr("layer"): layer + 1, tr("kernel width (tokens)"): k,
            tr("share of the weight that moved"): moved,
            tr("mean distance, input A"): means[0],
            tr("mean distance, input B"): means[1]}  # fmt: skip
    title = tr("Position {p}, layer {l}: other weights, the same {k} tokens", p=position,
               l=layer + 1, k=k)  # fmt: skip
    fig = figures.panels(titles, title, rows=2, meta=meta, shared_xaxes=True, shared_yaxes=True,
                         vertical_spacing=0.12)  # fmt: skip
    for h in range(H):
        for i, kernel in enumerate(pair):
            fig.add_bar(x=back.tolist(), y=kernel[h].tolist(), name=names[i], legendgroup=str(i),
                        marker_color=figures.COLOURS[i], showlegend=h == 0,
                        row=h // 2 + 1, col=h % 2 + 1)  # fmt: skip
    fig.update_layout(height=520, barmode="group", legend=dict(orientation="h", y=-0.14))
    fig.update_xaxes(autorange="reversed")
    fig.update_xaxes(title_text=tr("tokens back"), row=2)
    fig.update_yaxes(title_text=tr("weight"), col=1)
    return fig


def farthest(fn: nn.Module, x: Tensor) -> int:
    """How many tokens back the farthest lies that the last position of fn(x) depends on.

    By the gradient, not by the formula: (1,T,C) -> distance in tokens.
    """
    x = x.detach().requires_grad_()
    (grad,) = torch.autograd.grad(fn(x)[0, -1].square().sum(), x)
    used = grad[0].abs().sum(-1).nonzero()
    return x.shape[1] - 1 - int(used.min())


def reach_rows(kernel_size: int, spans: list[float], seed: int = 0) -> list[dict]:
    """Farthest token of one layer of each kind for two random inputs, by gradient."""
    torch.manual_seed(seed)
    T = experiment.CONFIG.max_len
    shape = experiment.CONFIG.d_model, len(spans)
    inputs = torch.randn(2, 1, T, shape[0])
    static = AdaptiveSpanAttention(*shape, T, ramp=experiment.RAMP).eval()
    static.share.data = torch.tensor(spans) / T
    dynamic = AdaptiveSpanAttention(*shape, T, ramp=experiment.RAMP, initial=0.3, dynamic=True)
    layers = {
        "attention": (Attention(*shape, causal=True), True),
        "LightweightConv": (LightweightConv(*shape, kernel_size), False),
        "DynamicConv": (DynamicConv(*shape, kernel_size), True),
        "adaptive span": (static, True),
        "adaptive span, by token (untrained)": (dynamic.eval(), True),
    }
    rows = []
    for name, (layer, follows) in layers.items():
        a, b = (farthest(layer, x) for x in inputs)
        weights = "follow the input" if follows else "fixed"
        extent = "follows the input" if a != b else "fixed"
        rows.append(dict(technique=name, weights=weights, a=a, b=b, range=extent, kind="measured"))
    return rows


REACH_COLUMNS = {
    "technique": "technique",
    "weights": "weights",
    "a": "farthest token back, input A",
    "b": "farthest token back, input B",
    "range": "range",
    "kind": "kind",
}


def stack_rows(kernel_sizes=(3, 7, 15, 31), n_layer: int = 4) -> list[dict]:
    """How far back a stack of DynamicConv layers depends on its input: formula and gradient."""
    rows = []
    for k in kernel_sizes:
        torch.manual_seed(0)
        stack = nn.Sequential(*(DynamicConv(16, 4, k) for _ in range(n_layer))).double()
        found = farthest(stack, torch.randn(1, 160, 16, dtype=torch.double))
        formula = n_layer * (k - 1)
        rows.append(dict(k=k, formula=formula, found=found, ratio=found / formula, kind="measured"))
    return rows


STACK_COLUMNS = {
    "k": "kernel width (tokens)",
    "formula": "layers x (width - 1)",
    "found": "farthest token back, by gradient",
    "ratio": "ratio",
    "kind": "kind",
}


# --- Training --------------------------------------------------------------------------------


def remeasure(kernel_size: int = 15, seed: int = 0) -> tuple[Transformer, list[dict]]:
    """Train the record's DynamicConv of that kernel anew: the model, and live beside recorded.

    The interval in which it has to land is `record.expected`'s. Another Python has another library,
    so that `within` is None there.
    """
    name = f"dynamic-{kernel_size}"
    require_one_of("variant", name, experiment.VARIANTS)
    losses = experiment.by_variant()[name]["losses"]
    model, result = experiment.train_variant(name, seed)
    was, spread = expected(losses, seed)
    within = agrees(result["loss"], was, spread if same_python(recorded(experiment.NAME)) else None)
    what = "recorded, this seed" if seed in losses else "recorded mean"
    rows = [
        dict(what=what, loss=was, low=was - spread, high=was + spread, kind="recorded"),
        dict(what="trained here", loss=result["loss"], within=within, kind="measured"),
    ]
    return model, rows


LIVE_COLUMNS = {
    "what": "DynamicConv",
    "loss": "held-out loss (nats a token)",
    "low": "interval, low",
    "high": "interval, high",
    "within": "agrees",
    "kind": "kind",
}


def learn_spans(
    model: Transformer, penalty: float = SPAN_PENALTY, n_steps: int = SPAN_STEPS, seed: int = 0
) -> Transformer:
    """Give a trained model adaptive spans, wide open, and learn these spans alone, in place."""
    replace_attention(model, lambda a: from_attention(a, model.config.max_len, initial=1.0))
    model.requires_grad_(False)
    shares = [layer.share.requires_grad_() for layer in span_layers(model)]
    tokens = data.stdlib_tokens("train")
    train.fit(
        model,
        lambda step: data.random_windows(tokens, 1, model.config.max_len, seed * 10**6 + step),
        n_steps,
        optimizers=[torch.optim.Adam(shares, lr=SPAN_LR)],
        loss_fn=experiment.loss_with_penalty(penalty),
    )
    return model


def lightweight(kernel_size: int) -> Transformer:
    """The record's model with a convolution whose weights are fixed, untrained."""
    torch.manual_seed(0)
    config = experiment.CONFIG
    shape = config.d_model, config.n_head, kernel_size
    return replace_attention(Transformer(config), lambda _: LightweightConv(*shape)).eval()


def shortened_rows(model: Transformer, quality: Estimate) -> list[dict]:
    """What a trained model's learned spans come to: tokens, heads at the floor, quality."""
    spans, floor = learned_spans(model).detach(), span_floor(model.config.max_len)
    at_floor = int((spans < floor + 1).sum())
    rows = [
        dict(quantity="mean span (tokens)", value=float(spans.mean())),
        dict(quantity="shortest span that these steps can reach (tokens)", value=floor),
        dict(quantity="heads there, of all", value=f"{at_floor} / {spans.numel()}"),
        dict(quantity="bits per byte", value=quality.mean, low=quality.low, high=quality.high),
    ]
    return [row | dict(kind="measured") for row in rows]


SHORTENED_COLUMNS = {
    "quantity": "quantity",
    "value": "value",
    "low": "interval, low",
    "high": "interval, high",
    "kind": "kind",
}


def span_floor(max_len: int, n_steps: int = SPAN_STEPS) -> float:
    """The shortest span, in tokens, that `learn_spans` can reach from wide open.

    A step of Adam's whose gradient keeps its sign moves a share by the step's rate.
    """
    rates = (SPAN_LR * train.learning_rate_factor(step, n_steps) for step in range(n_steps))
    return max_len * max(0.0, 1 - sum(rates))


def span_figure(model: Transformer):
    """Spans by layer and head of a model that has run, in tokens."""
    spans = learned_spans(model).detach()
    meta = {tr("mean span (tokens)"): float(spans.mean()), tr("shortest"): float(spans.min()),
            tr("longest"): float(spans.max())}  # fmt: skip
    title = tr("stdlib-gpt's spans, learned here: {mean} tokens on average",
               mean=number(float(spans.mean())))  # fmt: skip
    H, L = spans.shape[1], spans.shape[0]
    fig = figures.heatmap(spans.numpy(), title, tr("head"), tr("layer"), bar_title=tr("tokens"),
                          x=[str(h + 1) for h in range(H)], y=[str(i + 1) for i in range(L)],
                          meta=meta)  # fmt: skip
    fig.update_traces(texttemplate="%{z:.0f}")
    return fig
