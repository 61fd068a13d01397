"""Notebook 01's verdicts, each a function of its figures alone."""

from collections.abc import Mapping
from dataclasses import replace

from efflab import cost
from efflab.config import PRESETS
from efflab.estimate import Estimate, paired
from efflab.lab import Figure, Outcome, by_name

# --- ALBERT ------------------------------------------------------------------------------------

CLAIMED = 60
BERT = "BERT-base: parameters removed"
MINILM = "MiniLM-L6: parameters removed"
NEEDED = "share of all parameters that 12 layers have to hold for 60%"
FLOPS = "FLOPs of a forward pass, shared over not shared"
TIME = "time of a forward pass, shared over not shared"
BAND = "A/A band of this time"
ALBERT_RULE = (
    "two things are claimed: over 60% fewer parameters, and less computation. It holds if both are "
    "so in BERT-base and in MiniLM; on a condition if parameters fall so far in one of them, or if "
    "the FLOPs stay; not if parameters fall by less in both"
)


def albert_figures(bert: float, minilm: float, time: Estimate, band: float) -> list[Figure]:
    """`bert`, `minilm`: shares removed (0..1); `time`: shared over not, and its A/A band."""
    config = PRESETS["bert-base"]
    layers = config.n_layer
    flops = [cost.forward_flops(replace(config, share=share), 128) for share in ("all", "none")]
    return [
        Figure(BERT, 100 * bert, "%", "computed"),
        Figure(MINILM, 100 * minilm, "%", "computed"),
        Figure(NEEDED, CLAIMED * layers / (layers - 1), "%", "computed"),
        Figure(FLOPS, flops[0] / flops[1], "x", "computed"),
        Figure.of(TIME, time, "x"),
        Figure(BAND, 100 * band, "±%"),
    ]


def albert_params(figures) -> Outcome:
    """Whether sharing all layers removes over 60% of the parameters, and computation with them."""
    found = by_name(figures)
    over = [found[name].value > CLAIMED for name in (BERT, MINILM)]
    if not any(over):
        reason = "sharing removes 60% or less in both models"
        return Outcome(False, figures, rule=ALBERT_RULE, reason=reason)
    less = found[FLOPS].value < 1
    if all(over) and less:
        return Outcome(True, figures, rule=ALBERT_RULE)
    values = dict(needed=f"{found[NEEDED].value:.0f}%")
    condition = "the layers hold over {needed} of the parameters"
    if not less:
        condition = (
            "parameters are meant, and the layers hold over {needed} of them; computation stays"
        )
    return Outcome(True, figures, rule=ALBERT_RULE, condition=condition, values=values)


# --- QKV in half of the layers -----------------------------------------------------------------

PAST = "loss from half to all layers sharing (nats a token, by seed)"
HALF = "loss from none to half sharing (nats a token, by seed)"
ALL = "loss from none to all sharing (nats a token, by seed)"
CONTROL = "control: loss of attention less that of a 3-token convolution (nats a token, by seed)"
PAPER = "ALBERT-base, attention shared in all layers: score lost (Lan et al. 2020, Table 4)"
ENOUGH = 0.02
QKV_RULE = (
    "a limit at half shows as a knee: the step past half costs more than 0.02 nats with 95% "
    "confidence by seeds. It does not hold if the step costs less than that with 95% confidence "
    "while a control says that attention matters at this budget (it beats a convolution that sees "
    "3 tokens); otherwise undecided"
)


