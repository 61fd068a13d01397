"""Notebook 09's ways to adjust an INT8 layer's range: what each costs, recorded and again here."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab.compression import engines
from efflab.errors import require_int
from efflab.experiments import int8_engines as experiment
from efflab.experiments import int8_ranges as ranges
from efflab.experiments.record import agrees as within
from efflab.experiments.record import recorded
from efflab.lab import colours, figures, tr
from efflab.points import encoder as minilm
from efflab_rooms.quantization.integers import some
from efflab_rooms.quantization.verdicts import SHARE


@cache
def recorded_forms() -> dict[str, dict]:
    """The recorded runs by form: 300 functions, each difference paired by text."""
    return ranges.by_form(recorded(ranges.NAME)["runs"])


def form_rows() -> list[dict]:
    """Every recorded form: the cosine's 5th percentile and the MRR less fp32's, with intervals."""

    def ends(row: dict, key: str) -> str:
        low, high = (f"{row[f'{key} {end}']:.4f}" for end in ("low", "high"))
        return tr("{value} ({low} to {high})", value=f"{row[key]:.4f}", low=low, high=high)

    return [
        {
            "INT8 linear layers": form,
            "cosine, p5": ends(row, "cosine p5"),
            "cosine, min": f"{row['cosine min']:.4f}",
            "MRR less fp32's": ends(row, "mrr less fp32"),
            "kind": "recorded",
        }
        for form, row in recorded_forms().items()
    ]


def form_figure():
    """What every form loses: 1 - cosine on a log axis, and the MRR with its interval."""
    found = recorded_forms()
    names = [tr(form) for form in found]
    titles = [
        tr("1 - cosine, 5th percentile of {n}", n=recorded(ranges.NAME)["settings"]["n_test"]),
        tr("MRR less fp32's"),
    ]
    title = tr("Many ways to adjust the range (recorded; dashed: 1% less MRR)")
    fig = figures.panels(titles, title, shared_yaxes=True, horizontal_spacing=0.05)
    marker = dict(color=figures.colour(0), size=10)
    for column, key in ((1, "cosine p5"), (2, "mrr less fp32")):
        ends = [(r[f"{key} low"], r[key], r[f"{key} high"]) for r in found.values()]
        if column == 1:
            ends = [(1 - high, 1 - value, 1 - low) for low, value, high in ends]
        error = dict(array=[h - v for _, v, h in ends], arrayminus=[v - low for low, v, _ in ends])
        options = dict(mode="markers", marker=marker, showlegend=False, row=1, col=column)
        fig.add_scatter(x=[v for _, v, _ in ends], y=names, error_x=error, **options)
    fig.update_xaxes(type="log", dtick=1, exponentformat="power", col=1)
    base = next(iter(found.values()))["mrr fp32"]
    fig.add_vline(
        x=-SHARE * base, line=dict(color=colours.DARK, dash="dash", width=1.5), row=1, col=2
    )
    fig.update_yaxes(autorange="reversed")
    meta = {tr("MRR less fp32's, {form}", form=tr(f)): r["mrr less fp32"] for f, r in found.items()}
    return fig.update_layout(meta=meta, height=480, margin_l=220)


LIVE = (ranges.DYNAMIC, ranges.ONE_SCALE, "static, 99.9th percentile", ranges.SMOOTHED)


@torch.no_grad()
def live_rows(n_docstrings: int, n_calibration: int, forms=LIVE) -> list[dict]:
    """Some forms made here: cosines to fp32 with the interval of their 5th percentile."""
    require_int("n_docstrings", n_docstrings, 2)
    require_int("n_calibration", n_calibration)
    model, texts = minilm()[0], some(n_docstrings, judged=True)

    def vectors(m: nn.Module) -> Tensor:
        return torch.cat([engines.mean_pool(m.encode(*batch), batch[1]) for batch in texts])

    exact, batches = vectors(model), some(n_calibration)
    rows = []
    for form in forms:
        cosine = F.cosine_similarity(
            exact, vectors(ranges.make_encoder(form, model, batches)), dim=-1
        )
        p5 = experiment.percentile(cosine.numpy())
        rows.append({"INT8 linear layers": form, "cosine, mean": cosine.mean().item(),
                     "cosine, p5": p5.mean, "interval, low": p5.low, "interval, high": p5.high,
                     "kind": "measured"})  # fmt: skip
    return rows


def agree(rows: list[dict]) -> bool:
    """Whether the mean cosines measured here are within the recorded ones' deviation over texts."""
    old = recorded_forms()
    return all(
        within(row["cosine, mean"], old[form]["cosine mean"], old[form]["cosine sd"])
        for row in rows
        for form in [row["INT8 linear layers"]]
    )
