"""Notebook 13's verdicts: the evidence of each claim, made of what was measured or simulated."""

from collections.abc import Mapping, Sequence

from efflab import cost
from efflab.bench import Comparison
from efflab.distributed import gpipe
from efflab.distributed.schedules import SCHEDULES
from efflab.distributed.stages import PassResult
from efflab.distributed.tensor_parallel import Result
from efflab.distributed.timeline import Timeline
from efflab.estimate import of_median
from efflab.lab import Evidence, Outcome, judge, number
from efflab_rooms.pipeline_parallel import measure

# --- model-parallel --------------------------------------------------------------------------

BETWEEN = (
    "gradients: cut between layers, {n} ranks, {schedule}, vs. one process, largest difference"
)
INSIDE = "gradients: cut inside layers, {n} ranks, {method}, vs. one process, largest difference"
LATE = "output difference: cut inside layers, but summed after the activation (control)"
FULLEST = "share of weights on the fullest of four ranks, cut between layers"
EVEN = "share of weights per rank, four ranks, cut inside layers"
BUSY = "four stages, one batch at a time: busy time"
MODEL_REMARK = (
    "cut between layers, only memory is split: with one batch at a time, devices compute {busy}% "
    "of the time; cut inside, all compute at once. No rank of four holds only a quarter, since "
    "embeddings are held twice or whole"
)


def model_evidence(
    between: Mapping[tuple[int, str], Sequence[PassResult]],
    alone: PassResult,
    inside: Mapping[tuple[int, str], Sequence[Result]],
    late: float,
) -> list[Evidence]:
    """Both cuts against one process, what a rank of four then holds, and how busy it is.

    `between`: by (ranks, schedule); `inside`: by (ranks, method); `late`: the wrong cut's error.
    """
    evidence = []
    for (n, schedule), ranks in between.items():
        apart = measure.gradient_distance(ranks, alone)
        names = dict(n=n, schedule=schedule)
        evidence.append(Evidence.exact(f"between-{n}-{schedule}", BETWEEN, apart, **names))
    for (n, method), ranks in inside.items():
        apart = max(rank.gradients_error for rank in ranks)
        names = dict(n=n, method=method)
        evidence.append(Evidence.exact(f"inside-{n}-{method}", INSIDE, apart, **names))
    fullest = max(rank.weight_bytes for rank in between[4, "gpipe"]) / alone.weight_bytes
    even = max(rank.params for rank in inside[4, "ours"]) / cost.num_params(measure.CONFIG)
    busy = 1 - measure.simulate_step(4, "gpipe", 1).bubble_fraction
    return [
        *evidence,
        Evidence.exact("late", LATE, late),
        Evidence.exact("fullest", FULLEST, 100 * fullest, "%"),
        Evidence.exact("even", EVEN, 100 * even, "%"),
        Evidence("busy", BUSY, 100 * busy, "%", "simulated"),
    ]


def model_parallel(evidence) -> Outcome:
    """Model parallelism splits the layers over several devices."""
    busy = number(100 * (1 - measure.bubble(4, 1)))
    remarks = {"memory": MODEL_REMARK}
    return judge("model-parallel", evidence, remarks=remarks, values=dict(busy=busy))


# --- gpipe-throughput ------------------------------------------------------------------------

GAIN = (
    "Table {table}, {model}, {stages} stages, {microbatches} micro-batches: throughput / baseline"
)
GAIN_OF_ONE = "Table {table}, {model}, {stages} stages, one micro-batch: throughput / baseline"
IDEAL = "8 equal stages with 32 micro-batches / {over}"
UNFILLED, FILLED = "two stages with one micro-batch", "two stages with 32 micro-batches"
GPIPE_REMARK = (
    "the gains counted are relative to two stages with one micro-batch, which work in turn as one "
    "device would (Table 2). Table 3's are relative to two stages that 32 micro-batches already "
    "fill: equal stages could reach at most {most} times there"
)


def gpipe_evidence(rows: Sequence[Mapping]) -> list[Evidence]:
    """Each published gain (`gpipe.gains()`) over its own table's baseline, and the ideal ones."""
    evidence = []
    for row in rows:
        table, stages, microbatches = (row[k] for k in ("table", "n_stages", "n_microbatches"))
        model = row["model"].split("-")[0]
        names = dict(table=table, model=row["model"], stages=stages, microbatches=microbatches)
        key = f"table{table}-{model.lower()}-{stages}-{microbatches}"
        name = GAIN if microbatches > 1 else GAIN_OF_ONE
        evidence.append(Evidence(key, name, row["throughput"], "x", "published", values=names))
    for key, over, base in (("ideal", UNFILLED, (2, 1)), ("ideal-filled", FILLED, (2, 32))):
        most = gpipe.speedup(8, 32) / gpipe.speedup(*base)
        evidence.append(Evidence(key, IDEAL, most, "x", values=dict(over=over)))
    return evidence


