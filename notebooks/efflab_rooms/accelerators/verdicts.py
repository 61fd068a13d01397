"""What the claims of notebook 08 come to: pure functions of their evidence."""

from efflab.lab import Outcome, by_id

NPU_RULE = (
    "Of a map of 6 products x 7 batches for every GPU and precision, 75 % of the cells show 40 % "
    "less time or more; if only some GPU and precision do, it holds for those."
)
MOST = 75.0


def npu_latency(evidence) -> Outcome:
    """40 % less latency than a GPU: for which of them? See `latency.npu_evidence`."""
    found = by_id(evidence)
    every, late = found["cells"].value, found["cells-late"].value
    pairs = {item.name: item.value for key, item in found.items() if key.startswith("gpu-")}
    if (every >= MOST) != (late >= MOST):
        reason = "an overhead of 10 us a product, equal on both sides, turns the answer"
        return Outcome(None, evidence, rule=NPU_RULE, reason=reason)
    if every >= MOST:
        return Outcome(True, evidence, rule=NPU_RULE)
    won = [name for name, share in pairs.items() if share >= MOST]
    if won:
        condition = "the GPU is one of: {pairs}"
        values = dict(pairs="; ".join(won))
        return Outcome(True, evidence, rule=NPU_RULE, condition=condition, values=values)
    best = max(pairs, key=pairs.get)
    reason = "no GPU and precision reaches 75 %; the most, against {pair}, is {share} %"
    values = dict(pair=best, share=f"{pairs[best]:.0f}")
    return Outcome(False, evidence, rule=NPU_RULE, reason=reason, values=values)


TARGET_MS = 100.0
FPGA_RULE = (
    "A unit that computes int8 products without one wrong bit fits on a chip of the table, and at "
    "the clock it was routed with does MiniLM's matrix products of a 128-token text within 100 ms; "
    "if it takes a shorter text of at least 16 tokens, it holds for those."
)


def fpga_inference(evidence) -> Outcome:
    """An FPGA serves inference: exact, small enough, fast enough. See `unit.fpga_evidence`."""
    found = by_id(evidence)
    if "time" not in found:
        reason = "no clock is recorded: the unit was not placed and routed"
        return Outcome(None, evidence, rule=FPGA_RULE, reason=reason)
    if found["wrong"].value:
        reason = "its products are not those of whole numbers"
        return Outcome(False, evidence, rule=FPGA_RULE, reason=reason)
    if not found["chips"].value:
        reason = "it fits on none of the chips"
        return Outcome(False, evidence, rule=FPGA_RULE, reason=reason)
    if found["time"].value <= TARGET_MS:
        return Outcome(True, evidence, rule=FPGA_RULE)
    longest = int(found["longest-text"].value)
    if longest >= 16:
        condition = "a text has at most {n} tokens; everything but matrix products comes on top"
        values = dict(n=longest)
        return Outcome(True, evidence, rule=FPGA_RULE, condition=condition, values=values)
    reason = "even 16 tokens take longer than 100 ms"
    return Outcome(False, evidence, rule=FPGA_RULE, reason=reason)
