"""Notebook 01's verdicts, each a function of its evidence alone."""

from collections.abc import Mapping
from dataclasses import replace

from efflab import cost
from efflab.config import PRESETS
from efflab.estimate import Estimate, paired_difference
from efflab.lab import Evidence, Outcome, by_id

# --- ALBERT ------------------------------------------------------------------------------------

CLAIMED = 60
ALBERT_RULE = (
    "two things are claimed: over 60% fewer parameters, and less computation. It holds if both are "
    "so in BERT-base and in MiniLM; on a condition if parameters fall so far in one of them, or if "
    "the FLOPs stay; not if parameters fall by less in both"
)


def albert_evidence(bert: float, minilm: float, time: Estimate, band: float) -> list[Evidence]:
    """`bert`, `minilm`: shares removed (0..1); `time`: shared over not, and its A/A band."""
    config = PRESETS["bert-base"]
    needed = CLAIMED * config.n_layer / (config.n_layer - 1)
    flops = [cost.forward_flops(replace(config, share=share), 128) for share in ("all", "none")]
    share = "share of all parameters that 12 layers have to hold for 60%"
    work = "FLOPs of a forward pass, shared over not shared"
    return [
        Evidence("bert-removed", "BERT-base: parameters removed", 100 * bert, "%", "computed"),
        Evidence("minilm-removed", "MiniLM-L6: parameters removed", 100 * minilm, "%", "computed"),
        Evidence("layers-needed", share, needed, "%", "computed"),
        Evidence("flops", work, flops[0] / flops[1], "x", "computed"),
        Evidence.of("time", "time of a forward pass, shared over not shared", time, "x"),
        Evidence("band", "A/A band of this time", 100 * band, "±%"),
    ]


def albert_params(evidence) -> Outcome:
    """Whether sharing all layers removes over 60% of the parameters, and computation with them."""
    items = by_id(evidence)
    over = [items[key].value > CLAIMED for key in ("bert-removed", "minilm-removed")]
    if not any(over):
        reason = "sharing removes 60% or less in both models"
        return Outcome(False, evidence, rule=ALBERT_RULE, reason=reason)
    less = items["flops"].value < 1
    if all(over) and less:
        return Outcome(True, evidence, rule=ALBERT_RULE)
    values = dict(needed=f"{items['layers-needed'].value:.0f}%")
    stays = "parameters are meant, and the layers hold over {needed} of them; computation stays"
    condition = "the layers hold over {needed} of the parameters" if less else stays
    return Outcome(True, evidence, rule=ALBERT_RULE, condition=condition, values=values)


# --- QKV in half of the layers -----------------------------------------------------------------

STEPS = {
    "half-to-all": "loss from half to all layers sharing (nats a token, by seed)",
    "none-to-half": "loss from none to half sharing (nats a token, by seed)",
    "none-to-all": "loss from none to all sharing (nats a token, by seed)",
}
CONTROL = "control: loss of attention less that of a 3-token convolution (nats a token, by seed)"
PAPER = (
    "ALBERT-base with an embedding of 768, attention shared in all layers: score lost; with its "
    "own of 128 none (Lan et al. 2020, Table 4)"
)
ENOUGH = 0.02
QKV_RULE = (
    "a limit at half shows as a knee: the step past half costs more than 0.02 nats with 95% "
    "confidence by seeds. It does not hold if the step costs less than that with 95% confidence "
    "while a control says that attention matters at this budget (it beats a convolution that sees "
    "3 tokens); otherwise undecided"
)


