"""Notebook 09's numbers: models on grids, INT8 layers, and engines as recorded and as run here."""

import tempfile
from collections import defaultdict
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab import bench, evaluate, points
from efflab.base.privacy import load
from efflab.compression import engines, int8, openvino, packed
from efflab.compression.engines import Engine
from efflab.errors import require, require_int
from efflab.estimate import Estimate, bootstrap
from efflab.experiments import int8_engines as experiment
from efflab.experiments import int8_ranges as ranges
from efflab.experiments.record import machines, read_record
from efflab.lab import tr
from efflab.points import encoder, language_model
from efflab_rooms.quantization.verdicts import CUT, recorded_forms

GRIDS = {
    "per tensor": dict(axis=None),
    "per channel": dict(axis=0),
    "groups of 128": dict(group_size=128),
    "groups of 32": dict(group_size=32),
}
SHOWN = "layers.0.ffn.body.up"
"""The linear map of `stdlib-gpt` that the cells and the explorer show."""


def rounded_point(bits: int, **options) -> dict:
    """What the board wants of stdlib-gpt with rounded weights.

    It computes in fp32 with the rounded values: weight-only quantization saves no arithmetic.
    """
    model = language_model()
    quantized = packed.quantize_weights(model, bits, **options)
    size = packed.model_bytes(model, quantized)
    return points.language_point(packed.with_weights(model, quantized), size)


# --- INT8 layers -----------------------------------------------------------------------------


@lru_cache(maxsize=1)
def channel_peaks() -> dict[str, Tensor]:
    """Largest magnitude of each input channel of MiniLM's linear layers over 16 docstrings."""
    model, tokenizer = encoder()
    batches = experiment.calibration(tokenizer, 16)
    return int8.channel_peaks(lambda batch: model.encode(*batch), model, batches)


def smoothed_peaks(name: str) -> Tensor:
    """The same of one layer whose inputs are smoothed, as the engines do it."""
    peaks, weight = channel_peaks()[name], encoder()[0].get_submodule(name).weight
    return peaks / int8.smoothing(peaks, weight, openvino.smoothing_strength(name))


def interval_text(row: dict, key: str, digits: int = 2) -> str:
    """ "0.33 (0.31 to 0.35)"; an old record keeps the median alone."""
    value = f"{row[key]:.{digits}f}"
    if f"{key} low" not in row:
        return value
    low, high = (f"{row[f'{key} {end}']:.{digits}f}" for end in ("low", "high"))
    return tr("{value} ({low} to {high})", value=value, low=low, high=high)


def form_rows() -> list[dict]:
    """Every recorded form: the cosine's 5th percentile and the MRR less fp32's, with intervals."""
    return [
        {
            "INT8 linear layers": form,
            "cosine, 5th percentile": interval_text(row, "cosine p5", 4),
            "cosine, minimum": f"{row['cosine min']:.4f}",
            "MRR minus fp32's": interval_text(row, "mrr less fp32", 4),
        }
        for form, row in recorded_forms().items()
    ]


FORMS_HERE = (ranges.DYNAMIC, ranges.ONE_SCALE, CUT, ranges.SMOOTHED)


@torch.no_grad()
def form_cosines(n_docstrings: int, n_calibration: int, forms=FORMS_HERE) -> dict[str, Tensor]:
    """Form -> each docstring's cosine to its fp32 embedding, measured here."""
    require_int("n_docstrings", n_docstrings, 2)
    require_int("n_calibration", n_calibration)
    model, tokenizer = encoder()
    queries = [f.query for f in experiment.functions()[1][:n_docstrings]]
    texts = experiment.batches(tokenizer, queries, 8)
    calibration = experiment.calibration(tokenizer, n_calibration)

    def vectors(m: nn.Module) -> Tensor:
        return torch.cat([engines.mean_pool(m.encode(*batch), batch[1]) for batch in texts])

    exact, cosines = vectors(model), {}
    for form in forms:
        changed = ranges.make_encoder(form, model, calibration)
        cosines[form] = F.cosine_similarity(exact, vectors(changed), dim=-1)
    return cosines


# --- Engines, recorded -----------------------------------------------------------------------

