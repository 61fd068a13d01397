"""MiniLM in every engine, each in a separate process: size, latency, cosine, retrieval.

Calibration and evaluation use different docstrings of the standard library's functions.
"""

import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from efflab import bench, data, evaluate, points
from efflab.compression import engines
from efflab.compression.engines import Batch, Engine
from efflab.compression.openvino import seven_bits_needed
from efflab.estimate import Estimate, bootstrap
from efflab.experiments.isolated import run_isolated
from efflab.experiments.record import round_floats, run_cases
from efflab.weights import read_tensors, save_tensors

NAME = "int8-engines"
N_CALIBRATION, N_TEST, MAX_LEN = 150, 300, 64
SHAPES = ((1, 16), (4, 64), (16, 128))
"""(texts, tokens per text) whose latency is measured."""
REPEATS = dict(zip(SHAPES, (41, 21, 11), strict=True))
FP32, BF16, DYNAMIC = "fp32 eager", "bf16 eager", "torch dynamic INT8"
OPENVINO_FP32, OPENVINO = "OpenVINO fp32", "OpenVINO INT8"
NARROW = ("torch static INT8", "ONNX Runtime INT8", OPENVINO)
"""Engines whose weights or inputs are limited to 7 bits if the CPU needs it."""
PACKAGES = ("onnxruntime", "openvino", "nncf", "torchao", "transformers")


@lru_cache(maxsize=1)
def functions() -> tuple[list, list]:
    """(functions for calibration, for evaluation): disjoint; every third is for evaluation."""
    every = data.documented_functions()
    return [f for i, f in enumerate(every) if i % 3][:N_CALIBRATION], every[::3][:N_TEST]


def batches(tokenizer, texts: list[str], batch_size: int) -> list[Batch]:
    """ids and mask of the texts in order, padded within each batch."""
    options = dict(padding=True, truncation=True, max_length=MAX_LEN, return_tensors="pt")
    starts = range(0, len(texts), batch_size)
    encoded = (tokenizer(texts[i : i + batch_size], **options) for i in starts)
    return [(batch["input_ids"], batch["attention_mask"]) for batch in encoded]


def calibration(tokenizer, n: int = N_CALIBRATION) -> list[Batch]:
    """Single docstrings, none used for evaluation; unpadded, so that no observer sees padding."""
    return batches(tokenizer, [f.query for f in functions()[0][:n]], 1)


def embeddings(engine: Engine, tokenizer, texts: list[str], batch_size: int = 20) -> Tensor:
    """Unit vectors (N,C) of the texts in order; texts of like length share a batch."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    parts = batches(tokenizer, [texts[i] for i in order], batch_size)
    out = torch.cat([engine.embed(*batch) for batch in parts])
    return out[torch.tensor(order).argsort()]


@lru_cache(maxsize=1)
def exact(n: int) -> tuple[Tensor, Tensor]:
    """fp32 embeddings of n evaluation docstrings and of their functions' code."""
    model, tokenizer = points.encoder()
    engine, sample = engines.fp32(model), functions()[1][:n]
    texts = [f.query for f in sample], [f.code for f in sample]
    return tuple(embeddings(engine, tokenizer, t) for t in texts)


def quality(engine: Engine, tokenizer, n: int = N_TEST, reference=None) -> dict[str, float]:
    """Cosine to fp32 over n docstrings, and MRR of retrieving code by them, with fp32's.

    With 95 % intervals over the texts; "mrr less fp32" is paired by text. `reference`: the result
    of `exact(n)` in another process.
    """
    sample = functions()[1][:n]
    queries = embeddings(engine, tokenizer, [f.query for f in sample])
    codes = embeddings(engine, tokenizer, [f.code for f in sample])
    reference = exact(n) if reference is None else reference
    return compare_vectors((queries, codes), reference)


def compare_vectors(new: Sequence[Tensor], reference: Sequence[Tensor]) -> dict[str, float]:
    """`quality` from the embeddings of docstrings and codes (N,C), an engine's and fp32's."""
    cosine = torch.nn.functional.cosine_similarity(new[0], reference[0], dim=-1)
    row = {f"cosine {k}": v for k, v in evaluate.cosines(new[0], reference[0]).items()}
    row |= {"cosine sd": cosine.std().item()}
    row |= interval("cosine p5", percentile(cosine.numpy()))
    ours, theirs = (evaluate.reciprocal_ranks(*pair) for pair in (new, reference))
    row |= {"mrr": float(ours.mean()), "mrr fp32": float(theirs.mean())}
    difference = bootstrap(ours - theirs)
    return row | {"mrr less fp32": difference.mean} | interval("mrr less fp32", difference)


def interval(name: str, estimate: Estimate) -> dict[str, float]:
    """The interval's two ends, as stored in a row."""
    return {f"{name} low": estimate.low, f"{name} high": estimate.high}


