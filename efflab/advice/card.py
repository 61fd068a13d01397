"""A model's card: what it costs on every device, by formula. No torch, numpy or scipy here.

All times are bounds: the larger of FLOPs over the peak and bytes over the bandwidth, which no
kernel beats and which real ones miss. A device's memory is what its label says, in GiB.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from math import ceil

from efflab import cost, families, inference
from efflab.advice import chapters
from efflab.config import PRESETS, ModelConfig
from efflab.devices import DEVICES, GIB, Device
from efflab.errors import Refusal

TOKENS = 4096
"""Tokens of the prompt, if the model takes so many."""
FORMAT = "bf16"
TYPES = dict(bert="bert", minilm="bert", albert="albert", gpt2="gpt2", gpt3="gpt2", stdlib="gpt2")
TYPES |= dict(qwen3="qwen3", llama="llama", deepseek="deepseek_v3", gpt="gpt_oss")
"""First word of a preset's name -> its model_type."""
ON_META = "counted by transformers on the meta device"
"""The note on a model whose shape our terms cannot describe."""
KEYS = "name model_type params active_params weight_bytes kv_bytes_per_token devices tokens".split()
KEYS += "max_len training_bytes shape experts cache chapters notes".split()


def read_card(source: str | Mapping, own: Device | None = None) -> dict:
    """The card of a preset's name or of what `efflab.config.from_hf` takes, also on a device `own`.

    A type that `transformers` alone knows has its parameters counted, and nothing else.
    """
    devices = (*([own] if own else []), *DEVICES.values())
    if isinstance(source, str) and source in PRESETS:
        kind = TYPES[source.split("-")[0]]
        return card(PRESETS[source], source, kind, devices)
    try:
        reading = families.read(source)
    except Refusal as refusal:
        if refusal.name != "model_type":
            raise
        return _count_card(source, refusal)
    whole = card(reading.config, reading.name, reading.model_type, devices)
    return whole | dict(notes=[reading.note] if reading.note else [])


def _count_card(source: str | Mapping, refusal: Refusal) -> dict:
    """The parameters alone, of a `model_type` that `transformers` knows; else the refusal."""
    fields, name = families.load(source)
    kind = fields.get("model_type")
    if not isinstance(kind, str):
        raise refusal
    try:
        n_params = families.count_on_meta(source)
    except ImportError:
        # in a browser there is neither torch nor transformers
        raise refusal from None
    except Refusal as other:
        raise (refusal if other.name == "model_type" else other) from None
    known = dict(name=name, model_type=kind, params=n_params, notes=[ON_META])
    return dict.fromkeys(KEYS) | known


def card(config: ModelConfig, name: str, model_type: str, devices: Iterable[Device]) -> dict:
    """Parameters, bytes and, for each device, contexts, batches and bounds on its speed.

    Weights and cache in 16 bits; a prompt of `tokens`. None where something does not apply to an
    encoder, and where a time has no meaning because weights and cache do not fit.
    """
    tokens, n_params = min(TOKENS, config.max_len), cost.num_params(config)
    training = dict(
        states=cost.model_state_bytes(n_params, 1, 0),
        activations=cost.activation_bytes(config, tokens, 1, dropout=False, fused_attention=True),
    )
    return dict(
        name=name,
        model_type=model_type,
        params=n_params,
        active_params=cost.active_params(config),
        weight_bytes={format: cost.weight_bytes(config, format) for format in cost.FORMATS},
        kv_bytes_per_token=cost.kv_cache_bytes(config, 1) if config.causal else None,
        devices=[on_device(config, device, tokens) for device in devices if dtype_of(device)],
        tokens=tokens,
        max_len=config.max_len,
        training_bytes=training,
        shape=chapters.shape(config),
        experts=chapters.experts(config),
        cache=chapters.cache(config),
        chapters=chapters.techniques(config, tokens),
        notes=[],
    )


def dtype_of(device: Device) -> str | None:
    """The type that 16-bit weights are multiplied in; None for a device that is left out."""
    if device.memory_bytes is None:
        return None
    return next((t for t in ("bf16", "fp16", "fp32") if t in device.peak_flops), None)


def on_device(config: ModelConfig, device: Device, tokens: int) -> dict:
    """A device's row of the card."""
    weights = cost.weight_bytes(config, FORMAT)
    room = device.memory_bytes - weights
    row = dict(device=device.name, memory_gib=device.memory_bytes / GIB)
    row |= dict(devices_for_weights=ceil(weights / device.memory_bytes))
    row |= dict.fromkeys("max_context max_batch prefill_seconds decode_tokens_per_second".split())
    fits = room >= 0
    if config.causal:
        row["max_context"] = longest_context(config, room)
        row["max_batch"] = max(0, int(room // cost.kv_cache_bytes(config, tokens)))
        fits = row["max_batch"] > 0
    if fits:
        row["prefill_seconds"] = prefill_seconds(config, device, tokens)
        if config.causal:
            row["decode_tokens_per_second"] = 1 / decode_seconds(config, device, tokens)
    return row


def longest_context(config: ModelConfig, room: float) -> int:
    """Tokens of one text whose cache fits into `room` bytes, at most `max_len`; 0 if none."""
    lengths = range(config.max_len + 1)
    cached = bisect_right(lengths, room, key=lambda n: cost.kv_cache_bytes(config, n))
    return max(0, cached - 1)


def prefill_seconds(config: ModelConfig, device: Device, tokens: int) -> float:
    """The least time for a prompt: its FLOPs, or its bytes with every weight in use read once."""
    flops = inference.prefill_flops(config, tokens)
    n_bytes = inference.prefill_bytes(config, tokens, format=FORMAT)
    return cost.roofline_seconds(flops, n_bytes, device, dtype_of(device))


def decode_seconds(config: ModelConfig, device: Device, tokens: int) -> float:
    """The least time for one token after `tokens` cached ones, latent attention absorbed."""
    flops = inference.decode_flops(config, tokens)
    n_bytes = inference.decode_bytes(config, tokens, format=FORMAT)
    return cost.roofline_seconds(flops, n_bytes, device, dtype_of(device))
