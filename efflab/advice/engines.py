"""Speedup of a whole forward pass by a CPU engine, which accelerates only some of the products.

Engines were recorded on MiniLM's short texts, which are nearly all linear maps. On longer texts the
scores, and a language model's logits, keep their speed (Amdahl 1967).
"""

from collections.abc import Mapping

from efflab import cost
from efflab.advice.case import Case
from efflab.advice.recorded import ENGINES, describe, engine_row
from efflab.advice.technique import Gain

STATIC, DYNAMIC = "OpenVINO INT8", "torch dynamic INT8"
COVERED = {STATIC: ("maps", "logits"), DYNAMIC: ("maps",)}
"""Engine -> parts that it computes in 8 bits; engines not listed accelerate all parts."""
SHAPES = ("1x16", "4x64", "16x128")
"""Recorded shapes, batch x length."""


def parts(case: Case) -> dict[str, int]:
    """FLOPs of a text in linear maps, logits and scores."""
    by_part = cost.flops_by_part(case.config, case.tokens)
    maps = by_part["projections"] + by_part["ffn"] + by_part["embedding"]
    return {"maps": maps, "logits": by_part["logits"], "scores": by_part["scores"]}


def coverage(flops: Mapping[str, float], engine: str) -> float:
    """The share (0..1) of a pass's FLOPs that the engine accelerates."""
    names = COVERED.get(engine, tuple(flops))
    return sum(flops[name] for name in names) / sum(flops.values())


def times(engine: str, device: str) -> tuple[float, float]:
    """(least, most) recorded time of the accelerated parts over torch's fp32 on that CPU."""
    times = [engine_row(engine, device)[shape] for shape in SHAPES]
    return min(times), max(times)


def whole(share: float, time: float) -> float:
    """Relative time of a pass if a `share` of it takes `time` times as long (Amdahl's law).

    >>> whole(0.5, 0.25)
    0.625
    """
    return 1 - share + share * time


def gain(case: Case, engine: str) -> Gain:
    """Speedup of a text, from the least to the most recorded."""
    share = coverage(parts(case), engine)
    fast, slow = (whole(share, time) for time in times(engine, case.device))
    return Gain(1 / slow, 1 / fast, "recorded", ENGINES, describe("MiniLM-L6"))
