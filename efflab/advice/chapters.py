"""A model's shape in words, and which notebooks' techniques serve it. No torch, numpy or scipy."""

from math import ceil

from efflab import cost
from efflab.base.significant import significant
from efflab.base.words import Words
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
    heads = "{n} heads"
    if config.attention.latent is None:
        heads += " of {dim}"
    if config.n_kv_head < config.n_head:
        heads += " over {kv} of keys and values"
    sizes = dict(n=config.n_head, dim=config.head_dim, kv=config.n_kv_head)
    template = "{kind} of {layers} layers {width:,} wide, {heads}, up to {longest:,} tokens"
    sizes |= dict(layers=config.n_layer, width=config.d_model, longest=config.max_len)
    return Words(template, kind=Words(kind), heads=Words(heads, **sizes), **sizes)


def experts(config: ModelConfig) -> str:
    """How many experts a token uses; "" without experts."""
    if config.experts is None:
        return ""
    template, n_dense = "{n} of {all} experts", config.n_layer - config.n_expert_layers
    if config.experts.d_shared:
        template += " and what all tokens share"
    if n_dense:
        template += ", in all but {dense} layers"
    return Words(template, n=config.experts.n_active, all=config.experts.n_expert, dense=n_dense)


def cache(config: ModelConfig) -> str:
    """What a layer keeps of a token, and which layers stop at their window; "" for an encoder."""
    if not config.causal:
        return ""
    latent, n = config.attention.latent, config.n_kv_head
    template = f"keys and values of {{n}} head{'s' if n > 1 else ''} of {{dim}} per layer"
    words = Words(template, n=n, dim=config.head_dim)
    if latent is not None:
        template = "a latent of {rank} and {rotary} rotary channels per layer"
        words = Words(template, rank=latent.kv_rank, rotary=latent.rope_dim)
    sizes = windows(config)
    if not sizes:
        return words
    ends, *others = (f"{size:,}" for size in sorted(set(sizes)))
    for other in others:
        ends = Words("{ends} or {other}", ends=ends, other=other)
    template = "{words}; {n} of {layers} layers stop at {ends} tokens"
    return Words(template, words=words, n=len(sizes), layers=config.n_layer, ends=ends)


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
        rows.append(("01", "shared layers, in use: fewer parameters, the same FLOPs"))
    if latent is not None:
        wide = config.n_head * (latent.nope_dim + latent.rope_dim + latent.v_dim)
        less = significant(wide / (latent.kv_rank + latent.rope_dim), 2)
        words = "low rank, in use: its latents make the cache {less} times smaller"
        rows.append(("04", Words(words, less=less)))
    elif n_kv < config.n_head and config.causal:
        less = config.n_head // n_kv
        words = "shared keys and values, in use: a cache {less} times smaller"
        rows.append(("01", Words(words, less=less)))
    if windows(config):
        words = "windows, in use: the scores of {n} of {all} layers grow with n, not n²"
        rows.append(("03", Words(words, n=len(windows(config)), all=config.n_layer)))
    return rows


def _long_texts(config: ModelConfig) -> list[tuple[str, str]]:
    crossing = cost.crossing_length(config, "linear")
    if windows(config) or crossing > config.max_len:
        return []
    words = "windows: from {n:,.0f} tokens on, full scores cost more than all else"
    return [("03", Words(words, n=crossing))]


def _formats(config: ModelConfig, tokens: int) -> list[tuple[str, str]]:
    rows, cached = [], cost.kv_cache_bytes(config, tokens) if config.causal else 0
    before = _smallest(cost.weight_bytes(config, "bf16") + cached)
    for number, name, format in (("09", "INT8", "int8"), ("10", "4 bits", "int4")):
        n_bytes = cost.weight_bytes(config, format)
        device, words = _smallest(n_bytes + cached), "{name}: {size} of weights"
        values = dict(name=name, size=size(n_bytes), device=device and device.name)
        if device is None:
            words += ", more than any device here holds"
        elif device != before:
            values["needed"] = before.name if before else Words("several devices")
            words += " and a cache fit {device} (bf16: {needed})"
        rows.append((number, Words(words, **values)))
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
    rows = [("12", Words("ZeRO-3: its training states need {n:,} A100 80GB or more", n=n))]
    if n > NODE:
        rows.append(("13", "tensor and pipeline splits: it trains on more than one server"))
    return rows
