"""GPTQ against rounding to nearest, by bits and group size, through whole models.

`stdlib-gpt`: error of the layers' outputs, and bits per byte on the board's held-out windows.
MiniLM-L6: cosine to the fp32 sentence embedding, and retrieval of functions by their docstrings.
Every linear map of the layers is quantized; embeddings stay in fp32 on both sides, so that only the
method differs. Then: how much calibration data GPTQ needs, and of what kind.
"""

from functools import lru_cache
from itertools import product

import torch

from efflab import data, evaluate, pretrained
from efflab.bench import one_thread
from efflab.compression.calibration import (
    METHODS,
    N_TOKENS,
    SEQ_LEN,
    SOURCES,
    calibration,
    layer_hessians,
    layers_error,
    quantize_by,
)
from efflab.compression.gptq import gptq_model
from efflab.compression.packed import Quantized, model_bytes, with_weights
from efflab.estimate import bootstrap
from efflab.experiments import int8_engines
from efflab.experiments.record import run_cases

NAME = "gptq-quality"
BITS, GROUPS = (2, 3, 4, 8), (None, 128, 64, 32)
SIZES = (64, 256, 1024, 4096, 16384)
VARIANTS = {
    "activation order": dict(act_order=True),
    "damping 0.0001": dict(damp=0.0001),
    "damping 0.1": dict(damp=0.1),
    "symmetric": dict(symmetric=True),
}
N_WINDOWS = 16  # held-out windows of the whole context, those of the board
N_FUNCTIONS, MINILM_GROUPS, MAX_TOKENS = 120, (None, 64), int8_engines.MAX_LEN
SEEDS = (0, 1, 2)


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
    model, batches = language_model()[0], calibration(seed=seed)
    quantized = quantize_by(method, model, bits, group_size, batches, **options)
    return dict(bits=bits, group_size=group_size, method=method) | language_quality(quantized)


def paired_point(bits: int, seed: int = 0) -> dict:
    """GPTQ less rounding to nearest in bits per byte, with a scale a row, paired by window."""
    model, batches, losses = language_model()[0], calibration(seed=seed), {}
    for method in METHODS:
        changed = with_weights(model, quantize_by(method, model, bits, None, batches))
        losses[method], n_bytes = evaluate.window_bits(changed, N_WINDOWS)
    less = bootstrap(losses["gptq"] - losses["rtn"], n_bytes)
    return {"less": less.mean} | int8_engines.interval("less", less)


def calibration_point(n_tokens: int, source: str = "library", bits: int = 3, seed: int = 0) -> dict:
    """GPTQ by amount and kind of data: bits per byte, layer errors on that and on held-out text."""
    model, batches = language_model()[0], calibration(n_tokens, source, seed)
    quantized = gptq_model(model, batches, bits)
    own = layers_error(model, quantized, layer_hessians(model, batches))
    point = dict(n_tokens=n_tokens, source=source, bits=bits, seed=seed, own_error=own)
    return point | language_quality(quantized)


@lru_cache(maxsize=1)
def encoder_task():
    """MiniLM, its calibration batches, and the evaluation texts with their fp32 embeddings."""
    model, tokenizer = pretrained.load_minilm()
    functions = data.documented_functions()
    step = len(functions) // N_FUNCTIONS
    evaluation = functions[::step][:N_FUNCTIONS]
    texts = [f.code for f in functions[1::step][:64]] + [f.query for f in functions[2::step][:64]]
    batches = int8_engines.batches(tokenizer, texts, 32)
    texts = [f.query for f in evaluation], [f.code for f in evaluation]
    exact = [pretrained.embed(model, tokenizer, t, max_len=MAX_TOKENS) for t in texts]
    return model, tokenizer, batches, texts, exact


