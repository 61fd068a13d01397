"""Notebook 11's live measurements: quality, bytes, FLOPs and time of pruned models."""

import warnings
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn

from efflab import bench, data, points, train, weights
from efflab.compression import pruning, sparse
from efflab.compression.packed import weight_matrices
from efflab.errors import require, require_one_of
from efflab.estimate import Estimate
from efflab.lab import figures, number, tr
from efflab.model import Transformer, n_parameters
from efflab.points import language_model
from efflab_rooms.pruning import verdicts

WINDOWS = dict(n_windows=16, seq_len=128)
"""Held-out sample of every live quality here."""
KINDS = ("weights", "n of 4 weights", "heads", "FFN neurons")
MB = 1e6


# --- stdlib-gpt, pruned four ways ------------------------------------------------------------


def batches(n_batches: int = 2, batch_size: int = 8, seq_len: int = 128) -> list:
    """Windows of training text on which importance is measured."""
    stream = data.stdlib_tokens("train")
    return [data.random_windows(stream, batch_size, seq_len, seed) for seed in range(n_batches)]


@lru_cache(maxsize=2)
def importance(kind: str) -> Tensor:
    """Importance of `stdlib-gpt`'s heads (6, 6) or FFN neurons (6, 768), measured once."""
    require_one_of("kind", kind, KINDS[2:])
    measure = pruning.head_importance if kind == "heads" else pruning.neuron_importance
    return measure(language_model(), batches())


def pruned(kind: str, ratio: float, scores: Tensor | None = None) -> Transformer:
    """`stdlib-gpt` with the share `ratio` of that kind gone, untrained since.

    Weights are masked, heads and neurons removed; "n of 4 weights" takes the nearest n. `scores`
    replace the measured importance.
    """
    require_one_of("kind", kind, KINDS)
    require(0 <= ratio <= 1, "ratio", ratio, "a share from {low} to {high}", low=0, high=1)
    model = language_model()
    if kind == "weights":
        masks = pruning.weight_masks(model, lambda w: pruning.magnitude_mask(w, ratio))
        return pruning.apply_masks(model, masks)
    if kind == "n of 4 weights":
        n = 4 - round(4 * ratio)
        return pruning.apply_masks(
            model, pruning.weight_masks(model, lambda w: pruning.n_m_mask(w, n, 4))
        )
    units = pruning.least_important(importance(kind) if scores is None else scores, ratio)
    return (pruning.prune_heads if kind == "heads" else pruning.prune_ffn)(model, units)


def quality(model: nn.Module) -> Estimate:
    """Bits per byte, judged on 16 held-out windows of 128 tokens beside the unchanged model."""
    return points.language_quality(model, **WINDOWS)


def model_bytes(model: nn.Module, layout: str = "dense") -> int:
    """fp32 bytes of all tensors; each matrix in `layout`, or dense where that is smaller."""
    total = sum(t.nbytes for t in weights.named_tensors(model).values())
    if layout == "dense":
        return total
    matrices = weight_matrices(model).values()
    return total - sum(max(0, w.nbytes - sparse.layout_bytes(w, layout)) for w in matrices)


def curves(ratios=(0.1, 0.25, 0.5, 0.75)) -> dict[str, dict[float, float]]:
    """Bits per byte over the share removed, by what is removed; heads at random as well."""
    dense = quality(language_model()).mean
    random_heads = torch.rand(importance("heads").shape, generator=torch.Generator().manual_seed(0))
    cases = {
        "weights, smallest": ("weights", None),
        "FFN neurons, least important": ("FFN neurons", None),
        "heads, least important": ("heads", None),
        "heads, at random": ("heads", random_heads),
    }
    return {
        name: {0.0: dense} | {r: quality(pruned(kind, r, scores)).mean for r in ratios}
        for name, (kind, scores) in cases.items()
    }


def curves_figure(found: dict[str, dict[float, float]], two_of_four: float):
    """The curves, and 2:4 as a point at one half."""
    shares = list(next(iter(found.values())))
    series = {tr(name): list(curve.values()) for name, curve in found.items()}
    title = tr("What can go before quality does, with no training after")
    axes = tr("share removed (%)"), tr("bits per byte")
    fig = figures.line([100 * r for r in shares], series, title, *axes, height=440)
    fig.add_scatter(x=[50], y=[two_of_four], mode="markers", name=tr("weights, 2:4"),
                    marker=dict(symbol="star", size=15, color=figures.COLOURS[4]))  # fmt: skip
    values = [v for y in series.values() for v in y]
    fig.update_yaxes(range=[0.95 * min(values), 1.1 * max(values)], tickformat=".1f")
    half = {tr("{name}: bits at 50%", name=tr(n)): round(p[0.5], 2) for n, p in found.items()}
    half |= {tr("{name}: bits at 50%", name=tr("weights, 2:4")): round(two_of_four, 2)}
    return fig.update_layout(meta=half, legend=dict(x=0.01, y=0.99))


