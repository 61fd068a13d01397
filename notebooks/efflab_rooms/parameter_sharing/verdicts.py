"""Notebook 01's verdicts, each a function of its evidence alone."""

from collections.abc import Mapping

from efflab import cost
from efflab.config import PRESETS, ModelConfig
from efflab.estimate import Estimate
from efflab.experiments import encoder_reuse_3
from efflab.lab import Evidence, Outcome, by_id, judge, number

# --- ALBERT ------------------------------------------------------------------------------------

CLAIMED = 60
NAMES = {
    "albert-base": "ALBERT-base",
    "albert-large": "ALBERT-large",
    "albert-xlarge": "ALBERT-xlarge",
    "albert-xxlarge": "ALBERT-xxlarge",
    "bert-base": "BERT-base",
    "minilm": "MiniLM-L6",
}
REMOVED = "{model}: parameters that sharing removes"
FLOPS = "{model}: FLOPs of a forward pass, shared / not shared"
NEEDED = "share of parameters 12 layers must hold to save 60%"
TIME = (
    "our model: time of a forward pass, shared / not shared (by repeat, widened by the A/A noise)"
)
NARROW = (
    "the layers must hold most of the parameters: in MiniLM, where the vocabulary holds half, "
    "sharing removes {removed}%"
)
STORAGE = "each layer is computed as before: sharing compresses what is stored"


def albert_evidence(
    models: Mapping[str, tuple[ModelConfig, ModelConfig]], time: Estimate
) -> list[Evidence]:
    """`models`: by the keys of `NAMES`, not shared and shared; `time`: shared / not, widened."""
    n_layer = PRESETS["bert-base"].n_layer
    evidence = [
        Evidence("layers-needed", NEEDED, CLAIMED * n_layer / (n_layer - 1), "%"),
        Evidence.of("time", TIME, time, "x"),
    ]
    for key, (before, after) in models.items():
        values = {"model": NAMES[key]}
        removed = 100 * (1 - cost.num_params(after) / cost.num_params(before))
        evidence.append(Evidence(f"{key}-removed", REMOVED, removed, "%", values=values))
        if key != "minilm":
            work = cost.forward_flops(after, 128) / cost.forward_flops(before, 128)
            evidence.append(Evidence(f"{key}-flops", FLOPS, work, "x", values=values))
    return evidence


def albert_params(evidence) -> Outcome:
    """Whether sharing all layers removes over 60% of the parameters, and computation with them."""
    remarks = {"parameters": NARROW, "computation": STORAGE}
    values = dict(removed=number(by_id(evidence)["minilm-removed"].value))
    return judge("albert-params", evidence, remarks=remarks, values=values)


# --- QKV in half of the layers -----------------------------------------------------------------

COSTS = {
    "knee-half": "loss increase from none to half of the layers sharing "
    "(nats per token, paired by seed)",
    "knee-past-half": "loss increase from half to all of the layers sharing "
    "(nats per token, paired by seed)",
    "knee-all": "loss increase from none to all of the layers sharing "
    "(nats per token, paired by seed)",
    "knee-convolution": "control: loss with attention minus loss with a 3-token convolution "
    "(nats per token, paired by seed)",
    "knee-layers": "control: loss of one whole layer used six times minus that of six layers "
    "(nats per token, paired by seed)",
}


def qkv_evidence(costs: Mapping[str, Estimate]) -> list[Evidence]:
    """From the record's `cases`."""
    return [Evidence.of(key, COSTS[key], cost, "", "recorded") for key, cost in costs.items()]


def qkv_share_half(evidence) -> Outcome:
    """Whether QKV projections may be shared in no more than half of the layers."""
    return judge("qkv-share-half", evidence)


# --- One encoder, many tasks -------------------------------------------------------------------

LOST = "{task}: accuracy a head loses against a fine-tuned encoder ({n} seeds, paired by text)"
UNTRAINED = (
    "{task}: accuracy a head on random weights loses against a fine-tuned encoder "
    "({n} seeds, paired by text)"
)
CONTROL = f"control, {UNTRAINED}"
MEMORY = "weight memory, 3 encoders / one with 3 heads"
REUSE_TIME = "time, 3 encoders / one with 3 heads, the same texts (by repeat)"
POINTS = 5


def reuse_evidence(lost: Mapping[str, Estimate], memory: float, time: Estimate) -> list[Evidence]:
    """`lost`: the record's `cases`, in points; the others: 3 encoders / one."""
    names = {key: UNTRAINED if "untrained" in key else LOST for key in lost}
    names["untrained-package"] = CONTROL
    evidence = [Evidence.exact("memory", MEMORY, memory, "x")]
    evidence.append(Evidence.of("time", REUSE_TIME, time, "x"))
    for key, (task, *_) in encoder_reuse_3.CASES.items():
        values = dict(task=task, n=len(encoder_reuse_3.SEEDS))
        evidence.append(Evidence.of(key, names[key], lost[key], "points", "recorded", **values))
    return evidence


def encoder_reuse(evidence) -> Outcome:
    """Whether several tasks can share one encoder and add only a head each."""
    return judge("encoder-reuse", evidence)
