"""Notebook 07's verdict: fewer kernels and fewer bytes, out of the compilers' own output."""

from efflab.lab import Outcome, by_id

RULE = (
    "holds if there are fewer kernels than operations, and fewer bytes, both counted in what XLA "
    "puts out; on condition if torch's kernels fused by hand are no more than XLA's; not if "
    "kernels or bytes do not become fewer; undecided if there is nothing to fuse"
)


def xla_fusion(evidence) -> Outcome:
    """The claim says that XLA fuses operators and so launches fewer kernels.

    Time is shown and decides nothing. What kernels fused by hand launch is the condition.
    """
    found = by_id(evidence)
    n_ops, n_kernels = found["ops"].value, found["kernels"].value
    by_hand = found["torch-kernels"].value
    values = dict(ops=f"{n_ops:,.0f}", kernels=f"{n_kernels:,.0f}", hand=f"{by_hand:,.0f}")
    common = dict(rule=RULE, values=values)
    if n_ops < 2:
        reason = "a program of one operation leaves nothing to fuse"
        return Outcome(None, evidence, reason=reason, **common)
    if found["ops-per-kernel"].value <= 1:
        reason = "XLA launches {kernels} kernels for {ops} operations"
        return Outcome(False, evidence, reason=reason, **common)
    if found["bytes"].value >= 1:
        reason = "the kernels are fewer, but move no fewer bytes"
        return Outcome(False, evidence, reason=reason, **common)
    condition = ""
    if by_hand <= n_kernels:
        condition = (
            "compared with single operations ({ops} to {kernels}); torch's own LayerNorm, "
            "attention and GELU, fused by hand, need {hand} kernels for the same block"
        )
    return Outcome(True, evidence, condition=condition, **common)