def qkv_evidence(record: Mapping, control: Mapping[str, Mapping[int, float]]) -> list[Evidence]:
    """From the recorded losses; `control`: {"attention", "convolution"}: seed -> loss."""
    every = record["settings"]["n_layer"]
    half = every // 2
    loss = {(run["n_shared"], run["seed"]): run["loss"] for run in record["runs"]}
    seeds = sorted({seed for _, seed in loss})
    losses = {n: [loss[n, seed] for seed in seeds] for n in (1, half, every)}
    steps = {"half-to-all": (every, half), "none-to-half": (half, 1), "none-to-all": (every, 1)}
    evidence = [
        Evidence.of(key, STEPS[key], paired_difference(losses[more], losses[fewer]), "", "recorded")
        for key, (more, fewer) in steps.items()
    ]
    both = sorted(control["attention"].keys() & control["convolution"].keys())
    pair = [[control[kind][seed] for seed in both] for kind in ("attention", "convolution")]
    return [
        *evidence,
        Evidence.of("control", CONTROL, paired_difference(*pair), "", "recorded"),
        Evidence("albert-score", PAPER, 0.7, "points", "published"),
    ]


def qkv_share_half(evidence) -> Outcome:
    """Whether QKV projections may be shared in no more than half of the layers."""
    items = by_id(evidence)
    past, control = items["half-to-all"], items["control"]
    if past.low > ENOUGH:
        return Outcome(True, evidence, rule=QKV_RULE)
    if control.high >= 0:
        reason = "at this budget attention does not yet beat 3 tokens, so that no knee could show"
        return Outcome(None, evidence, rule=QKV_RULE, reason=reason)
    if past.high < ENOUGH:
        reason = "sharing past half costs next to nothing where attention matters"
        return Outcome(False, evidence, rule=QKV_RULE, reason=reason)
    reason = "the step past half lies within the seeds' spread"
    return Outcome(None, evidence, rule=QKV_RULE, reason=reason)


# --- One encoder, many tasks -------------------------------------------------------------------

TASKS = ("takes", "package", "returns")
LOST = "{task}: accuracy lost to a fine-tuned encoder (recorded) by a head (measured)"
POINTS = 5
REUSE_RULE = (
    "it holds if on every task a head on the shared encoder loses at most 5 points to an encoder "
    "of its own with 95% confidence (over the test's texts), and memory is saved; on a condition "
    "if that is so on some tasks and none loses more; not if one loses more with 95% confidence; "
    "otherwise undecided"
)


def reuse_evidence(
    accuracy: Mapping[str, tuple[float, float]], n_texts: int, memory: float, time: Estimate
) -> list[Evidence]:
    """`accuracy`: task -> (head's, own encoder's), 0..1, over `n_texts` texts each.

    The interval is that of two proportions; the texts are the same, but which of them a recorded
    encoder got right was not kept, so that it is wider than a paired one would be.
    """
    losses = []
    for task in TASKS:
        head, own = accuracy[task]
        half = 1.96 * ((head * (1 - head) + own * (1 - own)) / n_texts) ** 0.5
        lost = Estimate(*(100 * (own - head + d) for d in (0, -half, half)))
        losses.append(Evidence.of(f"lost-{task}", LOST, lost, "points", task=task))
    return [
        *losses,
        Evidence("memory", "memory of 3 encoders over one with 3 heads", memory, "x"),
        Evidence.of("time", "time of 3 encoders over one with 3 heads, the same texts", time, "x"),
    ]


def encoder_reuse(evidence) -> Outcome:
    """Whether several tasks can share one encoder and add only a head each."""
    items = by_id(evidence)
    lost = {task: items[f"lost-{task}"] for task in TASKS}
    if items["memory"].value <= 1 or any(points.low > POINTS for points in lost.values()):
        reason = "a task loses more than 5 points, or no memory is saved"
        return Outcome(False, evidence, rule=REUSE_RULE, reason=reason)
    served = [task for task, points in lost.items() if points.high <= POINTS]
    if len(served) == len(lost):
        return Outcome(True, evidence, rule=REUSE_RULE)
    if served:
        condition = "the frozen embedding knows what the task asks: {tasks}"
        values = dict(tasks=", ".join(served))
        return Outcome(True, evidence, rule=REUSE_RULE, condition=condition, values=values)
    reason = "one fine-tuning and this many texts cannot tell 5 points"
    return Outcome(None, evidence, rule=REUSE_RULE, reason=reason)
