"""Notebook 05's arithmetic and time: one mixing layer of each technique at stdlib-gpt's width."""

from functools import partial

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from efflab import bench
from efflab.errors import require
from efflab.model import Attention
from efflab.structure.adaptive_span import AdaptiveSpanAttention, span_flops
from efflab.structure.dynamic_conv import DynamicConv, LightweightConv, conv_flops

D_MODEL, N_HEAD = 192, 6  # stdlib-gpt's
RAMP = 32  # the paper's


def mixers(kernel_size: int, reach: int, max_span: int) -> dict[str, nn.Module]:
    """One layer of each technique at stdlib-gpt's width, with spans so that `reach` keys count."""
    require(reach >= RAMP, "reach", reach, f"at least the ramp of {RAMP} tokens")
    share = (reach - RAMP) / max_span
    made = {
        "attention": Attention(D_MODEL, N_HEAD, causal=True),
        "LightweightConv": LightweightConv(D_MODEL, N_HEAD, kernel_size),
        "DynamicConv": DynamicConv(D_MODEL, N_HEAD, kernel_size),
        "adaptive span": AdaptiveSpanAttention(D_MODEL, N_HEAD, max_span, initial=share),
    }
    return {name: module.eval() for name, module in made.items()}


def flops_of(technique: str, kernel_size: int, reach: int, seq_len: int) -> int:
    """The method's own FLOPs of one layer at stdlib-gpt's width on `seq_len` tokens."""
    if "Conv" in technique:
        dynamic = technique == "DynamicConv"
        return conv_flops(D_MODEL, N_HEAD, kernel_size, seq_len, dynamic=dynamic)
    return span_flops(D_MODEL, seq_len if technique == "attention" else reach, seq_len)


def flop_rows(kernel_size: int = 15, reach: int = 64, seq_len: int = 1024) -> list[dict]:
    """Formula beside what PyTorch's counter saw our blocks compute, one layer."""
    rows = []
    for name, module in mixers(kernel_size, reach, seq_len).items():
        plain = sdpa_kernel(SDPBackend.MATH)  # the counter does not see into the CPU's fused one
        with torch.no_grad(), plain, FlopCounterMode(display=False) as counter:
            module(torch.randn(1, seq_len, D_MODEL))
        formula, counted = flops_of(name, kernel_size, reach, seq_len), counter.get_total_flops()
        rows.append(dict(technique=name, formula=formula / 1e6, counted=counted / 1e6,
                         ratio=counted / formula, kind="measured"))  # fmt: skip
    return rows


FLOP_COLUMNS = {
    "technique": "technique",
    "formula": "MFLOP, formula",
    "counted": "MFLOP, counted",
    "ratio": "ratio",
    "kind": "kind",
}


@torch.no_grad()
def time_rows(kernel_size: int = 15, reach: int = 64, seq_len: int = 1024) -> list[dict]:
    """Forward time of one layer against self-attention's, side by side, at three lengths."""
    rows = []
    for T in (seq_len // 4, seq_len, 2 * seq_len):
        x = torch.randn(1, T, D_MODEL)
        layers = mixers(kernel_size, reach, T)
        others = {n: partial(m, x) for n, m in layers.items() if n != "attention"}
        found = bench.compared(partial(layers["attention"], x), others, repeats=7)
        base = flops_of("attention", kernel_size, reach, T)
        for name, ratio in found.ratios.items():
            share = flops_of(name, kernel_size, reach, T) / base
            rows.append(dict(tokens=T, technique=name, computed=share, ratio=ratio.mean,
                             low=ratio.low, high=ratio.high, band=100 * found.band,
                             off=ratio.mean / share, kind="measured"))  # fmt: skip
    return rows


TIME_COLUMNS = {
    "tokens": "tokens",
    "technique": "technique",
    "computed": "FLOPs / attention's (formula)",
    "ratio": "time / attention's (measured)",
    "low": "interval, low",
    "high": "interval, high",
    "band": "A/A band (±%)",
    "off": "measured / formula",
    "kind": "kind",
}
