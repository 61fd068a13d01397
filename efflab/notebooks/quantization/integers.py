"""Notebook 09's integers: the article's listings, outliers, accuracy, and why INT8 may be slow."""

import copy
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab import bench, evaluate
from efflab.compression import affine, engines, int8
from efflab.errors import require_int
from efflab.experiments import int8_engines as experiment
from efflab.lab import figures, tr
from efflab.points import encoder as minilm

FEW = 16  # docstrings whose activations are looked at


# --- Our layer and torch's; the article's listing -----------------------------------------------


def torch_gap(seed: int = 0) -> dict[str, float]:
    """Our dynamic INT8 layer against torch's kernel on equal grids: largest gap, output's size."""
    rng = torch.Generator().manual_seed(seed)
    linear = nn.Linear(384, 64)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(64, 384, generator=rng) / 20)
    x = torch.randn(32, 384, generator=rng)
    q = affine.quantize(linear.weight.detach(), 8, axis=0)
    zeros = torch.zeros(64, dtype=torch.long)
    with engines.quiet(), torch.no_grad():
        weight = torch.quantize_per_channel(linear.weight, q.scale, zeros, 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(weight, linear.bias)
        theirs = torch.ops.quantized.linear_dynamic(x, packed, True)  # inputs in 7 bits
        ours = int8.Int8Linear(linear, bits=7)(x)
    return {"largest gap": (ours - theirs).abs().max().item(), "largest": ours.abs().max().item()}


class Toy(nn.Module):
    """One linear layer; with `stubs` between QuantStub and DeQuantStub, as conversion needs."""

    def __init__(self, stubs: bool = True):
        super().__init__()
        import torch.ao.quantization as q

        torch.manual_seed(0)
        self.enter = q.QuantStub() if stubs else nn.Identity()
        self.linear = nn.Linear(64, 64)
        self.leave = q.DeQuantStub() if stubs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.linear(self.enter(x)))


@torch.no_grad()
def listing_rows() -> list[dict]:
    """The static listing three ways: what its observer saw, and the converted layer's error.

    As printed (`prepare(model, data)`: the data lands in `inplace`), as meant (prepare, run,
    convert), and as meant but without stubs.
    """
    import torch.ao.quantization as q

    data = list(torch.randn(8, 16, 64, generator=torch.Generator().manual_seed(0)) * 3)
    rows = []
    for name, as_printed, stubs in (
        ("prepare(model, data); convert", True, True),
        ("prepare; run the data; convert", False, True),
        ("the same without stubs", False, False),
    ):
        toy = Toy(stubs).eval()
        exact = copy.deepcopy(toy)(data[0])
        toy.qconfig = q.get_default_qconfig("x86")
        with engines.quiet():
            if as_printed:
                observed = q.prepare(toy, data)
            else:
                observed = q.prepare(toy)
                for batch in data:
                    observed(batch)
            seen = bool(observed.linear.activation_post_process.min_val.isfinite().all())
            converted = q.convert(observed)
            try:
                error = 100 * int8.relative_error(converted(data[0]), exact)
            except NotImplementedError:
                error = None
        rows.append({
            "steps": name, "observers saw data": seen, "runs": error is not None,
            "output's error (%)": error if error is None else round(error, 1), "kind": "measured",
        })  # fmt: skip
    return rows


# --- Outliers and accuracy ----------------------------------------------------------------------


def some(n: int = FEW, *, judged: bool = False) -> list[engines.Batch]:
    """Docstrings as batches: one by one for calibration, by eights (`judged`) from those tested."""
    tokenizer = minilm()[1]
    if not judged:
        return experiment.calibration(tokenizer, n)
    return experiment.batches(tokenizer, [f.query for f in experiment.functions()[1][:n]], 8)


def encode(model: nn.Module):
    """`run` for int8's observers: passes one batch through."""
    return lambda batch: model.encode(*batch)