def importance_figure():
    """Each head's importance, by layer."""
    scores = importance("heads")
    H, L = scores.shape[1], scores.shape[0]
    ratio = float(scores.max() / scores.min())
    title = tr("Heads of stdlib-gpt: the most important matters {ratio} times the least",
               ratio=number(ratio))  # fmt: skip
    labels = dict(x=[str(h + 1) for h in range(H)], y=[str(i + 1) for i in range(L)])
    meta = {tr("largest over smallest"): round(ratio, 1)}
    fig = figures.heatmap(1e3 * scores.numpy(), title, tr("head"), tr("layer"), meta=meta,
                          bar_title=tr("10⁻³ nats"), **labels)  # fmt: skip
    return fig.update_traces(texttemplate="%{z:.0f}")


def masked_equals_removed(share: float) -> dict[str, float]:
    """Largest logit difference of removed against masked heads, and of masked against none."""
    model, ids = language_model(), batches(1, 1, 64)[0][0]
    heads = pruning.least_important(importance("heads"), share)
    masked = pruning.apply_masks(model, pruning.head_masks(model, heads))
    with torch.no_grad():
        outputs = [m(ids) for m in (pruning.prune_heads(model, heads), masked, model)]
    removed, silent, whole = outputs
    return {"removed - masked": (removed - silent).abs().max().item(),
            "masked - whole": (silent - whole).abs().max().item()}  # fmt: skip


# --- Time, FLOPs -----------------------------------------------------------------------------


@torch.no_grad()
def compared(new: Callable, old: Callable, repeats: int = 11) -> bench.Comparison:
    """`new()` beside `old()`, and `old()` beside itself, turn and turn about."""
    return bench.compared(old, {"new": new}, warmup=1, repeats=repeats)


def speed_rows(share: float, seq_len: int, repeats: int = 15) -> list[dict]:
    """Whole models side by side: FLOPs and time of one pass, over those of the whole model."""
    whole = language_model()
    heads = pruning.least_important(importance("heads"), share)
    neurons = pruning.least_important(importance("FFN neurons"), 0.5)
    models = {
        "nothing": whole,
        "90% of the weights, masked": pruned("weights", 0.9),
        "2:4, masked": pruned("n of 4 weights", 0.5),
        "heads, masked": pruning.apply_masks(whole, pruning.head_masks(whole, heads)),
        "heads, removed": pruning.prune_heads(whole, heads),
        "half of the FFN neurons, removed": pruning.prune_ffn(whole, neurons),
        "heads and FFN neurons, removed": pruning.prune_ffn(
            pruning.prune_heads(whole, heads), neurons
        ),
    }
    ids = torch.zeros(1, seq_len, dtype=torch.long)
    calls = {name: lambda m=m: m(ids) for name, m in models.items() if name != "nothing"}
    found = bench.compared(lambda: whole(ids), calls, warmup=1, repeats=repeats)
    times = {"nothing": found.again} | found.ratios
    flops = {name: pruning.forward_flops(m, seq_len) for name, m in models.items()}
    return [
        {
            "pruned": name,
            "parameters stored (M)": n_parameters(model) / 1e6,
            "FLOPs, ratio": round(flops[name] / flops["nothing"], 3),
            "time, ratio": round(times[name].mean, 3),
            "interval, low": round(times[name].low, 3),
            "interval, high": round(times[name].high, 3),
            "kind": "measured",
        }
        for name, model in models.items()
    ]


def band(rows: list[dict]) -> float:
    """The A/A band of `speed_rows`: how far from 1 the whole model's ratio to itself reaches."""
    return max(rows[0]["interval, high"] - 1, 1 - rows[0]["interval, low"])


def time_of(rows: list[dict], name: str) -> Estimate:
    """A row's time over the whole model's, with its interval."""
    row = next(row for row in rows if row["pruned"] == name)
    return Estimate(row["time, ratio"], row["interval, low"], row["interval, high"])


