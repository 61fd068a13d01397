"""Notebook 15's light structures: where they lead, and what windows do to images."""

from dataclasses import replace
from functools import lru_cache

from efflab.advice.case import BUDGETS
from efflab.advice.ranking import advise
from efflab.config import PRESETS
from efflab.cost import forward_flops
from efflab.lab import Evidence, colours, figures, number, tr
from efflab_rooms.choose_plan import verdicts

DEVICE = "A100 80GB SXM"
MODELS = ("bert-base", "bert-large", "gpt2", "gpt3-1.3b")
SWIN = dict(channels=96, window=7)
"""The first stage of Swin-T (Liu et al. 2021), patches of 4 pixels."""


@lru_cache(maxsize=32)
def lead(model: str, budget: str) -> float:
    """The best light structure's surest gain over the best other technique's; 1 where none serves.

    With budget "quality" both are shares that stay, and a structure that does not serve keeps 0.
    """
    rows = [row for row in advise(model, DEVICE, budget) if row["serves"]]
    nothing = 0.0 if budget == "quality" else 1.0
    best = [
        max((r["gain_low"] for r in rows if r["structure"] == light), default=nothing)
        for light in (True, False)
    ]
    return best[0] / best[1]


def rows() -> list[dict]:
    """By model and budget: who stands first, and by how much a structure leads or trails."""
    found = []
    for model in MODELS:
        for budget in BUDGETS:
            first = advise(model, DEVICE, budget)[0]
            row = {"model": model, "budget": budget, "first": first["technique"]}
            row |= {"is a light structure": first["structure"]}
            found.append(row | {"structure / best other": lead(model, budget)})
    return found


def image_flops(side: int, *, windowed: bool) -> int:
    """FLOPs of an attention layer on the tokens of an image of `side` pixels.

    4 h w C^2 + 2 (h w)^2 C multiply-accumulates, with M x M windows 2 M^2 h w C for the second term
    (Liu et al. 2021, equations 1 and 2).
    """
    tokens, C, M = (side // 4) ** 2, SWIN["channels"], SWIN["window"]
    return 2 * (4 * tokens * C**2 + 2 * (M**2 if windowed else tokens) * tokens * C)


def light_evidence() -> list[Evidence]:
    """Lead by budget, the least over the models; what sharing does to FLOPs, windows to images."""
    leads = {budget: min(lead(model, budget) for model in MODELS) for budget in BUDGETS}
    plain = PRESETS["bert-base"]
    shared = forward_flops(replace(plain, share="all"), 512) / forward_flops(plain, 512)
    windows = image_flops(224, windowed=False) / image_flops(224, windowed=True)
    name = "FLOPs of BERT-base with shared layers over its own"
    image = "Swin-T's first stage: FLOPs of full attention over windows, 224 pixels"
    return [
        *(
            Evidence(*verdicts.LEADS[budget], value, "x", "computed")
            for budget, value in leads.items()
        ),
        Evidence("shared-flops", name, shared, "x", "computed"),
        Evidence("image-flops", image, windows, "x", "computed"),
    ]


def picture():
    """Lead of the light structures by budget and model; above 1 they stand first."""
    fig = figures.blank(tr("Does a light structure gain most? (computed)"), tr("budget"),
                        tr("best structure / best other"), height=420)  # fmt: skip
    names = [tr(budget) for budget in BUDGETS]
    for i, model in enumerate(MODELS):
        values = [lead(model, budget) for budget in BUDGETS]
        shown = [max(value, 0.02) for value in values]  # the log axis has no 0
        fig.add_bar(x=names, y=shown, base=0.01, name=model, marker_color=figures.COLOURS[i],
                    customdata=[number(v) for v in values],
                    hovertemplate="%{customdata}")  # fmt: skip
    fig.add_hline(y=1, line=dict(color=colours.DARK, dash="dash", width=1.5))
    fig.update_layout(barmode="group")
    meta = {tr(b): number(min(lead(m, b) for m in MODELS)) for b in BUDGETS}
    figures.log_axis(fig, [0.02, 10])
    return fig.update_layout(meta=meta)
