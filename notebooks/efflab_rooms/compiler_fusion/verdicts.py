"""Notebook 07's verdict: fewer kernels and fewer bytes, out of the compilers' own output."""

from collections.abc import Mapping

from efflab.acceleration.fusion import FusionReport, fuse
from efflab.bench import Comparison
from efflab.lab import Evidence, Outcome, by_id, judge
from efflab_rooms.compiler_fusion import measure

PROGRAMS = {"block": "the block", "attention": "its attention alone", "gelu": "bias and GELU"}


def fusion_evidence(
    xla: Mapping[str, FusionReport], reports: Mapping[str, FusionReport], times: dict
) -> list[Evidence]:
    """XLA's reports on `PROGRAMS`, and beside them other compilers' on the block and its times."""
    block, inductor = xla["block"], reports[measure.WITH_INDUCTOR]
    kernels, n_bytes = "kernels / operations, {program}", "bytes after / before, {program}"
    counts = {
        "ops": ("operations of the block given to XLA", block.n_ops),
        "kernels": ("XLA's kernels for the block", block.n_kernels),
        "torch-kernels": (
            "torch's own hand-fused kernels for the block, no compiler",
            reports[measure.LIBRARY_WITH_INDUCTOR].n_ops,
        ),
        "inductor-kernels": ("Inductor's kernels for the block", inductor.n_kernels),
        "plan-kernels": (
            "kernels our fuser makes from torch's operations",
            len(fuse(inductor.ops)),
        ),
    }
    return [
        *(
            Evidence.exact(f"kernels-{key}", kernels, r.n_kernels / r.n_ops, program=PROGRAMS[key])
            for key, r in xla.items()
        ),
        *(
            Evidence.exact(
                f"bytes-{key}", n_bytes, r.bytes_after / r.bytes_before, program=PROGRAMS[key]
            )
            for key, r in xla.items()
        ),
        *(Evidence.exact(key, *named) for key, named in counts.items()),
        *time_evidence(times),
    ]


def time_evidence(times: Mapping[str, Comparison]) -> list[Evidence]:
    """Each form's time over single operations in its framework."""
    ratios = times["JAX"].ratios | times["torch"].ratios
    forms = {
        "xla": (measure.WITH_XLA, "XLA's time / single operations"),
        "plan": (measure.PLAN, "time of our fuser's kernels / single operations"),
        "inductor": (measure.WITH_INDUCTOR, "Inductor's time / single operations"),
        "torch": (measure.LIBRARY, "time of torch's own kernels / single operations"),
    }
    return [Evidence.of(key, name, ratios[form]) for key, (form, name) in forms.items()]


def xla_fusion(evidence) -> Outcome:
    """The claim says that XLA fuses operators and so launches fewer kernels."""
    hand = by_id(evidence)["torch-kernels"].value
    remarks = {
        "kernels": "torch's own LayerNorm, attention and GELU, fused by hand, need {hand} kernels "
        "for the same block; times are shown but do not affect the verdict",
        "bytes": "counted as tensors that each kernel reads and writes, once per kernel",
    }
    return judge("xla-fusion", evidence, remarks=remarks, values=dict(hand=f"{hand:.0f}"))
