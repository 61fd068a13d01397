"""Notebook 15's profile: shares of a pass by part, what they point to, and what is then faster."""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from efflab import bench, profile
from efflab.bench import Comparison
from efflab.compression.pruning import prune_ffn
from efflab.config import PRESETS
from efflab.lab import Evidence, figures, tr
from efflab.model import Transformer
from efflab.structure.window import computed_pairs, with_windows
from efflab_rooms.choose_plan.verdicts import LENGTHS

WINDOW, REMOVED = 64, 0.5
THUMB = "windows"
"""The rule of thumb's choice at every length: attention is the bottleneck."""
REPEATS = {128: 31, 512: 11, 2048: 5}
SCORES = "scaled_dot_product"


@lru_cache(maxsize=1)
def model() -> Transformer:
    """`stdlib-gpt`'s shape with more positions; its weights do not matter for time."""
    torch.manual_seed(0)
    return Transformer(replace(PRESETS["stdlib-gpt"], max_len=max(LENGTHS))).eval()


@lru_cache(maxsize=1)
def choices() -> dict[str, Transformer]:
    """The two changes that a reader may make first."""
    half = range(round(REMOVED * model().config.d_ff))
    neurons = dict.fromkeys(range(model().config.n_layer), half)
    return {"windows": with_windows(model(), WINDOW), "neurons": prune_ffn(model(), neurons)}


@dataclass(frozen=True)
class Shares:
    """Shares (0..1) of a pass's time at one length."""

    scores: float
    projections: float
    ffn: float
    other: float


@torch.no_grad()
@bench.one_thread()
def shares(seq_len: int) -> Shares:
    """Measured by PyTorch Profiler: attention's own product apart from its projections."""
    net, ids = model(), torch.zeros(1, seq_len, dtype=torch.long)
    parts = {
        "attention": [layer.attention for layer in net.layers],
        "ffn": [layer.ffn for layer in net.layers],
    }
    for _ in range(2):
        net(ids)
    spans = profile.profile(lambda: net(ids), parts).spans
    total = sum(s.seconds for s in spans)
    scores = sum(s.seconds for s in spans if SCORES in s.name)
    inside = sum(s.seconds for s in spans if s.part == "attention")
    ffn = sum(s.seconds for s in spans if s.part == "ffn")
    rest = total - inside - ffn
    return Shares(*(x / total for x in (scores, inside - scores, ffn, rest)))


def saved(found: Shares, seq_len: int) -> dict[str, float]:
    """The share of the time that each choice would save, if time went with what it leaves out."""
    pairs = computed_pairs(seq_len, WINDOW, causal=True) / seq_len**2
    return {"windows": found.scores * (1 - pairs), "neurons": found.ffn * REMOVED}


def chosen(found: Shares, seq_len: int) -> str:
    """The choice that the profile points to."""
    expected = saved(found, seq_len)
    return max(expected, key=expected.__getitem__)


@lru_cache(maxsize=8)
def measured(seq_len: int) -> tuple[Shares, Comparison]:
    """The profile at that length, and both choices timed beside the unchanged model."""
    ids = torch.zeros(1, seq_len, dtype=torch.long)
    calls = {name: lambda net=net: net(ids) for name, net in choices().items()}
    with torch.no_grad(), bench.one_thread():
        times = bench.compared(lambda: model()(ids), calls, 2, REPEATS[seq_len])
    return shares(seq_len), times


def rows() -> list[dict]:
    """By length: shares, what the profile chooses, and what either choice really takes."""
    found = []
    for T in LENGTHS:
        parts, times = measured(T)
        ratios = {name: times.ratios[name].mean for name in choices()}
        found.append({
            "tokens": T, "scores (%)": 100 * parts.scores, "FFN (%)": 100 * parts.ffn,
            "projections (%)": 100 * parts.projections, "rule of thumb": THUMB,
            "after the profile": chosen(parts, T), "windows: time": ratios["windows"],
            "neurons: time": ratios["neurons"], "A/A band (%)": 100 * times.band,
            "kind": "measured",
        })  # fmt: skip
    return found


def picture():
    """The profile over the length: where the decision turns."""
    names = {"scores": "scores", "projections": "projections", "ffn": "FFN", "other": "the rest"}
    series = {
        tr(label): [100 * getattr(measured(T)[0], key) for T in LENGTHS]
        for key, label in names.items()
    }
    title = tr("Where the time goes in stdlib-gpt's shape (measured)")
    texts = [str(T) for T in LENGTHS]
    fig = figures.bars(texts, series, title, tr("tokens"), tr("% of the time"), stacked=True)
    meta = {f"{T}": tr(chosen(measured(T)[0], T)) for T in LENGTHS}
    return fig.update_layout(meta=meta)


TIME_NAME = "{n} tokens: time after the profile's choice over the rule of thumb's"
SCORES_NAME = "{n} tokens: share of the scores in the profile"


def profile_evidence() -> list[Evidence]:
    """At each length: the time after the profile's choice over the rule of thumb's."""
    ratios, bands = [], [0.0]
    for T in LENGTHS:
        parts, times = measured(T)
        mine = chosen(parts, T)
        ratio = times.timings[mine].ratio_interval(times.timings[THUMB])
        ratios.append(Evidence.of(f"time-{T}", TIME_NAME, ratio, "x", n=T))
        if mine != THUMB:
            bands.append(times.band)
    shares = {T: 100 * measured(T)[0].scores for T in LENGTHS}
    changed = "lengths at which the profile changes the choice"
    band = "A/A band of the times where it does, the widest"
    return [
        *ratios,
        *(Evidence(f"scores-{T}", SCORES_NAME, x, "%", values={"n": T}) for T, x in shares.items()),
        Evidence("changed", changed, len(bands) - 1),
        Evidence("band", band, 100 * max(bands), "±%"),
    ]