SHAPE, SHAPE_HERE = "16x128", "4x64"  # texts x tokens, as tables show it and as repeated here
CPUS = {False: "CPU without VNNI (recorded)", True: "CPU with VNNI (recorded)"}


@cache
def record(vnni: bool | None = None) -> dict:
    """The comparison as recorded last; `vnni`: on a CPU that has VNNI or has none, if any is."""
    name = experiment.NAME
    features = {m: read_record(name, m)["features"] or {} for m in machines(name)}
    alike = [m for m in features if vnni is not None and features[m].get("vnni") is vnni]
    return read_record(name, alike[-1] if alike else None)


def recorded_engines(vnni: bool | None = None) -> dict[str, dict]:
    """Engine -> its row in `record(vnni)`."""
    return {row["engine"]: row for row in record(vnni)["runs"]}


def recorded_times(name: str, shape: str = SHAPE) -> dict[str, str]:
    """An engine's time over fp32's on both kinds of CPU."""
    rows = {cpu: recorded_engines(vnni)[name] for vnni, cpu in CPUS.items()}
    return {f"time / fp32, {cpu}": interval_text(row, shape) for cpu, row in rows.items()}


def engine_rows() -> list[dict]:
    """Every engine: size, quality, and its time over fp32's on both kinds of CPU."""
    return [
        {
            "engine": name,
            "size / fp32": row["size"],
            **recorded_times(name),
            "cosine, 5th percentile": row["cosine p5"],
            "cosine, minimum": row["cosine min"],
            "MRR": row["mrr"],
        }
        for name, row in recorded_engines().items()
    ]


# --- Three engines, here ---------------------------------------------------------------------


def build_engines(n_calibration: int) -> tuple[dict[str, Engine], Callable]:
    """fp32, torch dynamic INT8 and OpenVINO INT8, and what profiles the last one."""
    require_int("n_calibration", n_calibration)
    most = experiment.N_CALIBRATION
    require(n_calibration <= most, "n_calibration", n_calibration, "at most {high}", high=most)
    model, tokenizer = encoder()
    texts = experiment.calibration(tokenizer, n_calibration)
    with tempfile.TemporaryDirectory() as folder:  # an engine reads its files when it is made
        int8_file = engines.openvino_int8(model, Path(folder), texts)
        profile = openvino_profiler(Path(folder) / "int8.xml")
    live = (engines.fp32(model), engines.torch_dynamic(model), int8_file)
    return {engine.name: engine for engine in live}, profile


def time_rows(live: dict[str, Engine], repeats: int = 9) -> list[dict]:
    """Times over fp32's on both recorded kinds of CPU and on this one, 4 texts of 64 tokens."""
    batch = experiment.full_batch(4, 64)
    calls = {name: lambda e=engine: e.embed(*batch) for name, engine in live.items()}
    times = bench.compare(calls.pop(experiment.FP32), calls, warmup=1, repeats=repeats)
    ratios = {experiment.FP32: times.again} | times.ratios
    rows = []
    for name, ratio in ratios.items():
        label = "fp32 eager, again (A/A)" if name == experiment.FP32 else name
        here = {"ratio": ratio.mean} | experiment.interval("ratio", ratio)
        row = {"engine": label} | recorded_times(name, SHAPE_HERE)
        rows.append(row | {"time / fp32, this CPU (measured)": interval_text(here, "ratio")})
    return rows


def compare_quality(live: dict[str, Engine], n_docstrings: int) -> dict[str, tuple[dict, dict]]:
    """Engine -> (recorded, measured here): size over fp32's, cosines to fp32 and MRR."""
    require_int("n_docstrings", n_docstrings)
    old, full = recorded_engines(bench.cpu_features()["vnni"]), live[experiment.FP32].nbytes
    qualities = {}
    for name, engine in live.items():
        quality = experiment.quality(engine, encoder()[1], n_docstrings)
        qualities[name] = old[name], {"size": engine.nbytes / full} | quality
    return qualities


def quality_rows(qualities: dict[str, tuple[dict, dict]]) -> list[dict]:
    """`compare_quality` as a table, each recorded row above the one measured here."""
    return [
        {
            "engine": name,
            "size / fp32": row["size"],
            "cosine, mean": row["cosine mean"],
            "cosine, 5th percentile": row["cosine p5"],
            "cosine, minimum": row["cosine min"],
            "MRR": row["mrr"],
            "MRR, fp32": row["mrr fp32"],
            "kind": kind,
        }
        for name, both in qualities.items()
        for kind, row in zip(("recorded", "measured"), both, strict=True)
    ]


