"""Notebook 14's engines: quality, bytes, time and memory by stage, recorded and here."""

from functools import lru_cache
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

from efflab import bench, cost, points
from efflab.advice.case import CPUS as KINDS
from efflab.advice.recorded import engine_row
from efflab.compression.language import LanguageEngine
from efflab.config import PRESETS, ModelConfig
from efflab.estimate import Estimate, paired
from efflab.experiments import case_study, gpu_bench, int8_engines, lighten
from efflab.experiments import case_study_latency as latency
from efflab.experiments.case_study import MAIN, SEQ_LEN, paths
from efflab.experiments.case_study_latency import BOTH, FP32, INT8, OPENVINO, SHIPPED, STAGES
from efflab.experiments.record import recorded
from efflab.lab import Evidence, figures, number, tr
from efflab.lab.text import tr_name
from efflab_rooms.case_study import paths as walked
from efflab_rooms.case_study import verdicts, where

CPUS = {None: "all instructions", latency.OLDER: "without VNNI"}


@lru_cache(maxsize=1)
def record() -> dict:
    """The recorded latencies of this kind of CPU, or of the one begun last."""
    return recorded(latency.NAME)


def isas() -> list[str | None]:
    """Instructions under which that machine was measured: all, and where it has VNNI, without."""
    return list(dict.fromkeys(r["isa"] for r in record()["runs"] if r["part"] == "time"))


def quality(stage: str, engine: str) -> float | None:
    """Bits per byte, mean of seeds; None where no path ends there. `stage`: shipped or both."""
    path = {SHIPPED: "as shipped", BOTH: MAIN}.get(stage)
    runs = paths(where.record(), path, "fp32") if path else {}
    if engine == FP32:
        shipped = where.record()["settings"]["shipped"]
        ends = [run["rows"][-1]["bits"] if run["rows"] else shipped for run in runs.values()]
    else:
        ends = [case_study.end_bits(run, engine) for run in runs.values()]
    return mean(ends) if ends else None


def engine_rows(stage: str, n: int = 1) -> list[dict]:
    """Each engine at a stage: quality, bytes, memory, time over the shipped model's in torch."""
    (memory,) = [r["rows"] for r in record()["runs"] if r["part"] == "memory"]
    resident = {(row["stage"], row["engine"]): row["resident_bytes"] for row in memory}
    rows = []
    for engine in latency.ENGINES:
        row = {"engine": engine, "bits per byte": quality(stage, engine)}
        for isa in isas():
            found = latency.rows_of(record(), n, isa).get((stage, engine))
            if isa is None:
                row["MB"] = found["nbytes"] / 1e6
            row[f"time, {CPUS[isa]}"] = found and found["ratio"]
            row[f"error, {CPUS[isa]} (%)"] = found and 100 * found["error"]
        added = resident.get((stage, engine))
        row["memory (MB)"] = None if added is None else added / 1e6
        rows.append(row | {"kind": "recorded"})
    return rows


def stage_rows(n: int = 1) -> list[dict]:
    """Each stage in one engine, OpenVINO: FLOPs, and time in fp32 and INT8 over as shipped."""
    rows = []
    for stage in STAGES:
        row: dict = {"stage": stage}
        for isa in isas():
            found = latency.rows_of(record(), n, isa)
            base = found[SHIPPED, OPENVINO]
            row["FLOPs"] = found[stage, OPENVINO]["flops"] / base["flops"]
            row[f"fp32, {CPUS[isa]}"] = found[stage, OPENVINO]["ratio"] / base["ratio"]
            row[f"INT8, {CPUS[isa]}"] = found[stage, INT8]["ratio"] / base["ratio"]
        rows.append(row | {"kind": "recorded"})
    return rows


def pareto_figure(n: int = 1):
    """Bits per byte over time: each engine's line from the model as shipped to the end of the path.

    Circles are as shipped, squares lightened and pruned.
    """
    names = isas()
    titles = [tr(CPUS[isa]) for isa in names]
    title = tr("Quality over time, {n} text(s) of 512 tokens (recorded)", n=n)
    fig = figures.panels(titles, title, shared_yaxes=True, horizontal_spacing=0.06)
    for column, isa in enumerate(names, start=1):
        found = latency.rows_of(record(), n, isa)
        for i, engine in enumerate(latency.ENGINES):
            ends = [(found[stage, engine]["ratio"], quality(stage, engine))
                    for stage in (SHIPPED, BOTH)]  # fmt: skip
            x, y = zip(*ends, strict=True)
            fig.add_scatter(
                x=x, y=y, mode="lines+markers", name=tr_name(engine), showlegend=column == 1,
                line=dict(color=figures.colour(i), width=1.5),
                marker=dict(size=11, symbol=["circle", "square"]), row=1, col=column,
            )  # fmt: skip
            fig.layout.meta |= {f"{tr_name(engine)}, {tr(CPUS[isa])}": x[-1]}
        ticks = [0.25, 0.5, 1, 2, 4, 8, 16]
        label = tr("time / torch fp32, as shipped")
        fig.update_xaxes(type="log", title_text=label, tickvals=ticks, row=1, col=column,
                         ticktext=[number(t) for t in ticks])  # fmt: skip
    fig.update_yaxes(title_text=tr("bits per byte"), row=1, col=1)
    under = dict(orientation="h", x=0, xanchor="left", y=-0.22, yanchor="top")
    return fig.update_layout(legend=under, height=480, margin_b=130)


