"""Self-attention, lightweight and dynamic convolutions and adaptive spans, trained alike.

The same small causal model on the standard library, on the same windows with the same optimizer
and number of steps; only what mixes the tokens differs. Three seeds each. What is kept: held-out
loss, FLOPs of the mixing layers, parameters, and the learned spans.
"""

from itertools import product
from statistics import mean

import torch
from torch import Tensor, nn

from efflab import train
from efflab.bench import one_thread
from efflab.config import ModelConfig
from efflab.errors import require, require_int, require_one_of
from efflab.estimate import one_more
from efflab.experiments import training
from efflab.experiments.record import read_record, run_cases
from efflab.model import Transformer, n_parameters
from efflab.structure import adaptive_span, dynamic_conv
from efflab.structure.adaptive_span import learned_spans, span_layers

NAME = "dynamic-attention"
CONFIG = ModelConfig(4, 4, 64, 256, 2048, 128, causal=True)
BATCH_SIZE, N_STEPS, SEEDS = 4, 250, (0, 1, 2)
RAMP = 16  # tokens over which an adaptive span fades out
# The paper starts spans at 0 and trains for weeks. Here they start half open and may move up to
# 1.28 of 128 tokens a step, so that a short training can lengthen and shorten them.
INITIAL_SPAN, SPAN_LR = 0.5, 1e-2
N_EVAL = 64  # held-out windows, the same for all models

VARIANTS: dict[str, dict] = {
    "attention": dict(technique="attention"),
    "lightweight-15": dict(technique="lightweight", kernel_size=15),
    **{f"dynamic-{k}": dict(technique="dynamic", kernel_size=k) for k in (3, 7, 15, 31)},
    **{f"span-{w:g}": dict(technique="span", penalty=w) for w in (0.0, 1e-5, 1e-4)},
}
"""Name -> technique, and its kernel size in tokens or its penalty in nats a token of span."""


def make_model(variant: str, seed: int, config: ModelConfig = CONFIG) -> Transformer:
    """The untrained model of a variant; parts that the variants share start with equal weights."""
    require_one_of("variant", variant, VARIANTS)
    require_int("seed", seed, 0)
    torch.manual_seed(seed)
    model = Transformer(config)
    spec = VARIANTS[variant]
    shape = config.d_model, config.n_head
    make = {
        "lightweight": lambda: dynamic_conv.LightweightConv(*shape, spec["kernel_size"]),
        "dynamic": lambda: dynamic_conv.DynamicConv(*shape, spec["kernel_size"]),
        "span": lambda: adaptive_span.AdaptiveSpanAttention(
            *shape, config.max_len, ramp=RAMP, initial=INITIAL_SPAN
        ),
    }
    if spec["technique"] != "attention":
        dynamic_conv.replace_attention(model, lambda _: make[spec["technique"]]())
        for name, module in model.named_modules():
            # kernel predictors are initialized as published, all else like attention's projections
            if ".attention.body." in name and not name.endswith(".predict"):
                Transformer._init(module)
    return model