def compare_ranks(engine: Engine, n_docstrings: int) -> dict[str, Estimate]:
    """What an engine changes, text by text: the cosine to fp32, and which code comes first."""
    chosen = experiment.functions()[1][:n_docstrings]
    texts = [f.query for f in chosen], [f.code for f in chosen]
    exact = experiment.exact(n_docstrings)
    other = [experiment.embeddings(engine, encoder()[1], t) for t in texts]
    firsts = [(queries @ codes.T).argmax(1) for queries, codes in (exact, other)]
    theirs, ours = (evaluate.reciprocal_ranks(*pair) for pair in (exact, other))
    cosine = F.cosine_similarity(exact[0], other[0], dim=-1)
    return {
        "cosine to fp32, 5th percentile": experiment.percentile(cosine.numpy()),
        "same top result (%)": bootstrap(100.0 * (firsts[0] == firsts[1]).numpy()),
        "MRR, fp32": bootstrap(theirs),
        "MRR, INT8": bootstrap(ours),
        "MRR, INT8 minus fp32 (paired by text)": bootstrap(ours - theirs),
    }


# --- OpenVINO's operators --------------------------------------------------------------------

PRODUCTS, ATTENTION = "linear layers' matrix products, INT8", "attention's matrix products, fp32"
DIVISIONS, REST = "divisions for smoothing, rounding to codes", "everything else"


def openvino_profiler(path: Path) -> Callable[..., dict[tuple[str, str], float]]:
    """The model in this file as a function: inputs -> {(operator, its type): seconds}.

    The least of five runs, since whatever else runs on this machine only adds.
    """
    hints = dict(PERF_COUNT=True, INFERENCE_PRECISION_HINT="f32", ENABLE_CPU_PINNING=False)
    hints |= dict(INFERENCE_NUM_THREADS=torch.get_num_threads())
    request = load("openvino").Core().compile_model(path, "CPU", hints).create_infer_request()

    def profile(*inputs: Tensor) -> dict[tuple[str, str], float]:
        arrays, seconds = [x.numpy() for x in inputs], defaultdict(list)
        request.infer(arrays)  # the first run makes what later ones keep
        for _ in range(5):
            request.infer(arrays)
            for node in request.profiling_info:
                if node.real_time:
                    seconds[node.node_name, node.node_type].append(node.real_time.total_seconds())
        return {node: min(times) for node, times in seconds.items()}

    return profile


def work_of(name: str, kind: str) -> str:
    """What an operator does, by its name and type; OpenVINO divides and rounds in one."""
    if kind.startswith("FullyConnected"):
        return PRODUCTS
    if "aten::div" in name:
        return DIVISIONS
    return ATTENTION if kind in ("Subgraph", "ScaledDotProductAttention", "MatMul") else REST


def operator_rows(profile: dict[tuple[str, str], float]) -> list[dict]:
    """Milliseconds and share by what operators do."""
    seconds = {work: [] for work in (PRODUCTS, DIVISIONS, ATTENTION, REST)}
    for node, time in profile.items():
        seconds[work_of(*node)].append(time)
    total, rows = sum(profile.values()), []
    for work, times in seconds.items():
        row = {"work": work, "operators": len(times), "ms": 1e3 * sum(times)}
        rows.append(row | {"share (%)": 100 * sum(times) / total})
    return rows


def difference(times: bench.Comparison, form: str) -> str:
    """Faster or slower than fp32 where the whole interval lies outside of the A/A band."""
    if not times.differs(form):
        return "within the noise"
    return "faster" if times.ratios[form].mean < 1 else "slower"


def linear_rows(forms: dict[str, bench.Comparison]) -> list[dict]:
    """Form of one linear layer -> its comparison with fp32, as a table."""
    return [
        {
            "form": form,
            "time / fp32": times.ratios[form].mean,
            "interval, low": times.ratios[form].low,
            "interval, high": times.ratios[form].high,
            "A/A band (±%)": 100 * times.band,
            "against fp32": difference(times, form),
        }
        for form, times in forms.items()
    ]
