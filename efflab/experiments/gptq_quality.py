"""GPTQ against rounding to nearest, by bits and group size, through whole models.

`stdlib-gpt`: error of the layers' outputs, and bits per byte on the board's held-out windows.
MiniLM-L6: cosine to the fp32 sentence embedding, and retrieval of functions by their docstrings.
What is quantized is every linear map of the layers; embeddings stay in fp32 on both sides, so that
only the method differs. Then how much calibration data GPTQ wants, and of what kind.
"""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from efflab import data, evaluate, pretrained
from efflab.compression.gptq import gptq_model, hessian, output_error
from efflab.compression.int8 import watching
from efflab.compression.packed import Quantized, model_bytes, quantize_weights, with_weights
from efflab.errors import require_int, require_one_of
from efflab.experiments.record import record

NAME = "gptq-quality"
BITS, GROUPS = (2, 3, 4, 8), (None, 128, 64, 32)
METHODS = ("rtn", "gptq")
N_TOKENS, SEQ_LEN = 4096, 256  # calibration: 16 windows of 256 tokens
SIZES = (64, 256, 1024, 4096, 16384)
SOURCES = ("library", "prose", "random")
VARIANTS = {
    "activation order": dict(act_order=True),
    "damping 0.0001": dict(damp=0.0001),
    "damping 0.1": dict(damp=0.1),
    "symmetric": dict(symmetric=True),
}
N_WINDOWS = 16  # held-out windows of the whole context, those of the board
N_FUNCTIONS, MINILM_GROUPS, MAX_TOKENS = 120, (None, 64), 64
SEEDS = (0, 1, 2)


