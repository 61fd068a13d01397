"""Notebook 06's loss curves: bf16 beside fp32 by seed (recorded), their beginning repeated."""

from functools import lru_cache

import numpy as np

from efflab.errors import require_int
from efflab.estimate import Estimate, paired
from efflab.experiments import mixed_precision as experiment
from efflab.experiments.record import agrees, expected, recorded, same_python
from efflab.lab import figures, tr
from efflab.lab.text import tr_name


@lru_cache(maxsize=1)
def kept() -> dict:
    """The recorded runs."""
    return recorded(experiment.NAME)


def by_seed(precision: str, what: str) -> dict[int, float]:
    """{seed: "early", "loss" or "curve"} of one precision."""
    return {r["seed"]: r[what] for r in kept()["runs"] if r["precision"] == precision}


def difference(precision: str, what: str = "loss") -> Estimate:
    """Held-out nats more than fp32, paired by seed."""
    ours, base = by_seed(precision, what), by_seed("fp32", what)
    return paired([ours[s] for s in base], list(base.values()))


def difference_rows() -> list[dict]:
    """Held-out loss of each precision and its paired difference from fp32."""
    rows = []
    for name in experiment.PRECISIONS:
        losses = list(by_seed(name, "loss").values())
        row = {"precision": name, "held-out loss (nats)": np.mean(losses).item()}
        if name != "fp32":
            d = difference(name)
            row |= {"more than fp32": d.mean, "from": d.low, "to": d.high}
        rows.append(row | {"seeds": len(losses), "kind": "recorded"})
    columns = ("precision", "held-out loss (nats)", "more than fp32", "from", "to", "seeds", "kind")
    return [{c: row.get(c) for c in columns} for row in rows]


def curves_figure():
    """Loss over steps of the first seed, and the difference from fp32 by seed."""
    steps = np.arange(experiment.EVERY, experiment.N_STEPS + 1, experiment.EVERY)
    base = by_seed("fp32", "curve")
    titles = [tr("loss of seed 0 (nats)"), tr("minus fp32, every seed (nats)")]
    mixed = [name for name in experiment.PRECISIONS if name != "fp32"]
    meta = {}
    for name in mixed:
        label = tr("{name}: held-out nats more than fp32", name=tr_name(name))
        meta[label] = round(difference(name).mean, 4)
    title = tr("bf16 beside fp32: {n} seeds, each with the same batches (recorded)", n=len(base))
    fig = figures.panels(titles, title, meta=meta)
    for i, name in enumerate(experiment.PRECISIONS):
        runs = by_seed(name, "curve")
        style = dict(color=figures.COLOURS[i], dash=figures.DASHES[i])
        fig.add_scatter(x=steps, y=runs[0], mode="lines", name=tr_name(name), line=style,
                        row=1, col=1)  # fmt: skip
        for seed, curve in runs.items() if name != "fp32" else ():
            fig.add_scatter(x=steps, y=np.subtract(curve, base[seed]), mode="lines",
                            line=style | dict(width=1.2), showlegend=False,
                            row=1, col=2)  # fmt: skip
    fig.update_xaxes(title_text=tr("step"))
    legend = dict(orientation="h", x=1, xanchor="right", y=1.1, yanchor="bottom")
    return fig.update_layout(legend=legend, margin_t=100)


@lru_cache(maxsize=4)
def early(precision: str, seed: int) -> float:
    """The beginning of a run, repeated here."""
    require_int("seed", seed, 0)
    losses, _ = experiment.train_until(precision, seed, stop=experiment.EARLY)
    return experiment.early_loss(losses)


def live_rows(seed: int) -> list[dict]:
    """The beginning of fp32 and of bf16 autocast, repeated, beside the record."""
    rows = []
    for name in experiment.PRECISIONS[:2]:
        then, spread = expected(by_seed(name, "early"), seed)
        spread = spread if same_python(kept()) else None
        now = early(name, seed)
        rows.append({"precision": name, "recorded": then, "measured": now,
                     "within the spread of seeds": agrees(now, then, spread)})  # fmt: skip
    return rows