def gpipe_throughput(evidence) -> Outcome:
    """A GPipe pipeline raises throughput 3 to 5 times."""
    most = number(gpipe.speedup(8, 32) / gpipe.speedup(2, 32))
    remarks = {"reaches": GPIPE_REMARK}
    return judge("gpipe-throughput", evidence, remarks=remarks, values=dict(most=most))


# --- pipe-balance ----------------------------------------------------------------------------

SLOW = "stage {place} of 4 takes 1.5 times as long, same total work: time / balanced, {schedule}"
REAL = "two computing ranks, {which} 1.5 times as slow, same total work: time / balanced, by repeat"
AGAIN = "balanced step / itself (A/A), by repeat"
OTHERS = "cores used by other processes (control)"
SPLIT = "eleven unequal layers: time with equal counts / best split"
BALANCE_REMARK = (
    "DualPipe gives rank r the stages r and K - 1 - r, so two ranks share the slow stage; in the "
    "other schedules it belongs to one rank"
)


def balance_evidence(
    slowdowns: Mapping[tuple[str, int], float], times: Comparison, others: float, split_gain: float
) -> list[Evidence]:
    """The price of one slow stage: by (schedule, place), of ranks that compute, and of a cut.

    `others`: cores used by other processes meanwhile.
    """
    noise = min(times.band, 0.99)
    evidence = [
        Evidence.of("again", AGAIN, times.again, "x"),
        Evidence.exact("others", OTHERS, others),
        Evidence("split", SPLIT, split_gain, "x", "simulated"),
    ]
    for (schedule, place), ratio in slowdowns.items():
        key, names = f"slow-{schedule}-{place + 1}", dict(place=place + 1, schedule=schedule)
        evidence.append(Evidence(key, SLOW, ratio, "x", "simulated", values=names))
    for which in ("first", "second"):
        ratio = times.ratios[f"{which}-slow"].with_noise(noise)
        evidence.append(Evidence.of(f"real-{which}", REAL, ratio, "x", which=which))
    return evidence


def pipe_balance(evidence) -> Outcome:
    """The work of a pipeline's stages has to be balanced."""
    return judge("pipe-balance", evidence, remarks={"slow-stage": BALANCE_REMARK})


# --- microbatch-bubble -----------------------------------------------------------------------

FALLS = "bubble with 16 micro-batches minus that with 4, percentage points, 4 stages, {schedule}"
FALLS_REAL = (
    "bubble with 8 micro-batches minus that with 2, percentage points, two ranks, by repeat"
)
FILLS = "bubble with four micro-batches per stage, {stages} stages, {schedule}"
FILLS_REAL = "bubble with four micro-batches per stage, two computing ranks, by repeat"
HELD = "most micro-batches held by any rank, 4 ranks, 16 in total, {schedule}"
BUBBLE_REMARK = (
    "GPipe's paper calls the remaining bubble negligible, partly because recomputation fills some "
    "of it. By the paper's formula alone, it is up to {left}% of the time here; without "
    "recomputation, GPipe holds all 16 micro-batches where 1F1B holds 4"
)


def bubble_evidence(
    simulated: Mapping[tuple[str, int, int], Timeline],
    bubbles: Mapping[str, Sequence[float]],
    others: float,
) -> list[Evidence]:
    """Bubbles in per cent: simulated, by (schedule, stages, micro-batches), and of real steps.

    `bubbles`: each repeat's, by name in `measure.STEPS`; `others`: cores used by others meanwhile.
    """
    share = {key: 100 * timeline.bubble_fraction for key, timeline in simulated.items()}
    few, many = ([100 * b for b in bubbles[name]] for name in ("few", "many"))
    falls = of_median([after - before for after, before in zip(many, few, strict=True)])
    options = dict(unit="%", kind="simulated")
    evidence = [
        Evidence.of("falls-real", FALLS_REAL, falls, "%"),
        Evidence.of("fills-real", FILLS_REAL, of_median(many), "%"),
        Evidence.exact("others", OTHERS, others),
    ]
    for schedule in SCHEDULES:
        fall = share[schedule, 4, 16] - share[schedule, 4, 4]
        names = dict(schedule=schedule)
        evidence.append(Evidence(f"falls-{schedule}", FALLS, fall, values=names, **options))
    for (schedule, stages, n), value in share.items():
        if n == 4 * stages:
            names, key = dict(schedule=schedule, stages=stages), f"fills-{schedule}-{stages}"
            evidence.append(Evidence(key, FILLS, value, values=names, **options))
    for schedule in ("gpipe", "1f1b"):
        held = max(simulated[schedule, 4, 16].peak_activations)
        names = dict(schedule=schedule)
        evidence.append(Evidence(f"held-{schedule}", HELD, held, "", "simulated", values=names))
    return evidence


def microbatch_bubble(evidence) -> Outcome:
    """Micro-batches fill the pipeline's bubble."""
    values = dict(left=number(100 * measure.bubble(8, 32)))
    return judge("microbatch-bubble", evidence, remarks={"fills": BUBBLE_REMARK}, values=values)
