"""Notebook 14's verdicts: what each rests on, and its rule."""

from statistics import mean

from efflab import cost
from efflab.advice.case import CPUS
from efflab.advice.recorded import engine_row
from efflab.config import PRESETS, ModelConfig
from efflab.devices import DEVICES
from efflab.estimate import Estimate
from efflab.experiments import gpu_bench, int8_engines, lighten
from efflab.experiments.case_study import PRECISIONS, SEQ_LEN
from efflab.experiments.case_study_latency import BOTH, INT8, OLDER, OPENVINO, SHIPPED
from efflab.lab import Evidence, Outcome, by_id
from efflab_rooms.case_study import measure
from efflab_rooms.case_study.measure import CONFIG, DAYS, GPUS, N_PARAMS, N_TOKENS

SHARE, MARGIN = 30, 0.05  # per cent of the FLOPs; bits per byte, as notebook 11 counts "recovered"
DYNAMIC_RULE = (
    "holds if a model that lost at least 30% of its FLOPs in attention is, after one round of "
    "tuning, within 0.05 bits per byte of the plain model tuned as long, with 95% confidence over "
    "seeds; on a condition if windows alone do not remove as much; not if it certainly stays "
    "further away; otherwise undecided"
)


def dynamic_evidence() -> list[Evidence]:
    """What lighter attention costs, before and after a round of tuning, and what it removes."""
    recipe, widths = measure.recipe(), measure.part("widths")["widths"]
    gone, visible = (lighten.removed_share(CONFIG, recipe, SEQ_LEN, c) for c in lighten.COUNTS)
    untuned = mean(run["rows"][0]["bits"] for run in measure.runs().values())
    lost = untuned - measure.record()["settings"]["shipped"]
    tuned = "bits per byte after a round, above the plain model tuned as long"
    narrowest = "FLOPs gone at 512 tokens, the narrowest windows alone"
    pairs = "the same where only pairs that a token may see count"
    before = "bits per byte above the model as shipped, before any tuning"
    both = "FLOPs gone at 512 tokens, windows and heads"
    return [
        Evidence.of("tuned", tuned, measure.control_difference(), "", "recorded"),
        Evidence("gone", both, 100 * gone, "%", "computed"),
        Evidence("windows-alone", narrowest, 100 * widths[-1]["windows_alone"], "%", "computed"),
        Evidence("visible", pairs, 100 * visible, "%", "computed"),
        Evidence("before", before, lost, "", "recorded"),
    ]


def ernie_dynamic(evidence) -> Outcome:
    """Whether 30 % of a model's computation can leave with its attention, and quality stay."""
    numbers = by_id(evidence)
    tuned, alone = numbers["tuned"], numbers["windows-alone"].value
    card = dict(evidence=evidence, rule=DYNAMIC_RULE)
    if numbers["gone"].value < SHARE:
        return Outcome(False, **card, reason="attention has not that much to give at this length")
    if tuned.low > MARGIN:
        reason = "one round of tuning does not bring this model's quality back; ERNIE was not tried"
        return Outcome(False, **card, reason=reason)
    if tuned.high > MARGIN:
        reason = "seeds do not tell whether the quality comes back to within the margin"
        return Outcome(None, **card, reason=reason)
    if alone >= SHARE:
        return Outcome(True, **card)
    condition = (
        "whole heads go as well and the rest is tuned: at this length windows alone remove at most "
        "{alone}%"
    )
    return Outcome(True, **card, condition=condition, values=dict(alone=f"{alone:.0f}"))


# --- ernie-int8 ------------------------------------------------------------------------------

