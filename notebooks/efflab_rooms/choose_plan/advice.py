"""Notebook 15's advice: as a table, and as an explorer over model, device, count and budget."""

from functools import lru_cache

from efflab.advice.case import ALL_DEVICES, BUDGETS
from efflab.advice.ranking import advise
from efflab.lab import Choice, Slider, explorer, figures, number, tr
from efflab.lab.text import tr_name

A100 = "A100 80GB SXM"
MODELS = ("stdlib-gpt", "bert-base", "bert-large", "albert-base", "gpt2-xl", "gpt3-1.3b",
          "gpt3-6.7b", "gpt3-175b")  # fmt: skip
UNITS = {
    "latency": "the unchanged model's time over this",
    "memory": "the unchanged model's bytes over these",
    "training days": "the unchanged model's days over these",
    "checkpoint": "the unchanged model's bytes over these",
    "quality": "share of the quality that stays",
}


def rows(model: str, device: str, budget: str, **options) -> list[dict]:
    """What serves the budget, as a table's rows: gain, kind, quality, source, notebook."""
    found = [row for row in advise(model, device, budget, **options) if row["serves"]]
    return [
        {
            "technique": row["technique"],
            "at least": row["gain_low"],
            "at most": row["gain_high"],
            "kind": row["kind"],
            "quality lost (%)": row["lost"],
            "of": row["metric"] or "not recorded",
            "source": row["source"],
            "notebook": row["notebook"],
        }
        for row in found
    ]


def refused(model: str, device: str, budget: str, **options) -> list[dict]:
    """What does not serve the budget, and why."""
    found = [row for row in advise(model, device, budget, **options) if not row["serves"]]
    return [{"technique": row["technique"], "why not": row["why"]} for row in found]


@explorer(
    devices=Slider(1, 1024, 1, scale="log2", label="devices"),
    model=Choice(MODELS, "gpt3-1.3b", label="model"),
    device=Choice(ALL_DEVICES, A100, label="device"),
    budget=Choice(BUDGETS, "training days", label="budget"),
)
def plan(devices=1, model="gpt3-1.3b", device=A100, budget="training days"):
    """Gains on the budget, the surest first; what does not serve it is named below."""
    found = _advised(model, device, budget, devices)
    serving = [row for row in found if row["serves"]]
    title = tr("{model}, {n} x {device}: what serves {budget}?", model=model, n=devices,
               device=tr_name(device), budget=tr(budget))  # fmt: skip
    meta = {tr("techniques that serve"): len(serving), tr("first, at least"): 0.0}
    if serving:
        meta[tr("first, at least")] = round(serving[0]["gain_low"], 3)
        title += "<br>" + tr("first: {technique}", technique=tr(serving[0]["technique"]))
    height = 190 + 30 * max(len(serving), 1)
    fig = figures.blank(title, tr(UNITS[budget]), "", meta=meta, height=height)
    for kind in dict.fromkeys(row["kind"] for row in serving):
        mine = [row for row in serving if row["kind"] == kind]
        _add(fig, mine, tr(kind), COLOURS[kind])
    if not serving:
        fig.add_scatter(x=[1], y=[tr("nothing here serves it")], showlegend=False)
    names = [tr(row["technique"]) for row in serving]
    room = [-0.6, max(len(names), 1) - 0.2]  # for the words over the first point
    fig.update_yaxes(categoryorder="array", categoryarray=names[::-1], range=room)
    fig.update_xaxes(type="linear" if budget == "quality" else "log", exponentformat="none")
    fig.update_layout(showlegend=True, margin_t=88, legend=dict(title_text=tr("kind")))
    return fig.update_layout(title=dict(xref="container", x=0.02))  # labels push the plot aside


COLOURS = dict(
    zip(("computed", "recorded", "published", "measured"), figures.COLOURS, strict=False)
)


@lru_cache(maxsize=64)
def _advised(model: str, device: str, budget: str, devices: int) -> list[dict]:
    return advise(model, device, budget, n_devices=devices)


def _add(fig, rows_of_kind: list[dict], name: str, colour: str) -> None:
    """A point at the least gain, and a whisker to the most."""
    low = [row["gain_low"] for row in rows_of_kind]
    high = [row["gain_high"] for row in rows_of_kind]
    more = [b - a for a, b in zip(low, high, strict=True)]
    whiskers = dict(type="data", symmetric=False, array=more, arrayminus=[0] * len(more))
    fig.add_scatter(
        x=low,
        y=[tr(row["technique"]) for row in rows_of_kind],
        mode="markers+text",
        text=[f"{number(a)}x" for a in low],
        textposition="top center",
        name=name,
        marker=dict(size=11, color=colour),
        error_x=whiskers | dict(thickness=2, color=colour),
    )