def percentile(values: np.ndarray, share: float = 0.05) -> Estimate:
    """A percentile with its 95 % interval, by the percentile bootstrap."""
    from scipy import stats

    statistic = partial(np.quantile, q=share, axis=-1)
    options = dict(vectorized=True, method="percentile", n_resamples=1000, rng=0)
    interval = stats.bootstrap((values,), statistic, **options).confidence_interval
    return Estimate.widened(statistic(values), interval.low, interval.high)


def full_batch(batch_size: int, n_tokens: int) -> Batch:
    """Random tokens of this shape, without padding."""
    rng = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 20000, (batch_size, n_tokens), generator=rng)
    return ids, torch.ones_like(ids)


MAKERS: dict[str, Callable] = {
    FP32: lambda model, **_: engines.fp32(model),
    BF16: lambda model, **_: engines.bf16(model),
    DYNAMIC: lambda model, **_: engines.torch_dynamic(model),
    "torch dynamic INT8, smoothed": lambda model, inputs, **_: engines.torch_smoothed(
        model, inputs
    ),
    "torch static INT8": lambda model, inputs, **_: engines.torch_static(model, inputs),
    "torchao INT8 weights": lambda model, **_: engines.torchao_int8(model),
    "ONNX Runtime INT8": lambda model, folder, **_: engines.onnx_int8(model, folder),
    OPENVINO_FP32: lambda model, folder, **_: engines.openvino_fp32(model, folder),
    OPENVINO: lambda model, folder, inputs: engines.openvino_int8(model, folder, inputs),
}
"""Engine -> what makes it of a model, a folder for its files, and batches for calibration."""
ENGINES = tuple(MAKERS)


# --- Time ------------------------------------------------------------------------------------


def spread(engine: Engine, baseline: Engine, shape: tuple[int, int], repeats: int) -> dict:
    """One engine's time over the baseline's, interleaved with it and with it again (A/A).

    Median, its 95 % interval (low, high), the quartiles over repeats (q1, q3) and the A/A band. The
    baseline's own ratio is 1, with the spread of its second run.
    """
    batch, key = full_batch(*shape), f"{shape[0]}x{shape[1]}"
    calls = {"this": lambda: engine.embed(*batch)}
    times = bench.compare(lambda: baseline.embed(*batch), calls, warmup=1, repeats=repeats)
    both = (times.timings[name].seconds for name in ("this", "baseline"))
    q1, q3 = np.quantile([a / b for a, b in zip(*both, strict=True)], (0.25, 0.75))
    ratio = times.ratios["this"]
    if engine.name == baseline.name:
        ratio = Estimate(1.0, min(1.0, ratio.low), max(1.0, ratio.high))
    row = {key: ratio.mean} | interval(key, ratio)
    return row | {f"{key} q1": float(q1), f"{key} q3": float(q3), f"{key} A/A": times.band}


# --- In a separate process -------------------------------------------------------------------


def measure(engine: str, folder: str, reference: str) -> dict:
    """One engine's row, in its own process; `reference`: the file of fp32's embeddings."""
    model, tokenizer = points.encoder()
    options = dict(folder=Path(folder), inputs=calibration(tokenizer))
    candidate, baseline = (MAKERS[name](model, **options) for name in (engine, FP32))
    row = dict(bytes=candidate.nbytes, size=candidate.nbytes / baseline.nbytes)
    if engine in NARROW:
        row |= dict(seven_bits=seven_bits_needed())
    for shape, repeats in REPEATS.items():
        row |= spread(candidate, baseline, shape, repeats)
    vectors, _ = read_tensors(Path(reference), "run the experiment anew")
    exact = [vectors[name] for name in ("queries", "documents")]
    row |= quality(candidate, tokenizer, N_TEST, exact)
    return round_floats(row)


# --- The experiment --------------------------------------------------------------------------


def cases() -> list[dict]:
    """Every engine."""
    return [dict(engine=name, seed=0) for name in ENGINES]


def run_apart(engine: str, folder: Path) -> dict:
    """One engine's row from a separate process, which another engine's threads do not slow down."""
    reference = folder / "exact.safetensors"
    if not reference.exists():
        queries, documents = exact(N_TEST)
        save_tensors(reference, {"queries": queries, "documents": documents}, {})
    task = dict(engine=engine, folder=str(folder), reference=str(reference))
    return run_isolated(f"{__name__}:measure", task)


def run(*, fresh: bool = False) -> dict:
    """Measure, and record in data/experiments/int8-engines.json; only ratios are portable."""
    settings = dict(n_calibration=N_CALIBRATION, n_test=N_TEST)
    settings |= dict(repeats={f"{b}x{t}": n for (b, t), n in REPEATS.items()})
    options = dict(models={"MiniLM-L6": data.MINILM_SHA256}, versions_of=PACKAGES, fresh=fresh)
    with tempfile.TemporaryDirectory() as folder:

        def run_one(engine: str, seed: int) -> dict:
            return run_apart(engine, Path(folder))

        return run_cases(NAME, cases(), run_one, settings=settings, **options)
