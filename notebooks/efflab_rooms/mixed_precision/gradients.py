"""Notebook 06's gradients: fp16's floor, loss scaling step by step, gradients never zeroed."""

from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab import data, points, train
from efflab.acceleration.loss_scaling import LossScaler
from efflab.acceleration.precision import FORMATS
from efflab.bench import one_thread
from efflab.config import ModelConfig
from efflab.errors import require_int
from efflab.lab import colours, figures, number, tr
from efflab.model import Transformer

FP16 = FORMATS["fp16"]
FLOOR = FP16.smallest / 2
"""At most this is rounded to zero, 2^-25."""
TINY = ModelConfig(2, 4, 64, 256, 2048, 64, causal=True)
TOKENS = (2, 32)  # batch and length: fp16 is emulated where the CPU cannot multiply it
SHOWN = 2**18  # gradients of each kind that the figures are made of


@lru_cache(maxsize=2)
def step_gradients(batch_size: int, seq_len: int) -> dict[str, Tensor]:
    """Magnitudes of a real fp32 step of stdlib-gpt: on the way back, and of the parameters.

    "activations": gradients of every linear map's output, which the backward pass hands on. Zeros
    are left out, and of the rest an even sample is kept.
    """
    require_int("batch_size", batch_size)
    model, passed = points.language_model(), []
    hooks = [
        module.register_full_backward_hook(lambda _, __, grads: passed.append(grads[0].flatten()))
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    batch = data.random_windows(data.stdlib_tokens("train"), batch_size, seq_len, seed=0)
    loss = train.language_model_loss(model, *batch)
    own = torch.autograd.grad(loss, list(model.parameters()))
    for hook in hooks:
        hook.remove()
    found = {"activations": torch.cat(passed), "parameters": torch.cat([g.flatten() for g in own])}
    return {name: sample(g.abs()[g != 0]) for name, g in found.items()}


def sample(values: Tensor) -> Tensor:
    """At most `SHOWN` of the values, spread evenly."""
    return values[:: -(-len(values) // SHOWN)]


def shares(magnitudes: Tensor, scale: float = 1.0) -> dict[str, float]:
    """Per cent that fp16 makes zero, keeps with fewer bits (subnormal), or makes infinite."""
    scaled = FP16.cast(magnitudes.double() * scale)
    parts = {
        "zero": scaled == 0,
        "fewer bits": (scaled > 0) & (scaled < FP16.smallest_normal),
        "infinite": scaled.isinf(),
    }
    return {name: 100 * found.float().mean().item() for name, found in parts.items()}


def floor_figure(gradients: dict[str, Tensor], scale: float = 2.0**14):
    """Histogram of the gradients' exponents with fp16's floor, as they are and scaled."""
    titles = [tr("as they are"), tr("loss times 2^{n}", n=round(np.log2(scale)))]
    meta = {}
    title = tr("Gradients of one step (measured) and what fp16 can hold")
    fig = figures.panels(titles, title, shared_yaxes=True, horizontal_spacing=0.05)
    edges = np.arange(-44, 18)
    for i, (name, values) in enumerate(gradients.items()):
        for column, factor in enumerate((1.0, scale), start=1):
            exponents = np.log2(values.double().numpy() * factor)
            share = 100 * np.histogram(exponents, edges)[0] / len(exponents)
            style = dict(marker_color=figures.COLOURS[i], opacity=0.7, name=tr(name))
            fig.add_bar(x=edges[:-1] + 0.5, y=share, showlegend=column == 1, **style,
                        row=1, col=column)  # fmt: skip
            label = tr("{name}, scale {scale}: lost (%)", name=tr(name), scale=number(factor))
            meta[label] = round(shares(values, factor)["zero"], 3)
    for column in (1, 2):
        fig.add_vrect(
            -44, -25, fillcolor=colours.VERMILION, opacity=0.12, line_width=0, row=1, col=column
        )
        fig.add_vrect(
            -25, -14, fillcolor=colours.ORANGE, opacity=0.10, line_width=0, row=1, col=column
        )
        fig.add_vrect(
            16, 18, fillcolor=colours.VERMILION, opacity=0.12, line_width=0, row=1, col=column
        )
        for x, text in ((-34, "zero"), (-19.5, "fewer bits"), (3, "all bits")):
            fig.add_annotation(x=x, y=1, yref="y domain", yanchor="top", text=tr(text),
                               showarrow=False, font_size=11, row=1, col=column)  # fmt: skip
    fig.update_xaxes(title_text=tr("log2 of the magnitude"), range=[-44, 18])
    fig.update_yaxes(title_text=tr("share (%)"), col=1)
    legend = dict(orientation="h", x=1, xanchor="right", y=1.1, yanchor="bottom")
    return fig.update_layout(barmode="overlay", bargap=0, meta=meta, legend=legend, margin_t=100)


def scale_rows(gradients: dict[str, Tensor], powers=(0, 4, 8, 12, 16, 20, 24)) -> list[dict]:
    """What fp16 loses of both kinds by the loss's scale."""
    rows = []
    for power in powers:
        row = {"scale": f"2^{power}"}
        for name, values in gradients.items():
            found = shares(values, 2.0**power)
            row[f"{name}: zero (%)"] = found["zero"]
            row[f"{name}: infinite (%)"] = found["infinite"]
        rows.append(row | {"kind": "measured"})
    return rows


# --- Steps with a scaler ---------------------------------------------------------------------


def windows(step: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Batch of `step`: the same for every run."""
    return data.random_windows(data.stdlib_tokens("train"), *TOKENS, seed * 10**6 + step)


def train_with_scaler(model, optimizer, scaler, n_steps: int) -> list[dict]:
    """Mixed precision as it is spelled today, in fp16; one row a step."""
    rows = []
    for step in range(n_steps):
        ids, targets = windows(step)
        with torch.autocast("cpu", dtype=torch.float16):
            loss = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten())
        scaler.scale(loss).backward()
        scale = scaler.get_scale()
        scaler.step(optimizer)  # skipped if a gradient is infinite or NaN
        scaler.update()
        optimizer.zero_grad()
        skipped = scaler.get_scale() < scale
        rows.append(dict(step=step, scale=scale, skipped=skipped, loss=loss.item()))
    return rows


@one_thread()
def scaled_steps(n_steps: int, start: float = 2.0**22, interval: int = 6) -> list[dict]:
    """A tiny model's first steps in fp16, from a scale that is far too large."""
    require_int("n_steps", n_steps)
    torch.manual_seed(0)
    model = Transformer(TINY)
    scaler = torch.amp.GradScaler("cpu", init_scale=start, growth_interval=interval)
    return train_with_scaler(model, train.adamw(model, 3e-3)[0], scaler, n_steps)


def follows_our_rule(rows: list[dict], interval: int = 6) -> bool:
    """Whether `LossScaler`, told which steps overflowed, has the scale of every step."""
    ours = LossScaler(rows[0]["scale"], interval=interval)
    for row in rows:
        if ours.scale != row["scale"]:
            return False
        ours.update(not row["skipped"])
    return True


def scaler_figure(rows: list[dict]):
    """Scale and loss over steps, with the skipped steps."""
    skipped = [r for r in rows if r["skipped"]]
    grown = sum(b["scale"] > a["scale"] for a, b in pairwise(rows))
    meta = {tr("skipped steps"): len(skipped), tr("times that the scale grew"): grown,
            tr("last scale (log2)"): float(np.log2(rows[-1]["scale"]))}  # fmt: skip
    title = tr("{n} of {all} steps skipped; the scale grew {grown} times (measured)",
               n=len(skipped), all=len(rows), grown=grown)  # fmt: skip
    fig = figures.panels([tr("scale (log2)"), tr("loss (nats)")], title, meta=meta)
    for column, key in enumerate(("scale", "loss"), start=1):
        y = [np.log2(r[key]) if key == "scale" else r[key] for r in rows]
        line = dict(color=figures.COLOURS[0], shape="hv" if column == 1 else "linear")
        fig.add_scatter(x=[r["step"] for r in rows], y=y, mode="lines+markers", showlegend=False,
                        line=line, row=1, col=column)  # fmt: skip
        marker = dict(color=figures.COLOURS[1], symbol="x", size=10)
        fig.add_scatter(x=[r["step"] for r in skipped],
                        y=[v for v, r in zip(y, rows, strict=True) if r["skipped"]], mode="markers",
                        marker=marker, name=tr("overflow: step skipped"), showlegend=column == 1,
                        row=1, col=column)  # fmt: skip
    fig.update_xaxes(title_text=tr("step"))
    legend = dict(orientation="h", x=1, xanchor="right", y=1.1, yanchor="bottom")
    return fig.update_layout(legend=legend, margin_t=100)


# --- Never zeroed ----------------------------------------------------------------------------


@one_thread()
def losses(zeroed: bool, seed: int, n_steps: int) -> tuple[list[float], list[float]]:
    """(loss, gradient norm) of each step of a tiny fp32 model, gradients zeroed or never."""
    torch.manual_seed(seed)
    model = Transformer(TINY)
    optimizer = train.adamw(model, 3e-3)[0]
    found, norms = [], []
    for step in range(n_steps):
        loss = train.language_model_loss(model, *windows(step, seed))
        if zeroed:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
        norms.append(nn.utils.get_total_norm([p.grad for p in model.parameters()]).item())
    return found, norms


@lru_cache(maxsize=2)
def forgotten(n_steps: int, seeds: tuple[int, ...] = (0, 1)) -> dict[bool, list]:
    """Both loops on the same weights and batches, by seed."""
    require_int("n_steps", n_steps, 10)
    return {zeroed: [losses(zeroed, s, n_steps) for s in seeds] for zeroed in (True, False)}


def forgotten_figure(runs: dict[bool, list]):
    """Loss and gradient norm over steps, the mean of the seeds."""
    names = {True: tr("zeroed at every step"), False: tr("never zeroed (as printed)")}
    last = {z: np.mean([r[0][-10:] for r in found]) for z, found in runs.items()}
    meta = {tr("loss of the last 10 steps: {name}", name=names[z]): round(float(v), 3)
            for z, v in last.items()}  # fmt: skip
    titles = [tr("loss (nats)"), tr("gradient norm")]
    title = tr("The same model, batches and rate: {a} and {b} nats (measured)",
               a=f"{last[True]:.2f}", b=f"{last[False]:.2f}")  # fmt: skip
    fig = figures.panels(titles, title, meta=meta)
    for i, (zeroed, found) in enumerate(runs.items()):
        for column in (0, 1):
            y = np.mean([r[column] for r in found], axis=0)
            fig.add_scatter(y=y, mode="lines", name=names[zeroed], showlegend=column == 0, row=1,
                            line=dict(color=figures.COLOURS[i], dash=figures.DASHES[i]),
                            col=column + 1)  # fmt: skip
    fig.update_xaxes(title_text=tr("step"))
    figures.log_axis(fig, [v for found in runs.values() for r in found for v in r[1]], row=1, col=2)
    legend = dict(orientation="h", x=1, xanchor="right", y=1.1, yanchor="bottom")
    return fig.update_layout(legend=legend, margin_t=100)
