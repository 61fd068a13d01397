"""The memory of a mixed-precision training recipe, and how fast a device could run it. No torch.

A *recipe* gives the bytes in which each part of training is stored. Adam has two numbers per
parameter (Kingma & Ba 2015); a master copy in fp32 keeps the updates that 16 bits would round away
(Micikevicius et al. 2018, section 3.1).
"""

from dataclasses import dataclass
from typing import Any

from efflab import cost, layers
from efflab.arguments import check_module
from efflab.config import ModelConfig
from efflab.devices import Device
from efflab.errors import require_one_of
from efflab.rules import Size


@dataclass(frozen=True)
class Recipe:
    """Bytes per parameter of weights, gradients and so on; bytes per stored activation.

    `values`: inputs and outputs of matrix products; `residual`: the residual stream, which the
    layers add to and LayerNorm reads. `types`: of the products, in order of preference.
    """

    weights: int
    gradients: int
    master: int
    optimizer: int
    copies: int
    values: int
    residual: int
    types: tuple[str, ...]

    def compute(self, device: Device) -> str:
        """The type in which `device` multiplies; a `ValueError` if it has none of `types`."""
        usable = [t for t in self.types if t in device.peak_flops]
        require_one_of(f"precision on {device.name}", (usable or self.types)[0], device.peak_flops)
        return usable[0]


RECIPES: dict[str, Recipe] = {
    "fp32": Recipe(4, 4, 0, 8, 0, 4, 4, ("fp32",)),
    "tf32": Recipe(4, 4, 0, 8, 0, 4, 4, ("tf32",)),
    "autocast": Recipe(4, 4, 0, 8, 2, 2, 4, ("bf16", "fp16")),
    "master weights": Recipe(2, 2, 4, 8, 0, 2, 2, ("bf16", "fp16")),
    "16 bits only": Recipe(2, 2, 0, 4, 0, 2, 2, ("bf16", "fp16")),
}
"""fp32; the same on tensor cores; `torch.amp`; a 16-bit model with fp32 copies; bf16 throughout."""


def matrices(config: ModelConfig) -> int:
    """Parameters used in matrix products, the logits' table and a factorized one's map included.

    A model with shared weights, experts or latent attention is a `ValueError`.
    """
    require_one_of("share", config.share, ("none",))
    for name, value in (("experts", config.experts), ("latent", config.attention.latent)):
        require_one_of(name, value, (None,))
    attention = config.n_layer * layers.attention_weights(config)
    C, E = config.d_model, config.embed_dim
    n_maps = 0 if E == C else {"in": 1, "both": 2}[config.embed_maps]
    return attention + layers.ffn_weights(config) + config.vocab_size * E + n_maps * E * C


def state_parts(config: ModelConfig, recipe: Recipe) -> dict[str, int]:
    """Bytes of the model's state: weights, gradients, master weights, optimizer, 16-bit copies.

    Without the copies this is `cost.model_state_bytes` of ZeRO's stage 0.
    """
    n = cost.num_params(config)
    return {
        "weights": recipe.weights * n,
        "gradients": recipe.gradients * n,
        "master weights": recipe.master * n,
        "optimizer": recipe.optimizer * n,
        "16-bit copies": recipe.copies * matrices(config),
    }


def activation_bytes(config: ModelConfig, seq_len: Size, batch_size: Size, recipe: Recipe) -> float:
    """Bytes stored for the backward pass, with a loss on every token, fused attention, no dropout.

    `cost.activation_bytes` of the layers, with the two LayerNorms' inputs in the residual stream's
    type; inputs of the final norm and the logits; log-probabilities in fp32; norms' statistics.
    """
    tokens, C, r, v = seq_len * batch_size, config.d_model, recipe.residual, recipe.values
    plain: dict[str, Any] = dict(value_bytes=v, dropout=False, fused_attention=True)
    stored = cost.activation_bytes(config, seq_len, batch_size, **plain)
    stored += config.n_layer * tokens * 2 * C * (r - v)
    statistics = (2 * config.n_layer + 1) * 2 * 4
    return stored + tokens * (C * (r + v) + 4 * config.vocab_size + statistics)


def memory_parts(
    config: ModelConfig, seq_len: Size, batch_size: Size, recipe: Recipe
) -> dict[str, float]:
    """Bytes of training by part: `state_parts` and the activations."""
    activations = activation_bytes(config, seq_len, batch_size, recipe)
    return state_parts(config, recipe) | {"activations": activations}


def largest_batch(config: ModelConfig, seq_len: Size, device: Device, recipe: Recipe) -> int:
    """How many sequences fit into the device's memory in addition to the model's state."""
    if device.memory_bytes is None:
        raise ValueError(f"device={device.name!r}: expected one whose memory is known")
    room = device.memory_bytes - sum(state_parts(config, recipe).values())
    return max(0, int(room // activation_bytes(config, seq_len, 1, recipe)))


def step_seconds(
    config: ModelConfig, seq_len: Size, batch_size: Size, device: Device, recipe: Recipe
) -> dict[str, float]:
    """Lower bound on the seconds of one training step, by part: each part's roofline.

    The backward pass does twice the forward's arithmetic and moves twice its bytes. Products and
    fused attention read and write their operands once; norms, activations (fused with a gate's
    product) and additions only move bytes, and so does Adam, which reads all the state and writes
    all but the gradients.
    """
    dtype, r, v = recipe.compute(device), recipe.residual, recipe.values
    C, F, L, V = config.d_model, config.d_ff, config.n_layer, config.vocab_size
    tokens = seq_len * batch_size
    flops = cost.flops_by_part(config, seq_len, batch_size)
    scores, linear = flops.pop("scores"), sum(flops.values())
    # channels of queries and keys, as many as of outputs and values
    heads = (config.n_head + config.n_kv_head) * config.head_dim
    n_maps = 2 + config.feed_forward.gated
    inner = 2 * (C + heads) + n_maps * (C + F)
    products = v * (matrices(config) + tokens * (L * inner + C + V))
    attention = v * L * tokens * 2 * heads
    layer = 2 * C * (r + v) + n_maps * F * v + 2 * C * (2 * r + v)  # norms, activations, additions
    elementwise = tokens * (L * layer + 4 * V)
    state = state_parts(config, recipe)
    adam = 2 * sum(state.values()) - state["gradients"] - state["16-bit copies"]
    return {
        "matrix products": cost.roofline_seconds(3 * linear, 3 * products, device, dtype),
        "attention": cost.roofline_seconds(3 * scores, 3 * attention, device, dtype),
        "element-wise": 3 * elementwise / device.memory_bandwidth,
        "optimizer": adam / device.memory_bandwidth,
    }


def product_speedup(n: Size, device: Device, recipe: Recipe, base: Recipe) -> float:
    """Largest speedup of an (n,n) x (n,n) product over recipe `base`, by its roofline."""
    flops, values = 2 * n**3, 3 * n * n

    def seconds(r: Recipe) -> float:
        return cost.roofline_seconds(flops, r.values * values, device, r.compute(device))

    return seconds(base) / seconds(recipe)


check_module(__name__)
