"""Gains of quantization and pruning: bytes by formula, speed by roofline or record."""

from dataclasses import replace
from functools import partial

from efflab import cost, layers
from efflab.advice import engines, recorded
from efflab.advice.case import FP32_BYTES, SERVING, Case
from efflab.advice.engines import DYNAMIC, STATIC
from efflab.advice.serving import ELSEWHERE, Served, gains
from efflab.advice.technique import Gain, Technique
from efflab.config import ModelConfig, Norms

GROUP, BITS = 64, 4
SCALE, ZERO = 4, 1  # bytes
PRUNED = 0.25
OF_TRAINED = dict.fromkeys(("memory", "training days"), "it is applied to a trained model")
"""Answers for the budgets of training."""
ON_CPUS = "torch's dynamic INT8 runs on CPUs"


def techniques(case: Case) -> list[Technique]:
    """The techniques of chapter 3."""
    found = [int8(case, STATIC), int8(case, DYNAMIC), gptq(case), neurons(case), masks(case)]
    return found + ([cache(case, 8), cache(case, 4)] if case.budget in SERVING else [])


# --- Bytes -----------------------------------------------------------------------------------


def map_weights(config: ModelConfig) -> tuple[int, int]:
    """(weights, rows) of the linear maps in all distinct layers and experts, without routers."""
    experts, latent = config.experts, config.attention.latent
    attention = replace(config.attention, bias="none", sinks=False)
    bare = replace(
        config,
        attention=attention,
        feed_forward=replace(config.feed_forward, bias=False),
        experts=experts and replace(experts, router_bias=False),
        norms=Norms("plain"),
    )
    # a bias has one value a row
    biased = replace(
        bare,
        attention=replace(attention, bias="all"),
        feed_forward=replace(bare.feed_forward, bias=True),
    )
    n_params = cost.num_params(bare)
    weights = n_params - layers.embedding_params(bare) - layers.head_params(bare)
    rows = cost.num_params(biased) - n_params
    if experts is not None:
        gates = experts.n_expert + experts.shared_gate
        weights -= config.n_expert_layers * config.d_model * gates
    if latent is not None:
        # from the narrow vectors up to the heads, where no model has biases
        width = 2 * latent.nope_dim + latent.rope_dim + latent.v_dim
        rows += config.n_layer * config.n_head * width
    return weights, rows


def table_weights(config: ModelConfig) -> tuple[int, int]:
    """(weights, rows) of the embedding tables, and of an output with weights of its own."""
    rows = config.vocab_size * (1 if config.tied else 2) + config.type_vocab
    has_rows = config.positions in ("learned", "relative")
    places = (config.position_rows or config.max_len) if has_rows else 0
    is_wide = config.positions == "relative" or config.embed_maps == "both"
    width = config.d_model if is_wide else config.embed_dim
    return rows * config.embed_dim + places * width, rows + places


def packed_bytes(
    config: ModelConfig,
    bits: int,
    *,
    group_size: int | None = None,
    table_bits: int | None = 8,
    rest_bytes: float = FP32_BYTES,
) -> float:
    """Bytes with `bits` per map weight and a scale per row, or a scale and zero point per group.

    Tables have `table_bits` and a scale per row; None: they have `rest_bytes`, as all else.
    """
    maps, rows = map_weights(config)
    tables, table_rows = table_weights(config)
    scales = rows * SCALE if group_size is None else maps / group_size * (SCALE + ZERO)
    table = rest_bytes * tables
    if table_bits is not None:
        table = tables * table_bits / 8 + table_rows * SCALE
    rest = rest_bytes * (cost.num_params(config) - maps - tables)
    return maps * bits / 8 + scales + table + rest


# --- Quantization ----------------------------------------------------------------------------


def _smaller(case: Case, n_bytes: float) -> Gain:
    gain = FP32_BYTES * case.n_params / n_bytes
    return Gain.computed(gain, "efflab.advice.compression.packed_bytes")


