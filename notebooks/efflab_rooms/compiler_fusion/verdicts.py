"""Notebook 07's verdict: fewer kernels and fewer bytes, out of the compilers' own output."""

from efflab.acceleration.fusion import FusionReport
from efflab.bench import Comparison
from efflab.lab import Evidence, Outcome, by_id
from efflab_rooms.compiler_fusion import measure

RULE = (
    "holds if there are fewer kernels than operations, and fewer bytes, both counted in what XLA "
    "puts out; on condition if torch's kernels fused by hand are no more than XLA's; not if "
    "kernels or bytes do not become fewer; undecided if there is nothing to fuse"
)


def fusion_evidence(
    reports: dict[str, FusionReport], times: dict[str, Comparison]
) -> list[Evidence]:
    """What the verdict rests on, out of the block's reports and times."""
    forms = measure.WITH_XLA, measure.WITH_INDUCTOR, measure.LIBRARY_WITH_INDUCTOR
    xla, inductor, library = (reports[form] for form in forms)
    ratios = times["JAX"].ratios | times["torch"].ratios
    inductor_time, library_time = ratios[measure.WITH_INDUCTOR], ratios[measure.LIBRARY]
    return [
        Evidence("ops-per-kernel", "operations a kernel, XLA", xla.n_ops / xla.n_kernels),
        Evidence("bytes", "bytes after / before, XLA", xla.bytes_after / xla.bytes_before),
        Evidence("ops", "operations handed to XLA", xla.n_ops),
        Evidence("kernels", "kernels XLA launches", xla.n_kernels),
        Evidence("torch-kernels", "kernels of torch's own, without a compiler", library.n_ops),
        Evidence("inductor-kernels", "kernels Inductor launches", inductor.n_kernels),
        Evidence.of("xla", "XLA's time / single operations", ratios[measure.WITH_XLA]),
        Evidence.of("inductor", "Inductor's time / single operations", inductor_time),
        Evidence.of("torch", "torch's own kernels' time / single operations", library_time),
    ]


def xla_fusion(evidence) -> Outcome:
    """The claim says that XLA fuses operators and so launches fewer kernels.

    Time is shown and decides nothing. What kernels fused by hand launch is the condition.
    """
    numbers = {key: item.value for key, item in by_id(evidence).items()}
    n_ops, n_kernels, by_hand = (numbers[key] for key in ("ops", "kernels", "torch-kernels"))
    values = dict(ops=f"{n_ops:,.0f}", kernels=f"{n_kernels:,.0f}", hand=f"{by_hand:,.0f}")
    common = dict(rule=RULE, values=values)
    if n_ops < 2:
        reason = "a program of one operation leaves nothing to fuse"
        return Outcome(None, evidence, reason=reason, **common)
    if numbers["ops-per-kernel"] <= 1:
        reason = "XLA launches {kernels} kernels for {ops} operations"
        return Outcome(False, evidence, reason=reason, **common)
    if numbers["bytes"] >= 1:
        reason = "the kernels are fewer, but move no fewer bytes"
        return Outcome(False, evidence, reason=reason, **common)
    if by_hand > n_kernels:
        return Outcome(True, evidence, **common)
    condition = (
        "compared with single operations ({ops} to {kernels}); torch's own LayerNorm, "
        "attention and GELU, fused by hand, need {hand} kernels for the same block"
    )
    return Outcome(True, evidence, condition=condition, **common)
