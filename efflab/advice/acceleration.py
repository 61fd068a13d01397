"""Gains of mixed precision and compilers, from rooflines, published runs and records."""

from efflab.advice import engines, recorded
from efflab.advice.case import Case
from efflab.advice.serving import gains
from efflab.advice.technique import Gain, Loss, Technique

FUSION = "07", "xla-fusion"
AUTOCAST = "06", "amp-speed", "bf16-here"
AMP, BLOCK = "data/verdicts.json#amp-speed", "one block of notebook 07"
NO_NUMBER = "no number was recorded for this device"
ALREADY = "products are in 16 bits already: no peak in fp32 is known for this device"


def techniques(case: Case) -> list[Technique]:
    """The techniques of chapter 2."""
    return [mixed_precision(case), compilation(case)]


def mixed_precision(case: Case) -> Technique:
    """Products and activations in 16 bits; weights, gradients and Adam stay in fp32."""
    halved = case.training_bytes() / case.training_bytes(value_bytes=2)
    budgets = {
        "latency": _latency(case),
        "training days": _days(case),
        "memory": Gain.computed(halved, "efflab.cost.activation_bytes"),
        "checkpoint": Gain.computed(2.0, "efflab.cost.num_params"),
    }
    budgets |= gains(case, "weights and cache are in 16 bits already")
    loss = recorded.board_loss("bf16 throughout")
    return Technique("16 bits: mixed precision", "06", budgets, loss)


def _latency(case: Case) -> Gain | str:
    if case.gpu is None:
        gain = engines.gain(case, "bf16 eager")
        return gain if gain.low > 1 else "this CPU has no bf16 products: it was slower"
    half = case.seconds(case.flops, 2 * case.n_params, "fp16")
    types = {case.dtype, "fp32"} & set(case.gpu.peak_flops)
    ends = [case.seconds(case.flops, dtype=dtype) / half for dtype in types]
    if case.dtype == "fp16" and max(ends) <= 1:
        return ALREADY
    return Gain.computed(ends[0], "efflab.cost.roofline_seconds", ends[-1])


def _days(case: Case) -> Gain | str:
    if case.gpu is None:
        evidence = recorded.evidence(*AUTOCAST)
        if case.device == "CPU without VNNI" or (evidence and evidence["low"] <= 1):
            return "bf16 was not faster on a CPU, beyond noise"
        if evidence is None:
            return NO_NUMBER
        model = recorded.describe("stdlib-gpt")
        return Gain(evidence["low"], evidence["high"], "recorded", AMP, model)
    # whatever a device of the caller's own is called, nobody has timed it
    published = isinstance(case.device, str) and recorded.mixed_training_gain(case.device)
    if published:
        return published
    if case.dtype == "fp16":
        return ALREADY
    peak = case.gpu.peak("fp16") / case.gpu.peak(case.dtype)
    return Gain.computed(peak, "data/published/devices.csv")


def compilation(case: Case) -> Technique:
    """A compiler fuses operations that would each be a kernel."""
    why = "the same weights and values are kept"
    days = "no training was recorded with it here"
    latency: Gain | str = NO_NUMBER
    new, old = (recorded.evidence(*FUSION, key) for key in ("inductor", "torch"))
    if case.gpu is None and new and old:
        low, high = old["low"] / new["high"], old["high"] / new["low"]
        latency = Gain(low, high, "recorded", "data/verdicts.json#xla-fusion", BLOCK)
        if old["value"] / new["value"] <= 1:
            latency = "it was not faster than torch's own fused kernels"
    budgets = {"latency": latency, "training days": days, "memory": why, "checkpoint": why}
    budgets |= gains(case, NO_NUMBER if case.budget == "decode" else why)
    exact = Loss(0.0, "equal up to rounding", "recorded", "notebooks/07_compiler_fusion.ipynb")
    return Technique("a compiler that fuses (XLA, Inductor)", "07", budgets, exact)