def encoder_point(bits: int, group_size: int | None, method: str) -> dict:
    """Cosine to fp32 and retrieval of MiniLM by one method at one grid."""
    model, tokenizer, batches, texts, exact = encoder_task()
    twin = with_weights(model, quantize_by(method, model, bits, group_size, batches))
    ours = [pretrained.embed(twin, tokenizer, t, max_len=MAX_TOKENS) for t in texts]
    cosine = evaluate.cosines(torch.cat(ours), torch.cat(exact))
    point = dict(bits=bits, group_size=group_size, method=method, mrr=_mrr(ours))
    return point | {f"cosine_{name}": value for name, value in cosine.items()}


def _mrr(embeddings) -> float:
    return evaluate.retrieval_mrr(*embeddings).mean


def variant_point(variant: str, seed: int = 0) -> dict:
    """GPTQ at 3 bits with one option changed, and rounding to nearest on the same grid."""
    options = VARIANTS[variant]
    point = language_point(3, None, "gptq", seed, **options)
    nearest = language_point(3, None, "rtn", **options)  # only "symmetric" changes its grid
    return dict(rtn_bits_per_byte=nearest["bits_per_byte"]) | point


def full_point() -> dict:
    """Both models in fp32."""
    model = language_model()[0]
    return dict(
        bits_per_byte=evaluate.bits_per_byte(model, N_WINDOWS).mean,
        mrr=_mrr(encoder_task()[-1]),
        nbytes=model_bytes(model, {}),
    )


def cases() -> list[dict]:
    """Every point by the part of the experiment that it belongs to."""
    first, *others = SEEDS

    def grid(part: str, groups: tuple) -> list[dict]:
        each = product(BITS, groups, METHODS)
        return [dict(part=part, seed=first, bits=b, group_size=g, method=m) for b, g, m in each]

    cases = [dict(part="full", seed=first), *grid("language", GROUPS)]
    cases += [
        dict(part="repeats", seed=seed, bits=b, group_size=None, method="gptq")
        for b, seed in product(BITS, others)
    ]
    cases += [dict(part="paired", seed=first, bits=b) for b in BITS]
    cases += [dict(part="variants", seed=first, variant=name) for name in VARIANTS]
    cases += [dict(part="sizes", seed=first, n_tokens=n, source=SOURCES[0]) for n in SIZES]
    cases += [dict(part="sources", seed=first, n_tokens=N_TOKENS, source=s) for s in SOURCES[1:]]
    return cases + grid("encoder", MINILM_GROUPS)


def run_one(part: str, seed: int, **where) -> dict:
    """One point; figures of quality with four decimals, all others with four digits."""
    if part == "full":
        point = full_point()
    elif part == "encoder":  # its calibration has no seed
        point = encoder_point(**where)
    else:
        makers = dict(variants=variant_point, paired=paired_point)
        makers |= dict(sizes=calibration_point, sources=calibration_point)
        point = makers.get(part, language_point)(**where, seed=seed)
    decimals = {k for k in point if "bits_per" in k or (part, k) == ("full", "mrr")}
    return {
        k: round(v, 4) if k in decimals else float(f"{v:.4g}") if isinstance(v, float) else v
        for k, v in point.items()
    }


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Every point of both models, recorded as gptq-quality."""
    settings = dict(n_tokens=N_TOKENS, seq_len=SEQ_LEN, n_windows=N_WINDOWS, damp=0.01)
    settings |= dict(n_functions=N_FUNCTIONS, max_tokens=MAX_TOKENS)
    models = {"stdlib-gpt": pretrained.read_card()["sha256"], "MiniLM-L6": data.MINILM_SHA256}
    options = dict(models=models, versions_of=("transformers",))
    return run_cases(NAME, cases(), run_one, settings=settings, fresh=fresh, **options)


def by_part(experiment: dict) -> dict:
    """The record with its runs in parts: "full" is one point, every other part a list."""
    parts: dict[str, list] = {}
    for run in experiment["runs"]:
        parts.setdefault(run["part"], []).append(run)
    return experiment | parts | dict(full=parts["full"][0])