def calibration(n_tokens: int = N_TOKENS, source: str = "library", seed: int = 0) -> list[Tensor]:
    """Batches of token ids (B,T): windows of the library, of its docstrings, or random tokens."""
    require_int("n_tokens", n_tokens, 8)
    require_one_of("source", source, SOURCES)
    seq_len = min(SEQ_LEN, n_tokens)
    shape = max(1, n_tokens // seq_len), seq_len
    if source == "random":
        ids = np.random.default_rng(seed).integers(1, 2048, shape)
        return list(torch.from_numpy(ids).split(8))
    stream = data.stdlib_tokens("train") if source == "library" else _prose()
    return list(data.random_windows(stream, *shape, seed)[0].split(8))


@lru_cache(maxsize=1)
def _prose() -> np.ndarray:
    """The docstrings of functions, English and no code, as one stream of tokens."""
    return data.tokens_of(["\n".join(f.query for f in data.documented_functions())])


@torch.no_grad()
def layer_hessians(model: nn.Module, batches: Iterable) -> dict[str, Tensor]:
    """{weight's name: X^T X} of every linear map in the layers of the model as it is."""
    found: dict[str, Tensor] = {}

    def look(name: str, x: Tensor) -> None:
        key = f"layers.{name}.weight"
        found[key] = found.get(key, 0) + hessian(x)

    with watching(model.layers, look):
        for ids in batches:
            model.encode(ids)
    return found


def layers_error(model: nn.Module, quantized: Quantized, hessians: dict[str, Tensor]) -> float:
    """Mean over the linear maps of the output's squared error, as a share of its square."""
    own = dict(model.named_parameters())
    return float(np.mean([output_error(own[n], q, hessians[n]) for n, q in quantized.items()]))


def quantized_by(
    method: str, model: nn.Module, bits: int, group_size: int | None, batches=None, **options
) -> Quantized:
    """The linear maps of the layers by "rtn" or "gptq": the same grid, other codes."""
    require_one_of("method", method, METHODS)
    if method == "gptq":
        return gptq_model(model, batches, bits, group_size=group_size, **options)
    grid = dict(symmetric=options.get("symmetric", False), group_size=group_size)
    grid["axis"] = 0 if group_size is None else None
    quantized = quantize_weights(model, bits, embeddings=False, **grid)
    return {name: q for name, q in quantized.items() if name.startswith("layers.")}


@lru_cache(maxsize=1)
def language_model():
    """`stdlib-gpt`, and the Hessians of its maps on held-out text."""
    model = pretrained.load_stdlib_gpt()
    windows = torch.from_numpy(evaluate.held_out_windows(16, SEQ_LEN)[:, :-1])
    return model, layer_hessians(model, windows.split(8))


def language_quality(quantized: Quantized) -> dict:
    """Bits per byte, layer error and bytes of `stdlib-gpt` with these weights."""
    model, held_out = language_model()
    return dict(
        bits_per_byte=evaluate.bits_per_byte(with_weights(model, quantized), N_WINDOWS).mean,
        layer_error=layers_error(model, quantized, held_out),
        nbytes=model_bytes(model, quantized),
    )


def language_point(bits: int, group_size: int | None, method: str, seed: int = 0, **options):
    """One row of the comparison: a method at one grid, with the standard calibration."""
    batches = calibration(seed=seed) if method == "gptq" else None
    model = language_model()[0]
    quantized = quantized_by(method, model, bits, group_size, batches, **options)
    return dict(bits=bits, group_size=group_size, method=method) | language_quality(quantized)


def calibration_point(n_tokens: int, source: str = "library", bits: int = 3, seed: int = 0) -> dict:
    """GPTQ with so much data of a kind: bits per byte, and layer errors there and on held-out."""
    model, batches = language_model()[0], calibration(n_tokens, source, seed)
    quantized = gptq_model(model, batches, bits)
    own = layers_error(model, quantized, layer_hessians(model, batches))
    point = dict(n_tokens=n_tokens, source=source, bits=bits, seed=seed, own_error=own)
    return point | language_quality(quantized)


@lru_cache(maxsize=1)
def encoder_task():
    """MiniLM, its calibration batches, and the texts that judge it with their fp32 embeddings."""
    model, tokenizer = pretrained.load_minilm()
    functions = data.documented_functions()
    step = len(functions) // N_FUNCTIONS
    judged = functions[::step][:N_FUNCTIONS]
    shown = [f.code for f in functions[1::step][:64]] + [f.query for f in functions[2::step][:64]]
    batches = []
    for start in range(0, len(shown), 32):
        inputs = tokenizer(shown[start : start + 32], padding=True, truncation=True,
                           max_length=MAX_TOKENS, return_tensors="pt")  # fmt: skip
        batches.append((inputs["input_ids"], inputs["attention_mask"]))
    texts = [f.query for f in judged], [f.code for f in judged]
    exact = [pretrained.embed(model, tokenizer, t, max_len=MAX_TOKENS) for t in texts]
    return model, tokenizer, batches, texts, exact


def encoder_point(bits: int, group_size: int | None, method: str) -> dict:
    """Cosine to fp32 and retrieval of MiniLM by one method at one grid."""
    model, tokenizer, batches, texts, exact = encoder_task()
    twin = with_weights(model, quantized_by(method, model, bits, group_size, batches))
    ours = [pretrained.embed(twin, tokenizer, t, max_len=MAX_TOKENS) for t in texts]
    cosine = evaluate.cosines(torch.cat(ours), torch.cat(exact))
    point = dict(bits=bits, group_size=group_size, method=method, mrr=_mrr(ours))
    return point | {f"cosine_{name}": value for name, value in cosine.items()}


def _mrr(embeddings) -> float:
    return evaluate.retrieval_mrr(*embeddings).mean


def run() -> dict:
    """Every point of both models, recorded as gptq-quality."""
    grids = [(b, g, m) for b in BITS for g in GROUPS for m in METHODS]
    encoder_grids = [(b, g, m) for b in BITS for g in MINILM_GROUPS for m in METHODS]
    results = dict(
        language=_each(language_point, grids),
        repeats=_each(
            lambda seed: language_point(3, None, "gptq", seed), [(s,) for s in SEEDS[1:]]
        ),
        variants=_each(_variant, [(name,) for name in VARIANTS]),
        sizes=_each(calibration_point, [(n,) for n in SIZES]),
        sources=_each(calibration_point, [(N_TOKENS, s) for s in SOURCES[1:]]),
        encoder=_each(encoder_point, encoder_grids),
    )
    model = language_model()[0]
    full = dict(
        bits_per_byte=round(evaluate.bits_per_byte(model, N_WINDOWS).mean, 4),
        mrr=round(_mrr(encoder_task()[-1]), 4),
        nbytes=model_bytes(model, {}),
    )
    settings = dict(n_tokens=N_TOKENS, seq_len=SEQ_LEN, n_windows=N_WINDOWS, damp=0.01)
    settings |= dict(n_functions=N_FUNCTIONS, max_tokens=MAX_TOKENS)
    settings["checkpoint"] = pretrained.read_card()["sha256"]
    return record(NAME, settings=settings, seeds=SEEDS, full=full, **results)


def _variant(name: str) -> dict:
    options = VARIANTS[name]
    point = language_point(3, None, "gptq", **options)
    nearest = language_point(3, None, "rtn", **options)  # only "symmetric" changes its grid
    return dict(variant=name, rtn_bits_per_byte=nearest["bits_per_byte"]) | point


def _each(fn, arguments) -> list[dict]:
    points = []
    for args in arguments:
        point = fn(*args)
        points.append({k: float(f"{v:.4g}") if isinstance(v, float) and "bits_per" not in k
                       else round(v, 4) if isinstance(v, float) else v
                       for k, v in point.items()})  # fmt: skip
        print(points[-1], flush=True)
    return points
