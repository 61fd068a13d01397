"""Notebook 10's measurements: one real layer column by column, and whole models live."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from efflab import evaluate, points
from efflab.compression.affine import QuantizedTensor, grid, quantize, to_rows
from efflab.compression.gptq import (
    damped,
    gptq_hessian,
    hessian,
    inverse_factor,
    output_error,
    sweep,
)
from efflab.compression.packed import model_bytes, with_weights
from efflab.errors import require, require_int
from efflab.experiments import gptq_quality as experiment
from efflab.experiments.record import DECIMAL, agrees, expected, recorded, same_python
from efflab.hooks import watching
from efflab.lab import tr
from efflab.pretrained import read_card

LAYER = 2  # counted from 0
SMALL, WIDE = f"layers.{LAYER}.attention.body.out", f"layers.{LAYER}.ffn.body.down"
"""192 -> 192 for the picture of the error; 768 -> 192 where calibration data can run short."""
MOST = 4096  # calibration tokens kept of each kind
PARTS = {"out": "out projection", "down": "down projection"}
STEPS = (24, 72, 120, 168)


@lru_cache(maxsize=1)
def record() -> dict:
    """The recorded experiment, its runs in parts."""
    return experiment.by_part(recorded(experiment.NAME))


def layer_name(name: str) -> str:
    """A weight as prose calls it."""
    return tr("layer {n}, {part}", n=LAYER + 1, part=tr(PARTS[name.split(".")[-1]]))


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
def layer_hessian(name: str, source: str = "library", n_tokens: int | None = None) -> Tensor:
    """X^T X of the first `n_tokens` of a kind, made once."""
    if n_tokens is not None:
        require_int("n_tokens", n_tokens)
        require(n_tokens <= MOST, "n_tokens", n_tokens, "at most {high}", high=MOST)
    return hessian(layer_inputs(name, source)[:n_tokens])


def nearest(name: str, bits: int, group_size: int | None = None) -> QuantizedTensor:
    """The map's weight rounded to nearest on GPTQ's grid."""
    axis = 0 if group_size is None else None
    return quantize(weight(name), bits, symmetric=False, axis=axis, group_size=group_size)


# --- One layer, column by column -------------------------------------------------------------


@lru_cache(maxsize=64)
def after(stop: int, bits: int = 3) -> tuple[Tensor, Tensor]:
    """(GPTQ's, round-to-nearest's) weights of the small map after `stop` columns are rounded."""
    w = weight(SMALL)
    scale, zero = (x.expand_as(w) for x in grid(to_rows(w, 0, None), bits, False))
    factor = inverse_factor(damped(layer_hessian(SMALL), 0.01))
    pushed, _ = sweep(w, scale, zero, bits, factor, stop=stop)
    plain = w.clone()
    plain[:, :stop] = nearest(SMALL, bits).dequantize()[:, :stop]
    return pushed.float(), plain


def changes(bits: int = 3, steps=STEPS, n_rows: int = 32) -> list[np.ndarray]:
    """(current weight - original) of the small map's first rows, after so many columns each."""
    w = weight(SMALL)[:n_rows]
    return [(after(k, bits)[0][:n_rows] - w).numpy() for k in steps]


def absorbed(bits: int = 3, n_steps: int = 12) -> dict[int, tuple[float, float]]:
    """Columns rounded so far -> held-out error (%) of the output, GPTQ's and round-to-nearest's."""
    w, H = weight(SMALL), layer_hessian(SMALL, "held-out")
    stops = [round(w.shape[1] * i / n_steps) for i in range(n_steps + 1)]
    return {k: tuple(100 * output_error(w, values, H) for values in after(k, bits)) for k in stops}


# --- Where it breaks -------------------------------------------------------------------------


def breaks(bits: int = 3, n_dead: int = 96, few: int = 256) -> list[dict]:
    """The wide map calibrated well, on too little, on noise, and with inputs that slept."""
    w, H = weight(WIDE), layer_hessian(WIDE, "held-out")
    require_int("n_dead", n_dead)
    require(n_dead <= w.shape[1], "n_dead", n_dead, "at most {high}", high=w.shape[1])
    rounded = nearest(WIDE, bits)
    base = output_error(w, rounded, H)
    asleep = layer_inputs(WIDE).clone()
    asleep[:, :n_dead] = 0
    asleep = hessian(asleep)
    cases = {
        tr("library code, {n} tokens", n=f"{MOST:,}"): layer_hessian(WIDE),
        tr("library code, {n} tokens", n=f"{few:,}"): layer_hessian(WIDE, "library", few),
        tr("English prose, {n} tokens", n=f"{MOST:,}"): layer_hessian(WIDE, "prose"),
        tr("random tokens, {n}", n=f"{MOST:,}"): layer_hessian(WIDE, "random"),
        tr("library code, {n} inputs asleep", n=n_dead): asleep,
    }
    rows = [dict(calibration=tr("none: round to nearest"), own=None, held_out=100 * base,
                 ratio=1.0, kind="measured")]  # fmt: skip
    for name, own in cases.items():
        q = gptq_hessian(w, own, bits)
        rows.append(_case(name, w, q.dequantize(), own, H, base))
    zeroed = q.dequantize()  # of the last case, whose inputs slept
    zeroed[:, :n_dead] = 0
    rows.append(_case(tr("the same, sleeping columns set to zero"), w, zeroed, asleep, H, base))
    return rows


