"""A model's shape in words, and which notebooks' techniques serve it. No torch, numpy or scipy."""

from math import ceil

from efflab import cost
from efflab.base.significant import significant
from efflab.config import ModelConfig
from efflab.devices import DEVICES, Device

GB, MB, KB = 1e9, 1e6, 1e3
A100 = "A100 80GB SXM"
NODE = 8
"""Devices of a server, beyond which a split crosses the network."""


def size(n_bytes: float) -> str:
    """Bytes in the largest unit of which there is one.

    >>> size(16.4e9), size(219e6), size(147456), size(72)
    ('16.4 GB', '219 MB', '147 kB', '72 bytes')
    """
    units = ((GB, "GB"), (MB, "MB"), (KB, "kB"))
    unit, name = next((pair for pair in units if n_bytes >= pair[0]), (1, "bytes"))
    return f"{significant(n_bytes / unit)} {name}"


def shape(config: ModelConfig) -> str:
    """Layers, width, heads and longest text."""
    kind = "decoder" if config.causal else "encoder"
    heads = f"{config.n_head} heads"
    if config.attention.latent is None:
        heads += f" of {config.head_dim}"
    if config.n_kv_head < config.n_head:
        heads += f" over {config.n_kv_head} of keys and values"
    layers = f"{config.n_layer} layers {config.d_model:,} wide"
    return f"{kind} of {layers}, {heads}, up to {config.max_len:,} tokens"


def experts(config: ModelConfig) -> str:
    """How many experts a token uses; "" without experts."""
    if config.experts is None:
        return ""
    shared = " and what all tokens share" if config.experts.d_shared else ""
    n = f"{config.experts.n_active} of {config.experts.n_expert} experts"
    n_dense = config.n_layer - config.n_expert_layers
    return f"{n}{shared}" + (f", in all but {n_dense} layers" if n_dense else "")


def cache(config: ModelConfig) -> str:
    """What a layer keeps of a token, and which layers stop at their window; "" for an encoder."""
    if not config.causal:
        return ""
    latent, n = config.attention.latent, config.n_kv_head
    words = f"keys and values of {n} head{'s' if n > 1 else ''} of {config.head_dim} a layer"
    if latent is not None:
        words = f"a latent of {latent.kv_rank} and {latent.rope_dim} rotary channels a layer"
    sizes = windows(config)
    if not sizes:
        return words
    ends = " or ".join(f"{size:,}" for size in sorted(set(sizes)))
    return f"{words}; {len(sizes)} of {config.n_layer} layers stop at {ends} tokens"


def windows(config: ModelConfig) -> list[int]:
    """The layers' windows that are shorter than the longest text."""
    return [window for window in config.windows if window and window < config.max_len]


def techniques(config: ModelConfig, tokens: int) -> list[dict]:
    """Rows of `notebook` and `text`: what the model uses already, and what else serves it."""
    rows = [*_in_use(config), *_long_texts(config), *_formats(config, tokens), *_training(config)]
    return [dict(notebook=number, text=text) for number, text in sorted(rows)]


def _in_use(config: ModelConfig) -> list[tuple[str, str]]:
    rows, latent, n_kv = [], config.attention.latent, config.n_kv_head
    if config.share != "none":
        rows.append(("01", "shared layers, in use: fewer parameters, as many FLOPs"))
    if latent is not None:
        wide = config.n_head * (latent.nope_dim + latent.rope_dim + latent.v_dim)
        less = significant(wide / (latent.kv_rank + latent.rope_dim), 2)
        rows.append(("04", f"low rank, in use: its latents make the cache {less} times smaller"))
    elif n_kv < config.n_head and config.causal:
        less = config.n_head // n_kv
        rows.append(("01", f"shared keys and values, in use: a cache {less} times smaller"))
    if windows(config):
        n = f"{len(windows(config))} of {config.n_layer}"
        rows.append(("03", f"windows, in use: the scores of {n} layers grow with n, not n²"))
    return rows


def _long_texts(config: ModelConfig) -> list[tuple[str, str]]:
    crossing = cost.crossing_length(config, "linear")
    if windows(config) or crossing > config.max_len:
        return []
    return [("03", f"windows: from {crossing:,.0f} tokens on, full scores cost more than all else")]


def _formats(config: ModelConfig, tokens: int) -> list[tuple[str, str]]:
    rows, cached = [], cost.kv_cache_bytes(config, tokens) if config.causal else 0
    before = _smallest(cost.weight_bytes(config, "bf16") + cached)
    for number, name, format in (("09", "INT8", "int8"), ("10", "4 bits", "int4")):
        n_bytes = cost.weight_bytes(config, format)
        device, text = _smallest(n_bytes + cached), f"{name}: {size(n_bytes)} of weights"
        if device is None:
            text += ", more than any device here holds"
        elif device != before:
            needed = before.name if before else "several devices"
            text += f" and a cache fit {device.name} (bf16: {needed})"
        rows.append((number, text))
    return rows


def _smallest(n_bytes: float) -> Device | None:
    """The device of least memory that holds so much; None if there is none."""
    holding = [d for d in DEVICES.values() if d.memory_bytes and d.memory_bytes >= n_bytes]
    return min(holding, key=lambda device: device.memory_bytes or 0, default=None)


def _training(config: ModelConfig) -> list[tuple[str, str]]:
    states = cost.model_state_bytes(cost.num_params(config), 1, 0)
    n = ceil(states / (DEVICES[A100].memory_bytes or 1))
    if n == 1:
        return [("06", "mixed precision: its training states fit one A100 80GB")]
    rows = [("12", f"ZeRO-3: its training states need {n:,} A100 80GB or more")]
    if n > NODE:
        rows.append(("13", "tensor and pipeline splits: it trains on more than one server"))
    return rows
