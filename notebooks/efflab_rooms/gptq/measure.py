"""Notebook 10's numbers: one real layer column by column, whole models, and what is recorded."""

from functools import lru_cache
from itertools import product
from math import log
from statistics import mean

import torch
from torch import Tensor

from efflab import evaluate
from efflab.base.hooks import watching
from efflab.compression import gptq
from efflab.compression.affine import QuantizedTensor, grid, quantize, to_rows
from efflab.compression.packed import model_bytes, with_weights
from efflab.data import read_published
from efflab.errors import require, require_int, require_one_of
from efflab.estimate import Estimate
from efflab.experiments import gptq_crossing as crossing
from efflab.experiments import gptq_quality as experiment
from efflab.experiments.record import DECIMAL, agrees, expected_repeat, read_record, same_python
from efflab.points import language_point
from efflab.pretrained import read_card

SMALL, WIDE = "layers.2.attention.body.out", "layers.2.ffn.body.down"
"""192 -> 192 for the picture of the error; 768 -> 192 where calibration data can run short."""
MOST = 4096  # calibration tokens of each kind
METHOD_NAMES = {"rtn": "round to nearest", "gptq": "GPTQ"}


def weight(name: str) -> Tensor:
    """The fp32 weight (out, in) of a linear map of `stdlib-gpt`."""
    return experiment.language_model()[0].get_submodule(name).weight.detach()


@lru_cache(maxsize=8)
def layer_inputs(name: str, source: str = "library") -> Tensor:
    """What a map is given, (tokens, in): `MOST` calibration tokens, or "held-out" ones."""
    model, seen = experiment.language_model()[0], []
    if source == "held-out":
        batches = torch.from_numpy(evaluate.held_out_windows(8, 256)[:, :-1]).split(8)
    else:
        batches = experiment.calibration(MOST, source)
    with torch.no_grad(), watching(model.get_submodule(name), lambda _, x: seen.append(x)):
        for ids in batches:
            model.encode(ids)
    return torch.cat(seen)


@lru_cache(maxsize=32)
def layer_hessian(name: str, source: str = "library", n_tokens: int = MOST) -> Tensor:
    """X^T X of the first `n_tokens` of a kind."""
    require_int("n_tokens", n_tokens)
    require(n_tokens <= MOST, "n_tokens", n_tokens, "at most {high}", high=MOST)
    return gptq.hessian(layer_inputs(name, source)[:n_tokens])


def held_out_error(name: str, values: QuantizedTensor | Tensor) -> float:
    """Squared error (%) of a map's output on held-out text when its weight is `values`."""
    return 100 * gptq.output_error(weight(name), values, layer_hessian(name, "held-out"))


def nearest(name: str, bits: int, group_size: int | None = None) -> QuantizedTensor:
    """The map's weight rounded to nearest on GPTQ's grid."""
    axis = 0 if group_size is None else None
    return quantize(weight(name), bits, symmetric=False, axis=axis, group_size=group_size)


# --- One layer -------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def round_columns(n: int, bits: int = 3) -> tuple[Tensor, Tensor]:
    """The small map's weight with n columns rounded: by GPTQ, and to nearest."""
    w = weight(SMALL)
    scale, zero = (x.expand_as(w) for x in grid(to_rows(w, 0, None), bits, False))
    factor = gptq.inverse_factor(gptq.add_damping(layer_hessian(SMALL), 0.01))
    corrected, _ = gptq.sweep(w, scale, zero, bits, factor, stop=n)
    plain = w.clone()
    plain[:, :n] = nearest(SMALL, bits).dequantize()[:, :n]
    return corrected.float(), plain


def column_errors(bits: int = 3, n_steps: int = 12) -> dict[int, tuple[float, float]]:
    """Columns rounded so far -> held-out error (%) of the output, by GPTQ and to nearest."""
    width = weight(SMALL).shape[1]
    stops = [round(width * i / n_steps) for i in range(n_steps + 1)]
    return {n: tuple(held_out_error(SMALL, w) for w in round_columns(n, bits)) for n in stops}


