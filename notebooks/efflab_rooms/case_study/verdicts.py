"""Notebook 14's verdicts: what each rests on. Their rules stand in data/rules.toml."""

from collections.abc import Mapping, Sequence
from statistics import mean

from efflab import cost, layers
from efflab.config import ModelConfig
from efflab.estimate import Estimate
from efflab.experiments import case_study_latency as latency
from efflab.experiments import lighten
from efflab.experiments.case_study import PRECISIONS, SEQ_LEN, difference
from efflab.experiments.case_study_latency import BOTH, INT8, LIGHT, OPENVINO, SHIPPED, rows_of
from efflab.lab import Evidence, Outcome, judge, number
from efflab_rooms.case_study import measure
from efflab_rooms.case_study.measure import BEFORE, CONFIG, TrainingRun, over

BySeed = Mapping[int, float]

# --- ernie-dynamic ---------------------------------------------------------------------------


TRAINED = {
    "tuned": "bits per byte after 1,000 steps, above the equally trained plain model (by seed)",
    "last-round": "bits per byte, lightened: what the last 250 of 1,000 steps changed (by seed)",
    "control": "control, nothing removed: bits per byte above the model as shipped (by seed)",
}


def dynamic_evidence(
    recipe: lighten.Recipe, cases: Mapping[str, Estimate], config: ModelConfig = CONFIG
) -> list[Evidence]:
    """What a recipe takes off the FLOPs, and what it costs once trained (`case_study_2.cases`)."""
    gone, visible = (lighten.removed_share(config, recipe, SEQ_LEN, c) for c in lighten.COUNTS)
    narrowest = lighten.windows_alone((lighten.WIDTHS[-1],) * config.n_layer)
    alone = lighten.removed_share(config, narrowest, SEQ_LEN)
    both = "FLOPs removed at 512 tokens, windows and heads"
    windows = "FLOPs removed at 512 tokens, the narrowest windows alone"
    pairs = "FLOPs removed at 512 tokens, windows and heads, visible pairs only"
    return [
        Evidence("gone", both, 100 * gone, "%"),
        Evidence("windows-alone", windows, 100 * alone, "%"),
        Evidence("visible", pairs, 100 * visible, "%"),
        *(Evidence.of(key, name, cases[key], "", "recorded") for key, name in TRAINED.items()),
    ]


def ernie_dynamic(evidence) -> Outcome:
    """Whether 30 % of a model's computation can leave with its attention, and quality stay."""
    remarks = {
        "flops": "windows alone do not reach 30% at this length: whole heads are removed as well",
        "quality": "ERNIE was not tried: this is one recipe, chosen by the cost of each change "
        "alone, on a small causal model",
    }
    return judge("ernie-dynamic", evidence, remarks=remarks)


# --- ernie-int8 ------------------------------------------------------------------------------

CASES = {"time-1": (1, None), "time-4": (4, None)}
CASES |= {"time-1-older": (1, latency.OLDER), "time-4-older": (4, latency.OLDER)}
"""The model of this notebook: id -> texts, instructions left."""
LARGER = {"bert": "bert-base", "bert-large": "bert-large", "gpt3": "gpt3-175b"}
"""Id -> the shape whose weights are computed."""


def smaller_weights(config: ModelConfig) -> float:
    """Per cent that INT8 takes off a model's weights, in the form that the engine stores.

    Linear maps and token table: one byte, and four for each output channel's scale. Others: four.
    """
    d, d_ff = config.d_model, config.d_ff
    maps = layers.attention_params(config) - 6 * d + layers.ffn_params(config) - 3 * d - d_ff
    pooler = int(config.pooler)
    one_byte = config.n_layer * maps + (config.vocab_size + pooler * d) * d
    scales = config.n_layer * (5 * d + d_ff) + config.vocab_size + pooler * d
    n_params = cost.num_params(config)
    return 100 - 100 * (one_byte + 4 * (n_params - one_byte + scales)) / (4 * n_params)


def size_evidence(
    files: Mapping[str, int], weights: Mapping[str, int], shapes: Mapping[str, ModelConfig]
) -> list[Evidence]:
    """What INT8 takes off an engine's files and weights (bytes by engine), and off other shapes."""
    stored = ("files", "size saved by INT8: files, OpenVINO", files)
    alone = ("weights", "size saved by INT8: weights alone", weights)
    computed = "size saved by INT8: {model}'s weights, the same parts kept in floats"
    items = [
        Evidence.exact(key, name, 100 - 100 * sizes[INT8] / sizes[OPENVINO], "%")
        for key, name, sizes in (stored, alone)
    ]
    for key, model in LARGER.items():
        share = smaller_weights(shapes[model])
        items.append(Evidence(f"{key}-weights", computed, share, "%", values=dict(model=model)))
    return items


