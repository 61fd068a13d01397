"""One Transformer block written out in single operations, the same code for torch and for JAX.

Nothing is fused by hand: LayerNorm, softmax and GELU are written as their formulas, to see what a
compiler makes of them. `efflab.model.Layer` is the same arithmetic in torch's own kernels.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from efflab.arguments import check_module
from efflab.errors import require
from efflab.rules import Array, Count, Size


@dataclass(frozen=True)
class Namespace:
    """A library's functions: `xp` is torch or jax.numpy; `erf`, which jax.numpy lacks, is apart."""

    xp: Any
    erf: Callable
    scope: Callable = nullcontext


def layer_norm(ns: Namespace, x: Array, weight: Array, bias: Array, eps: float = 1e-5):
    """Mean 0 and variance 1 over the channels, then scale and shift (Ba et al. 2016)."""
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    return centred / ns.xp.sqrt(variance + eps) * weight + bias


def softmax(ns: Namespace, scores: Array):
    """Over the last axis; the greatest value is taken off first, lest exp overflow."""
    powers = ns.xp.exp(scores - ns.xp.amax(scores, -1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def gelu(ns: Namespace, x: Array):
    """x times the normal distribution function (Hendrycks and Gimpel 2016)."""
    return x * 0.5 * (1 + ns.erf(x * (1 / math.sqrt(2))))


def block(ns: Namespace, x: Array, w: Mapping, n_head: Size):
    """A causal pre-norm block: (B,T,C) -> (B,T,C), with the arrays of `weights`."""
    require(len(x.shape) == 3, "x.shape", tuple(x.shape), "three dimensions (B, T, C)")
    require("norm1.weight" in w, "w", w, "what `weights` returns")
    B, T, C = x.shape
    with ns.scope("norm 1"):
        y = layer_norm(ns, x, w["norm1.weight"], w["norm1.bias"])
    with ns.scope("qkv"):
        qkv = (y @ w["qkv.weight"].T + w["qkv.bias"]).reshape(B, T, 3, n_head, C // n_head)
        q, k, v = (qkv[:, :, i].swapaxes(1, 2) for i in range(3))  # (B,H,T,D)
    with ns.scope("scores"):
        scores = q @ k.swapaxes(-1, -2) * (C // n_head) ** -0.5
        scores = ns.xp.where(w["mask"], scores, -math.inf)
    with ns.scope("softmax"):
        shares = softmax(ns, scores)
    with ns.scope("sum of v"):
        y = (shares @ v).swapaxes(1, 2).reshape(B, T, C)
    with ns.scope("output"):
        x = x + (y @ w["out.weight"].T + w["out.bias"])
    with ns.scope("norm 2"):
        y = layer_norm(ns, x, w["norm2.weight"], w["norm2.bias"])
    with ns.scope("up"):
        y = y @ w["up.weight"].T + w["up.bias"]
    with ns.scope("gelu"):
        y = gelu(ns, y)
    with ns.scope("down"):
        return x + (y @ w["down.weight"].T + w["down.bias"])


def plain_layer(d_model: Size, seq_len: Size, n_head: Size = 4, seed: Count = 0):
    """A causal `efflab.model.Layer` with random weights, and an input (1,T,C) for it."""
    import torch

    from efflab.config import ModelConfig
    from efflab.model import Transformer

    config = ModelConfig(1, n_head, d_model, 4 * d_model, 2, seq_len, causal=True)
    torch.manual_seed(seed)
    layer = Transformer(config).layers[0].eval()
    for name, parameter in layer.named_parameters():
        if name.endswith("bias"):  # a zero bias would hide a forgotten one
            torch.nn.init.normal_(parameter, std=0.1)
    return layer, torch.randn(1, seq_len, d_model)


def weights(layer: Any, seq_len: Size) -> dict:
    """The arrays that `block` takes, from our `Layer`, and a causal mask (T,T)."""
    require(hasattr(layer, "attention"), "layer", layer, "a Layer")
    import torch

    attention, ffn = layer.attention, layer.ffn
    modules = {
        "norm1": attention.norm,
        "qkv": attention.body.qkv,
        "out": attention.body.out,
        "norm2": ffn.norm,
        "up": ffn.body.up,
        "down": ffn.body.down,
    }
    arrays = {
        f"{name}.{kind}": getattr(module, kind).detach()
        for name, module in modules.items()
        for kind in ("weight", "bias")
    }
    device = arrays["qkv.weight"].device
    mask = torch.ones(seq_len, seq_len, dtype=torch.bool, device=device).tril()
    return arrays | {"mask": mask}


def torch_namespace() -> Namespace:
    """The namespace of torch, whose compiler is Inductor."""
    import torch

    return Namespace(torch, torch.special.erf)


def jax_namespace() -> Namespace:
    """The namespace of jax.numpy, whose compiler is XLA; the scopes appear in XLA's output."""
    from efflab.acceleration.xla import load_jax

    jax = load_jax()
    return Namespace(jax.numpy, jax.scipy.special.erf, jax.named_scope)


check_module(__name__)