def _case(name: str, w: Tensor, values: Tensor, own: Tensor, H: Tensor, base: float) -> dict:
    error = output_error(w, values, H)
    return dict(calibration=name, own=100 * output_error(w, values, own), held_out=100 * error,
                ratio=error / base, kind="measured")  # fmt: skip


BREAK_COLUMNS = {
    "calibration": "calibration",
    "own": "error on its own tokens (%)",
    "held_out": "error on held-out text (%)",
    "ratio": "held-out / round to nearest",
    "kind": "kind",
}


DAMPS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)


def damping(bits: int = 3, few: int = 256, damps=DAMPS) -> tuple[float, dict[int, list[float]]]:
    """Held-out error (%) of rounding to nearest, and of GPTQ by calibration tokens and damping."""
    w, H = weight(WIDE), layer_hessian(WIDE, "held-out")
    found = {}
    for n in (few, MOST):
        own = layer_hessian(WIDE, "library", n)
        found[n] = [100 * output_error(w, gptq_hessian(w, own, bits, damp=d), H) for d in damps]
    return 100 * output_error(w, nearest(WIDE, bits), H), found


# --- The whole model -------------------------------------------------------------------------


@lru_cache(maxsize=4)
def quantized(bits: int, group_size: int | None, method: str) -> dict:
    """The linear maps of `stdlib-gpt`'s layers by one method, as the experiment makes them."""
    batches = experiment.calibration() if method == "gptq" else None
    model = experiment.language_model()[0]
    return experiment.quantize_by(method, model, bits, group_size, batches)


@lru_cache(maxsize=1)
def full_quality() -> float:
    """Bits per byte of `stdlib-gpt` in fp32."""
    return evaluate.bits_per_byte(experiment.language_model()[0], experiment.N_WINDOWS).mean


def again(bits: int, group_size: int | None) -> list[dict]:
    """One recorded grid measured anew by both methods, beside the record.

    What is compared is the loss that quantization adds, in bits per byte over fp32: it belongs to
    the same windows on both sides. `may_differ`: see `spread`.
    """
    rows = []
    for method in experiment.METHODS:
        old = recorded_point(bits, group_size, method)
        new = experiment.language_quality(quantized(bits, group_size, method))
        added = new["bits_per_byte"] - full_quality()
        was = old["bits_per_byte"] - record()["full"]["bits_per_byte"]
        off = spread(was, bits)
        rows.append(dict(method=METHOD_NAMES[method], bpb=new["bits_per_byte"], added=added,
                         was=was, may_differ=off, within=agrees(added, was, off),
                         error=100 * new["layer_error"], kind="measured"))  # fmt: skip
    return rows


def comparable() -> bool:
    """Whether this Python's library and this checkpoint are the recorded ones."""
    same_weights = read_card()["sha256"] == record()["models"]["stdlib-gpt"]
    return same_weights and same_python(record())


def spread(was: float, bits: int) -> float | None:
    """How far from the recorded increase `was` a repeat with the same calibration may land.

    `record.expected`'s rule for a recorded seed: one standard deviation over seeds of calibration
    data, taken as a share of the increase, at these bits or, where only 3 have seeds, at 3. Another
    Python has other text and another checkpoint other weights: None, nothing to compare.
    """
    if not comparable():
        return None
    kept = record()
    seeded = seeded_points(bits if bits in {r["bits"] for r in kept["repeats"]} else 3)
    full = kept["full"]["bits_per_byte"]
    first, deviation = expected({r["seed"]: r["bits_per_byte"] - full for r in seeded}, 0)
    return max(DECIMAL, abs(was) * deviation / first)


METHOD_NAMES = {"rtn": "round to nearest", "gptq": "GPTQ"}
AGAIN_COLUMNS = {
    "method": "method",
    "bpb": "bits per byte",
    "added": "added to fp32, now",
    "was": "added to fp32, recorded",
    "may_differ": "may differ by",
    "within": "agrees",
    "error": "error of the layers' outputs (%)",
    "kind": "kind",
}


def seeded_points(bits: int) -> list[dict]:
    """GPTQ's recorded points with a scale for each row: one for each seed of its calibration."""
    repeats = (r for r in record()["repeats"] if r["bits"] == bits)
    return [recorded_point(bits, None, "gptq"), *repeats]


def recorded_point(bits: int, group_size: int | None, method: str) -> dict:
    """One point of the recorded comparison; a grid that it has not is a `ValueError`."""
    known = {(p["bits"], p["group_size"], p["method"]): p for p in record()["language"]}
    key = (bits, group_size, method)
    require(
        key in known,
        "(bits, group_size, method)",
        key,
        "one of {options}",
        options=sorted(known, key=str),
    )
    return known[key]


def gptq_point(bits: int, group_size: int | None, repeats: int = 5) -> dict:
    """What the board wants of GPTQ in the layers and 8-bit tables.

    Weights are unpacked to fp32 before the pass, so the time is that of the plain model.
    """
    model = experiment.language_model()[0]
    tables = ("embedding.token.weight", "embedding.position.weight")
    own = dict(model.named_parameters())
    small = {name: quantize(own[name].detach(), 8, axis=0) for name in tables}
    all_of_it = quantized(bits, group_size, "gptq") | small
    twin, size = with_weights(model, all_of_it), model_bytes(model, all_of_it)
    return points.language_point(twin, size, repeats=repeats)