def qkv_figures(record: Mapping, control: Mapping[str, Mapping[int, float]]) -> list[Figure]:
    """From the recorded losses; `control`: {"attention", "convolution"}: seed -> loss."""
    n_layer = record["settings"]["n_layer"]
    loss = {(r["n_shared"], r["seed"]): r["loss"] for r in record["runs"]}
    seeds = sorted({seed for _, seed in loss})
    of = {n: [loss[n, s] for s in seeds] for n in (1, n_layer // 2, n_layer)}
    steps = [(PAST, n_layer, n_layer // 2), (HALF, n_layer // 2, 1), (ALL, n_layer, 1)]
    figures = [Figure.of(name, paired(of[a], of[b]), "", "recorded") for name, a, b in steps]
    both = sorted(control["attention"].keys() & control["convolution"].keys())
    pair = [[control[kind][s] for s in both] for kind in ("attention", "convolution")]
    figures.append(Figure.of(CONTROL, paired(*pair), "", "recorded"))
    return [*figures, Figure(PAPER, 0.7, "points", "published")]


def qkv_share_half(figures) -> Outcome:
    """Whether QKV projections may be shared in no more than half of the layers."""
    found = by_name(figures)
    past, control = found[PAST], found[CONTROL]
    if past.low > ENOUGH:
        return Outcome(True, figures, rule=QKV_RULE)
    if control.high >= 0:
        reason = "at this budget attention does not yet beat 3 tokens, so that no knee could show"
        return Outcome(None, figures, rule=QKV_RULE, reason=reason)
    if past.high < ENOUGH:
        reason = "sharing past half costs next to nothing where attention matters"
        return Outcome(False, figures, rule=QKV_RULE, reason=reason)
    reason = "the step past half lies within the seeds' spread"
    return Outcome(None, figures, rule=QKV_RULE, reason=reason)


# --- One encoder, many tasks -------------------------------------------------------------------

LOST = {
    "takes": "takes: accuracy lost to a fine-tuned encoder (recorded) by a head (measured)",
    "package": "package: accuracy lost to a fine-tuned encoder (recorded) by a head (measured)",
    "returns": "returns: accuracy lost to a fine-tuned encoder (recorded) by a head (measured)",
}
MEMORY = "memory of 3 encoders over one with 3 heads"
SAME_TEXTS = "time of 3 encoders over one with 3 heads, the same texts"
POINTS = 5
REUSE_RULE = (
    "it holds if on every task a head on the shared encoder loses at most 5 points to an encoder "
    "of its own with 95% confidence (over the test's texts), and memory is saved; on a condition "
    "if that is so on some tasks and none loses more; not if one loses more with 95% confidence; "
    "otherwise undecided"
)


def reuse_figures(
    accuracy: Mapping[str, tuple[float, float]], n_texts: int, memory: float, time: Estimate
) -> list[Figure]:
    """`accuracy`: task -> (head's, own encoder's), 0..1, over `n_texts` texts each.

    The interval is that of two proportions; the texts are the same, but which of them a recorded
    encoder got right was not kept, so that it is wider than a paired one would be.
    """
    figures = []
    for task, name in LOST.items():
        head, own = accuracy[task]
        half = 1.96 * ((head * (1 - head) + own * (1 - own)) / n_texts) ** 0.5
        lost = Estimate(*(100 * (own - head + d) for d in (0, -half, half)))
        figures.append(Figure.of(name, lost, "points"))
    figures.append(Figure(MEMORY, memory, "x"))
    return [*figures, Figure.of(SAME_TEXTS, time, "x")]


def encoder_reuse(figures) -> Outcome:
    """Whether several tasks can share one encoder and add only a head each."""
    found = by_name(figures)
    lost = {task: found[name] for task, name in LOST.items()}
    if found[MEMORY].value <= 1 or any(f.low > POINTS for f in lost.values()):
        reason = "a task loses more than 5 points, or no memory is saved"
        return Outcome(False, figures, rule=REUSE_RULE, reason=reason)
    kept = [task for task, f in lost.items() if f.high <= POINTS]
    if len(kept) == len(lost):
        return Outcome(True, figures, rule=REUSE_RULE)
    if kept:
        condition = "the frozen embedding knows what the task asks: {tasks}"
        values = dict(tasks=", ".join(kept))
        return Outcome(True, figures, rule=REUSE_RULE, condition=condition, values=values)
    reason = "one fine-tuning and this many texts cannot tell 5 points"
    return Outcome(None, figures, rule=REUSE_RULE, reason=reason)