def compute_evidence(speed: list[dict], products: list[dict]) -> list:
    """What the verdict on computation rests on, from the two tables."""
    removed = "heads and FFN neurons, removed"
    names = dict(masked="90% of the weights, masked", removed=removed, heads="heads, removed")
    times = {key: time_of(speed, name) for key, name in names.items()}
    flops = next(row["FLOPs, ratio"] for row in speed if row["pruned"] == removed)
    csr = {
        round(row["zeros (%)"]): Estimate(*(row[f"CSR kernel, {e}"] for e in ENDS))
        for row in products
    }
    return verdicts.compute_evidence(times, flops, band(speed), csr)


def speed_figure(rows: list[dict]):
    """FLOPs and time that are left, by what was pruned."""
    rows = rows[1:]
    names = [tr(row["pruned"]) for row in reversed(rows)]
    fig = figures.blank(tr("FLOPs and time that are left (measured)"), tr("pruned / whole model"),
                        height=440)  # fmt: skip
    for i, what in enumerate(("FLOPs, ratio", "time, ratio")):
        values = [row[what] for row in reversed(rows)]
        fig.add_bar(x=values, y=names, orientation="h", name=tr(what), texttemplate="%{x:.2f}",
                    marker_color=figures.COLOURS[i])  # fmt: skip
    meta = {tr("{name}: time, ratio", name=tr(r["pruned"])): round(r["time, ratio"], 2)
            for r in rows}  # fmt: skip
    top = max(1, *(row["time, ratio"] for row in rows))
    fig.update_layout(barmode="group", meta=meta, legend=dict(orientation="h", y=-0.2),
                      legend_traceorder="reversed")  # fmt: skip
    fig.update_xaxes(range=[0, 1.15 * top])
    fig.update_yaxes(range=[-0.5, len(rows)])  # room for the mark's label above the bars
    return figures.mark(fig, tr("no change"), x=1)


ENDS = ("time ratio", "low", "high")


def product_rows(ratios=(0.5, 0.8, 0.9, 0.99), size: int = 1024, repeats: int = 15) -> list[dict]:
    """One matrix product (size x size by size x 256): masked dense and CSR over dense."""
    rng = torch.Generator().manual_seed(0)
    weight, x = torch.randn(size, size, generator=rng), torch.randn(size, 256, generator=rng)
    rows = []
    for r in ratios:
        masked = weight * pruning.magnitude_mask(weight, r)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls its CSR support a beta
            csr = masked.to_sparse_csr()
        calls = {"dense": lambda w=masked: w @ x, "CSR": lambda w=csr: w @ x}
        found = bench.compared(lambda: weight @ x, calls, warmup=1, repeats=repeats)
        row = {"zeros (%)": 100 * r}
        for name, ratio in found.ratios.items():
            ends = (ratio.mean, ratio.low, ratio.high)
            row |= {f"{name} kernel, {e}": round(v, 2) for e, v in zip(ENDS, ends, strict=True)}
        rows.append(row | {"kind": "measured"})
    return rows


def two_of_four_here() -> str:
    """What torch says when asked for its 2:4 kernel on a CPU, its first sentence."""
    weight = torch.randn(64, 64).half()
    weight = weight * pruning.n_m_mask(weight, 2, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.sparse.to_sparse_semi_structured(weight)
        except (RuntimeError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
    return "available"


def filled_again(ratio: float = 0.8) -> dict[str, float]:
    """Share of zeros left after one training step, without and with the masks held (%)."""
    left = {}
    for held in (False, True):
        model = pruned("weights", ratio)
        masks = pruning.weight_masks(model, lambda w: w != 0)
        train_on = lambda m: train.fit(m, lambda step: batches(1, 2, 64)[0], 1, lr=1e-4)  # noqa: E731
        if held:
            with pruning.masks_held(model, masks):
                train_on(model)
        else:
            train_on(model)
        weights = [model.get_parameter(name) for name in masks]
        zeros = sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)
        left[held] = 100 * zeros
    return left


def pruned_point(kind: str, ratio: float) -> dict:
    """What the board wants of `stdlib-gpt` so pruned; masked weights are stored as a bitmap."""
    model = pruned(kind, ratio)
    layout = "bitmap" if "weights" in kind else "dense"
    return points.language_point(model, model_bytes(model, layout))
