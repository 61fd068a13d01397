"""Notebook 03's verdict, as a function of its evidence alone."""

import math
from collections.abc import Mapping

from efflab.estimate import Estimate, of_mean
from efflab.experiments.attention_bench import BLOCK
from efflab.lab import Evidence, Outcome, by_id, judge, number
from efflab.structure.pairs import computed_pairs
from efflab_rooms.sparse_attention import measure

TIMES = {
    "window-time": (measure.WINDOW, "fitted exponent of the window's time in the length"),
    "swin-time": (measure.SWIN, "fitted exponent of Swin's time in the length"),
    "bigbird-time": (measure.BIGBIRD, "fitted exponent of BigBird's time in the length"),
    "full-time": (measure.FULL, "fitted exponent of full attention's time in the length (control)"),
}
PAIRS = {
    "window-pairs": "exponent of the pairs a window computes, over the last doubling",
    "swin-pairs": "exponent of the pairs Swin computes, over the last doubling",
    "bigbird-pairs": "exponent of the pairs BigBird computes, over the last doubling",
    "full-pairs": "exponent of the pairs full attention computes, over the last doubling (control)",
}
RECALLS = {
    "recall-within": "recall at {tokens} tokens, the reach of the stacked windows "
    "(interval over texts and seeds)",
    "recall-beyond": "recall at {tokens} tokens, beyond that reach (interval over texts and seeds)",
    "recall-full": "recall at {tokens} tokens with full attention (interval over texts)",
    "recall-global": "recall at {tokens} tokens with a global block (interval over texts)",
}
TRAINED = {
    "window-trained": "bits per byte above the shipped model: window of 64, trained further",
    "window-untrained": "bits per byte above the shipped model: window of 64, not trained further "
    "(control)",
    "full-trained": "bits per byte above the shipped model: full attention, trained further",
    "trained-alike": "bits per byte: window minus full attention, both trained further",
}
REMARK = (
    "the price is range: on our three-layer model with windows of 8, recall is {within}% at "
    "{reach} tokens, the stack's reach, and {beyond}% at {next}, where full attention has {full}% "
    "and chance {chance}%; with a global block and no window (each token also sees its own block "
    "of 4), it is {with_global}% at {far}"
)


def time_evidence(powers: Mapping[str, Estimate]) -> list[Evidence]:
    """Of {implementation: exponent of its time}."""
    return [Evidence.of(key, name, powers[way]) for key, (way, name) in TIMES.items()]


def pairs_evidence(max_len: int, window_size: int) -> list[Evidence]:
    """Exponents of the pairs that each computes, over the last doubling of the length."""
    n = max_len // (2 * BLOCK) * 2 * BLOCK
    counts = {
        "window-pairs": lambda n: computed_pairs(n, window_size),
        "swin-pairs": lambda n: n * measure.SIDE**2,
        "bigbird-pairs": lambda n: int(measure.long_layout(n).sum()) * BLOCK**2,
        "full-pairs": lambda n: n**2,
    }
    return [
        Evidence(key, PAIRS[key], math.log2(count(n) / count(n // 2)))
        for key, count in counts.items()
    ]


def of_accuracies(shares: list[float]) -> Estimate:
    """Mean accuracy of models (one a seed) on `measure.N_TEXTS` texts each.

    The wider of two intervals: Student's t over the seeds, if several, and the exact binomial
    (Clopper & Pearson 1934) over all texts, which also covers 100 %.
    """
    from scipy import stats

    mean, n = sum(shares) / len(shares), measure.N_TEXTS * len(shares)
    low, high = stats.binomtest(round(mean * n), n).proportion_ci()
    if len(shares) > 1:
        seeds = of_mean(shares)
        low, high = max(min(low, seeds.low), 0.0), min(max(high, seeds.high), 1.0)
    return Estimate.widened(mean, low, high)


def recall_evidence(shares: Mapping[str, tuple[int, Estimate]]) -> list[Evidence]:
    """Of {id of `RECALLS`: (distance of the answer in tokens, accuracy)}."""
    return [Evidence.of(key, RECALLS[key], share, tokens=d) for key, (d, share) in shares.items()]


def sparse_linear(evidence) -> Outcome:
    """Whether windows and blocks bring attention down to O(n), and at what price."""
    items = by_id(evidence)
    shares = dict(zip(("within", "beyond", "full", "with_global"), RECALLS, strict=True))
    places = dict(reach="recall-within", next="recall-beyond", far="recall-global")
    values = {word: number(100 * items[key].value, 2) for word, key in shares.items()}
    values |= {word: items[key].values["tokens"] for word, key in places.items()}
    values |= dict(chance=number(100 / measure.N_SYMBOLS))
    return judge("sparse-linear", evidence, remarks={"time": REMARK}, values=values)


def trained_evidence(costs: Mapping[str, Estimate]) -> list[Evidence]:
    """From `window_tuned.cases`."""
    return [Evidence.of(key, TRAINED[key], cost, "bits", "recorded") for key, cost in costs.items()]


def window_tuned(evidence) -> Outcome:
    """Whether a model trained on with a window is as good as the one as shipped."""
    return judge("window-tuned", evidence)
