"""What a Transformer costs, in closed form: parameters, FLOPs, bytes, days. No torch here.

A FLOP count has 2 per multiply-accumulate. GB is 1e9 bytes. Sizes are those of `ModelConfig`.
"""

from math import ceil
from typing import Annotated

from efflab import layers
from efflab.arguments import check_module, unchecked
from efflab.config import ModelConfig
from efflab.devices import Device
from efflab.errors import require, require_number
from efflab.rules import Count, NonNegative, Positive, Size

SECONDS_PER_DAY = 86400


FORMATS = {"fp32": 32, "bf16": 16, "fp8": 8, "int8": 8, "int4": 4 + 16 / 128}
"""Bits of a weight; int4's groups of 128 have a scale of 16 bits each."""
Format = Annotated[str, tuple(FORMATS)]


# --- Parameters ----------------------------------------------------------------------------------


def num_params(config: ModelConfig) -> int:
    """Distinct parameters; tied and shared tensors count once (Lan et al. 2020, section 3.1).

    >>> from efflab.config import PRESETS
    >>> num_params(PRESETS["gpt2"]), num_params(PRESETS["albert-base"])
    (124439808, 11683584)
    """
    return _params(config, config.experts.n_expert if config.experts else 0)


def active_params(config: ModelConfig) -> int:
    """Parameters that one token uses; of the input embedding the whole table is counted.

    >>> from efflab.config import PRESETS
    >>> round(active_params(PRESETS["deepseek-v3"]) / 1e9, 1)
    37.6
    """
    return _params(config, config.experts.n_active if config.experts else 0)


def _params(config: ModelConfig, n_expert: int) -> int:
    n_attention = 1 if config.share in ("attention", "all") else config.n_layer
    n_dense = config.n_layer - config.n_expert_layers
    n_ffn = min(1, n_dense) if config.share in ("ffn", "all") else n_dense
    params = unchecked(layers.embedding_params)(config) + unchecked(layers.head_params)(config)
    params += n_attention * unchecked(layers.attention_params)(config)
    params += n_ffn * unchecked(layers.ffn_params)(config)
    return params + config.n_expert_layers * layers.expert_layer_params(config, n_expert)


def weight_bytes(config: ModelConfig, format: Format) -> int:
    """Bytes of all parameters in `format`, one of `FORMATS`; an int8's or fp8's scales left out."""
    return ceil(num_params(config) * FORMATS[format] / 8)


# --- FLOPs ---------------------------------------------------------------------------------------


def flops_by_part(config: ModelConfig, seq_len: Size, batch_size: Size = 1) -> dict[str, int]:
    """FLOPs of one forward pass by part; the parts add up to `forward_flops`.

    `projections` are queries, keys, values and output; `scores` is Q K^T and the weighted sum of
    V, the only part that grows with seq_len squared; `ffn` includes experts and their router,
    `embedding` is the factorized projection. (Kaplan et al. 2020, Table 1, with the terms that it
    leaves out.)
    """
    C, E, L = config.d_model, config.embed_dim, config.n_layer
    tokens = batch_size * seq_len
    projected = 0 if E == C else 2 * tokens * E * C
    return {
        "projections": 2 * tokens * L * unchecked(layers.attention_weights)(config),
        "scores": 2 * tokens * L * seq_len * layers.score_weights(config),
        "ffn": 2 * tokens * layers.ffn_weights(config),
        "embedding": projected,
        "logits": projected + 2 * tokens * E * config.vocab_size,
    }


def forward_flops(config: ModelConfig, seq_len: Size, batch_size: Size = 1) -> int:
    """FLOPs of logits for (batch_size, seq_len) tokens: matrix products only, full scores.

    A causal model's masked half of the scores is counted, as dense kernels compute it. Sharing
    weights changes nothing here: every layer still runs.
    """
    return sum(unchecked(flops_by_part)(config, seq_len, batch_size).values())


# --- The cache -----------------------------------------------------------------------------------


def kv_cache_bytes(
    config: ModelConfig, n_tokens: Count, batch_size: Size = 1, *, value_bytes: Positive = 2
) -> int:
    """Bytes of what attention keeps of `n_tokens`, whatever `max_len` is; scales are left out.

    A layer with a window holds at most its window, a latent one its rank and rotary channels, any
    other keys and values of its heads.
    """
    require(config.causal, "causal", config.causal, "a causal model: an encoder keeps no cache")
    latent, width = config.attention.latent, 2 * config.n_kv_head * config.head_dim
    if latent is not None:
        width = latent.kv_rank + latent.rope_dim
    n_kept = sum(min(n_tokens, window or n_tokens) for window in config.windows)
    return ceil(batch_size * n_kept * width * value_bytes)


def attention_share(config: ModelConfig, seq_len: Size) -> float:
    """Share (0..1) of the layers' FLOPs that is quadratic in seq_len: the scores."""
    parts = flops_by_part(config, seq_len)
    return parts["scores"] / (parts["projections"] + parts["scores"] + parts["ffn"])


