"""What the claims of notebook 08 rest on, and what they come to: pure functions of the evidence."""

from efflab.data import read_published
from efflab.lab import Evidence, Outcome, by_id
from efflab_rooms.accelerators import measure

NPU_RULE = (
    "Of a map of 6 products x 7 batches for every GPU and precision, 75 % of the cells show 40 % "
    "less time or more; if only some GPU and precision do, it holds for those."
)
MOST = 75.0


def npu_evidence(seq_len: int) -> list[Evidence]:
    """The shares of the map as it is, with an overhead, and at equal strength."""
    plain, late = measure.shares(seq_len), measure.shares(seq_len, measure.OVERHEAD)
    whole, twin = measure.WHOLE, measure.shares(seq_len, against=measure.TWIN)
    gpus = {name: share for name, share in plain.items() if name != whole}
    return [
        Evidence("cells", "cells of the map at 40 % or more", plain[whole], "%", "computed"),
        Evidence("cells-late", "the same with 10 us a product", late[whole], "%", "computed"),
        *(Evidence(gpu_id(name), name, share, "%", "computed") for name, share in gpus.items()),
        Evidence("equal-array", "an array as strong as the GPU", twin[whole], "%", "computed"),
    ]


def gpu_id(name: str) -> str:
    """The id of a GPU's share: "V100 SXM2, fp16" -> "gpu-v100-sxm2-fp16"."""
    return f"gpu-{name}".lower().replace(",", "").replace(" ", "-")


def npu_latency(evidence) -> Outcome:
    """40 % less latency than a GPU: for which of them?"""
    items = by_id(evidence)
    is_most, is_most_late = items["cells"].value >= MOST, items["cells-late"].value >= MOST
    shares = {item.name: item.value for key, item in items.items() if key.startswith("gpu-")}
    winners = [gpu for gpu, share in shares.items() if share >= MOST]
    if is_most != is_most_late:
        reason = "an overhead of 10 us a product, equal on both sides, turns the answer"
        return Outcome(None, evidence, rule=NPU_RULE, reason=reason)
    if is_most:
        return Outcome(True, evidence, rule=NPU_RULE)
    if winners:
        condition, values = "the GPU is one of: {pairs}", dict(pairs="; ".join(winners))
        return Outcome(True, evidence, rule=NPU_RULE, condition=condition, values=values)
    best = max(shares, key=shares.get)
    reason = "no GPU and precision reaches 75 %; the most, against {pair}, is {share} %"
    values = dict(pair=best, share=f"{shares[best]:.0f}")
    return Outcome(False, evidence, rule=NPU_RULE, reason=reason, values=values)


FPGA_RULE = (
    "A unit that computes int8 products without one wrong bit fits on a chip of the table, and at "
    "the clock it was routed with does MiniLM's matrix products of a 128-token text within 100 ms; "
    "if it takes a shorter text of at least 16 tokens, it holds for those."
)


def fpga_evidence(side: int) -> list[Evidence]:
    """The 8 x 8 unit at its routed clock; the unit of that `side` was simulated here."""
    n_wrong, _ = measure.simulate_unit(side)
    n_chips = sum(measure.fits(chip, 8) for chip in read_published("fpga"))
    common = [
        Evidence("wrong", "wrong values", n_wrong, "", "simulated"),
        Evidence("chips", "chips of the table that hold it", n_chips, "", "computed"),
    ]
    mhz = measure.clock_mhz(8)
    if mhz is None:
        return common
    ms, unit = measure.model_ms(measure.TOKENS, 8, mhz), measure.resources("ecp5", 8)
    longest = measure.longest_text(8, mhz)
    return [
        Evidence("time", "time for 128 tokens", ms, "ms", "computed"),
        Evidence("longest-text", "longest text within 100 ms", longest, "tokens", "computed"),
        *common,
        Evidence("clock", "clock of the 8 x 8 unit on an LFE5U-85F", mhz, "MHz", "recorded"),
        Evidence("dsp", "multipliers (DSP)", unit.dsp, "", "recorded"),
        Evidence("lut", "tables (LUT)", unit.lut, "", "recorded"),
    ]


def fpga_inference(evidence) -> Outcome:
    """An FPGA serves inference: exact, small enough, fast enough."""
    values = {key: item.value for key, item in by_id(evidence).items()}
    if "time" not in values:
        reason = "no clock is recorded: the unit was not placed and routed"
        return Outcome(None, evidence, rule=FPGA_RULE, reason=reason)
    is_fast, longest = values["time"] <= measure.TARGET_MS, int(values["longest-text"])
    reason = ""
    if values["wrong"]:
        reason = "its products are not those of whole numbers"
    elif not values["chips"]:
        reason = "it fits on none of the chips"
    elif not is_fast and longest < 16:
        reason = "even 16 tokens take longer than 100 ms"
    if reason:
        return Outcome(False, evidence, rule=FPGA_RULE, reason=reason)
    if is_fast:
        return Outcome(True, evidence, rule=FPGA_RULE)
    condition = "a text has at most {n} tokens; everything but matrix products comes on top"
    return Outcome(True, evidence, rule=FPGA_RULE, condition=condition, values=dict(n=longest))
