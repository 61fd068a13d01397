"""Notebook 16's own statements: what each rests on. Their rules stand in data/rules.toml."""

from collections.abc import Callable, Mapping

from efflab.estimate import Estimate
from efflab.lab import Evidence, Outcome, judge
from efflab_rooms.decoding import measure

WINDOWS = (32, 128)

SPEED = "tokens per second, INT4 / fp32 (by repeat, widened by the A/A noise)"
SHARE = "{format}: (time / fp32 time) / (bytes / fp32 bytes)"
GROUPED = "{times} × bytes kept with {n} instead of 16 key/value heads / multi-head"
ALONE = "bits per byte lost with a window of {n}"
SINKS = "bits per byte lost with a window of {n} and the first four tokens"
FIRST = "bits per byte, window of {n}: four extra recent tokens minus the first four"
PAGES = "allocated slots that are empty, pages of 16 tokens (by seed)"
LONGEST = "allocated slots that are empty, pages as long as the longest text (by seed)"
PASSES = "tokens per pass / formula, {n} drafted (by text)"
FAR = "largest difference in a token's probability"

WHOLE = "compared with the whole text, not with a recomputed window as in Xiao et al."
CUT = (
    "the last drafts are cut at 64 tokens, which alone makes the ratio a little smaller; positions "
    "differ, which the formula ignores"
)


def bytes_evidence(ratios: Mapping[str, Estimate], kept: Mapping[int, int]) -> list[Evidence]:
    """`ratios`: time / fp32's of INT8 and INT4; `kept`: key/value heads (16, 4, 1) -> bytes."""
    four, shares = ratios["INT4"], {name: measure.FORMAT_BITS[name] / 32 for name in ratios}
    # the noise of a busy machine may reach down to 0
    speed = Estimate(1 / four.mean, 1 / four.high, 1 / max(four.low, 1e-3))
    evidence = [Evidence.of("int4-speed", SPEED, speed, "x")]
    for name, r in ratios.items():
        over = Estimate(*(x / shares[name] for x in (r.mean, r.low, r.high)))
        id = f"{name.lower()}-time-over-bytes"
        evidence.append(Evidence.of(id, SHARE, over, "x", format=name))
    for n in (4, 1):
        share, values = kept[n] * (16 // n) / kept[16], dict(n=n, times=16 // n)
        evidence.append(Evidence.exact(f"grouped-{n}", GROUPED, share, "x", **values))
    return evidence


def cache_evidence(
    lost: Mapping[str, Mapping[int, Estimate]], waste: Mapping[str, Estimate]
) -> list[Evidence]:
    """`lost`: "window", "sinks" and "first" by window; `waste`: by page, "16" and "longest"."""
    names = dict(sinks=SINKS, window=ALONE, first=FIRST)
    evidence = [
        Evidence.of(f"{kind}-{n}", name, lost[kind][n], "", n=n)
        for kind, name in names.items()
        for n in WINDOWS
    ]
    for page, name in (("16", PAGES), ("longest", LONGEST)):
        evidence.append(Evidence.of(f"waste-{page}", name, waste[page], "%", "simulated"))
    return evidence


def speculation_evidence(
    passes: Mapping[int, Estimate], formula: Callable[[int], float], far: float
) -> list[Evidence]:
    """`passes`: tokens per pass by tokens drafted; `far`: of a probability."""
    evidence = []
    for n, own in passes.items():
        over = Estimate(*(x / formula(n) for x in (own.mean, own.low, own.high)))
        evidence.append(Evidence.of(f"passes-{n}", PASSES, over, "x", n=n))
    return [*evidence, Evidence("distribution", FAR, far)]


def decoding_bytes(evidence) -> Outcome:
    """Whether a token's time follows the bytes that are read for it."""
    return judge("decoding-bytes", evidence)


def decoding_cache(evidence) -> Outcome:
    """Whether a cache can be made smaller without training."""
    return judge("decoding-cache", evidence, remarks={"sinks-repair": WHOLE})


def decoding_speculation(evidence) -> Outcome:
    """Whether a draft saves passes and leaves the distribution as it is."""
    return judge("decoding-speculation", evidence, remarks={"formula": CUT})