def crossing_length(
    config: ModelConfig, against: Annotated[str, ("ffn", "linear")] = "ffn"
) -> float:
    """The seq_len at which the scores cost as much as the FFN, or as all that is linear in it.

    Plain: from 4 T C = 4 C F, so T = F; and from 4 T C = 8 C^2 + 4 C F, so T = 2 C + F.
    """
    parts = flops_by_part(config, 1)
    linear = parts["ffn"] + (parts["projections"] if against == "linear" else 0)
    whole, rest = divmod(linear, parts["scores"])
    return linear / parts["scores"] if rest else whole


def model_state_bytes(
    n_params: Positive,
    dp_degree: Size,
    zero_stage: Annotated[int, (0, 1, 2, 3)],
    *,
    param_bytes: NonNegative = 2,
    grad_bytes: NonNegative = 2,
    optimizer_bytes: NonNegative = 12,
) -> float:
    """Bytes per device of weights, gradients, optimizer state (Rajbhandari et al. 2020, Figure 1).

    Stage 0 replicates all; 1 shards the optimizer state over `dp_degree` devices, 2 the gradients
    too, 3 the parameters too. The defaults are mixed-precision Adam: 2 + 2 + 12 bytes/parameter.

    >>> round(model_state_bytes(7.5e9, 64, 2) / 1e9, 1)
    16.6
    """
    parts = ((param_bytes, 3), (grad_bytes, 2), (optimizer_bytes, 1))  # sharded from that stage on
    return n_params * sum(b / dp_degree if zero_stage >= stage else b for b, stage in parts)


def activation_bytes(
    config: ModelConfig,
    seq_len: Size,
    batch_size: Size,
    *,
    tensor_parallel: Size = 1,
    sequence_parallel: bool = False,
    recompute: Annotated[str, ("none", "selective", "full")] = "none",
    value_bytes: Positive = 2,
    dropout: bool = True,
    fused_attention: bool = False,
) -> float:
    """Bytes per device that layers keep for the backward pass (Korthikanti et al. 2022, Table 2).

    With d_ff = 4 C this is their s b h (34 + 5 a s / h) per layer: 2-byte values, 1-byte dropout
    masks; today's layers are counted alike, with fused kernels: RMSNorm in elementary operations
    stores one value a channel more, eager experts another copy of their outputs. `recompute`
    "selective" recomputes scores, softmax and dropout inside attention; "full" keeps the layer's
    input alone. What a real run stores: `value_bytes` 4 in fp32, no masks without `dropout`; with
    `fused_attention` (SDPA) the output and one statistic per row, not the scores.
    """
    divides = config.n_head % tensor_parallel == 0
    require(divides, "tensor_parallel", tensor_parallel, f"a divisor of n_head={config.n_head}")
    C, H, v = config.d_model, config.n_head, value_bytes
    tokens, mask = seq_len * batch_size, 1 if dropout else 0
    if recompute == "full":
        return config.n_layer * tokens * v * C
    # Inputs of the norms, of attention and of the FFN (one that both share once); masks of the two
    # residual dropouts.
    n_inputs = config.norms.per_layer + (2 - (config.parallel or config.norms.per_layer == 1))
    replicated = config.n_layer * tokens * C * (n_inputs * v + 2 * mask)
    # Q, K, V, the output projection's input; the activation's input and output.
    split = tokens * v * layers.activation_values(config)
    if recompute == "none":
        scores = v * (2 if dropout else 1) + mask  # softmax output, its dropped copy, the mask
        split += config.n_layer * tokens * H * (4 if fused_attention else scores * seq_len)
    per_rank = replicated / (tensor_parallel if sequence_parallel else 1)
    # each rank has some hidden units of all experts, and so all of their inputs
    return per_rank + tokens * v * layers.expert_copies(config) + split / tensor_parallel


def training_flops(n_params: Positive, n_tokens: Positive, *, recompute: bool = True) -> float:
    """About 6 FLOPs per parameter and token, 8 with recomputation (Kaplan et al. 2020)."""
    return (8 if recompute else 6) * n_params * n_tokens


def training_days(
    n_params: Positive,
    n_tokens: Positive,
    n_devices: Positive,
    flops_per_device: Positive,
    *,
    recompute: bool = True,
) -> float:
    """Days of training at `flops_per_device` achieved FLOP/s (Narayanan et al. 2021, equation 4).

    >>> round(training_days(175e9, 300e9, 1024, 140e12))
    34
    """
    seconds = training_flops(n_params, n_tokens, recompute=recompute)
    return seconds / (n_devices * flops_per_device) / SECONDS_PER_DAY


def roofline_seconds(flops: float, n_bytes: float, device: Device, dtype: str = "fp32") -> float:
    """The least time for that arithmetic and traffic, the larger of two (Williams et al. 2009)."""
    require_number("flops", flops)
    require_number("n_bytes", n_bytes)
    return max(flops / device.peak(dtype), n_bytes / device.memory_bandwidth)


check_module(__name__)