def optimizers(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon and AdamW with rates for a short training; the spans have their own group."""
    optimizers = train.muon(model, lr=1e-2, adam_lr=5e-3)
    shares = [layer.share for layer in span_layers(model)]
    for group in optimizers[-1].param_groups:
        group["params"] = [p for p in group["params"] if not any(p is s for s in shares)]
    if shares:
        optimizers[-1].add_param_group(dict(params=shares, lr=SPAN_LR))
    return optimizers


def loss_with_penalty(weight: float) -> training.Loss:
    """The language-model loss plus `weight` times the summed mean spans of the layers.

    Sukhbaatar et al. 2019, section 2: lambda / M times the sum of all spans, M heads a layer.
    """

    def loss(model: nn.Module, ids: Tensor, targets: Tensor) -> Tensor:
        value = train.language_model_loss(model, ids, targets)
        return value + weight * learned_spans(model).mean(1).sum() if weight else value

    return loss


def held_out_loss(model: nn.Module) -> float:
    """Nats per token on `N_EVAL` held-out windows, the same for all models."""
    return training.held_out_loss(model.eval(), N_EVAL, CONFIG.max_len)


def train_variant(variant: str, seed: int, n_steps: int = N_STEPS) -> tuple[Transformer, dict]:
    """Train one variant with one seed; returns the model and its recorded results."""
    model = make_model(variant, seed)
    loss = loss_with_penalty(VARIANTS[variant].get("penalty", 0.0))
    batch = training.training_windows(BATCH_SIZE, CONFIG.max_len, seed * 10**6)
    train.fit(model, batch, n_steps, optimizers=optimizers(model), loss_fn=loss)
    result = dict(variant=variant, seed=seed, n_steps=n_steps)
    result |= dict(loss=held_out_loss(model), n_params=n_parameters(model))
    if span_layers(model):
        result["spans"] = learned_spans(model).tolist()
        result["reach"] = [layer.reach for layer in span_layers(model)]
    return model, result | dict(mixing_flops=mixing_flops(variant, result.get("reach")))


def mixing_flops(variant: str, reach: list[int] | None = None) -> int:
    """FLOPs of all mixing layers on one window; spans count as trimmed to each layer's widest."""
    spec, T = VARIANTS[variant], CONFIG.max_len
    if "kernel_size" in spec:
        dynamic = spec["technique"] == "dynamic"
        shape = CONFIG.d_model, CONFIG.n_head, spec["kernel_size"]
        return CONFIG.n_layer * dynamic_conv.conv_flops(*shape, T, dynamic=dynamic)
    reaches = reach or [T] * CONFIG.n_layer
    return sum(adaptive_span.span_flops(CONFIG.d_model, r, T) for r in reaches)


def settings() -> dict:
    """The settings of all runs; runs under other settings are not mixed in."""
    shape = dict(n_layer=CONFIG.n_layer, n_head=CONFIG.n_head, d_model=CONFIG.d_model)
    shape |= dict(seq_len=CONFIG.max_len, batch_size=BATCH_SIZE, n_steps=N_STEPS)
    spans = dict(ramp=RAMP, initial_span=INITIAL_SPAN, span_lr=SPAN_LR)
    return shape | spans | dict(held_out_tokens=N_EVAL * CONFIG.max_len, variants=VARIANTS)


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Train every variant with every seed; recorded as data/experiments/dynamic-attention.json."""
    cases = [dict(variant=variant, seed=seed) for seed, variant in product(SEEDS, VARIANTS)]

    def run_one(variant: str, seed: int) -> dict:
        return train_variant(variant, seed)[1]

    return run_cases(NAME, cases, run_one, settings=settings(), fresh=fresh)


def by_variant() -> dict[str, dict]:
    """The recorded runs by variant: mean loss, `losses` by seed, FLOPs, parameters, spans by seed.

    `interval`: where one more seed's loss falls with 95 % confidence.
    """
    runs = read_record(NAME)["runs"]
    summary = {}
    for variant in VARIANTS:
        mine = [r for r in runs if r["variant"] == variant]
        losses = {r["seed"]: r["loss"] for r in mine}
        again = "at least two; `efflab experiment dynamic-attention` goes on with the record"
        require(len(mine) >= 2, f"recorded seeds of {variant}", len(mine), again)
        next_one = one_more(list(losses.values()))
        summary[variant] = VARIANTS[variant] | dict(
            loss=next_one.mean,
            losses=losses,
            interval=(next_one.low, next_one.high),
            mixing_flops=mean(r["mixing_flops"] for r in mine),
            n_params=mine[0]["n_params"],
            spans=[r["spans"] for r in mine if "spans" in r],
            reach=[r["reach"] for r in mine if "reach" in r],
        )
    return summary