SMALLER, LATENCY = 74, 0.40  # per cent, as notebook 09 counts "75% smaller"; of fp32's time
TIMES = {"time-1": (1, None), "time-4": (4, None)}
TIMES |= {"time-1-older": (1, OLDER), "time-4-older": (4, OLDER)}
"""The model of this notebook: id -> texts, instructions left."""
ENCODER = {
    f"minilm-{n}x{tokens}-{kind}": (n, tokens, cpu)
    for cpu, kind in zip(CPUS, ("vnni", "older"), strict=True)
    for n, tokens in ((16, 128), (4, 64), (1, 16))
}
"""ERNIE is an encoder, and so is this one: id -> texts, tokens of each, kind of CPU."""
INT8_RULE = (
    "a quarter of the size is met from 74% smaller on, as in notebook 09, 60% lower latency where "
    "INT8 takes at most 0.40 of fp32's time in the same engine, with 95% confidence where an "
    "interval was recorded. Holds if the files and every recorded time meet it, this model's and "
    "an encoder's; on a condition if a BERT-base's weights do and some times; not if these weights "
    "do not, or no time can; otherwise undecided"
)


def over(a: dict, b: dict) -> Estimate:
    """Ratio of two recorded ratios; its interval as wide as both ends allow."""
    return Estimate(a["ratio"] / b["ratio"], a["low"] / b["high"], a["high"] / b["low"])


def time_evidence() -> list[Evidence]:
    """INT8's time over fp32's in the same engine, at the end of the path, by texts and CPU."""
    cpus, items = measure.cpus(), []
    for key, (n, isa) in TIMES.items():
        if isa in cpus:
            times = measure.times(isa, n)
            ratio = over(times[BOTH, INT8], times[BOTH, OPENVINO])
            name = f"INT8's time over fp32's, OpenVINO, {_texts(n)}, {cpus[isa]}"
            items.append(Evidence.of(key, name, ratio, "", "recorded"))
    return items


def encoder_evidence() -> list[Evidence]:
    """The same of notebook 09's encoder, by texts x tokens and kind of CPU, as recorded there."""
    items = []
    for key, (n, tokens, cpu) in ENCODER.items():
        int8 = engine_row(int8_engines.OPENVINO, cpu)[f"{n}x{tokens}"]
        full = engine_row(int8_engines.OPENVINO_FP32, cpu)[f"{n}x{tokens}"]
        name = f"MiniLM: INT8's time over fp32's, OpenVINO, {_texts(n)} of {tokens} tokens, {cpu}"
        items.append(Evidence(key, name, int8 / full, "", "recorded"))
    return items


def _texts(n: int) -> str:
    return f"{n} text" if n == 1 else f"{n} texts"


def smaller_weights(config: ModelConfig) -> float:
    """Per cent that INT8 takes off a model's weights, in the form that the engine stores.

    Linear maps and token table: one byte, and four for each output channel's scale. Others: four.
    """
    d, d_ff = config.d_model, config.d_ff
    maps = cost.attention_params(config) - 6 * d + cost.ffn_params(config) - 3 * d - d_ff
    one_byte = config.n_layer * maps + config.vocab_size * d
    scales = config.n_layer * (5 * d + d_ff) + config.vocab_size
    n_params = cost.num_params(config)
    return 100 - 100 * (one_byte + 4 * (n_params - one_byte + scales)) / (4 * n_params)


def int8_evidence() -> list[Evidence]:
    """INT8's recorded times, what it takes off files and weights, and what quality it costs."""
    engines, weights = measure.engines_here()
    files = 100 - 100 * engines[INT8].nbytes / engines[OPENVINO].nbytes
    alone = 100 - 100 * weights[INT8] / weights[OPENVINO]
    bert_name = "smaller: BERT-base's weights with the same parts left in floats"
    lost = measure.difference(measure.ends(), measure.ends(engine=OPENVINO))
    lost_name = "bits per byte lost to INT8 at the end of the path"
    return [
        *encoder_evidence(),
        *time_evidence(),
        Evidence("files", "smaller: INT8's files than fp32's, OpenVINO", files, "%"),
        Evidence("weights", "smaller: INT8's weights alone", alone, "%"),
        Evidence("bert-weights", bert_name, smaller_weights(PRESETS["bert-base"]), "%", "computed"),
        Evidence.of("lost", lost_name, lost, "", "recorded"),
    ]