# --- Here ------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def built_here() -> tuple[dict[str, LanguageEngine], dict[str, int]]:
    """The lightened and pruned model, not tuned, in three engines; {engine: weights' bytes}."""
    model, shape, made, weights = latency.model_at(BOTH, where.chosen()), (1, SEQ_LEN), {}, {}
    with TemporaryDirectory() as folder, bench.one_thread():
        for i, name in enumerate((FP32, OPENVINO, INT8)):
            path = Path(folder) / f"{i}.xml"
            made[name] = latency.make_engine(name, model, path, shape)
            if path.exists():
                weights[name] = path.with_suffix(".bin").stat().st_size
    return made, weights


@lru_cache(maxsize=1)
def times_here(repeats: int = 9) -> bench.Comparison:
    """Each of OpenVINO's on one text, over torch's fp32, on one thread."""
    ids = case_study.calibration()[0][:1]
    calls = {name: lambda e=engine: e(ids) for name, engine in built_here()[0].items()}
    with bench.one_thread():
        return bench.compared(calls.pop(FP32), calls, 2, repeats)


def live_rows() -> list[dict]:
    """This machine: time over torch's fp32 with its interval, files and weights."""
    made, weights = built_here()
    times = times_here()
    return [
        {
            "engine": name,
            "time / torch fp32": ratio.mean,
            "from": ratio.low,
            "to": ratio.high,
            "A/A band (%)": 100 * times.band,
            "all files (MB)": made[name].nbytes / 1e6,
            "weights alone (MB)": weights[name] / 1e6,
            "kind": "measured",
        }
        for name, ratio in times.ratios.items()
    ]


def board_point() -> dict:
    """The end of the path for the board: quality as recorded, bytes and time here."""
    ends = [case_study.end_bits(run) for run in paths(where.record(), MAIN).values()]
    engine = built_here()[0][INT8]
    found = Estimate(mean(ends), min(ends), max(ends))
    return points.language_point(engine, engine.nbytes, found)


# --- The verdicts' figures -------------------------------------------------------------------


def over(a: dict, b: dict) -> Estimate:
    """Ratio of two recorded ratios; its interval as wide as both ends allow."""
    return Estimate(a["ratio"] / b["ratio"], a["low"] / b["high"], a["high"] / b["low"])


def time_evidence() -> list[Evidence]:
    """INT8's time over fp32's in the same engine, at the end of the path, by texts and CPU."""
    items = []
    for key, (n, isa, name) in verdicts.TIMES.items():
        if isa in isas():
            rows = latency.rows_of(record(), n, isa)
            ratio = over(rows[BOTH, INT8], rows[BOTH, OPENVINO])
            items.append(Evidence.of(key, name, ratio, "", "recorded"))
    return items


def encoder_evidence() -> list[Evidence]:
    """The same of notebook 09's encoder, by texts x tokens and kind of CPU, as recorded there."""
    kinds, items = {vnni: kind for kind, vnni in KINDS.items()}, []
    for key, (shape, vnni, name) in verdicts.ENCODER.items():
        int8, full = (
            engine_row(engine, kinds[vnni])[shape]
            for engine in (int8_engines.OPENVINO, int8_engines.OPENVINO_FP32)
        )
        items.append(Evidence(key, name, int8 / full, "", "recorded"))
    return items


def smaller_weights(config: ModelConfig) -> float:
    """Per cent that INT8 takes off a model's weights, in the form that the engine stores.

    Linear maps and the token table in one byte, with a scale of four for each output channel; the
    other tables, biases and norms in four.
    """
    d, channels = config.d_model, 5 * config.d_model + config.d_ff
    small = cost.attention_params(config) - 6 * d + cost.ffn_params(config) - 3 * d - config.d_ff
    small = config.n_layer * small + config.vocab_size * d
    n_params = cost.num_params(config)
    scales = config.n_layer * channels + config.vocab_size
    return 100 - 100 * (small + 4 * (n_params - small + scales)) / (4 * n_params)


