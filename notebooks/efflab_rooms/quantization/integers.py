"""Notebook 09's integers: our layer against torch's, the article's listings, outliers."""

import copy
from functools import lru_cache

import torch
from torch import Tensor, nn

from efflab.compression import affine, engines, int8
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


# --- Outliers ----------------------------------------------------------------------


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
    title = tr("Each channel's peak, largest first ({name})", name=name)
    x = list(range(1, len(peak) + 1))
    labels = tr("channels, largest first"), tr("peak over the median channel's")
    fig = figures.line(x, series, title, *labels, markers=False, log_y=True, meta=meta)
    fig.update_xaxes(type="log")
    return fig.update_layout(legend=dict(x=0.7, y=0.95))
