"""Notebook 00's numbers: how models grew, and where a forward pass spends its time."""

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from efflab import bench, cost
from efflab.config import ModelConfig
from efflab.data import read_published
from efflab.devices import Device
from efflab.estimate import Estimate, of_median
from efflab.model import Transformer, attention_written_out
from efflab.profile import Profile


def growth_rows() -> list[dict]:
    """Rows of data/published/growth.csv; `flops` is 6 P T (3 P T where the row says so), or None.

    `year` is the month of publication as a decimal year.
    """
    rows = read_published("growth")
    for row in rows:
        year, month = map(int, row["published"].split("-"))
        params, tokens = row["params"], row["tokens"]
        flops = row["flops_per_param_token"] * params * tokens if tokens else None
        row |= dict(year=year + (month - 0.5) / 12, flops=flops)
    return rows


def doubling_months(first: dict, last: dict) -> float:
    """Months in which the parameters doubled between two rows, on average."""
    return 12 * (last["year"] - first["year"]) / np.log2(last["params"] / first["params"])


# --- The least time of each part -----------------------------------------------------------------

PARTS = ("scores", "projections", "ffn", "logits")


@lru_cache(maxsize=1)
def machine() -> Device:
    """This computer's roofs, measured once in a kernel (2 s)."""
    return bench.calibrate()


def part_bytes(config: ModelConfig, seq_len: int, value_bytes: float, fused: bool) -> dict:
    """Bytes that each part moves in one forward pass: weights once, inputs and outputs once.

    Fused attention (FlashAttention, SDPA) keeps the scores on the chip; otherwise they are written
    and read twice: before and after the softmax, the scale folded into the product.
    """
    C, F, E, L = config.d_model, config.d_ff, config.embed_dim, config.n_layer
    T, H, V = seq_len, config.n_head, config.vocab_size
    # channels of Q and K, as many as of the output and V
    heads, n_maps = (H + config.n_kv_head) * config.head_dim, 2 + config.feed_forward.gated
    values = {
        "scores": L * (2 * T * heads + (0 if fused else 4 * H * T * T)),
        "projections": L * (2 * C * heads + 2 * T * (C + heads)),
        "ffn": L * n_maps * (C * F + T * (C + F)),
        "logits": V * E + T * (E + V),
    }
    return {part: n * value_bytes for part, n in values.items()}


def part_seconds(config: ModelConfig, seq_len: int, device: Device, fused: bool = True) -> dict:
    """The least time that a device needs for each part, by its roofline, in 16 bits if it can."""
    dtype = "fp16" if "fp16" in device.peak_flops else "fp32"
    flops = cost.flops_by_part(config, seq_len)
    flops["logits"] += flops.pop("embedding")
    n_bytes = part_bytes(config, seq_len, 2 if dtype == "fp16" else 4, fused)
    return {p: cost.roofline_seconds(flops[p], n_bytes[p], device, dtype) for p in PARTS}


# --- The profile ---------------------------------------------------------------------------------

GROUPS = {
    "scaled_dot_product": "attention (SDPA)",
    "mm": "matrix products",
    "gelu": "GELU",
    "layer_norm": "LayerNorm",
    "": "lookups, additions, copies",
}
"""What an operator's name contains, and the kind of work that it then does; the first that fits."""
BETWEEN = "between operators"


def group(operator: str) -> str:
    """The kind of work that an operator of that name does."""
    return next(name for key, name in GROUPS.items() if key in operator)


def short_name(operator: str) -> str:
    """Its name without namespace, underscores and the CPU kernel's suffix."""
    name = operator.removeprefix("aten::").strip("_")
    return name.removesuffix("_flash_attention_for_cpu")


def model_parts(model: Transformer) -> dict:
    """The model's modules by part, for `profile`; what is in none of them is the logits."""
    return {
        "embedding": [model.embedding],
        "attention": [layer.attention for layer in model.layers],
        "feed-forward": [layer.ffn for layer in model.layers],
    }


def gap_rows(profile: Profile, device: Device) -> list[dict]:
    """From the roofline's least time to the measured one: what each kind of work adds.

    What no operator accounts for is the interpreter's and the dispatcher's time.
    """
    least, seconds = Counter(), Counter()
    for op in profile.operators:
        least[group(op.name)] += cost.roofline_seconds(op.flops, op.bytes, device)
        seconds[group(op.name)] += op.seconds
    seconds[BETWEEN] = profile.seconds - seconds.total()
    rows = []
    for name in (*GROUPS.values(), BETWEEN):
        added = (seconds[name] - least[name]) / profile.seconds
        row = {
            "work": name,
            "roofline minimum (ms, computed)": 1e3 * least[name],
            "measured (ms)": 1e3 * seconds[name],
            "excess, % of the pass": f"{round(100 * added)}%",
        }
        rows.append(row)
    return rows


# --- The clock -----------------------------------------------------------------------------------


@torch.no_grad()
def time_layer(layer: nn.Module, lengths: Iterable[int], unfused: bool = False) -> dict:
    """{length: {part: Timing}} of one sequence through a layer.

    Parts: "linear" (all projections and the feed-forward network), n² "fused" and "unfused".
    """
    attention, times = layer.attention.body, {}
    for n in lengths:
        x = torch.randn(1, n, attention.d_model)
        q = torch.randn(1, attention.n_head, n, attention.head_dim)
        calls = {
            "linear": lambda x=x: (attention.qkv(x), attention.out(x), layer.ffn.body(x)),
            "fused": lambda q=q: scaled_dot_product_attention(q, q, q),
        }
        if unfused:
            calls["unfused"] = lambda q=q: attention_written_out(q, q, q)
        times[n] = bench.time_interleaved(calls, warmup=1, repeats=7)
    return times


def crossing(times: dict, part: str, unit: float = 1.0) -> Estimate:
    """The length, in `unit` tokens, at which `part` takes half of a layer's time; 95 % interval.

    `times`: as `time_layer` returns them. Each repeat has a crossing of its own, of the log ratio
    over the log length, between the two lengths on either side of it; the estimate is their median.
    Beyond the measured lengths it is that of the line that fits all of them best.
    """
    lengths = np.log([float(n) for n in times])
    ratios = [np.divide(t[part].seconds, t["linear"].seconds) for t in times.values()]
    zeros = [_zero(lengths, repeat) for repeat in np.log(ratios).T]
    return of_median([float(np.exp(zero)) / unit for zero in zeros])


def _zero(x: np.ndarray, y: np.ndarray) -> float:
    """Where y, which rises with x, is 0."""
    after = int(np.argmax(y >= 0))
    # where the sign does not change there are no neighbours: the whole line
    near = slice(after - 1, after + 1) if after else slice(None)
    slope, shift = np.polyfit(x[near], y[near], 1)
    return -shift / slope
