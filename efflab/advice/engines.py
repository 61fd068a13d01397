"""What an engine on a CPU makes of a whole pass: it speeds up the products it covers, no others.

Engines were recorded on MiniLM's short texts, which are nearly all linear maps. On a longer text
the scores, and a language model's logits, keep the speed that they had (Amdahl 1967).
"""

from collections.abc import Mapping

from efflab import cost
from efflab.advice.case import Case
from efflab.advice.recorded import engine_row
from efflab.advice.technique import Gain

STATIC, DYNAMIC = "OpenVINO INT8", "torch dynamic INT8"
COVERED = {STATIC: ("maps", "logits"), DYNAMIC: ("maps",)}
"""Engine -> parts that it computes in 8 bits; any other computes all parts in its own way."""
SHAPES = ("1x16", "4x64", "16x128")
"""Batches and lengths that were recorded."""
SOURCE = "data/experiments/int8-engines.json"


def parts(case: Case) -> dict[str, int]:
    """FLOPs of a text in linear maps, logits and scores."""
    by_part = cost.flops_by_part(case.config, case.tokens)
    maps = by_part["projections"] + by_part["ffn"] + by_part["embedding"]
    return {"maps": maps, "logits": by_part["logits"], "scores": by_part["scores"]}


def coverage(flops: Mapping[str, float], engine: str) -> float:
    """The share (0..1) of a pass's FLOPs that the engine computes in its own way."""
    names = COVERED.get(engine, tuple(flops))
    return sum(flops[name] for name in names) / sum(flops.values())


def times(engine: str, device: str) -> tuple[float, float]:
    """The least and the most recorded time of what it covers, over torch's fp32, on that CPU."""
    times = [engine_row(engine, device)[shape] for shape in SHAPES]
    return min(times), max(times)


def whole(share: float, time: float) -> float:
    """Time of a pass of which `share` takes `time` times as long, over the unchanged one's.

    >>> whole(0.5, 0.25)
    0.625
    """
    return 1 - share + share * time


def gain(case: Case, engine: str) -> Gain:
    """How many times faster a text is, by the least and the most that was recorded."""
    share = coverage(parts(case), engine)
    fast, slow = (whole(share, time) for time in times(engine, case.device))
    return Gain(1 / slow, 1 / fast, "recorded", SOURCE)