@lru_cache(maxsize=2)
def peaks(n: int = FEW) -> dict[str, Tensor]:
    """Largest magnitude of each input channel of MiniLM's linear layers over n docstrings."""
    model = minilm()[0]
    return int8.channel_peaks(encode(model), model, some(n))


def factors(name: str) -> Tensor:
    """What smoothing divides the input channels of this layer by, as the engines do it."""
    weight = minilm()[0].get_submodule(name).weight
    return int8.smoothing(peaks()[name], weight, engines.smoothing_strength(name))


def outlier_rows(layer: int = 0) -> list[dict]:
    """Each linear layer's input in one MiniLM layer: which channel is largest, by how much."""
    rows = []
    for name, peak in peaks().items():
        if not name.startswith(f"layers.{layer}."):
            continue
        smooth = factors(name)
        rows.append({
            "input of": name.split(".", 2)[2], "largest channel": int(peak.argmax()),
            "its peak": round(peak.max().item(), 1),
            "median channel's peak": round(peak.median().item(), 2),
            "ratio": round(int8.outlier_ratio(peak), 1),
            "ratio, smoothed": round(int8.outlier_ratio(peak / smooth), 1), "kind": "measured",
        })  # fmt: skip
    return rows


def outlier_figure(name: str = "layers.0.ffn.body.down"):
    """Peaks of one input's channels in order of size, before and after smoothing."""
    peak = peaks()[name]
    smooth = peak / factors(name)
    order = peak.argsort(descending=True)
    lines = {tr("as it is"): peak[order] / peak.median()}
    lines[tr("smoothed")] = smooth[order] / smooth.median()
    series = {k: v.tolist() for k, v in lines.items()}
    meta = {tr("largest over median, {what}", what=k): round(max(v), 1) for k, v in series.items()}
    title = tr("A few channels set the scale for all ({name})", name=name)
    x = list(range(1, len(peak) + 1))
    labels = tr("channels, largest first"), tr("peak over the median channel's")
    fig = figures.line(x, series, title, *labels, markers=False, log_y=True, meta=meta)
    fig.update_xaxes(type="log")
    return fig.update_layout(legend=dict(x=0.7, y=0.95))


@torch.no_grad()
def accuracy_rows(n: int = FEW) -> list[dict]:
    """MiniLM on our own INT8 layers: cosine to fp32 for several ways to place the scales."""
    model, few = minilm()[0], some(FEW)
    texts = some(n, judged=True)

    def vectors(m: nn.Module) -> Tensor:
        return torch.cat([engines.mean_pool(m.encode(*batch), batch[1]) for batch in texts])

    exact = vectors(model)
    ranges = {o: int8.calibrate(encode(model), model, few, observer=o)
              for o in ("minmax", "percentile")}  # fmt: skip
    smooth = engines.smoothed_model(model, few)
    cases = {
        "dynamic": int8.dynamic_int8(model),
        "dynamic, 7-bit inputs": int8.dynamic_int8(model, bits=7),
        "dynamic, weights per tensor": int8.dynamic_int8(model, per_channel=False),
        "static, min and max": _static(model, ranges["minmax"]),
        "static, 99.9th percentile": _static(model, ranges["percentile"]),
        "static, smoothed": _static(smooth, int8.calibrate(encode(smooth), smooth, few)),
    }
    rows = []
    for name, m in cases.items():
        cosine = evaluate.cosines(exact, vectors(m))
        rows.append({"INT8 linear layers": name, **{f"cosine, {k}": v for k, v in cosine.items()},
                     "kind": "measured"})  # fmt: skip
    return rows


def _static(model: nn.Module, ranges: int8.Ranges) -> nn.Module:
    """Static INT8 where calibration came by; the pooler, which no embedding needs, stays."""
    make = lambda n, m: int8.Int8Linear(m, ranges[n]) if n in ranges else m  # noqa: E731
    return int8.replace_linears(model, make)


# --- Why is my INT8 model slower? ---------------------------------------------------------------