def _most(item: Evidence) -> float:
    """The high end of its interval, or its value where none was recorded."""
    return item.value if item.high is None else item.high


def ernie_int8(evidence) -> Outcome:
    """Whether INT8 makes a model a quarter of its size and takes 60 % off its latency."""
    numbers = by_id(evidence)
    times = [numbers[key] for key in (*TIMES, *ENCODER) if key in numbers]
    fast = [time for time in times if _most(time) <= LATENCY]
    least = min(time.value if time.low is None else time.low for time in times)
    card = dict(evidence=evidence, rule=INT8_RULE)
    if numbers["bert-weights"].value < SMALLER:
        return Outcome(False, **card, reason="what stays in floats takes too much")
    if least > LATENCY:
        reason = "no recorded time falls so far: at best to {best} of fp32's"
        best = f"{min(time.value for time in times):.2f}"
        return Outcome(False, **card, reason=reason, values=dict(best=best))
    if not fast:
        return Outcome(None, **card, reason="the recorded times are too uncertain to tell")
    if len(fast) == len(times) and numbers["files"].value >= SMALLER:
        return Outcome(True, **card)
    counts = dict(n=len(fast), all=len(times), encoder=sum(time.id in ENCODER for time in fast))
    condition = (
        "the processor multiplies 8-bit integers in one instruction, and the model is so large "
        "that tables and graph do not count: {n} of {all} recorded times are met, {encoder} of "
        "them the encoder's"
    )
    return Outcome(True, **card, condition=condition, values=counts)


# --- fp16-int8 -------------------------------------------------------------------------------

MOST_LOST = 1.0  # per cent, as MLPerf counts for INT8
RECIPE_RULE = (
    "quality is kept if bits per byte rise by at most 1% with 95% confidence over seeds; a half "
    "pays where it takes less time than what it replaces: fp32, on the H100 TF32. Holds if quality "
    "is kept and both halves pay in every recorded case; on a condition if each pays in some; not "
    "if quality is certainly lost or a half pays in none; otherwise undecided"
)
H100_STEP = "training step in fp16 over TF32, H100, {n} texts"


def h100_evidence() -> list[Evidence]:
    """The recorded H100's training step in fp16 over TF32; none where no such GPU is recorded."""
    parts = gpu_bench.read_part(gpu_bench.STEP)
    rows = next((part["rows"] for gpu, part in parts.items() if "H100" in gpu), [])
    ms = {(row["recipe"], row["batch_size"]): row["ms"] for row in rows}
    ratios = {n: ms["fp16", n] / ms["tf32", n] for n in (32, 4) if ("fp16", n) in ms}
    return [
        Evidence(f"step-h100-{n}", H100_STEP, ratio, "", "recorded", values={"n": n})
        for n, ratio in ratios.items()
    ]


def recipe_evidence() -> list[Evidence]:
    """What 16 bits to train and INT8 to serve cost in quality, and both halves' times."""
    full = measure.ends(engine=OPENVINO, precision="fp32")
    lost, base = measure.difference(measure.ends(), full), mean(full.values()) / 100
    quality = Estimate(lost.mean / base, lost.low / base, lost.high / base)
    steps = {(row["stage"], row["precision"]): row for row in measure.part("training")["rows"]}
    step = over(steps[SHIPPED, PRECISIONS[0]], steps[SHIPPED, "fp32"])
    rise = "bits per byte: bf16 training and INT8 above fp32 throughout (%)"
    step_name = "training step in bf16 over fp32, this kind of CPU, all instructions"
    return [
        Evidence.of("quality", rise, quality, "%", "recorded"),
        Evidence.of("step-cpu", step_name, step, "", "recorded"),
        *h100_evidence(),
        *time_evidence(),
        *encoder_evidence(),
    ]