def time_evidence(record: Mapping) -> list[Evidence]:
    """INT8's time over fp32's in the same engine, at the end of the path, from recorded latencies.

    The intervals are widened by the A/A noise of their runs.
    """
    name = "INT8 time / fp32 time, OpenVINO, texts: {n}, {cpu} (by repeat)"
    bands = {(r["n"], r["isa"]): r["band"] for r in record["runs"] if r["part"] == "time"}
    items = []
    for key, (n, isa) in CASES.items():
        rows = rows_of(record, n, isa)
        ratio = over(rows[BOTH, INT8], rows[BOTH, OPENVINO]).with_noise(bands[n, isa])
        cpu = "VNNI switched off" if isa else "all instructions"
        items.append(Evidence.of(key, name, ratio, "", "recorded", n=n, cpu=cpu))
    return items


def ernie_int8(evidence) -> Outcome:
    """Whether INT8 makes a model a quarter of its size and takes 60 % off its latency."""
    remarks = {
        "size": "what stays in floats (scales, norms, positions, the graph) matters less the "
        "larger the model: from BERT-base's shape on, the weights reach a saving of 75% (rounded)",
        "latency": "these are times of a small causal model on one CPU: ERNIE was not tried",
    }
    return judge("ernie-int8", evidence, remarks=remarks)


# --- fp16-int8 -------------------------------------------------------------------------------


def recipe_evidence(light: BySeed, full: BySeed, training: Mapping) -> list[Evidence]:
    """What 16 bits to train and INT8 to serve cost in quality, and a training step's time.

    `light`, `full`: seed -> bits per byte at the path's end, so trained and served, and in fp32
    throughout; `training`: the recorded run of training steps, with the A/A noise of its times.
    """
    steps = {(row["stage"], row["precision"]): row for row in training["rows"]}
    lost, base = difference(light, full), mean(full.values()) / 100
    quality = Estimate(lost.mean / base, lost.low / base, lost.high / base)
    rise = "increase in bits per byte: bf16 training and INT8, from fp32 throughout (by seed)"
    name = "time of a training step, bf16 / fp32, this kind of CPU, {stage} (by repeat)"
    evidence = [Evidence.of("quality", rise, quality, "%", "recorded")]
    for key, stage in (("step-shipped", SHIPPED), ("step-light", LIGHT)):
        ratio = over(steps[stage, PRECISIONS[0]], steps[stage, "fp32"])
        noisy = ratio.with_noise(training["band"])
        evidence.append(Evidence.of(key, name, noisy, "", "recorded", stage=stage))
    return evidence


def fp16_int8(evidence) -> Outcome:
    """Whether 16 bits to train and INT8 to serve are the recipe."""
    remarks = {
        "training": "16 bits are bf16 here; FP16 with loss scaling was not trained. Recorded "
        "without an interval, so not counted: on an H100 FP16 takes longer than TF32 when texts "
        "are few",
        "serving": "recorded without an interval, so not counted: on an AVX2 CPU, OpenVINO's INT8 "
        "takes about as long as fp32 for an encoder",
    }
    return judge("fp16-int8", evidence, remarks=remarks)


# --- ernie-72h -------------------------------------------------------------------------------


def hours_evidence(runs: Sequence[TrainingRun]) -> list[Evidence]:
    """Tokens on which the largest clusters train 100 billion parameters in 72 hours."""
    name = "billions of tokens: {n} x {device} at {u}% of peak ({run})"
    hours = "billions of tokens: {n} x {device} at {u}%, from hours, stops included ({run})"
    largest, before = measure.largest_cluster(runs), measure.largest_cluster(runs, BEFORE)
    second = measure.largest_cluster([run for run in runs if run != largest])
    clusters = {"tokens": largest, "tokens-second": second, "tokens-before": before}
    slower = largest.tokens() / largest.sustained * largest.utilization / 1e9
    by_hours = dict(n=f"{largest.n_devices:,}", device=largest.device, run=largest.name)
    by_hours |= dict(u=round(100 * largest.utilization))
    evidence = [Evidence("tokens-by-hours", hours, slower, values=by_hours)]
    for key, run in clusters.items():
        share = number(100 * run.sustained, 3)
        cluster = dict(n=f"{run.n_devices:,}", device=run.device, u=share, run=run.name)
        evidence.append(Evidence(key, name, run.tokens() / 1e9, values=cluster))
    return evidence


def ernie_72h(evidence) -> Outcome:
    """Whether 100 billion parameters can be trained in 72 hours."""
    remarks = {
        "tokens": "possible does not mean done: we found no source for the run itself, its tokens, "
        "devices or utilization",
        "before": "ERNIE 3.0 Titan, with 260 billion parameters, was published in December 2021; "
        "PaLM's cluster came in 2022",
    }
    return judge("ernie-72h", evidence, remarks=remarks)