def calibration_errors(
    bits: int = 3, n_dead: int = 96, few: int = 256
) -> dict[str, tuple[float | None, float]]:
    """How the wide map is calibrated -> error (%) on its own tokens and on held-out text.

    Not at all ("nearest"), on "much" text, on "few" tokens, on "prose" and on "random" tokens, with
    its first `n_dead` inputs "asleep", and with the sleepers' columns "zeroed".
    """
    w = weight(WIDE)
    require_int("n_dead", n_dead)
    require(n_dead <= w.shape[1], "n_dead", n_dead, "at most {high}", high=w.shape[1])
    inputs = layer_inputs(WIDE).clone()
    inputs[:, :n_dead] = 0
    hessians = {
        "much": layer_hessian(WIDE),
        "few": layer_hessian(WIDE, "library", few),
        "prose": layer_hessian(WIDE, "prose"),
        "random": layer_hessian(WIDE, "random"),
        "asleep": gptq.hessian(inputs),
    }
    values = {case: gptq.gptq_hessian(w, H, bits).dequantize() for case, H in hessians.items()}
    values["zeroed"], hessians["zeroed"] = values["asleep"].clone(), hessians["asleep"]
    values["zeroed"][:, :n_dead] = 0
    errors = {"nearest": (None, held_out_error(WIDE, nearest(WIDE, bits)))}
    for case, H in hessians.items():
        own = 100 * gptq.output_error(w, values[case], H)
        errors[case] = own, held_out_error(WIDE, values[case])
    return errors


DAMPS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)


def damping_errors(bits: int = 3, few: int = 256, damps=DAMPS) -> dict[int, list[float]]:
    """Calibration tokens -> held-out error (%) of the wide map by damping."""

    def error(n_tokens: int, damp: float) -> float:
        H = layer_hessian(WIDE, "library", n_tokens)
        return held_out_error(WIDE, gptq.gptq_hessian(weight(WIDE), H, bits, damp=damp))

    return {n: [error(n, damp) for damp in damps] for n in (few, MOST)}


# --- Whole models, recorded ------------------------------------------------------------------

N_LAYER_WEIGHTS = 6 * 12 * 192**2


@lru_cache(maxsize=1)
def record() -> dict:
    """The recorded experiment, its runs in parts."""
    return experiment.by_part(read_record(experiment.NAME))


def recorded_point(bits: int, group_size: int | None, method: str) -> dict:
    """One point of the recorded comparison; a grid that it has not is a `ValueError`."""
    known = {(p["bits"], p["group_size"], p["method"]): p for p in record()["language"]}
    key = (bits, group_size, method)
    require_one_of("(bits, group_size, method)", key, sorted(known, key=str))
    return known[key]


def seeded_points(bits: int) -> list[dict]:
    """GPTQ's recorded points with a scale for each row: one for each seed of its calibration."""
    repeats = (r for r in record()["repeats"] if r["bits"] == bits)
    return [recorded_point(bits, None, "gptq"), *repeats]


def added_bits(point: dict) -> float:
    """Recorded bits per byte over fp32's."""
    return point["bits_per_byte"] - record()["full"]["bits_per_byte"]


def bits_per_weight(point: dict) -> float:
    """Stored bits, scales and zero points included, for each weight that was quantized."""
    rest = record()["full"]["nbytes"] - 4 * N_LAYER_WEIGHTS
    return 8 * (point["nbytes"] - rest) / N_LAYER_WEIGHTS


def frontier() -> dict[tuple[str, int | None], list[tuple[float, float]]]:
    """(method, group size) -> (stored bits per weight, bits per byte added) at 2, 3 and 4 bits."""
    curves = {}
    for curve in product(experiment.METHODS, (None, 64)):
        points = [recorded_point(bits, curve[1], curve[0]) for bits in (2, 3, 4)]
        curves[curve] = [(bits_per_weight(point), added_bits(point)) for point in points]
    return curves


def added_losses() -> dict[tuple[str, int], dict[str, float]]:
    """(model, bits) -> the loss that each method adds, with a scale for each row.

    Of the paper's OPT and BLOOM in nats a token (logarithm of the perplexities' ratio), of ours in
    bits per byte: only the ratio of the two methods compares.
    """
    perplexity = {
        (r["model"], r["bits"], r["method"]): r["perplexity"] for r in read_published("gptq")
    }
    losses = {}
    for model in dict.fromkeys(model for model, _, _ in perplexity):
        full = perplexity[model, 16, "full"]
        for b in (4, 3):
            losses[model, b] = {m: log(perplexity[model, b, m] / full) for m in experiment.METHODS}
    for bits in (4, 3, 2):
        points = {m: recorded_point(bits, None, m) for m in experiment.METHODS}
        losses["stdlib-gpt", bits] = {m: added_bits(point) for m, point in points.items()}
    return losses


