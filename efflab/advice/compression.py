"""Gains of quantization and pruning: bytes by formula, speed by roofline or record."""

from dataclasses import replace

from efflab import cost
from efflab.advice import engines, recorded
from efflab.advice.case import FP32_BYTES, Case
from efflab.advice.engines import DYNAMIC, STATIC
from efflab.advice.technique import Gain, Technique
from efflab.config import ModelConfig

GROUP, BITS = 64, 4
SCALE, ZERO = 4, 1  # bytes
PRUNED = 0.25
TRAINED = "it is applied to a trained model"


def techniques(case: Case) -> list[Technique]:
    """The techniques of chapter 3."""
    return [static_int8(case), dynamic_int8(case), gptq(case), neurons(case), masks(case)]


# --- Bytes -----------------------------------------------------------------------------------


def map_weights(config: ModelConfig) -> tuple[int, int]:
    """(weights, rows) of the linear maps in all distinct layers."""
    C, F = config.d_model, config.d_ff
    n_attention = 1 if config.share in ("attention", "all") else config.n_layer
    n_ffn = 1 if config.share in ("ffn", "all") else config.n_layer
    weights = n_attention * 4 * C * C + n_ffn * 2 * C * F
    return weights, n_attention * 4 * C + n_ffn * (F + C)


def table_weights(config: ModelConfig) -> tuple[int, int]:
    """(weights, rows) of the embedding tables."""
    rows = config.vocab_size + config.max_len + config.type_vocab
    return rows * config.embed_dim, rows


def packed_bytes(
    config: ModelConfig, bits: int, *, group_size: int | None = None, table_bits: int | None = 8
) -> float:
    """Bytes with `bits` per map weight and a scale per row, or a scale and zero point per group.

    Tables have `table_bits` and a scale per row, or fp32 if None; all else is in fp32.
    """
    maps, rows = map_weights(config)
    tables, table_rows = table_weights(config)
    scales = rows * SCALE if group_size is None else maps / group_size * (SCALE + ZERO)
    table = FP32_BYTES * tables
    if table_bits is not None:
        table = tables * table_bits / 8 + table_rows * SCALE
    rest = FP32_BYTES * (cost.num_params(config) - maps - tables)
    return maps * bits / 8 + scales + table + rest


# --- Quantization ----------------------------------------------------------------------------


def _smaller(case: Case, n_bytes: float) -> Gain:
    gain = FP32_BYTES * case.n_params / n_bytes
    return Gain.computed(gain, "efflab.advice.compression.packed_bytes")


def static_int8(case: Case) -> Technique:
    """Weights and inputs in 8 bits, with calibrated ranges, tables too."""
    device = case.device if case.gpu is None else "CPU with VNNI"
    loss = recorded.engine_loss(STATIC, device)
    return _int8(case, "INT8, static (OpenVINO, NNCF)", STATIC, loss, 8)


def dynamic_int8(case: Case) -> Technique:
    """Only linear layers in 8 bits, with the range of each current input."""
    device = case.device if case.gpu is None else "CPU with VNNI"
    loss = recorded.engine_loss(DYNAMIC, device)
    return _int8(case, "INT8, dynamic (torch)", DYNAMIC, loss, None)


def _int8(case: Case, name: str, engine: str, loss, table_bits: int | None) -> Technique:
    n_bytes = packed_bytes(case.config, 8, table_bits=table_bits)
    latency: Gain | str
    if case.gpu is None:
        latency = engines.gain(case, engine)
        if latency.high <= 1.0:
            latency = "this CPU has no int8 products: it was slower"
    elif engine == DYNAMIC:
        latency = "torch's dynamic INT8 runs on CPUs"
    elif "int8" not in case.gpu.peak_flops:
        latency = "its tensor cores have no int8"
    else:
        gain = case.seconds(case.flops) / case.seconds(case.flops, n_bytes, "int8")
        latency = Gain.computed(gain, "efflab.cost.roofline_seconds")
    budgets = {"latency": latency, "checkpoint": _smaller(case, n_bytes)}
    budgets |= {"memory": TRAINED, "training days": TRAINED}
    return Technique(name, "09", budgets, loss)


def gptq(case: Case) -> Technique:
    """GPTQ with 4 bits in groups of 64; tables in 8 bits."""
    n_bytes = packed_bytes(case.config, BITS, group_size=GROUP)
    why = "its weights become floats again before the product"
    budgets = {"checkpoint": _smaller(case, n_bytes), "latency": why}
    budgets |= {"memory": TRAINED, "training days": TRAINED}
    loss = recorded.gptq_loss(BITS, GROUP)
    return Technique("GPTQ: 4 bits in groups of 64", "10", budgets, loss)


# --- Pruning ---------------------------------------------------------------------------------


def neurons(case: Case) -> Technique:
    """A quarter of the FFN's neurons removed."""
    light = replace(case.config, d_ff=round((1 - PRUNED) * case.config.d_ff))
    n_params, flops = cost.num_params(light), cost.forward_flops(light, case.tokens)
    speed = case.seconds(case.flops) / case.seconds(flops, FP32_BYTES * n_params)
    budgets = {
        "latency": Gain.computed(speed, "efflab.cost.roofline_seconds"),
        "checkpoint": Gain.computed(case.n_params / n_params, "efflab.cost.num_params"),
        "memory": TRAINED,
        "training days": TRAINED,
    }
    loss = recorded.board_loss("1/4 of the FFN neurons removed")
    return Technique("a quarter of the FFN's neurons removed", "11", budgets, loss)


def masks(case: Case) -> Technique:
    """Half of the weights set to zero by a mask."""
    why = "a dense kernel multiplies zeros too"
    budgets = {"latency": why, "checkpoint": "zeros are stored like any other number"}
    budgets |= {"memory": TRAINED, "training days": TRAINED}
    loss = recorded.board_loss("50% of the weights masked")
    return Technique("half of the weights masked", "11", budgets, loss)