def int8_evidence() -> list[Evidence]:
    """What `verdicts.ernie_int8` rests on."""
    made, weights = built_here()
    smaller = [100 - 100 * made[INT8].nbytes / made[OPENVINO].nbytes,
               100 - 100 * weights[INT8] / weights[OPENVINO]]  # fmt: skip
    runs = paths(where.record(), MAIN)
    ends = [[case_study.end_bits(run, engine) for run in runs.values()]
            for engine in (INT8, OPENVINO)]  # fmt: skip
    bert = smaller_weights(PRESETS["bert-base"])
    bert_name = "smaller: BERT-base's weights with the same parts left in floats"
    lost = "bits per byte lost to INT8 at the end of the path"
    return [
        *encoder_evidence(),
        *time_evidence(),
        Evidence("files", "smaller: INT8's files than fp32's, OpenVINO", smaller[0], "%"),
        Evidence("weights", "smaller: INT8's weights alone", smaller[1], "%"),
        Evidence("bert-weights", bert_name, bert, "%", "computed"),
        Evidence.of("lost", lost, paired(*ends), "", "recorded"),
    ]


def recipe_evidence() -> list[Evidence]:
    """What `verdicts.fp16_int8` rests on."""
    short, full = paths(where.record(), MAIN), paths(where.record(), MAIN, "fp32")
    seeds = sorted(set(short) & set(full))
    ends = [[case_study.end_bits(runs[s], engine) for s in seeds]
            for runs, engine in ((short, INT8), (full, OPENVINO))]  # fmt: skip
    lost, base = paired(*ends), mean(ends[1]) / 100
    quality = Estimate(lost.mean / base, lost.low / base, lost.high / base)
    (steps,) = [r["rows"] for r in record()["runs"] if r["part"] == "training"]
    by = {(row["stage"], row["precision"]): row for row in steps}
    step = over(by[SHIPPED, case_study.PRECISIONS[0]], by[SHIPPED, "fp32"])
    rise = "bits per byte: 16-bit training and INT8 above fp32 throughout (%)"
    step_name = "training step in bf16 over fp32, this kind of CPU, all instructions"
    return [
        Evidence.of("quality", rise, quality, "%", "recorded"),
        Evidence.of("step-cpu", step_name, step, "", "recorded"),
        *h100_evidence(),
        *time_evidence(),
        *encoder_evidence(),
    ]


H100_STEP = "training step in fp16 over TF32, H100, {n} texts"


def h100_evidence() -> list[Evidence]:
    """The recorded H100's training step in fp16 over TF32; none where no such GPU is recorded."""
    parts = gpu_bench.recorded_part(gpu_bench.STEP)
    rows = next((part["rows"] for gpu, part in parts.items() if "H100" in gpu), [])
    ms = {(row["recipe"], row["batch_size"]): row["ms"] for row in rows}
    ratios = {n: ms["fp16", n] / ms["tf32", n] for n in (32, 4) if ("fp16", n) in ms}
    return [
        Evidence(f"step-h100-{n}", H100_STEP, ratio, "", "recorded", values={"n": n})
        for n, ratio in ratios.items()
    ]


def dynamic_evidence() -> list[Evidence]:
    """What `verdicts.ernie_dynamic` rests on."""
    recipe, widths = where.chosen(), where.widths()["widths"]
    gone, visible = (
        100 * lighten.removed_share(where.CONFIG, recipe, SEQ_LEN, count)
        for count in ("computed", "visible")
    )
    before = mean(run["rows"][0]["bits"] for run in paths(where.record(), MAIN).values())
    shipped = where.record()["settings"]["shipped"]
    tuned = "bits per byte after a round, above the plain model tuned as long"
    narrowest = "FLOPs gone at 512 tokens, the narrowest windows alone"
    pairs = "the same where only pairs that a token may see count"
    untuned = "bits per byte above the model as shipped, before any tuning"
    both = "FLOPs gone at 512 tokens, windows and heads"
    return [
        Evidence.of("tuned", tuned, walked.control_difference(), "", "recorded"),
        Evidence("gone", both, gone, "%", "computed"),
        Evidence("windows-alone", narrowest, 100 * widths[-1]["windows_alone"], "%", "computed"),
        Evidence("visible", pairs, visible, "%", "computed"),
        Evidence("before", untuned, before - shipped, "", "recorded"),
    ]