def fp16_int8(evidence) -> Outcome:
    """Whether 16 bits to train and INT8 to serve are the recipe."""
    numbers = by_id(evidence)
    quality = numbers["quality"]
    halves = (("step-cpu", "step-h100-32", "step-h100-4"), (*TIMES, *ENCODER))
    train, serve = ([_most(numbers[key]) < 1 for key in half if key in numbers] for half in halves)
    card = dict(evidence=evidence, rule=RECIPE_RULE)
    if quality.low > MOST_LOST:
        return Outcome(False, **card, reason="quality is lost")
    if not (any(train) and any(serve)):
        return Outcome(False, **card, reason="one half saves no time in any recorded case")
    if quality.high > MOST_LOST:
        return Outcome(None, **card, reason="seeds do not tell whether quality is kept")
    if all(train + serve):
        return Outcome(True, **card)
    counts = dict(train=sum(train), trains=len(train), serve=sum(serve), serves=len(serve))
    condition = (
        "the hardware computes in both formats and has enough to do: training pays in {train} of "
        "{trains} recorded cases, INT8 in {serve} of {serves}"
    )
    return Outcome(True, **card, condition=condition, values=counts)


# --- ernie-72h -------------------------------------------------------------------------------

ENOUGH, LEAST = 300, 100  # billions of tokens: GPT-3's; one for each parameter
HOURS_RULE = (
    "holds if the largest published cluster, at the best published utilization, trains 100 "
    "billion parameters on 300 billion tokens, as GPT-3's, in 72 hours; on a condition if on at "
    "least one token a parameter; not below that"
)


def hours_evidence() -> list[Evidence]:
    """Tokens and devices of 72 hours at the best published utilization, and published runs."""
    utilization, n = measure.best_utilization(), measure.largest_cluster()
    tokens = measure.tokens_possible(N_PARAMS, DAYS, n, DEVICES["A100 80GB SXM"], utilization)
    v100s, a100s, _ = (
        measure.devices_needed(N_PARAMS, N_TOKENS, DAYS, DEVICES[gpu], utilization) for gpu in GPUS
    )
    shortest = min(run.days for run in measure.published_runs() if run.days)
    best, _, without = measure.plans().values()
    ratio = best.step_seconds / without.step_seconds
    reached = "billions of tokens in 72 hours, the table's largest cluster at its best utilization"
    wanted = "{gpu}s that 300 billion tokens need in 72 hours at that utilization"
    days = "days of the table's shortest run whose devices are known"
    speed = "speed of the best plan without tensor parallelism over the best plan"
    share = "best utilization in the table, by 6 FLOPs a parameter and token (%)"
    return [
        Evidence("tokens", reached, tokens / 1e9, "", "computed"),
        Evidence("a100s", wanted, a100s, "", "computed", values={"gpu": "A100"}),
        Evidence("largest-run", "A100s of the table's largest run", n, "", "published"),
        Evidence("utilization", share, 100 * utilization, "%", "computed"),
        Evidence("shortest-days", days, shortest, "", "published"),
        Evidence("v100s", wanted, v100s, "", "computed", values={"gpu": "V100"}),
        Evidence("without-tensor", speed, ratio, "", "computed"),
    ]


def ernie_72h(evidence) -> Outcome:
    """Whether 100 billion parameters can be trained in 72 hours."""
    numbers = by_id(evidence)
    tokens, card = numbers["tokens"].value, dict(evidence=evidence, rule=HOURS_RULE)
    if tokens >= ENOUGH:
        return Outcome(True, **card)
    if tokens < LEAST:
        reason = "no cluster in the table comes to one token a parameter in that time"
        return Outcome(False, **card, reason=reason)
    values = dict(tokens=f"{tokens:.0f}", n=f"{numbers['largest-run'].value:,.0f}")
    values |= dict(u=f"{numbers['utilization'].value:.0f}")
    condition = (
        "it sees at most {tokens} billion tokens, on the table's largest cluster, {n} A100s at "
        "{u}% of their peak; we found no source that gives the run's tokens, devices or utilization"
    )
    return Outcome(True, **card, condition=condition, values=values)