@torch.no_grad()
def slower_rows(repeats: int = 11) -> list[dict]:
    """Each cause by one linear layer: time of the short form over fp32's, rounds interleaved."""
    require_int("repeats", repeats)
    import torch.ao.quantization as q

    rng = torch.Generator().manual_seed(0)
    big, small = nn.Linear(384, 1536).eval(), nn.Linear(64, 64).eval()
    x, few = (torch.randn(*s, generator=rng) for s in ((256, 384), (4, 64)))
    with engines.quiet():
        fast = {m: q.quantize_dynamic(nn.Sequential(m), dtype=torch.qint8) for m in (big, small)}
        span = (x.min().item(), x.max().item())
        scale, zero = (t.item() for t in int8.input_grid(*span))
        weight = affine.quantize(big.weight, 8, axis=0)
    codes = weight.codes().to(torch.int8)
    short = affine.round_to_grid(x, scale, zero, 8).sub(128).to(torch.int8)
    half = copy.deepcopy(big).bfloat16()
    zeros = torch.zeros(1536, dtype=torch.int32)

    def fake():
        rounded = torch.fake_quantize_per_tensor_affine(x, scale, int(zero), 0, 255)
        w = torch.fake_quantize_per_channel_affine(big.weight, weight.scale, zeros, 0, -127, 127)
        return F.linear(rounded, w, big.bias)

    def weights_only():
        return F.linear(x, codes.float() * weight.scale[:, None], big.bias)

    cases = {
        "none: enough work, a real INT8 kernel": (lambda: fast[big](x), lambda: big(x)),
        "too little work: 4 tokens, 64 x 64": (lambda: fast[small](few), lambda: small(few)),
        "weights only: dequantized, then fp32": (weights_only, lambda: big(x)),
        "fake quantization: rounded, then fp32": (fake, lambda: big(x)),
        "an INT8 product without a fast kernel": (
            lambda: torch._int_mm(short, codes.T), lambda: big(x)),
        "bf16 without bf16 instructions": (lambda: half(x.bfloat16()), lambda: big(x)),
    }  # fmt: skip
    rows = []
    for name, (ours, exact) in cases.items():
        inner = 50 if name.startswith("too little") else 1
        calls = {"short": _times(ours, inner), "fp32": _times(exact, inner)}
        times = bench.interleaved(calls, warmup=1, repeats=repeats)
        ratio = times["short"].ratio(times["fp32"])
        rows.append({"cause": name, "time over fp32": float(f"{ratio:.2g}"), "kind": "measured"})
    return rows


def _times(fn, n: int):
    """A call that runs fn n times: what takes microseconds is too short to be timed alone."""
    return lambda: [fn() for _ in range(n)]


def slower_figure(rows: list[dict]):
    """The causes as bars; 1 is fp32."""
    rows = list(reversed(rows))
    names = [tr(r["cause"]) for r in rows]
    values = [r["time over fp32"] for r in rows]
    fig = figures.blank(
        tr("Fewer bits, more time: one linear layer"), tr("time over fp32 (dashed: 1)")
    )
    colours = [figures.COLOURS[2 if v < 1 else 1] for v in values]
    fig.add_bar(x=values, y=names, orientation="h", marker_color=colours, texttemplate="%{x:.2g}x",
                textposition="outside", cliponaxis=False)  # fmt: skip
    fig.update_xaxes(type="log", range=[-1, 2.4], tickvals=[0.1, 1, 10, 100])
    fig.update_layout(meta=dict(zip(reversed(names), reversed(values), strict=True)))
    return fig.add_vline(x=1, line=dict(color="#444", dash="dash", width=1.5))


def cpu_rows() -> list[dict]:
    """What this CPU has for short numbers."""
    what = {
        "avx2": "8-bit products in three steps, sums of two must fit into 16 bits",
        "avx512": "the same, twice as wide",
        "vnni": "8-bit products and their sum in one step",
        "amx": "8-bit products of whole tiles",
        "bf16": "bfloat16 products",
    }
    return [{"instructions": name, "what they do": tr(what[name]), "this CPU": has,
             "kind": "measured"} for name, has in engines.cpu_features().items()]  # fmt: skip