@lru_cache(maxsize=1)
def crossing_ratios() -> dict[str, dict[int, Estimate]]:
    """Recorded error by GPTQ over rounding to nearest's: kind of map -> calibration tokens -> it.

    "all" is the ratio of the means over all maps; a kind's ("qkv", "out", "up", "down") is the
    mean of its six maps' ratios. Intervals are over seeds.
    """
    record = read_record(crossing.NAME)
    kinds = [name.split(".")[-2] for name in record["settings"]["maps"]]
    runs = {"all": record["runs"]}
    for kind in dict.fromkeys(kinds):
        own = [i for i, other in enumerate(kinds) if other == kind]
        runs[kind] = [run | dict(ratio=mean(run["maps"][i] for i in own)) for run in runs["all"]]
    return {
        kind: dict(zip(crossing.TOKENS, crossing.cases(r).values(), strict=True))
        for kind, r in runs.items()
    }


# --- Whole models, here ----------------------------------------------------------------------


@lru_cache(maxsize=4)
def quantize_layers(bits: int, group_size: int | None, method: str) -> dict[str, QuantizedTensor]:
    """The linear maps of `stdlib-gpt`'s layers by one method, as the experiment makes them."""
    batches = experiment.calibration() if method == "gptq" else None
    model = experiment.language_model()[0]
    return experiment.quantize_by(method, model, bits, group_size, batches)


def live_points(bits: int) -> dict[str, dict]:
    """Method -> its point of the comparison measured anew, a scale for each row.

    With what it adds to fp32's bits per byte: that is what belongs to the same windows here and in
    the record.
    """
    full = evaluate.bits_per_byte(experiment.language_model()[0], experiment.N_WINDOWS).mean
    points = {}
    for method in experiment.METHODS:
        point = experiment.language_quality(quantize_layers(bits, None, method))
        points[method] = point | {"added": point["bits_per_byte"] - full}
    return points


def live_rows(bits: int, live: dict[str, dict]) -> list[dict]:
    """`live_points` beside the record, and whether they are within the `spread`."""
    rows = []
    for method, point in live.items():
        old = added_bits(recorded_point(bits, None, method))
        allowed = spread(old, bits)
        rows.append(
            {
                "method": METHOD_NAMES[method],
                "bits per byte": point["bits_per_byte"],
                "bits per byte above fp32, now": point["added"],
                "bits per byte above fp32, recorded": old,
                "may differ by": allowed,
                "agrees": agrees(point["added"], old, allowed),
                "layers' error (%)": 100 * point["layer_error"],
            }
        )
    return rows


def comparable() -> bool:
    """Whether this Python's library and this checkpoint are the recorded ones."""
    same_weights = read_card()["sha256"] == record()["models"]["stdlib-gpt"]
    return same_weights and same_python(record())


def spread(added: float, bits: int) -> float | None:
    """How far from the recorded increase `added` a repeat with the same calibration may land.

    `record.expected_repeat`'s rule for a recorded seed: one standard deviation over seeds of
    calibration data, taken as a share of the increase, at these bits or, where they have no seeds
    or (at 8) no increase to speak of, at 3. Another Python has other text, another checkpoint
    other weights: None, not comparable.
    """
    if not comparable():
        return None
    widths = {r["bits"] for r in record()["repeats"]} - {8}
    seeded = seeded_points(bits if bits in widths else 3)
    first, deviation = expected_repeat({point["seed"]: added_bits(point) for point in seeded}, 0)
    return max(DECIMAL, abs(added) * deviation / first)


def gptq_point(bits: int, group_size: int | None, repeats: int = 5) -> dict:
    """What the board wants of GPTQ in the layers and 8-bit tables.

    Weights are unpacked to fp32 before the pass, so the time is that of the plain model.
    """
    model = experiment.language_model()[0]
    tables = ("embedding.token.weight", "embedding.position.weight")
    small = {name: quantize(model.get_parameter(name).detach(), 8, axis=0) for name in tables}
    quantized = quantize_layers(bits, group_size, "gptq") | small
    size = model_bytes(model, quantized)
    return language_point(with_weights(model, quantized), size, repeats=repeats)