INT8 = {STATIC: ("INT8, static (OpenVINO, NNCF)", 8), DYNAMIC: ("INT8, dynamic (torch)", None)}
"""Engine -> name, and bits of the tables."""


def int8(case: Case, engine: str) -> Technique:
    """Weights and inputs in 8 bits: static with calibrated ranges, and tables too; dynamic with the
    range of each current input, and only linear layers."""
    name, table_bits = INT8[engine]
    loss = recorded.engine_loss(engine, case.device if case.gpu is None else "CPU with VNNI")
    n_bytes = packed_bytes(case.config, 8, table_bits=table_bits)
    if case.gpu is None:
        latency = engines.gain(case, engine)
        if latency.high <= 1.0:
            latency = "this CPU has no int8 products: it was slower"
    elif engine == DYNAMIC:
        latency = ON_CPUS
    elif "int8" not in case.gpu.peak_flops:
        latency = "no int8 peak is known for this device"
    else:
        gain = case.seconds(case.flops) / case.seconds(case.flops, n_bytes, "int8")
        latency = Gain.computed(gain, "efflab.cost.roofline_seconds")
    budgets = OF_TRAINED | {"latency": latency, "checkpoint": _smaller(case, n_bytes)}
    served = Served(case.config, partial(packed_bytes, bits=8, rest_bytes=2))
    budgets |= gains(case, ON_CPUS if engine == DYNAMIC and case.gpu else served)
    return Technique(name, "09", budgets, loss)


def gptq(case: Case) -> Technique:
    """GPTQ with 4 bits in groups of 64; tables in 8 bits."""
    n_bytes = packed_bytes(case.config, BITS, group_size=GROUP)
    why = "its weights become floats again before the product"
    budgets = OF_TRAINED | {"checkpoint": _smaller(case, n_bytes), "latency": why}
    weights = partial(packed_bytes, bits=BITS, group_size=GROUP, rest_bytes=2)
    budgets |= gains(case, Served(case.config, weights))
    loss = recorded.gptq_loss(BITS, GROUP)
    return Technique("GPTQ: 4 bits in groups of 64", "10", budgets, loss)


def cache(case: Case, bits: int) -> Technique:
    """Keys and values in `bits`, in groups of 128 with 16-bit scales (Liu et al. 2024, KIVI)."""
    served = Served(case.config, value_bytes=(bits + 16 / 128) / 8)
    name = f"cache of keys and values in {bits} bits"
    return Technique(name, "09", ELSEWHERE | gains(case, served))


# --- Pruning ---------------------------------------------------------------------------------


def neurons(case: Case) -> Technique:
    """A quarter of the FFN's neurons removed, and of each expert's."""
    config, experts = case.config, case.config.experts
    if experts is not None:
        experts = replace(experts, d_ff=_fewer(experts.d_ff), d_shared=_fewer(experts.d_shared))
    light = replace(config, d_ff=_fewer(config.d_ff), experts=experts)
    n_params = cost.num_params(light)
    speed = case.seconds(case.flops) / case.seconds(case.flops_of(light), FP32_BYTES * n_params)
    budgets = OF_TRAINED | {
        "latency": Gain.computed(speed, "efflab.cost.roofline_seconds"),
        "checkpoint": Gain.computed(case.n_params / n_params, "efflab.cost.num_params"),
    }
    loss = recorded.board_loss("1/4 of the FFN neurons removed")
    budgets |= gains(case, Served(light))
    return Technique("a quarter of the FFN's neurons removed", "11", budgets, loss)


def _fewer(n_neurons: int) -> int:
    return round((1 - PRUNED) * n_neurons)


def masks(case: Case) -> Technique:
    """Half of the weights set to zero by a mask."""
    budgets = OF_TRAINED | {"latency": "a dense kernel multiplies zeros too"}
    budgets |= {"checkpoint": "zeros are stored like any other number"}
    budgets |= gains(case, "zeros are read and stored like any other number")
    loss = recorded.board_loss("50% of the weights masked")
    return Technique("half of the weights masked", "11", budgets, loss)
