"""MiniLM in every engine, side by side in one interleaved run: size, latency, cosine, retrieval.

Calibration and judgement use different docstrings of the standard library's functions.
"""

import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from efflab import bench, data, evaluate, pretrained
from efflab.compression import engines
from efflab.compression.engines import Batch, Engine
from efflab.experiments.record import record

NAME = "int8-engines"
N_CALIBRATION, N_TEST, MAX_LEN = 150, 300, 64
SHAPES = ((1, 16), (4, 64), (16, 128))
"""(texts, tokens a text) whose latency is measured."""


@lru_cache(maxsize=1)
def functions() -> tuple[list, list]:
    """(for calibration, for judgement): every third function is judged, none is in both."""
    every = data.documented_functions()
    return [f for i, f in enumerate(every) if i % 3][:N_CALIBRATION], every[::3][:N_TEST]


def batches(tokenizer, texts: list[str], batch_size: int) -> list[Batch]:
    """ids and mask of the texts in order, padded within each batch."""
    options = dict(padding=True, truncation=True, max_length=MAX_LEN, return_tensors="pt")
    chunks = (texts[i : i + batch_size] for i in range(0, len(texts), batch_size))
    return [
        (e["input_ids"], e["attention_mask"]) for e in (tokenizer(c, **options) for c in chunks)
    ]


def calibration(tokenizer, n: int = N_CALIBRATION) -> list[Batch]:
    """Single docstrings, none of them judged: unpadded, so that no observer sees padding."""
    return batches(tokenizer, [f.query for f in functions()[0][:n]], 1)


def embeddings(engine: Engine, tokenizer, texts: list[str], batch_size: int = 20) -> Tensor:
    """Unit vectors (N,C) of the texts in order; texts of like length share a batch."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    parts = batches(tokenizer, [texts[i] for i in order], batch_size)
    out = torch.cat([engine.embed(*batch) for batch in parts])
    return out[torch.tensor(order).argsort()]


@lru_cache(maxsize=1)
def exact(n: int) -> tuple[Tensor, Tensor]:
    """fp32 embeddings of n judged docstrings and of their functions' code."""
    model, tokenizer = pretrained.load_minilm()
    engine, chosen = engines.fp32(model), functions()[1][:n]
    texts = [f.query for f in chosen], [f.code for f in chosen]
    return tuple(embeddings(engine, tokenizer, t) for t in texts)


def quality(engine: Engine, tokenizer, n: int = N_TEST) -> dict[str, float]:
    """Cosine to fp32 over n docstrings, and the MRR of finding code by them beside fp32's."""
    chosen = functions()[1][:n]
    queries = embeddings(engine, tokenizer, [f.query for f in chosen])
    codes = embeddings(engine, tokenizer, [f.code for f in chosen])
    reference = exact(n)
    cosine = {f"cosine {k}": v for k, v in evaluate.cosines(queries, reference[0]).items()}
    mrr = evaluate.retrieval_mrr(queries, codes).mean
    return cosine | {"mrr": mrr, "mrr fp32": evaluate.retrieval_mrr(*reference).mean}


def full_batch(batch_size: int, n_tokens: int) -> Batch:
    """Random words without padding, as many as the shape says."""
    rng = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 20000, (batch_size, n_tokens), generator=rng)
    return ids, torch.ones_like(ids)


def makers(folder: Path) -> dict[str, Callable[[], Engine]]:
    """Every engine by the function that makes it; the first is what others are compared with."""
    model, tokenizer = pretrained.load_minilm()
    texts = calibration(tokenizer)
    return {
        "fp32": lambda: engines.fp32(model),
        "bf16": lambda: engines.bf16(model),
        "dynamic": lambda: engines.torch_dynamic(model),
        "smoothed": lambda: engines.torch_smoothed(model, texts),
        "static": lambda: engines.torch_static(model, texts),
        "torchao": lambda: engines.torchao_int8(model),
        "onnx": lambda: engines.onnx_int8(model, folder),
        "openvino-fp32": lambda: engines.openvino_fp32(model, folder),
        "openvino": lambda: engines.openvino_int8(model, folder, texts),
    }


def latency(made: list[Engine], shape: tuple[int, int], repeats: int) -> dict[str, float]:
    """Median time of each engine over the first one's, rounds interleaved."""
    batch = full_batch(*shape)
    calls = {e.name: lambda e=e: e.embed(*batch) for e in made}
    times = bench.interleaved(calls, warmup=1, repeats=repeats)
    first = times[made[0].name]
    return {name: time.ratio(first) for name, time in times.items()}


def run(repeats: int = 5) -> dict:
    """Measure and record as data/experiments/int8-engines.json; ratios travel, seconds do not."""
    _, tokenizer = pretrained.load_minilm()
    with tempfile.TemporaryDirectory() as folder:
        made = []
        for make in makers(Path(folder)).values():
            made.append(make())
            print(made[-1].name, made[-1].nbytes, flush=True)
        ratios = {shape: latency(made, shape, repeats) for shape in SHAPES}
        rows = []
        for engine in made:
            row = dict(engine=engine.name, bytes=engine.nbytes, size=engine.nbytes / made[0].nbytes)
            row |= {f"{b}x{t}": ratios[b, t][engine.name] for b, t in SHAPES}
            rows.append(row | quality(engine, tokenizer))
            print(rows[-1], flush=True)
    rows = [{k: round(v, 4) if isinstance(v, float) else v for k, v in r.items()} for r in rows]
    settings = dict(n_calibration=N_CALIBRATION, n_test=N_TEST, repeats=repeats)
    settings |= dict(threads=torch.get_num_threads(), cpu=engines.cpu_features())
    return record(NAME, settings=settings, seeds=[0], rows=rows)
